"""Our images, built without a registry: a Debian base from its packages, then the Containerfiles of the root on it.

Everything lies below ``~/.cache/countersign/image``: the base, the builder's store, and one archive for each image.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.host import run

from countersign.devcluster import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
NAME = "localhost/countersign"
SWTPM = "localhost/countersign-swtpm"
_BASE = "localhost/countersign-base:bookworm-3"  # what it is made of changed: the number does
_MEBI = 1 << 20


@dataclass(frozen=True)
class Image:
    """A built image: its name with a tag that changes with its content, and the archive that holds it."""

    name: str
    archive: Path
    size: int

    @property
    def tag(self) -> str:
        """What follows the colon in the name."""
        return self.name.rpartition(":")[2]


def _place() -> Path:
    place = cache_directory() / "image"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _buildah(*words: str | Path) -> str:
    place = _place()
    store = ("--root", str(place / "store"), "--runroot", str(place / "runroot"), "--storage-driver", "overlay")
    return run("buildah", *store, *words, seconds=1800)


def _make_base(say: Callable[[str], None]) -> None:
    if _BASE in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    archive = _place() / "base-3.tar"
    if not archive.exists():
        say("making the base image from Debian's packages (about 2 min, once)")
        words = ["--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
        # Merged from the start: what merges it later is written in Perl, and stays.
        words += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged"]
        words += ['--aptopt=APT::Install-Recommends "false"']
        left_out = ("doc/*", "man/*", "info/*", "locale/*", "lintian/*")
        words += [f"--dpkgopt=path-exclude=/usr/share/{each}" for each in left_out]
        words += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
        # This machine's own sources where it is the same Debian: whoever has a mirror has said so there.
        bookworm = platform.freedesktop_os_release().get("VERSION_CODENAME") == "bookworm"
        lists = [Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")]
        sources = [str(each) for each in lists if bookworm and each.exists()][:1]
        temporary = archive.with_suffix(".new.tar")
        run("mmdebstrap", *words, "bookworm", temporary, *sources, seconds=1800)
        temporary.replace(archive)
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, archive, "/")
    _buildah("commit", "--quiet", "--rm", container, _BASE)


def _secrets() -> list[str]:
    """Hand the build this machine's CA bundle for pip where one is set; it is mounted, never copied."""
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if not bundle:
        return []
    settings = _place() / "pip.conf"
    settings.write_text("[global]\ncert = /etc/pip-ca.crt\n")
    return ["--secret", f"id=pip.conf,src={settings}", "--secret", f"id=pip-ca,src={bundle}"]


def _build(containerfile: str, name: str) -> Image:
    words = ["--isolation", "chroot", "--network", "host", "--pull=never", "--layers", "--quiet"]
    words += ["--build-arg", f"BASE={_BASE}", *_secrets(), "--file", str(ROOT / containerfile)]
    identity = _buildah("bud", *words, str(ROOT)).split()[-1]
    full = f"{name}:{identity[:12]}"
    _buildah("tag", identity, full)
    archive = _place() / f"{full.rpartition('/')[2].replace(':', '@')}.tar"
    if not archive.exists():
        for old in _place().glob(f"{name.rpartition('/')[2]}@*"):
            old.unlink()
        temporary = archive.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        _buildah("push", "--quiet", identity, f"docker-archive:{temporary}:{full}")
        temporary.replace(archive)
    return Image(full, archive, archive.stat().st_size)


def _bill_of_materials(image: Image) -> Path:
    container = _buildah("from", "--pull=never", image.name).strip()
    try:
        inside = Path(_buildah("mount", container).strip())
        return Path(shutil.copy(inside / "usr/share/countersign/sbom.cdx.json", _place() / "countersign.cdx.json"))
    finally:
        _buildah("rm", container)


def build(say: Callable[[str], None]) -> tuple[Image, Image]:
    """Build the product's image and the trials' one; a few seconds when nothing changed."""
    began = time.monotonic()
    try:
        _make_base(say)
        say("building the images (a minute the first time)")
        ours, swtpm = _build("Containerfile", NAME), _build("Containerfile.swtpm", SWTPM)
        bill = _bill_of_materials(ours)
    finally:
        _buildah("rm", "--all")  # else mounts stay
    for each in (ours, swtpm):
        say(f"{each.name}  {each.size / _MEBI:.0f} MiB  {each.archive}")
    say(f"bill of materials: {bill}")
    say(f"images built in {time.monotonic() - began:.0f} s")
    return ours, swtpm


if __name__ == "__main__":
    build(lambda line: print(f"==> {line}", file=sys.stderr, flush=True))

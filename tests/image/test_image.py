"""What the images are made from, as far as it can be seen without building one; ``make e2e`` runs them."""

from __future__ import annotations

import importlib.util
import json
import re
import tarfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.oci import write_image

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
CONTAINERFILES = ("Containerfile", "Containerfile.swtpm")


def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "requirements" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_of_materials_names_every_distribution_once_and_is_about_us() -> None:
    bill = sbom().bill()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/countersign@{version('countersign')}"
    addresses = [each["purl"] for each in bill["components"]]
    assert f"pkg:pypi/cryptography@{version('cryptography')}" in addresses
    assert len(addresses) == len(set(addresses))
    assert bill == sbom().bill()


def test_the_bill_names_debians_packages() -> None:
    assert [each for each in sbom().bill()["components"] if each["purl"].startswith("pkg:deb/debian/libc6@")]


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_one_containerfile_fits_both_bases(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    assert re.findall(r"(?<![\w/.-])python (?=-|\S+\.py)", text) == []  # Debian has no `python`
    assert "ADD http" not in text


def test_the_product_runs_as_nobody_and_brings_no_simulator() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["65532:65532"]
    assert text.index("USER 65532") > text.index("COPY --from=build")
    final = text[text.index("FROM ${BASE}\n") :]
    assert "swtpm-tools" not in final
    assert "gcc" not in final


def test_an_image_of_one_file_says_what_it_holds(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF")
    archive = write_image(program, "countersign.local/pause:1", tmp_path / "pause.tar")
    with tarfile.open(archive) as tar:
        files = {each.name: tar.extractfile(each).read() for each in tar.getmembers()}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name.rpartition("/")[2] == sha256(data).hexdigest()
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"] == {"io.containerd.image.name": "countersign.local/pause:1"}

    def blob(part: dict[str, str]) -> bytes:
        return files["blobs/sha256/" + part["digest"].removeprefix("sha256:")]

    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    assert config["config"] == {"Entrypoint": ["/pause"], "User": "65532:65532"}
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]

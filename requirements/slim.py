"""Take out of an environment what no process of ours loads: ``slim.py SITE-PACKAGES``. The Containerfile runs it.

* Kubernetes' client: its generated API and model classes (115 MiB). Objects are plain dicts here, and the package loads
  those classes only when asked for one; ``make e2e`` runs every process without them.
* Test suites of libraries, and sources of their compiled parts.
* Symbols that only a debugger reads.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_GENERATED = ("client/api", "client/models", "aio/client/api", "aio/client/models")
_TESTS = ("*/tests", "sqlalchemy/testing")
_SOURCES = ("*.pyx", "*.pxd", "*.c", "*.h", "*.pyi")


def main(place: Path) -> None:
    """Remove and strip below ``place``."""
    for folder in _GENERATED:
        for file in (place / "kubernetes" / folder).rglob("*"):
            if file.is_file() and file.stem.partition(".")[0] != "__init__":
                file.unlink()
    for pattern in _TESTS:
        for folder in place.glob(pattern):
            shutil.rmtree(folder)
    for pattern in _SOURCES:
        for file in place.rglob(pattern):
            file.unlink()
    libraries = [str(file) for file in place.rglob("*.so*") if not file.is_symlink()]
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Debian packages that the demo and the tests need: which are missing, and the one command that installs them."""

from __future__ import annotations

import ctypes.util
import shutil

__all__ = ["install_command", "missing_packages"]

# Each package and what shows that it is there: a program, or a shared library by its name without "lib".
_PROGRAMS = {"swtpm": "swtpm", "swtpm-tools": "swtpm_setup", "util-linux": "setpriv"}
_LIBRARIES = {"libtss2-tcti-swtpm0": "tss2-tcti-swtpm", "libtss2-tcti-device0": "tss2-tcti-device"}


def missing_packages() -> list[str]:
    """Return the Debian packages that are missing, in order of name."""
    programs = [package for package, program in _PROGRAMS.items() if shutil.which(program) is None]
    libraries = [package for package, library in _LIBRARIES.items() if ctypes.util.find_library(library) is None]
    return sorted(programs + libraries)


def install_command(packages: list[str]) -> str:
    """Return the one command that installs ``packages``, for root to run."""
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"

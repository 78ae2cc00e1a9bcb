"""Fixtures: a software TPM with endorsement certificates, one a session, and the roots that vouch for it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from countersign.devcluster.tpm import EkAuthority, Tpm

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Simulator", "simulator"]


@dataclass(frozen=True)
class Simulator:
    """A running swtpm: its TCTI string and the certificates that its endorsement certificates chain to."""

    tpm: Tpm
    roots: tuple[x509.Certificate, ...]

    @property
    def tcti(self) -> str:
        return self.tpm.tcti


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """A swtpm with RSA-2048 and P-384 endorsement keys in it. The directory is short: a socket's path is limited."""
    directory = Path(tempfile.mkdtemp(prefix="cs-tpm-"))
    authority = EkAuthority(directory)
    tpm = authority.manufacture("t")
    tpm.start()
    pems = (authority.roots_pem, authority.issuer_pem)
    try:
        yield Simulator(tpm, tuple(x509.load_pem_x509_certificate(pem) for pem in pems))
    finally:
        tpm.stop()
        shutil.rmtree(directory, ignore_errors=True)

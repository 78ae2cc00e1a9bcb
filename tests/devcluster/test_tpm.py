"""Simulated TPMs have the endorsement keys and certificates that real ones have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from countersign.devcluster import EkAuthority, start_time

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tpm


def test_a_tpm_starts_with_certified_endorsement_keys_and_leaves_nothing(tmp_path: Path) -> None:
    authority = EkAuthority(tmp_path)
    first, second = authority.manufacture("t1"), authority.manufacture("t2")
    keys = [certificate.public_key() for certificate in first.ek_certificates]
    assert {type(key) for key in keys} == {rsa.RSAPublicKey, ec.EllipticCurvePublicKey} or len(keys) == 2
    assert first.ek_digests.keys() == {"RSA", "EC"}
    assert set(first.ek_digests.values()).isdisjoint(second.ek_digests.values())
    issuer = x509.load_pem_x509_certificate(authority.issuer_pem)
    root = x509.load_pem_x509_certificate(authority.roots_pem)
    issuer.verify_directly_issued_by(root)
    for certificate in first.ek_certificates:
        certificate.verify_directly_issued_by(issuer)
    first.start()
    assert first.tcti == f"swtpm:path={first.directory / 'sock'}"
    assert first.child is not None
    pid = first.child.process.pid
    first.stop()
    first.stop()
    assert start_time(pid) is None


def test_a_folder_too_deep_for_a_socket_is_said(tmp_path: Path) -> None:
    tpm = EkAuthority(tmp_path / ("x" * 100)).manufacture("t1")
    with pytest.raises(RuntimeError, match="too long for a UNIX socket"):
        tpm.start()

"""Build, lint, sign once, check: a certificate that breaks its profile never leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.attestation import NOW, make_ca, usage

from countersign.authority import issue
from countersign.authority.ca import CertificateAuthority
from countersign.authority.issue import TpmNames, prepare_ak, prepare_identity
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

CERTIFICATE, KEY = make_ca("Test CA")
CA = CertificateAuthority(CERTIFICATE, KEY, ec.generate_private_key(ec.SECP256R1()))
SUBJECT = ec.generate_private_key(ec.SECP256R1()).public_key()
NAMES = TpmNames("id:00000000", "model", "id:00000001")
SPIFFE = "spiffe://agents.example.com/ns/billing/sa/refund-agent"


def identity(**changes: Any) -> issue.PreparedCertificate:
    wanted: dict[str, Any] = {"public_key": SUBJECT, "spiffe_id": SPIFFE, "life": timedelta(hours=1), "now": NOW}
    return prepare_identity(CA, **wanted | changes)


def ak(**changes: Any) -> issue.PreparedCertificate:
    wanted: dict[str, Any] = {"public_key": SUBJECT, "identifier": "a.b.c", "tpm": NAMES, "now": NOW}
    return prepare_ak(CA, **wanted | changes)


def failed(work: Callable[[], object], about: str) -> None:
    with pytest.raises(Unavailable) as caught:
        work()
    assert caught.value.code == "attest.failed"
    assert about in caught.value.detail


def test_a_prepared_certificate_is_signed_once() -> None:
    prepared = identity()
    prepared.sign().verify_directly_issued_by(CERTIFICATE)
    failed(prepared.sign, "once")


def test_what_is_signed_must_be_what_was_linted() -> None:
    prepared = identity()
    prepared._tbs += b"x"
    failed(prepared.sign, "not what was linted")


def test_a_ca_whose_key_is_not_its_certificates_signs_nothing_that_leaves() -> None:
    stranger = replace(CA, key=ec.generate_private_key(ec.SECP256R1()))
    prepared = prepare_identity(stranger, public_key=SUBJECT, spiffe_id=SPIFFE, life=timedelta(hours=1), now=NOW)
    failed(prepared.sign, "does not verify")


@pytest.mark.parametrize(
    ("change", "lint"),
    [
        ({"spiffe_id": "https://example.com/"}, "one_spiffe_id"),
        ({"public_key": rsa.generate_private_key(65537, 2048).public_key()}, "p256_key"),
        ({"public_key": ec.generate_private_key(ec.SECP384R1()).public_key()}, "p256_key"),
    ],
    ids=["no SPIFFE ID", "RSA", "P-384"],
)
def test_an_identity_that_breaks_its_profile(change: dict[str, Any], lint: str) -> None:
    failed(lambda: identity(**change), lint)


def test_a_life_of_nothing_is_no_certificate() -> None:
    with pytest.raises((Unavailable, ValueError)):
        identity(life=timedelta(0))
    with pytest.raises((Unavailable, ValueError)):
        identity(now=CERTIFICATE.not_valid_after_utc + timedelta(minutes=1))


@pytest.mark.parametrize("names", [("", "m", "f"), ("m", "", "f"), ("m", "m", "")], ids=str)
def test_an_attestation_keys_certificate_names_the_whole_tpm(names: tuple[str, str, str]) -> None:
    failed(lambda: ak(tpm=TpmNames(*names)), "manufacturer")


def draft(
    change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] | None = None, **parts: Any
) -> x509.Certificate:
    """A certificate near the profile, for the lints alone."""
    wanted: dict[str, Any] = {
        "subject": x509.Name([]),
        "serial": x509.random_serial_number(),
        "constraints": x509.BasicConstraints(ca=False, path_length=None),
        "usage": issue._SIGNATURES,
        "extended": [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH],
        "names": [x509.UniformResourceIdentifier(SPIFFE)],
        **parts,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(wanted["subject"])
        .issuer_name(CERTIFICATE.subject)
        .public_key(SUBJECT)
        .serial_number(wanted["serial"])
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(wanted["constraints"], critical=True)
        .add_extension(wanted["usage"], critical=True)
        .add_extension(x509.ExtendedKeyUsage(wanted["extended"]), critical=False)
        .add_extension(x509.SubjectAlternativeName(wanted["names"]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False)
    )
    return (change(builder) if change else builder).sign(KEY, hashes.SHA256())


CRL = x509.CRLDistributionPoints(
    [x509.DistributionPoint([x509.UniformResourceIdentifier("http://a.example/")], None, None, None)]
)
LINTS: list[tuple[Any, x509.Certificate]] = [
    (issue._empty_subject, draft(subject=CERTIFICATE.subject)),
    (issue._random_serial, draft(serial=7)),
    (issue._exact_extensions, draft(lambda builder: builder.add_extension(CRL, critical=False))),
    (issue._not_a_ca, draft(constraints=x509.BasicConstraints(ca=True, path_length=None))),
    (issue._signatures_only, draft(usage=usage(key_cert_sign=True))),
    (issue._client_usage, draft(extended=[x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])),
    (issue._one_spiffe_id, draft(names=[x509.UniformResourceIdentifier(SPIFFE)] * 2)),
    (issue._one_spiffe_id, draft(names=[x509.DNSName("example.com")])),
    (issue._ak_usage, draft()),
    (issue._ak_names, draft()),
]


@pytest.mark.parametrize(("lint", "certificate"), LINTS, ids=lambda one: getattr(one, "__name__", ""))
def test_each_lint_sees_what_it_is_for(lint: Any, certificate: x509.Certificate) -> None:
    assert not lint(certificate)
    common = (*issue._COMMON_LINTS, *issue._IDENTITY_LINTS)
    if lint in common:
        assert [one for one in common if not one(certificate)] == [lint]

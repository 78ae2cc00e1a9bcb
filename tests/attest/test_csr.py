"""Finalize: a CSR by the attested key that names nothing of its own choice."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from support.attestation import IDENTIFIER, permanent_identifier

from countersign.attest import CSR_STEPS, verify_csr
from countersign.errors import Denied

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def name(**parts: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(getattr(NameOID, oid), value) for oid, value in parts.items()])


NOBODY = x509.Name([])


def csr(subject: x509.Name = NOBODY, *names: x509.GeneralName, key: Any = KEY, extra: Any = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extra:
        builder = builder.add_extension(extra, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def password() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


GOOD = csr()
FLIPPED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
HOSTILE = [
    ("csr_format", "empty", b""),
    ("csr_format", "not DER", b"junk"),
    ("csr_format", "a byte after it", GOOD + b"\x00"),
    ("csr_format", "too long", bytes(100_000)),
    ("csr_format", "another attribute", password()),
    ("csr_signature", "one bit flipped", FLIPPED),
    ("csr_key", "another key", csr(key=OTHER)),
    ("csr_names", "another CN", csr(name(COMMON_NAME="other"))),
    ("csr_names", "CN in other case", csr(name(COMMON_NAME=IDENTIFIER.upper()))),
    ("csr_names", "an organization", csr(name(COMMON_NAME=IDENTIFIER, ORGANIZATION_NAME="x"))),
    ("csr_names", "a SPIFFE ID", csr(x509.Name([]), x509.UniformResourceIdentifier("spiffe://a/ns/b/sa/c"))),
    ("csr_names", "a DNS name", csr(x509.Name([]), x509.DNSName("example.com"))),
    ("csr_names", "another identifier", csr(x509.Name([]), permanent_identifier("other"))),
    ("csr_names", "an assigner", csr(x509.Name([]), permanent_identifier(IDENTIFIER, "1.2.3"))),
    ("csr_names", "the identifier and more", csr(x509.Name([]), permanent_identifier(IDENTIFIER), x509.DNSName("a.b"))),
    ("csr_names", "asks to be a CA", csr(extra=x509.BasicConstraints(ca=True, path_length=None))),
]
IDS = [f"{code}: {what}" for code, what, _ in HOSTILE]


@pytest.mark.parametrize(
    "der",
    [GOOD, csr(name(COMMON_NAME=IDENTIFIER)), csr(x509.Name([]), permanent_identifier(IDENTIFIER))],
    ids=["nothing", "CN", "PermanentIdentifier"],
)
def test_it_may_name_nothing_or_the_order(der: bytes) -> None:
    assert verify_csr(der, attested_spki=SPKI, identifier=IDENTIFIER).public_key() == KEY.public_key()


@pytest.mark.parametrize(("code", "der"), [(code, der) for code, _, der in HOSTILE], ids=IDS)
def test_b5_each_hostile_csr_is_refused_by_its_own_check(code: str, der: bytes) -> None:
    with pytest.raises(Denied) as caught:
        verify_csr(der, attested_spki=SPKI, identifier=IDENTIFIER)

    assert caught.value.code == f"attest.{code}"


@pytest.mark.parametrize(("code", "der"), [(code, der) for code, _, der in HOSTILE[5:]], ids=IDS[5:])
def test_left_out_alone_the_check_is_all_that_stood_between(code: str, der: bytes) -> None:
    left = [step for step in CSR_STEPS if step.code != f"attest.{code}"]

    assert verify_csr(der, attested_spki=SPKI, identifier=IDENTIFIER, steps=left)


def test_truncation_at_every_byte_is_a_typed_refusal() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(Denied) as caught:
            verify_csr(GOOD[:end], attested_spki=SPKI, identifier=IDENTIFIER)
        assert caught.value.code == "attest.csr_format"

"""Check 5 of /attest: one hostile endorsement per numbered check, and what leaving it out lets in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.attestation import NOW, make_ca, tpm_name, usage

from countersign.attest import EK_STEPS, SoftwareDevice, verify_ek
from countersign.errors import Denied

if TYPE_CHECKING:
    from countersign.attest import Step, VerifiedEk

CA, CA_KEY = make_ca("EK CA")
OTHER_CA, _ = make_ca("Another EK CA")
KEY = ec.generate_private_key(ec.SECP256R1())
EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(key: Any = KEY, **change: Any) -> bytes:
    """An endorsement certificate; ``change``: tpm, constraints, usages, key_usage, days, extra."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(CA.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=20))
        .not_valid_after(NOW + timedelta(days=change.get("days", 20)))
    )
    tpm = change.get("tpm", tpm_name())
    if tpm:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DirectoryName(tpm)]), critical=True)
    constraints = change.get("constraints", x509.BasicConstraints(ca=False, path_length=None))
    if constraints:
        builder = builder.add_extension(constraints, critical=True)
    usages = change.get("usages", [EK_USAGE])
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    key_usage = change.get("key_usage", usage(key_agreement=True))
    if key_usage:
        builder = builder.add_extension(key_usage, critical=True)
    return builder.sign(CA_KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def verify(
    ek: bytes | None = None,
    certs: list[bytes] | None = None,
    pools: Any = None,
    steps: tuple[Step, ...] = EK_STEPS,
) -> VerifiedEk:
    return verify_ek(
        spki(KEY) if ek is None else ek,
        [certificate()] if certs is None else certs,
        {"pool": [CA]} if pools is None else pools,
        NOW,
        steps=steps,
    )


RSA1024 = rsa.generate_private_key(65537, 1024)
P224 = ec.generate_private_key(ec.SECP224R1())
COMPRESSED = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + KEY.public_key().public_bytes(
    Encoding.X962, PublicFormat.CompressedPoint
)
HOSTILE: list[tuple[str, str, dict[str, Any]]] = [
    ("ek_key", "not an SPKI", {"ek": b"\x30\x00"}),
    ("ek_key", "too long", {"ek": bytes(5000)}),
    ("ek_key", "Ed25519", {"ek": spki(ed25519.Ed25519PrivateKey.generate())}),
    ("ek_key", "RSA of 1024 bits", {"ek": spki(RSA1024), "certs": [certificate(RSA1024)]}),
    ("ek_key", "P-224", {"ek": spki(P224), "certs": [certificate(P224)]}),
    ("ek_key", "a second spelling of the key", {"ek": COMPRESSED}),
    ("ek_certificate", "none", {"certs": []}),
    ("ek_certificate", "not DER", {"certs": [b"\x30\x82"]}),
    ("ek_certificate", "a good one and junk", {"certs": [certificate(), b"junk"]}),
    ("ek_certificate", "bytes after it", {"certs": [certificate() + b"\x00"]}),
    ("ek_certificate", "nine", {"certs": [certificate()] * 9}),
    ("ek_mismatch", "another key's", {"certs": [certificate(ec.generate_private_key(ec.SECP256R1()))]}),
    ("ek_profile", "a CA", {"certs": [certificate(constraints=x509.BasicConstraints(ca=True, path_length=None))]}),
    ("ek_profile", "no basicConstraints", {"certs": [certificate(constraints=None)]}),
    (
        "ek_profile",
        "a web server's usage",
        {"certs": [certificate(usages=[x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")])]},
    ),
    ("ek_profile", "no TPM named", {"certs": [certificate(tpm=None)]}),
    ("ek_profile", "no manufacturer", {"certs": [certificate(tpm=tpm_name(manufacturer=""))]}),
    ("ek_profile", "a usage the key cannot serve", {"certs": [certificate(key_usage=usage(key_encipherment=True))]}),
    (
        "ek_profile",
        "signs certificates",
        {"certs": [certificate(key_usage=usage(key_agreement=True, key_cert_sign=True))]},
    ),
    ("ek_expired", "last week", {"certs": [certificate(days=-7)]}),
    ("ek_untrusted", "another CA", {"pools": {"pool": [OTHER_CA]}}),
    ("ek_untrusted", "no pools", {"pools": {}}),
    ("ek_untrusted", "a pool without roots", {"pools": {"pool": []}}),
    ("pool_ambiguous", "two pools", {"pools": {"a": [CA], "b": [CA, OTHER_CA]}}),
]
IDS = [f"{code}: {what}" for code, what, _ in HOSTILE]


def test_a_good_endorsement_says_maker_model_and_pool() -> None:
    verified = verify()

    assert (verified.pool, verified.manufacturer, verified.model) == ("pool", "id:49424D00", "swtpm")
    assert verified.firmware == "id:20191023"


def test_among_pools_the_one_that_vouches_is_named() -> None:
    assert verify(pools={"a": [OTHER_CA], "b": [CA]}).pool == "b"


def test_steps_are_numbered_in_the_order_of_the_table() -> None:
    assert [step.number for step in EK_STEPS] == list(range(1, 8))
    assert {f"attest.{code}" for code, _, _ in HOSTILE} == {step.code for step in EK_STEPS}


@pytest.mark.parametrize(("code", "change"), [(code, change) for code, _, change in HOSTILE], ids=IDS)
def test_b1_each_hostile_endorsement_is_refused_by_its_own_check(code: str, change: dict[str, Any]) -> None:
    with pytest.raises(Denied) as caught:
        verify(**change)

    assert caught.value.code == f"attest.{code}"


@pytest.mark.parametrize(("code", "change"), [(code, change) for code, _, change in HOSTILE], ids=IDS)
def test_without_its_check_it_passes_or_fails_no_earlier(code: str, change: dict[str, Any]) -> None:
    order = [step.code for step in EK_STEPS]
    left = tuple(step for step in EK_STEPS if step.code != f"attest.{code}")

    try:
        verify(**change, steps=left)
        reached = len(order)
    except Denied as denied:
        reached = order.index(denied.code)

    assert reached >= order.index(f"attest.{code}")


@pytest.mark.parametrize(
    "case",
    [
        "ek_key: P-224",
        "ek_mismatch: another key's",
        "ek_profile: no basicConstraints",
        "ek_untrusted: another CA",
        "pool_ambiguous: two pools",
    ],
)
def test_left_out_alone_the_check_is_all_that_stood_between(case: str) -> None:
    code, _, change = HOSTILE[IDS.index(case)]
    left = tuple(step for step in EK_STEPS if step.code != f"attest.{code}")

    assert verify(**change, steps=left).spki


def test_a_certificate_of_the_twin_is_of_the_profile() -> None:
    device = SoftwareDevice.make((CA, CA_KEY), kind="P384")
    verified = verify_ek(spki(device.endorsement_key), device.certificates, {"twin": [CA]}, NOW)

    assert verified.model == "countersign-twin"


def test_truncation_at_every_byte_is_a_typed_refusal() -> None:
    ek, cert = spki(KEY), certificate()

    for end in range(len(ek)):
        with pytest.raises(Denied):
            verify(ek=ek[:end])
    for end in range(len(cert)):
        with pytest.raises(Denied):
            verify(certs=[cert[:end]])

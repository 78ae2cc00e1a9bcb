"""One hostile statement per numbered check; leaving that check out lets it pass or fail later, never earlier."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.attestation import IDENTIFIER, KEY_AUTHORIZATION, NOW, Lab, make_ca, permanent_identifier, tpm_name, usage

from countersign.attest import STATEMENT_STEPS, Evidence, build_statement, verify_statement
from countersign.attest.algorithms import Alg, Attribute
from countersign.attest.cbor import decode, encode
from countersign.attest.public import TpmtPublic
from countersign.attest.software import KEY_ATTRIBUTES, attest_bytes, public_area, sign_attest
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign.attest import Step

LAB = Lab.make()
OTHER = ec.generate_private_key(ec.SECP256R1())
WEAK = rsa.generate_private_key(65537, 1024)
P521 = ec.generate_private_key(ec.SECP521R1())


def verify(data: bytes, steps: tuple[Step, ...] = STATEMENT_STEPS, identifier: str = IDENTIFIER) -> Evidence:
    return verify_statement(
        data, key_authorization=KEY_AUTHORIZATION, identifier=identifier, ak_roots=[LAB.root], now=NOW, steps=steps
    )


def edited(**members: object) -> Callable[[], bytes]:
    """The good statement with members of attStmt replaced."""

    def make() -> bytes:
        outer = decode(LAB.statement())
        outer["attStmt"] |= members
        return encode(outer)

    return make


def outer(**members: object) -> Callable[[], bytes]:
    return lambda: encode(decode(LAB.statement()) | members)


def lab(**changes: object) -> Callable[[], bytes]:
    return lambda: LAB.but(**changes).statement()


def area(key: object, attributes: int = KEY_ATTRIBUTES, **more: int) -> bytes:
    return public_area(key.public_key(), attributes, Alg.NULL, **more)


def with_area(public: bytes) -> Callable[[], bytes]:
    """A statement about this public area whose Name is right for it."""
    name = b"\x00\x0b" + hashlib.sha256(public).digest()
    return lab(public=public, name=name)


def signed_with(signature: bytes) -> Callable[[], bytes]:
    return lab(signature=signature)


def other_root() -> bytes:
    root, key = make_ca("Another Root")
    return LAB.but(root=root, root_key=key).statement()


def hundred_certificates() -> bytes:
    chain, *rest = LAB.parts()
    return build_statement(chain * 60, *rest)


SHA1_AREA = area(LAB.key, name_alg=0x0004)
GOOD_AREA = area(LAB.key)
GOOD_NAME = TpmtPublic.parse(GOOD_AREA).name
GOOD_INFO = LAB.cert_info()
SHA1_SIGNATURE = b"\x00\x18\x00\x04" + sign_attest(LAB.ak_key, GOOD_INFO)[4:]
RSA_SIGNATURE = b"\x00\x14\x00\x0b\x01\x00" + bytes(256)
QUOTE = attest_bytes(0x8018, b"", b"")

HOSTILE: list[tuple[str, str, Callable[[], bytes]]] = [
    ("payload", "empty", lambda: b""),
    ("payload", "ten megabytes", lambda: bytes(10_000_000)),
    ("cbor", "not CBOR", lambda: b"\xff" * 10),
    ("cbor", "a byte after it", lambda: LAB.statement() + b"\x00"),
    ("cbor", "not a map", lambda: encode([1])),
    ("cbor", "an unknown member", outer(more=1)),
    ("cbor", "attStmt of another type", outer(attStmt=[])),
    ("cbor", "authData of another type", outer(authData="text")),
    ("cbor", "a statement member missing", lambda: encode({"fmt": "tpm", "attStmt": {"ver": "2.0"}})),
    ("cbor", "a statement member unknown", edited(more=b"x")),
    ("cbor", "certInfo empty", edited(certInfo=b"")),
    ("cbor", "x5c of texts", edited(x5c=["text"])),
    ("cbor", "alg of another type", edited(alg="ES256")),
    ("fmt", "packed", outer(fmt="packed", attStmt={"alg": -7, "sig": b"x"})),
    ("fmt", "packed with the members of tpm", outer(fmt="packed")),
    ("version", "1.2", edited(ver="1.2")),
    ("algorithm", "RS1: SHA-1", edited(alg=-65535)),
    ("algorithm", "EdDSA", edited(alg=-8)),
    ("algorithm", "a positive number", edited(alg=7)),
    ("chain", "another root", other_root),
    ("chain", "not DER", edited(x5c=[b"\x30\x00"])),
    ("chain", "no certificate", edited(x5c=[])),
    ("chain", "sixty certificates", hundred_certificates),
    ("ak_profile", "a subject", lab(subject=tpm_name())),
    ("ak_profile", "a CA", lab(constraints=x509.BasicConstraints(ca=True, path_length=None))),
    ("ak_profile", "basicConstraints absent", lab(constraints=None)),
    ("ak_profile", "no extended key usage", lab(usages=())),
    ("ak_profile", "another extended key usage", lab(usages=(x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2"),))),
    ("ak_profile", "may sign certificates", lab(key_usage=usage(digital_signature=True, key_cert_sign=True))),
    ("ak_profile", "no TPM named", lab(tpm=x509.Name([]))),
    ("ak_profile", "no model", lab(tpm=tpm_name(model=""))),
    ("identifier_missing", "no PermanentIdentifier", lab(identifiers=())),
    ("identifier_mismatch", "another", lab(identifiers=(permanent_identifier("prod-eu.billing.other-1"),))),
    ("identifier_mismatch", "upper case", lab(identifiers=(permanent_identifier(IDENTIFIER.upper()),))),
    (
        "identifier_mismatch",
        "a look-alike",
        lab(identifiers=(permanent_identifier(IDENTIFIER.replace("e", "\u0435")),)),
    ),
    ("identifier_mismatch", "an assigner", lab(identifiers=(permanent_identifier(IDENTIFIER, "1.2.3.4"),))),
    (
        "identifier_ambiguous",
        "two",
        lab(identifiers=(permanent_identifier(IDENTIFIER), permanent_identifier("prod-eu.billing.other-1"))),
    ),
    ("public_area", "a byte after it", with_area(GOOD_AREA + b"\x00")),
    ("public_area", "named with SHA-1", lab(public=SHA1_AREA, name=b"\x00\x04" + hashlib.sha1(SHA1_AREA).digest())),
    ("public_area", "a point off its curve", with_area(GOOD_AREA[:-1] + bytes([GOOD_AREA[-1] ^ 1]))),
    ("public_area", "a reserved attribute", with_area(area(LAB.key, KEY_ATTRIBUTES | 1 << 31))),
    ("public_area", "a symmetric key", with_area(b"\x00\x25" + GOOD_AREA[2:])),
    ("key_strength", "RSA of 1024 bits", with_area(area(WEAK))),
    ("key_strength", "P-521", with_area(GOOD_AREA.replace(b"\x00\x10\x00\x03\x00\x10", b"\x00\x10\x00\x05\x00\x10"))),
    ("key_attributes", "not fixed to the TPM", with_area(area(LAB.key, KEY_ATTRIBUTES & ~Attribute.FIXED_TPM))),
    ("key_attributes", "may change its parent", with_area(area(LAB.key, KEY_ATTRIBUTES & ~Attribute.FIXED_PARENT))),
    ("key_attributes", "imported", with_area(area(LAB.key, KEY_ATTRIBUTES & ~Attribute.SENSITIVE_DATA_ORIGIN))),
    ("key_attributes", "cannot sign", with_area(area(LAB.key, KEY_ATTRIBUTES & ~Attribute.SIGN))),
    ("key_attributes", "restricted", with_area(area(LAB.key, KEY_ATTRIBUTES | Attribute.RESTRICTED))),
    ("key_attributes", "decrypts too", with_area(area(LAB.key, KEY_ATTRIBUTES | Attribute.DECRYPT))),
    ("key_attributes", "may be duplicated", with_area(area(LAB.key, KEY_ATTRIBUTES | Attribute.ENCRYPTED_DUPLICATION))),
    ("cert_info", "not made by a TPM", lab(magic=0x11223344)),
    ("cert_info", "a creation", lab(kind=0x801A)),
    ("cert_info", "a quote", lab(attest=QUOTE)),
    ("cert_info", "a byte after it", lab(attest=GOOD_INFO + b"\x00")),
    ("name", "another key's", lab(name=TpmtPublic.parse(area(OTHER)).name)),
    ("name", "under another hash", lab(name=b"\x00\x0c" + hashlib.sha384(GOOD_AREA).digest())),
    (
        "signature_format",
        "a byte after it",
        lambda: LAB.but(signature=sign_attest(LAB.ak_key, GOOD_INFO) + b"x").statement(),
    ),
    ("signature_format", "raw DER", signed_with(b"0\x06\x02\x01\x01\x02\x01\x01")),
    ("signature_format", "SHA-1", signed_with(SHA1_SIGNATURE)),
    ("signature_format", "RSA under an ECC key", signed_with(RSA_SIGNATURE)),
    ("signature_format", "another hash than alg", edited(alg=-35)),
    ("signature", "by another key", signed_with(sign_attest(OTHER, GOOD_INFO))),
    ("extra_data", "another key authorization", lab(extra_data=hashlib.sha256(b"token.other-account").digest())),
    ("extra_data", "the key authorization itself", lab(extra_data=KEY_AUTHORIZATION.encode()[:32])),
    ("extra_data", "nothing", lab(extra_data=b"")),
]
IDS = [f"{code}: {what}" for code, what, _ in HOSTILE]


def number(code: str) -> int:
    return next(step.number for step in STATEMENT_STEPS if step.code == code)


def test_the_good_statement_proves_the_key_and_the_ak() -> None:
    evidence = verify(LAB.statement())

    assert evidence.public_key == LAB.key.public_key()
    assert evidence.spki == LAB.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert evidence.ak_public_key == LAB.ak_key.public_key()


def test_an_assigner_in_order_and_certificate_is_accepted() -> None:
    data = LAB.but(identifiers=(permanent_identifier("ident", "1.2.3.4"),)).statement()

    assert verify(data, identifier="ident/1.2.3.4").public_key == LAB.key.public_key()


def test_steps_are_numbered_and_named_after_the_codes_in_the_order_of_enrolment_3() -> None:
    assert [step.number for step in STATEMENT_STEPS] == list(range(1, 19))
    assert [f"attest.{step.name}" for step in STATEMENT_STEPS] == [step.code for step in STATEMENT_STEPS]


def test_every_step_has_a_hostile_case() -> None:
    assert {f"attest.{code}" for code, _, _ in HOSTILE} == {step.code for step in STATEMENT_STEPS}


@pytest.mark.parametrize(("code", "make"), [(code, make) for code, _, make in HOSTILE], ids=IDS)
def test_each_hostile_statement_is_refused_by_its_own_check(code: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(Denied) as caught:
        verify(make())

    assert caught.value.code == f"attest.{code}"


@pytest.mark.parametrize(("code", "make"), [(code, make) for code, _, make in HOSTILE], ids=IDS)
def test_without_its_check_a_hostile_statement_passes_or_fails_later(code: str, make: Callable[[], bytes]) -> None:
    step = number(f"attest.{code}")
    without = tuple(one for one in STATEMENT_STEPS if one.number != step)
    reached = []

    def spy(one: Step) -> Step:
        def check(exam: object) -> None:
            one.check(exam)
            reached.append(one.number)

        return type(one)(one.number, one.code, check)

    with contextlib.suppress(Denied):
        verify(make(), tuple(spy(one) for one in without))

    assert reached[: step - 1] == list(range(1, step))


def test_b3_skipping_only_the_identifier_checks_would_issue_for_any_name() -> None:
    data = LAB.but(identifiers=(permanent_identifier("prod-eu.billing.other-1"),)).statement()
    without = tuple(step for step in STATEMENT_STEPS if step.code != "attest.identifier_mismatch")

    assert verify(data, without).public_key == LAB.key.public_key()


@pytest.mark.parametrize(
    "code", ["identifier_ambiguous", "key_attributes", "name", "extra_data", "ak_profile", "chain"]
)
def test_left_out_alone_the_check_is_all_that_stood_between(code: str) -> None:
    make = {
        "identifier_ambiguous": HOSTILE[IDS.index("identifier_ambiguous: two")],
        "key_attributes": HOSTILE[IDS.index("key_attributes: imported")],
        "name": HOSTILE[IDS.index("name: another key's")],
        "extra_data": HOSTILE[IDS.index("extra_data: nothing")],
        "ak_profile": HOSTILE[IDS.index("ak_profile: basicConstraints absent")],
        "chain": HOSTILE[IDS.index("chain: another root")],
    }[code][2]
    without = tuple(step for step in STATEMENT_STEPS if step.code != f"attest.{code}")

    assert verify(make(), without).public_key == LAB.key.public_key()


def test_b4_an_expired_ak_certificate_is_refused() -> None:
    with pytest.raises(Denied) as caught:
        verify_statement(
            LAB.statement(),
            key_authorization=KEY_AUTHORIZATION,
            identifier=IDENTIFIER,
            ak_roots=[LAB.root],
            now=NOW.replace(year=2027),
        )

    assert caught.value.code == "attest.chain"


def test_no_roots_means_no_trust() -> None:
    with pytest.raises(Denied) as caught:
        verify_statement(
            LAB.statement(), key_authorization=KEY_AUTHORIZATION, identifier=IDENTIFIER, ak_roots=[], now=NOW
        )

    assert caught.value.code == "attest.chain"


def test_b11_an_extended_key_usage_without_members_is_refused_not_a_crash() -> None:
    with pytest.raises(Denied) as caught:
        verify(LAB.but(raw_usages=b"\x30\x00").statement())

    assert caught.value.code in {"attest.chain", "attest.ak_profile"}


def test_truncation_at_every_byte_is_a_typed_refusal() -> None:
    data = LAB.statement()

    codes = set()
    for end in range(len(data)):
        with pytest.raises(Denied) as caught:
            verify(data[:end])
        codes.add(caught.value.code)

    assert codes == {"attest.payload", "attest.cbor"}

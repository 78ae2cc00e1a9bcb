"""Check 7 of /attest and the key proof of /secret: one hostile case per numbered check."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from countersign.attest import AK_STEPS, KEY_STEPS, key_qualifier, verify_ak, verify_key_proof
from countersign.attest.algorithms import Alg, Attribute, Structure
from countersign.attest.public import TpmtPublic
from countersign.attest.reader import tpm2b, u16, u32
from countersign.attest.software import AK_ATTRIBUTES, KEY_ATTRIBUTES, attest_bytes, public_area, sign_attest
from countersign.errors import Denied

if TYPE_CHECKING:
    from countersign.attest import Step, VerifiedAk

AK = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
WEAK = rsa.generate_private_key(65537, 1024)
KEY = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
CREATION = u32(0) + tpm2b(b"") + b"\x01" + u16(Alg.SHA256) + tpm2b(b"") + tpm2b(b"") + tpm2b(b"")
SECRET = bytes(range(32))


def made(key: Any = AK, attributes: int = AK_ATTRIBUTES, scheme: int = Alg.ECDSA, **change: Any) -> list[bytes]:
    """The four structures of /attest; ``change``: public, creation, magic, kind, name, hashed, signer, attest."""
    public = change.get("public") or public_area(
        key.public_key(), attributes, scheme, name_alg=change.get("name_alg", 0xB)
    )
    creation = change.get("creation", CREATION)
    name = change.get("name") or b"\x00\x0b" + hashlib.sha256(public).digest()
    hashed = hashlib.sha256(change.get("hashed", creation)).digest()
    magic, kind = change.get("magic", 0xFF544347), change.get("kind", Structure.CREATION)
    attest = change.get("attest") or attest_bytes(kind, name, hashed, magic=magic)
    return [public, creation, attest, sign_attest(change.get("signer", key), attest)]


def appended(at: int) -> list[bytes]:
    parts = made()
    parts[at] += b"\x00"
    return parts


def sha1_scheme() -> list[bytes]:
    area = public_area(AK.public_key(), AK_ATTRIBUTES, Alg.ECDSA)
    return made(public=area.replace(b"\x00\x18\x00\x0b", b"\x00\x18\x00\x04"))


def other_scheme() -> list[bytes]:
    area = public_area(AK.public_key(), AK_ATTRIBUTES, Alg.ECDSA)
    return made(public=area.replace(b"\x00\x18\x00\x0b", b"\x00\x18\x00\x0c"))


HOSTILE: list[tuple[int, str, str, list[bytes]]] = [
    (1, "ak_format", "a byte after public", appended(0)),
    (1, "ak_format", "a byte after the creation data", appended(1)),
    (1, "ak_format", "a byte after the attestation", appended(2)),
    (1, "ak_format", "a byte after the signature", appended(3)),
    (1, "ak_format", "all empty", [b"", b"", b"", b""]),
    (2, "ak_strength", "RSA of 1024 bits", made(WEAK, scheme=Alg.RSASSA)),
    (2, "ak_strength", "no signing scheme", made(scheme=Alg.NULL)),
    (2, "ak_strength", "SHA-1 scheme", sha1_scheme()),
    (2, "ak_strength", "SHA-1 name", made(name_alg=0x0004)),
    (3, "ak_attributes", "not fixed to the TPM", made(attributes=AK_ATTRIBUTES & ~Attribute.FIXED_TPM)),
    (3, "ak_attributes", "may change its parent", made(attributes=AK_ATTRIBUTES & ~Attribute.FIXED_PARENT)),
    (3, "ak_attributes", "imported", made(attributes=AK_ATTRIBUTES & ~Attribute.SENSITIVE_DATA_ORIGIN)),
    (3, "ak_attributes", "not restricted", made(attributes=AK_ATTRIBUTES & ~Attribute.RESTRICTED)),
    (3, "ak_attributes", "cannot sign", made(attributes=AK_ATTRIBUTES & ~Attribute.SIGN)),
    (3, "ak_attributes", "decrypts", made(attributes=AK_ATTRIBUTES | Attribute.DECRYPT)),
    (3, "ak_attributes", "may be duplicated", made(attributes=AK_ATTRIBUTES | Attribute.ENCRYPTED_DUPLICATION)),
    (4, "ak_proof", "not made by a TPM", made(magic=0x11223344)),
    (4, "ak_proof", "a certification", made(kind=Structure.CERTIFY)),
    (4, "ak_proof", "a quote", made(kind=0x8018, attest=attest_bytes(0x8018, b"", b""))),
    (5, "ak_proof", "other creation data", made(hashed=CREATION + b"x")),
    (6, "ak_proof", "another key's name", made(name=b"\x00\x0b" + bytes(32))),
    (7, "ak_proof", "signed by another key", made(signer=OTHER)),
    (7, "ak_proof", "signed by another scheme than the key's", other_scheme()),
]
IDS = [f"{number} {code}: {what}" for number, code, what, _ in HOSTILE]


def test_a_good_attestation_key_is_named() -> None:
    verified = verify_ak(*made())

    assert verified.name == TpmtPublic.parse(made()[0]).name
    assert verified.public_key == AK.public_key()


@pytest.mark.parametrize(("code", "parts"), [(code, parts) for _, code, _, parts in HOSTILE], ids=IDS)
def test_b6_each_hostile_key_is_refused_with_its_code(code: str, parts: list[bytes]) -> None:
    with pytest.raises(Denied) as caught:
        verify_ak(*parts)

    assert caught.value.code == f"attest.{code}"


@pytest.mark.parametrize(("number", "parts"), [(number, parts) for number, _, _, parts in HOSTILE], ids=IDS)
def test_each_hostile_key_fails_at_its_number_and_without_it_no_earlier(number: int, parts: list[bytes]) -> None:
    assert _fails_at(AK_STEPS, lambda steps: verify_ak(*parts, steps=steps)) == number
    left = tuple(step for step in AK_STEPS if step.number != number)
    assert _fails_at(left, lambda steps: verify_ak(*parts, steps=steps)) > number


def _fails_at(steps: tuple[Step, ...], verify: Any) -> int:
    passed = [0]

    def spy(step: Step) -> Step:
        def check(exam: object) -> None:
            passed.append(step.number)
            step.check(exam)

        return type(step)(step.number, step.code, check)

    try:
        verify([spy(step) for step in steps])
    except Denied:
        return passed[-1]
    return 99


def proof(key: Any = KEY, attributes: int = KEY_ATTRIBUTES, **change: Any) -> list[bytes]:
    public = change.get("public") or public_area(key.public_key(), attributes, Alg.NULL)
    name = change.get("name") or b"\x00\x0b" + hashlib.sha256(public).digest()
    magic, kind = change.get("magic", 0xFF544347), change.get("kind", Structure.CERTIFY)
    extra = change.get("extra", key_qualifier(SECRET))
    attest = attest_bytes(kind, name, name, magic=magic, extra_data=extra) + change.get("after", b"")
    return [public, attest, sign_attest(change.get("signer", AK), attest)]


KEY_HOSTILE: list[tuple[int, str, str, list[bytes]]] = [
    (1, "key_proof", "a byte after the attestation", proof(after=b"\x00")),
    (1, "key_proof", "all empty", [b"", b"", b""]),
    (2, "key_attributes", "P-384", proof(P384)),
    (2, "key_attributes", "RSA", proof(WEAK)),
    (3, "key_attributes", "not fixed to the TPM", proof(attributes=KEY_ATTRIBUTES & ~Attribute.FIXED_TPM)),
    (3, "key_attributes", "imported", proof(attributes=KEY_ATTRIBUTES & ~Attribute.SENSITIVE_DATA_ORIGIN)),
    (3, "key_attributes", "may change its parent", proof(attributes=KEY_ATTRIBUTES & ~Attribute.FIXED_PARENT)),
    (3, "key_attributes", "cannot sign", proof(attributes=KEY_ATTRIBUTES & ~Attribute.SIGN)),
    (3, "key_attributes", "restricted", proof(attributes=KEY_ATTRIBUTES | Attribute.RESTRICTED)),
    (4, "key_proof", "not made by a TPM", proof(magic=1)),
    (4, "key_proof", "a creation", proof(kind=Structure.CREATION)),
    (5, "key_proof", "another key's name", proof(name=b"\x00\x0b" + bytes(32))),
    (6, "key_proof", "signed by another key", proof(signer=OTHER)),
    (7, "key_proof", "over another secret", proof(extra=key_qualifier(bytes(32)))),
    (7, "key_proof", "over the secret itself", proof(extra=SECRET)),
]
KEY_IDS = [f"{number} {code}: {what}" for number, code, what, _ in KEY_HOSTILE]


@pytest.fixture(scope="module")
def ak() -> VerifiedAk:
    return verify_ak(*made())


def test_the_key_proof_gives_the_instance_key(ak: VerifiedAk) -> None:
    assert verify_key_proof(ak, *proof(), SECRET) == KEY.public_key()
    assert verify_key_proof(ak.public_key, *proof(), SECRET) == KEY.public_key()


@pytest.mark.parametrize(("code", "parts"), [(code, parts) for _, code, _, parts in KEY_HOSTILE], ids=KEY_IDS)
def test_each_hostile_proof_is_refused_with_its_code(ak: VerifiedAk, code: str, parts: list[bytes]) -> None:
    with pytest.raises(Denied) as caught:
        verify_key_proof(ak, *parts, SECRET)

    assert caught.value.code == f"attest.{code}"


@pytest.mark.parametrize(("number", "parts"), [(n, parts) for n, _, _, parts in KEY_HOSTILE], ids=KEY_IDS)
def test_each_hostile_proof_fails_at_its_number(ak: VerifiedAk, number: int, parts: list[bytes]) -> None:
    def verify(steps: list[Step]) -> Any:
        return verify_key_proof(ak, *parts, SECRET, steps=steps)

    assert _fails_at(KEY_STEPS, verify) == number
    assert _fails_at(tuple(step for step in KEY_STEPS if step.number != number), verify) > number


def test_truncation_at_every_byte_is_a_typed_refusal(ak: VerifiedAk) -> None:
    parts = made()
    for at, part in enumerate(parts):
        for end in range(len(part)):
            with pytest.raises(Denied):
                verify_ak(*parts[:at], part[:end], *parts[at + 1 :])
    parts = proof()
    for at, part in enumerate(parts):
        for end in range(len(part)):
            with pytest.raises(Denied):
                verify_key_proof(ak, *parts[:at], part[:end], *parts[at + 1 :], SECRET)

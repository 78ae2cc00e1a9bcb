"""Whatever bytes come, the room answers with Denied and nothing else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.attestation import IDENTIFIER, KEY_AUTHORIZATION, NOW, Lab, make_ca

from countersign.attest import (
    SoftwareDevice,
    TpmsAttest,
    TpmsCreationData,
    TpmtPublic,
    TpmtSignature,
    attestation_object,
    verify_ak,
    verify_csr,
    verify_ek,
    verify_key_proof,
    verify_statement,
)
from countersign.attest.cbor import decode, encode
from countersign.errors import Denied

LAB = Lab.make()
CHAIN, ATTEST, PUBLIC, SIGNATURE, _ = LAB.parts()
STATEMENT = LAB.statement()
CA, CA_KEY = make_ca("EK CA")
EK = SoftwareDevice.make((CA, CA_KEY))
VECTOR = json.loads((Path(__file__).parent.parent / "data" / "acme" / "good-1-rsa-ak-ec-key.json").read_text())
RECORDED = attestation_object(VECTOR["challengePayload"])

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def mangled(base: bytes) -> st.SearchStrategy[bytes]:
    """``base`` with a piece overwritten, cut out or put in; or bytes that have nothing to do with it."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        at = draw(st.integers(0, len(base)))
        end = draw(st.integers(at, min(len(base), at + 8)))
        return base[:at] + draw(st.binary(max_size=8)) + base[end:]

    return st.one_of(build(), build(), st.binary(max_size=200))


@fuzz
@given(st.one_of(mangled(STATEMENT), mangled(RECORDED)))
def test_a_statement(data: bytes) -> None:
    with contextlib.suppress(Denied):
        verify_statement(data, key_authorization=KEY_AUTHORIZATION, identifier=IDENTIFIER, ak_roots=[LAB.root], now=NOW)


@fuzz
@given(mangled(CHAIN[0]))
def test_an_ak_certificate(der: bytes) -> None:
    outer = decode(STATEMENT)
    outer["attStmt"]["x5c"] = [der]
    with contextlib.suppress(Denied):
        verify_statement(
            encode(outer), key_authorization=KEY_AUTHORIZATION, identifier=IDENTIFIER, ak_roots=[LAB.root], now=NOW
        )


@fuzz
@given(mangled(PUBLIC), mangled(ATTEST), mangled(SIGNATURE))
def test_structures(public: bytes, attest: bytes, signature: bytes) -> None:
    for parse, data in ((TpmtPublic.parse, public), (TpmsAttest.parse, attest), (TpmtSignature.parse, signature)):
        with contextlib.suppress(Denied):
            parse(data)
    with contextlib.suppress(Denied):
        TpmtPublic.parse(public).public_key()
    with contextlib.suppress(Denied):
        TpmsCreationData.parse(attest)
    with contextlib.suppress(Denied):
        verify_ak(public, attest, attest, signature)
    with contextlib.suppress(Denied):
        verify_key_proof(LAB.ak_key.public_key(), public, attest, signature, bytes(32))


@fuzz
@given(
    mangled(EK.certificates[0]), mangled(b"0Y0\x13\x06\x07*\x86H\xce=\x02\x01\x06\x08*\x86H\xce=\x03\x01\x07\x03B\x00")
)
def test_an_endorsement(der: bytes, spki: bytes) -> None:
    with contextlib.suppress(Denied):
        verify_ek(spki, [der], {"pool": [CA]}, NOW)
    with contextlib.suppress(Denied):
        good = EK.endorsement_key.public_key()
        verify_ek(good.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), [der], {"pool": [CA]}, NOW)


@fuzz
@given(mangled(b"0\x81\xba0b\x02\x01\x000\x000Y0\x13\x06\x07*\x86H\xce=\x02\x01\x06\x08*\x86H\xce=\x03\x01\x07"))
def test_a_csr(der: bytes) -> None:
    with contextlib.suppress(Denied):
        verify_csr(der, attested_spki=b"x", identifier=IDENTIFIER)


@fuzz
@given(
    st.recursive(
        st.one_of(st.integers(-(2**64), 2**64 - 1), st.binary(max_size=40), st.text(max_size=20)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
        max_leaves=10,
    )
)
def test_cbor_comes_back_as_it_went(value: object) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", ""),
        ("a float", "fb3ff0000000000000"),
        ("true", "f5"),
        ("null", "f6"),
        ("a tag", "c001"),
        ("indefinite bytes", "5f4161ff"),
        ("an indefinite map", "bf616101ff"),
        ("an indefinite array", "9f01ff"),
        ("a reserved length", "1c"),
        ("a key twice", "a2616101616102"),
        ("a key that is a number", "a10101"),
        ("text that is not UTF-8", "61ff"),
        ("a surrogate in text", "63eda080"),
        ("bytes after it", "0100"),
        ("more bytes than there are", "5affffffff"),
        ("a long array", "9affffffff"),
        ("a long map", "baffffffff"),
        ("deep nesting", "81" * 50 + "01"),
    ],
)
def test_cbor_that_two_readers_could_read_differently_is_refused(what: str, data: str) -> None:
    del what
    with pytest.raises(Denied) as caught:
        decode(bytes.fromhex(data))

    assert caught.value.code == "attest.cbor"

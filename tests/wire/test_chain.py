"""Certificate chains: what leads to a root, what the leaf must be, and forms of the header that are not ours."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st
from support.signed_vectors import certificate
from support.wire_vectors import load

from countersign.errors import Denied
from countersign.wire import chain_header, parse_chain
from countersign.wire.chain import check_key, check_name, check_usage, find_path, is_valid_at

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SPIFFE_ID = "spiffe://agents.example.com/ns/billing/sa/refund-agent"
P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def usage(*, sign: bool = False, certs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, certs, certs, False, False)


def made(
    subject: str,
    issuer: str,
    key: Any,
    signer: Any,
    *,
    ca: bool,
    path_length: int | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    key_usage: x509.KeyUsage | None = None,
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    algorithm: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START - timedelta(hours=1))
        .not_valid_after(START + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(key_usage or usage(sign=not ca, certs=ca), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if purposes and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, algorithm or hashes.SHA256())


def uri(*names: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.UniformResourceIdentifier(name) for name in names)


def leaf(signer: Any = OTHER, issuer: str = "root", **changes: Any) -> x509.Certificate:
    fields = {"key": P256, "ca": False, "names": uri(SPIFFE_ID), **changes}
    return made("", issuer, signer=signer, **fields)


def root(key: Any = OTHER, subject: str = "root", **changes: Any) -> x509.Certificate:
    return made(subject, subject, key, key, **{"ca": True, **changes})


@pytest.mark.parametrize("key", [OTHER, P384, RSA], ids=["P-256", "P-384", "RSA-2048"])
def test_a_leaf_under_its_root(key: Any) -> None:
    chain, top = [leaf(key)], root(key)

    assert find_path(chain, [root(P256, "another"), top]) == (*chain, top)


def test_an_intermediate_and_the_root_itself_may_be_sent() -> None:
    middle = made("middle", "root", P384, OTHER, ca=True, path_length=0)
    chain, top = [leaf(P384, "middle"), middle], root(path_length=1)

    assert find_path(chain, [top]) == (*chain, top)
    assert find_path([*chain, top], [top]) == (*chain, top)


def refused(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> str:
    with pytest.raises(Denied) as refusal:
        find_path(chain, roots)
    return refusal.value.code


DEEP = made("middle", "root", P384, OTHER, ca=True)
NO_CA = made("middle", "root", P384, OTHER, ca=False, key_usage=usage(certs=True))
NO_SIGNING = made("middle", "root", P384, OTHER, ca=True, key_usage=usage(sign=True))
CONSTRAINED = made(
    "middle",
    "root",
    P384,
    OTHER,
    ca=True,
    extensions=((x509.NameConstraints(uri("example.org"), None), False),),
)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("chain", "roots"),
    [
        ([leaf()], []),
        ([leaf()], [root(P384)]),
        ([leaf(P384)], [root()]),
        ([leaf()], [root(subject="another")]),
        ([leaf(ca=True)], [root()]),
        ([leaf(P384, "middle"), DEEP], [root(path_length=0)]),
        ([leaf(P384, "middle"), NO_CA], [root()]),
        ([leaf(P384, "middle"), NO_SIGNING], [root()]),
        ([leaf(P384, "middle"), CONSTRAINED], [root()]),
        ([leaf(P384, "middle"), leaf(P384, "middle")], [root()]),
        ([leaf(), root(P384, "another")], [root()]),
        ([leaf()], [root(ca=False)]),
        ([leaf(WEAK)], [root(WEAK)]),
        ([leaf(extensions=((UNKNOWN, True),))], [root()]),
        ([leaf()], [root(extensions=((UNKNOWN, True),))]),
        ([root()], [root()]),
    ],
    ids=[
        "no root",
        "a root of another key",
        "a signature of another key",
        "a root of another name",
        "the leaf is a CA",
        "too deep",
        "an issuer that is no CA",
        "an issuer that may not sign certificates",
        "name constraints",
        "a leaf as issuer",
        "what follows is not the issuer",
        "a root that is no CA",
        "a weak CA key",
        "a critical extension of the leaf",
        "a critical extension of the root",
        "a root as leaf",
    ],
)
def test_b6_what_does_not_lead_to_a_root(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> None:
    assert refused(chain, roots) == "cert.chain"


def test_an_extension_that_is_not_critical_changes_nothing() -> None:
    find_path([leaf(extensions=((UNKNOWN, False),))], [root()])


def test_validity_allows_the_skew_at_its_beginning_only() -> None:
    begin, end = (int((START + timedelta(hours=hours)).timestamp()) for hours in (-1, 1))
    for now, good in ((begin - 6, False), (begin - 5, True), (end - 1, True), (end, False)):
        assert is_valid_at(leaf(), now=now, skew=5) is good


@pytest.mark.parametrize(
    "changes",
    [
        {"purposes": ()},
        {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"purposes": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)},
        {"key_usage": usage(sign=True, certs=True)},
        {"key_usage": usage(certs=False)},
    ],
)
def test_what_the_leafs_key_must_be_for(changes: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refusal:
        check_usage(leaf(**changes))
    assert refusal.value.code == "cert.usage"


@pytest.mark.parametrize(
    "names",
    [
        (),
        uri(SPIFFE_ID, SPIFFE_ID + "2"),
        uri(SPIFFE_ID, SPIFFE_ID),
        uri("https://agents.example.com/ns/billing/sa/refund-agent"),
        uri(SPIFFE_ID + "/"),
        uri(SPIFFE_ID + "\n"),
        uri("spiffe://Agents.example.com/ns/billing/sa/refund-agent"),
        uri("spiffe://agents.example.com/ns/billing/sa/"),
        uri("spiffe://agents.example.com/ns/bill/ing/sa/x"),
        uri("spiffe://agents.example.com:443/ns/billing/sa/x"),
        (x509.DNSName("agents.example.com"),),
    ],
)
def test_c11_a_leaf_has_one_name(names: tuple[x509.GeneralName, ...]) -> None:
    with pytest.raises(Denied) as refusal:
        check_name(leaf(names=names))
    assert refusal.value.code == "cert.name"


@pytest.mark.parametrize("key", [P384, RSA])
def test_a_leafs_key_is_p256(key: Any) -> None:
    with pytest.raises(Denied) as refusal:
        check_key(leaf(key=key))
    assert refusal.value.code == "cert.key"


def test_the_header_is_that_of_the_vectors_and_comes_back() -> None:
    chain = (certificate("leaf"), certificate("intermediate"))

    assert chain_header(chain) == load("keys")["chain_header"]
    assert parse_chain(chain_header(chain)) == chain


def test_a_chain_that_no_verifier_takes_is_not_written() -> None:
    for chain in ([], [leaf()] * 4):
        with pytest.raises(ValueError, match="1 to 3"):
            chain_header(chain)


GOOD = base64.b64encode(leaf().public_bytes(Encoding.DER)).decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "::",
        f":{GOOD}",
        f":{GOOD}:,:{GOOD}:",
        f":{GOOD}:,  :{GOOD}:",
        f":{GOOD}:, ",
        f":{GOOD}:;a=1",
        f":{GOOD.rstrip('=')}:" if GOOD.endswith("=") else f":{GOOD}=:",
        f":{GOOD[:-8]}:",
        f":{GOOD[:40]}:",
        f":{base64.b64encode(base64.b64decode(GOOD) + b'x').decode()}:",
        ", ".join([f":{GOOD}:"] * 4),
        f":{'A' * 9000}:",
        f" :{GOOD}:",
    ],
)
def test_what_is_no_chain(value: str) -> None:
    with pytest.raises(Denied) as refusal:
        parse_chain(value)
    assert refusal.value.code == "cert.format"


CRITICAL = b"\x01\x01\xff"
DER = base64.b64decode(GOOD)


@pytest.mark.parametrize(
    "spelling",
    [
        b"\x30\x83\x00" + DER[2:],
        b"\x30\x80" + DER[4:] + b"\x00\x00",
        DER.replace(CRITICAL, b"\x01\x01\x00", 1),
        DER.replace(CRITICAL, b"\x01\x01\x01", 1),
        DER.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x00", 1),
    ],
    ids=["a long length", "no length", "a default that is written", "another true", "version 1, written"],
)
def test_ber_that_is_not_der_is_refused(spelling: bytes) -> None:
    assert spelling != DER
    with pytest.raises(Denied) as refusal:
        parse_chain(f":{base64.b64encode(spelling).decode()}:")
    assert refusal.value.code == "cert.format"


def test_a_library_that_reads_more_than_der_gives_no_certificate_a_second_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = leaf()
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda _der: known)

    with pytest.raises(Denied) as refusal:
        parse_chain(f":{base64.b64encode(known.public_bytes(Encoding.DER) + b'x').decode()}:")

    assert refusal.value.code == "cert.format"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Denied) as refusal:
        parse_chain(f":{base64.b64encode(data).decode()}:")
    assert refusal.value.code == "cert.format"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_changed_byte_anywhere_is_refused_and_never_a_crash() -> None:
    der, top = bytearray(base64.b64decode(GOOD)), root()
    for at in range(0, len(der), 3):
        der[at] ^= 0xFF
        with pytest.raises(Denied) as refusal:
            find_path(parse_chain(f":{base64.b64encode(bytes(der)).decode()}:"), [top])
        assert refusal.value.code in ("cert.format", "cert.chain")
        der[at] ^= 0xFF


def test_a_stranger_agrees_on_the_vectors_chain() -> None:
    verifier = PolicyBuilder().store(Store([certificate("root")])).time(START).build_client_verifier()

    verified = verifier.verify(certificate("leaf"), [certificate("intermediate")])

    assert verified.chain == list(find_path([certificate("leaf"), certificate("intermediate")], [certificate("root")]))


@pytest.mark.parametrize("algorithm", [hashes.SHA224(), hashes.SHA3_256()])
def test_b11_a_hash_that_is_not_of_the_list_signs_nothing(algorithm: hashes.HashAlgorithm) -> None:
    root = made("root", "root", P256, P256, ca=True)
    leaf = made("", "root", OTHER, P256, ca=False, algorithm=algorithm)
    leaf.verify_directly_issued_by(root)
    with pytest.raises(Denied) as refusal:
        find_path([leaf], [root])
    assert refusal.value.code == "cert.chain"

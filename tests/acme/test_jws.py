"""Every question that is asked about a JWS, each with a request that fails only there."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from countersign.acme import (
    AcmeProblem,
    check_algorithm,
    check_jwk_only,
    check_kid_only,
    check_url,
    jwk_of,
    key_from_jwk,
    parse_jws,
    sign,
    thumbprint,
    to_base64url,
    verify,
)

URL = "https://ca.test/acme/default/new-order"


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_signed_request_verifies_and_gives_its_parts_back(key: ec.EllipticCurvePrivateKey) -> None:
    jws = parse_jws(sign({"a": 1}, key=key, url=URL, nonce="n1"))
    verify(jws, key.public_key())
    assert (jws.url, jws.nonce, jws.kid, json.loads(jws.payload)) == (URL, "n1", None, {"a": 1})
    assert jws.jwk == jwk_of(key.public_key())


def test_post_as_get_has_an_empty_payload(key: ec.EllipticCurvePrivateKey) -> None:
    jws = parse_jws(sign(None, key=key, url=URL, nonce="n1", kid="https://ca.test/acme/default/account/1"))
    verify(jws, key.public_key())
    assert jws.payload == b""


def test_an_rs256_request_verifies() -> None:
    private = rsa.generate_private_key(65537, 2048)
    jws = parse_jws(_request(alg="RS256", jwk=jwk_of(private.public_key()), signer=private))
    verify(jws, key_from_jwk(jws.jwk or {}))


def test_an_es384_request_verifies() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    jws = parse_jws(_request(alg="ES384", jwk=jwk_of(private.public_key()), signer=private))
    verify(jws, key_from_jwk(jws.jwk or {}))


@pytest.mark.parametrize("alg", ["none", "HS256", "RS1", "PS256", "ES512", "es256", ""])
def test_another_algorithm_is_refused(alg: str, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(AcmeProblem) as refused:
        check_algorithm(parse_jws(_request(alg=alg, signer=key)))
    assert refused.value.name in {"badSignatureAlgorithm", "malformed"}


def test_an_algorithm_that_does_not_fit_the_key_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    for alg in ("ES384", "RS256"):
        with pytest.raises(AcmeProblem, match="badSignatureAlgorithm"):
            verify(parse_jws(_request(alg=alg, signer=key)), key.public_key())


def test_another_address_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(AcmeProblem, match="unauthorized"):
        check_url(parse_jws(sign({}, key=key, url=URL, nonce="n")), URL + "/")


def test_kid_and_jwk_exclude_each_other(key: ec.EllipticCurvePrivateKey) -> None:
    both = parse_jws(_request(signer=key, kid="k", jwk=jwk_of(key.public_key())))
    for check in (check_jwk_only, check_kid_only):
        with pytest.raises(AcmeProblem, match="malformed"):
            check(both)


def test_a_changed_payload_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    body = json.loads(sign({"a": 1}, key=key, url=URL, nonce="n"))
    body["payload"] = to_base64url(b'{"a":2}')
    with pytest.raises(AcmeProblem, match="does not verify"):
        verify(parse_jws(json.dumps(body).encode()), key.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"signatures": []},
        {"header": {}},
        {"payload": None},
        {"protected": "!"},
        {"protected": to_base64url(b"{")},
        {"protected": to_base64url(b"[]")},
        {"payload": "YQ=="},
        {"payload": "YR"},
    ],
)
def test_another_form_is_malformed(change: dict[str, object], key: ec.EllipticCurvePrivateKey) -> None:
    body = json.loads(sign({"a": 1}, key=key, url=URL, nonce="n")) | change
    with pytest.raises(AcmeProblem, match="malformed"):
        parse_jws(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"protected":"a","protected":"b"}', b"[" * 100_000, b'{"a":NaN}']
)
def test_what_is_no_strict_json_is_malformed(body: bytes) -> None:
    with pytest.raises(AcmeProblem, match="malformed"):
        parse_jws(body)


def test_crit_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(AcmeProblem, match="malformed"):
        parse_jws(_request(signer=key, crit=["b64"], b64=False))


def test_a_missing_nonce_is_bad_nonce(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(AcmeProblem, match="badNonce"):
        parse_jws(_request(signer=key, nonce=None))


def test_the_thumbprint_is_over_the_required_members_alone() -> None:
    jwk = {  # RFC 7638 section 3.1
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
        "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "change",
    [
        {"crv": "P-521"},
        {"crv": None},
        {"kty": "oct"},
        {"kty": "OKP"},
        {"x": "AA"},
        {"y": to_base64url(bytes(32))},
        {"d": "AA"},
    ],
)
def test_another_key_is_refused(change: dict[str, object], key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(AcmeProblem, match="badPublicKey"):
        key_from_jwk(dict(jwk_of(key.public_key())) | change)


def test_a_short_rsa_key_is_refused() -> None:
    with pytest.raises(AcmeProblem, match="badPublicKey"):
        key_from_jwk(dict(jwk_of(rsa.generate_private_key(65537, 1024).public_key())))


def _request(
    *,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    alg: str = "ES256",
    nonce: str | None = "n",
    **header: object,
) -> bytes:
    protected = {"alg": alg, "url": URL} | ({} if nonce is None else {"nonce": nonce}) | header
    first, second = to_base64url(json.dumps(protected).encode()), to_base64url(b"{}")
    data = f"{first}.{second}".encode()
    if isinstance(signer, rsa.RSAPrivateKey):
        signature = signer.sign(data, padding.PKCS1v15(), hashes.SHA256())
    else:
        size = signer.key_size // 8
        digest = hashes.SHA256() if size == 32 else hashes.SHA384()
        r, s = utils.decode_dss_signature(signer.sign(data, ec.ECDSA(digest)))
        signature = r.to_bytes(size) + s.to_bytes(size)
    return json.dumps({"protected": first, "payload": second, "signature": to_base64url(signature)}).encode()

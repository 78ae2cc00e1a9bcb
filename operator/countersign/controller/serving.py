"""The serving CA and the two serving certificates: what there should be at a moment (architecture.md, "Keys").

Pure but for the making of keys. The members of a Secret are PEM, as ``kube.rotation`` says: ``tls.crt``, ``tls.key``, and
``ca.crt``, which is what clients trust. A serving certificate is of the CA that signs now, so a former CA has none in use
as soon as the two Secrets were written.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from countersign.kube.rotation import Members, Overlap, certificates_of, is_due, succeeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = ["OVERLAP", "Members", "Unusable", "bundle_of", "ca_members", "require_usable", "serving_members"]

_Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CA_LIFE: Final = timedelta(days=365)
_LIFE: Final = timedelta(days=60)
_BACKDATE: Final = timedelta(minutes=5)  # a clock that is a little behind must not refuse a certificate made just now
OVERLAP: Final = Overlap(ahead=timedelta(minutes=10), kept=timedelta(minutes=10))
_CERT, _KEY, _BUNDLE = "tls.crt", "tls.key", "ca.crt"
_NEXT_CERT, _NEXT_KEY = "next.crt", "next.key"


class Unusable(Exception):
    """A serving certificate of others that our clients could not believe; it says why, and repeats nothing of it."""


@dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: _Private = field(repr=False)


def ca_members(
    present: Mapping[str, bytes], now: datetime, overlap: Overlap = OVERLAP, *, forced: bool = False
) -> Members:
    """Return the members of the CA's Secret at ``now``; equal to ``present`` if nothing is due.

    Renewal is at two thirds of its life, or when ``forced``, in two steps: the next CA is published, and signs later.
    """
    current = _pair(present, _CERT, _KEY)
    if current is None or current.certificate.not_valid_after_utc <= now:
        return succeeded(_fresh(now, present), now, overlap, lambda: _ca_pem(now))
    following = _pair(present, _NEXT_CERT, _NEXT_KEY)
    if following is None:  # half of one is none
        present = {name: value for name, value in present.items() if not name.startswith("next.")}
    return succeeded(present, now, overlap, lambda: _ca_pem(now), forced=forced)


def serving_members(
    present: Mapping[str, bytes], ca: Mapping[str, bytes], names: Sequence[str], now: datetime, *, forced: bool = False
) -> Members:
    """Return the members of a serving certificate's Secret for ``names`` (DNS names or addresses).

    Equal to ``present`` unless there is none, its names are others, another CA signs now, a third of its life is left, or
    a new one is ``forced``.
    """
    issuer = _pair(ca, _CERT, _KEY)
    if issuer is None:
        msg = "the serving CA cannot be read"
        raise ValueError(msg)
    current = _pair(present, _CERT, _KEY)
    trusted = certificates_of(bundle_of(ca))
    if (
        forced
        or current is None
        or is_due(current.certificate, now)
        or _names_of(current.certificate) != _alternatives(names)
        or not _signed_by(current.certificate, issuer.certificate)
    ):
        current = _new_leaf(issuer, names, now)
    # A CA that was given to us may stand below the root that clients are told of: then it goes along.
    chain = [] if issuer.certificate in trusted else [issuer.certificate]
    served = b"".join(map(_pem, (current.certificate, *chain)))
    return {_CERT: served, _KEY: _key_pem(current.key), _BUNDLE: bundle_of(ca)}


def require_usable(members: Mapping[str, bytes], names: Sequence[str], now: datetime) -> None:
    """Want of a serving certificate that others make what clients will ask of it. Raises :class:`Unusable`."""
    pair = _pair(members, _CERT, _KEY)
    if pair is None:
        raise Unusable("tls.crt and tls.key are missing, or do not fit together")
    leaf = pair.certificate
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise Unusable(f"the certificate is valid from {leaf.not_valid_before_utc} until {leaf.not_valid_after_utc}")
    if missing := sorted(_alternatives(names) - _names_of(leaf)):
        raise Unusable(f"the certificate is not for {', '.join(missing)}")
    roots, rest = certificates_of(members.get(_BUNDLE, b"")), certificates_of(members[_CERT])[1:]
    if not roots:
        raise Unusable("ca.crt is missing: nobody would know whom to believe")
    path = [leaf]
    while (above := next((one for one in rest if one not in path and _signed_by(path[-1], one)), None)) is not None:
        path.append(above)
    if not any(one in roots or any(_signed_by(one, root) for root in roots) for one in path):
        raise Unusable("the certificate is not under ca.crt")


def bundle_of(members: Mapping[str, bytes]) -> bytes:
    """Return what clients of a serving certificate trust: its ``ca.crt``; a self-signed one without is its own."""
    return members.get(_BUNDLE) or members.get(_CERT, b"")


def _fresh(now: datetime, present: Mapping[str, bytes]) -> Members:
    """Return a CA for where there is none that can be used; what clients were told of stays until it ends."""
    certificate, key = _ca_pem(now)
    return {_CERT: certificate, _KEY: key, _BUNDLE: present.get(_BUNDLE, b"")}


def _ca_pem(now: datetime) -> tuple[bytes, bytes]:
    made = _new_ca(now)
    return _pem(made.certificate), _key_pem(made.key)


def _pair(members: Mapping[str, bytes], certificate: str, key: str) -> _Pair | None:
    """Read a certificate with its key; None for what is missing or does not fit together."""
    try:
        found = x509.load_pem_x509_certificate(members[certificate])
        private = load_pem_private_key(members[key], password=None)
    except (KeyError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(private, _Private) or _spki(private) != _spki(found):
        return None
    return _Pair(found, private)


def _spki(of: _Private | x509.Certificate) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _new_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The name carries the key: two CAs of one name and different keys confuse clients that build chains by name.
    name = _name(
        f"Countersign serving CA {x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]}"
    )
    builder = _builder(name, name, key.public_key(), now, now + _CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _Pair(_signed(builder, _usage("key_cert_sign", "crl_sign"), key), key)


def _new_leaf(issuer: _Pair, names: Sequence[str], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + _LIFE, issuer.certificate.not_valid_after_utc)
    builder = _builder(_name("Countersign"), issuer.certificate.subject, key.public_key(), now, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    alternatives = [_alternative(name) for name in names]
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _Pair(_signed(builder, _usage("digital_signature"), issuer.key), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, usage: x509.KeyUsage, signer: _Private) -> x509.Certificate:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(usage, critical=True).add_extension(authority, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _alternatives(names: Sequence[str]) -> frozenset[str]:
    return frozenset(str(_alternative(name).value) for name in names)


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    return frozenset(str(one.value) for one in found)


def _usage(*allowed: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: each in allowed for each in every})


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: _Private) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

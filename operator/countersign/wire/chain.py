"""``Countersign-Chain``: certificates in a header, and whether they lead from a root to an agent's key (wire.md 3.2).

Path validation is our own because each refusal has its code and the profile is small: one to three certificates, names of
one form, no constraints but path length. What a certificate demands and this file does not know makes it refused.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from countersign.errors import Denied
from countersign.wire.encoding import b64, unb64

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SPIFFE_ID",
    "chain_header",
    "check_key",
    "check_name",
    "check_times",
    "check_usage",
    "find_path",
    "is_valid_at",
    "life_of",
    "parse_chain",
    "trust_domain_of",
    "uri_names",
]

SPIFFE_ID: Final = re.compile(
    r"spiffe://(?P<domain>[a-z0-9._-]{1,255})"
    r"/ns/(?P<namespace>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
    r"/sa/(?P<account>[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)"
)
"""An agent's name (wire.md 1.3)."""

MAX_HEADER: Final = 8192
MAX_CHAIN: Final = 3
_HEADER: Final = re.compile(r":[A-Za-z0-9+/=]+:(?:, :[A-Za-z0-9+/=]+:)*")
_KNOWN: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
_CONSTRAINING: Final = frozenset(
    {ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.POLICY_CONSTRAINTS, ExtensionOID.INHIBIT_ANY_POLICY}
)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MIN_RSA_BITS: Final = 2048


def chain_header(certificates: Sequence[x509.Certificate]) -> str:
    """Return the value of ``Countersign-Chain``; ``certificates`` begin with the leaf and leave the root out.

    Raises ValueError for a chain that no verifier takes.
    """
    value = ", ".join(f":{b64(one.public_bytes(Encoding.DER))}:" for one in certificates)
    if not 1 <= len(certificates) <= MAX_CHAIN or len(value) > MAX_HEADER:
        msg = f"a chain has 1 to {MAX_CHAIN} certificates and {MAX_HEADER} characters"
        raise ValueError(msg)
    return value


def parse_chain(value: str) -> tuple[x509.Certificate, ...]:
    """Read ``Countersign-Chain``. Raises Denied ``cert.format``."""
    if len(value) > MAX_HEADER or not _HEADER.fullmatch(value):
        raise Denied("cert.format", f"certificates as byte sequences, at most {MAX_HEADER} characters")
    parts = value.split(", ")
    if len(parts) > MAX_CHAIN:
        raise Denied("cert.format", f"at most {MAX_CHAIN} certificates")
    try:
        return tuple(_load(unb64(part[1:-1])) for part in parts)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise Denied("cert.format", "a certificate cannot be read") from error


def _load(der: bytes) -> x509.Certificate:
    """Load a certificate whole: names, key and extensions are parsed only when asked for, so ask."""
    certificate = x509.load_der_x509_certificate(der)
    _ = certificate.public_key(), certificate.subject, certificate.issuer, certificate.extensions
    if certificate.public_bytes(Encoding.DER) != der or certificate.serial_number <= 0:
        msg = "not the bytes that were read, or a serial number that RFC 5280 does not allow"
        raise ValueError(msg)
    return certificate


def uri_names(leaf: x509.Certificate) -> list[str]:
    """Return the URI names of a certificate."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def trust_domain_of(leaf: x509.Certificate) -> str:
    """Return the trust domain that a leaf claims, to find the roots it must lead to; empty if it claims none."""
    match = next(filter(None, (SPIFFE_ID.fullmatch(name) for name in uri_names(leaf))), None)
    return match["domain"] if match else ""


def find_path(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return ``chain`` with the root that it leads to.

    Raises Denied ``cert.chain``: an issuer that did not sign, is no CA or may not sign this deep; a leaf that is a CA; a
    constraint that is not understood; no root at the end. Which roots may still be used is the caller's to say.
    """
    for certificate in chain:
        _check_understood(certificate)
    if _is_ca(chain[0]):
        raise Denied("cert.chain", "the leaf is a CA")
    for depth, (child, parent) in enumerate(pairwise(chain)):
        if not _issued(child, parent, depth):
            raise Denied("cert.chain", "a certificate is not issued by the one after it")
    top = chain[-1]
    if len(chain) > 1 and top in roots:
        return tuple(chain)
    for root in roots:
        if _issued(top, root, len(chain) - 1):
            _check_understood(root)
            return (*chain, root)
    raise Denied("cert.chain", "the chain does not lead to a root of its trust domain")


def is_valid_at(certificate: x509.Certificate, *, now: int, skew: int) -> bool:
    """Tell whether a certificate has begun and not ended; times in seconds since 1970."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin.timestamp() <= now + skew and now < end.timestamp()


def life_of(chain: Sequence[x509.Certificate]) -> tuple[float, float]:
    """Return from when and until when every certificate of ``chain`` is valid, in seconds since 1970."""
    begins = max(one.not_valid_before_utc.timestamp() for one in chain)
    return begins, min(one.not_valid_after_utc.timestamp() for one in chain)


def check_times(chain: Sequence[x509.Certificate], *, now: int, skew: int) -> None:
    """Raise Denied ``cert.expired`` unless every certificate of ``chain`` is valid now."""
    if not all(is_valid_at(one, now=now, skew=skew) for one in chain):
        raise Denied("cert.expired", "a certificate is not valid now")


def check_usage(leaf: x509.Certificate) -> None:
    """Raise Denied ``cert.usage`` unless the leaf's key may sign, for a client, and no certificates."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise Denied("cert.usage", "the leaf does not say what its key is for") from error
    if not usage.digital_signature or usage.key_cert_sign or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise Denied("cert.usage", "the leaf's key is not for a client's signatures")


def check_name(leaf: x509.Certificate) -> str:
    """Return the leaf's SPIFFE ID. Raises Denied ``cert.name`` unless it has one URI name, of our form."""
    names = uri_names(leaf)
    if len(names) != 1 or not SPIFFE_ID.fullmatch(names[0]):
        raise Denied("cert.name", "the leaf has exactly one URI name, an agent's SPIFFE ID")
    return names[0]


def check_key(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return the leaf's key. Raises Denied ``cert.key`` unless it is P-256."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Denied("cert.key", "the leaf's key is P-256")
    return key


def _check_understood(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.oid in _CONSTRAINING or (extension.critical and extension.oid not in _KNOWN):
            raise Denied("cert.chain", "a certificate has a constraint that is not understood")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _issued(child: x509.Certificate, parent: x509.Certificate, below: int) -> bool:
    """Tell whether ``parent`` may and did sign ``child``; ``below`` CA certificates stand between it and the leaf."""
    try:
        if not _may_sign(parent, below) or not isinstance(child.signature_hash_algorithm, _HASHES):
            return False
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _may_sign(parent: x509.Certificate, below: int) -> bool:
    try:
        constraints = parent.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = parent.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    if not constraints.ca or not usage.key_cert_sign:
        return False
    if constraints.path_length is not None and below > constraints.path_length:
        return False
    key = parent.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)

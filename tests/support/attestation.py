"""Builds attestation statements, good ones and ones wrong in exactly one way, from software keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from countersign.attest import build_statement
from countersign.attest.algorithms import Alg, Structure
from countersign.attest.evidence import MAGIC
from countersign.attest.public import TpmtPublic
from countersign.attest.software import KEY_ATTRIBUTES, attest_bytes, public_area, sign_attest

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
IDENTIFIER = "prod-eu.billing.refund-agent-7f9c4"
KEY_AUTHORIZATION = "xY2IzD8waEThaFUIb4V1AsFq4HziSdRv.vRuaP5zaEyj6Ic8kqVqLELj2SYsJ4NB7AdbjTrevXeQ"
PERMANENT_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3")
NOBODY = x509.Name([])
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
AIK = x509.ObjectIdentifier("2.23.133.8.3")


@asn1.sequence
class _Identifier:
    value: str


@asn1.sequence
class _AssignedIdentifier:
    value: str
    assigner: x509.ObjectIdentifier


def permanent_identifier(value: str, assigner: str | None = None) -> x509.OtherName:
    if assigner is None:
        return x509.OtherName(PERMANENT_IDENTIFIER, asn1.encode_der(_Identifier(value=value)))
    body = _AssignedIdentifier(value=value, assigner=x509.ObjectIdentifier(assigner))
    return x509.OtherName(PERMANENT_IDENTIFIER, asn1.encode_der(body))


def tpm_name(*, manufacturer: str = "id:49424D00", model: str = "swtpm", version: str = "id:20191023") -> x509.Name:
    named = {"2.23.133.2.1": manufacturer, "2.23.133.2.2": model, "2.23.133.2.3": version}
    return x509.Name([x509.NameAttribute(x509.ObjectIdentifier(o), v) for o, v in named.items() if v])


def make_ca(name: str, *, days: int = 30) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A self-signed P-256 CA, valid around NOW and now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key, days=days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256()), key


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, *, days: int = 30) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=days))
        .not_valid_after(NOW + timedelta(days=days))
    )


def usage(**which: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return x509.KeyUsage(**{n: which.get(n, False) for n in [*names.split(), "encipher_only", "decipher_only"]})


@dataclass(frozen=True)
class Lab:
    """An AK root, an AK and an instance key; every member may be replaced to make a statement wrong."""

    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    ak_key: Any
    key: Any
    identifiers: tuple[x509.OtherName, ...] = (permanent_identifier(IDENTIFIER),)
    subject: x509.Name = NOBODY
    constraints: x509.BasicConstraints | None = NO_CA
    usages: tuple[x509.ObjectIdentifier, ...] = (AIK,)
    raw_usages: bytes = b""
    key_usage: x509.KeyUsage | None = field(default_factory=lambda: usage(digital_signature=True))
    tpm: x509.Name = field(default_factory=tpm_name)
    public: bytes = b""
    magic: int = MAGIC
    kind: int = Structure.CERTIFY
    name: bytes = b""
    extra_data: bytes = hashlib.sha256(KEY_AUTHORIZATION.encode()).digest()
    attest: bytes = b""
    signature: bytes = b""
    alg: int = -7

    @classmethod
    def make(cls) -> Lab:
        root, root_key = make_ca("Test AK Root")
        return cls(root, root_key, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))

    def but(self, **changes: Any) -> Lab:
        return replace(self, **changes)

    def certificate(self) -> bytes:
        builder = _builder(self.subject, self.root.subject, self.ak_key)
        names: list[x509.GeneralName] = [*self.identifiers]
        if list(self.tpm):
            names.insert(0, x509.DirectoryName(self.tpm))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        if self.constraints:
            builder = builder.add_extension(self.constraints, critical=True)
        if self.raw_usages:
            raw = x509.UnrecognizedExtension(x509.oid.ExtensionOID.EXTENDED_KEY_USAGE, self.raw_usages)
            builder = builder.add_extension(raw, critical=False)
        elif self.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.usages), critical=False)
        if self.key_usage:
            builder = builder.add_extension(self.key_usage, critical=True)
        return builder.sign(self.root_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def public_area(self) -> bytes:
        return self.public or public_area(self.key.public_key(), KEY_ATTRIBUTES, Alg.NULL)

    def cert_info(self) -> bytes:
        if self.attest:
            return self.attest
        name = self.name or TpmtPublic.parse(self.public_area()).name
        return attest_bytes(self.kind, name, name, extra_data=self.extra_data, magic=self.magic)

    def parts(self) -> tuple[list[bytes], bytes, bytes, bytes, int]:
        attest = self.cert_info()
        signature = self.signature or sign_attest(self.ak_key, attest)
        return [self.certificate()], attest, self.public_area(), signature, self.alg

    def statement(self) -> bytes:
        return build_statement(*self.parts())

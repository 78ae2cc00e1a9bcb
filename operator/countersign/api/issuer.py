"""IdentityIssuer: a trust domain and the CA that signs in it (crds.md 3.1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Digest, Exposure, NameReference, Pem, Status, Time, Url
from countersign.api.shape import Rule, Shape, immutable

__all__ = ["IdentityIssuer", "IdentityIssuerSpec", "IdentityIssuerStatus"]


class EmbeddedIssuer(Shape):
    """Countersign signs itself."""

    filled = True

    ca_secret_ref: NameReference | None = None
    """A kubernetes.io/tls Secret in Countersign's own namespace; left out: Countersign makes and keeps one."""


class AcmeIssuer(Shape):
    """A CA that offers the ACME challenge device-attest-01 for permanent identifiers signs."""

    directory_url: Annotated[Url, Field(alias="directoryURL")]
    """URL of the CA's ACME directory."""
    ca_bundle: Pem | None = None
    """Roots for that connection; left out: the system's."""
    trust_bundle: Pem | None = None
    """Roots that the CA's certificates chain to, published as status.trustBundle; left out: caBundle."""
    external_account_ref: NameReference | None = None
    """A Secret with kid and hmac in Countersign's own namespace."""


class IdentityIssuerSpec(Shape):
    """Who signs, in which trust domain."""

    cel = (
        *immutable("trustDomain", "type"),
        Rule("(self.type == 'ACME') == has(self.acme)", "acme is required when type is ACME and forbidden otherwise"),
        Rule("self.type == 'Embedded' || !has(self.embedded)", "embedded is forbidden unless type is Embedded"),
    )

    trust_domain: Annotated[str, Field(max_length=255, pattern=r"^[a-z0-9._-]+$")]
    """SPIFFE trust domain. Immutable."""
    type: Literal["Embedded", "ACME"]
    """Who signs: Countersign itself, or a CA that is asked by ACME. Immutable."""
    embedded: EmbeddedIssuer | None = None
    """With type: Embedded, and optional there."""
    acme: AcmeIssuer | None = None
    """With type: ACME."""
    expose_to: Exposure | None = None
    """Namespaces whose AgentIdentities may use this issuer; left out: all."""
    life_seconds: Annotated[int, Field(ge=300, le=86400)] = 14400
    """Longest life of a certificate."""


class IdentityIssuerStatus(Status):
    """What Countersign observed of the CA. Condition: Ready."""

    trust_bundle: Annotated[str, Field(max_length=256 * 1024)] | None = None
    """Roots that the certificates chain to, as PEM."""
    trust_bundle_sha256: Annotated[Digest | None, Field(alias="trustBundleSHA256")] = None
    """SHA-256 of trustBundle."""
    expiration_time: Time | None = None
    """When the CA ends."""


class IdentityIssuer(Kind):
    """A trust domain and the CA that signs in it.

    Written by the platform team. An AgentIdentity that names none uses the issuer called default.
    """

    names = Names("identityissuers", "csissuer", "Cluster")
    columns = (
        Column("Trust Domain", ".spec.trustDomain"),
        Column("Type", ".spec.type"),
        condition("Ready", "Ready"),
        Column("CA Expires", ".status.expirationTime"),
        condition("Reason", "Ready", "reason", wide=True),
        AGE,
    )

    spec: IdentityIssuerSpec
    """What is wanted."""
    status: IdentityIssuerStatus | None = None
    """What is observed."""

"""Which CA signs and which are believed: read from their Secrets, made where there is none, rotated when it is due.

A CA of ours gives way to the next one as ``kube.rotation`` says; one that people gave is theirs to replace, and what it
signed before goes on to be believed.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography.x509.oid import ExtendedKeyUsageOID

from countersign.authority.ca import OWNER, CaError, CertificateAuthority, made, new_secret, read_ca
from countersign.authority.issue import AK_LIFE, OID_AK
from countersign.kube import CONFIG_MAPS, SECRETS, Conflict, Kube, NotFound
from countersign.kube.rotation import (
    Members,
    Overlap,
    adopted,
    certificates_of,
    rotation_asked,
    succeeded,
    without_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

__all__ = ["attestation_ca", "attestation_overlap", "identity_ca", "identity_overlap", "identity_secret_name"]

_ATTESTATION: Final = "countersign-attestation-ca"
_LONGEST: Final = timedelta(days=1)
"""No identity certificate lives longer (crds.md 3.1)."""
_MARGIN: Final = timedelta(minutes=1)


def identity_overlap(ahead: timedelta) -> Overlap:
    """Return how the CAs of identities overlap: until every certificate of the former one has ended."""
    return Overlap(ahead, _LONGEST + _MARGIN)


def attestation_overlap(ahead: timedelta) -> Overlap:
    """Return how attestation CAs overlap: until every AK certificate of the former one has ended."""
    return Overlap(ahead, AK_LIFE + _MARGIN)


async def attestation_ca(
    kube: Kube, namespace: str, *, cluster: str, now: datetime, overlap: Overlap
) -> CertificateAuthority:
    """Return the attestation CA, made if it is not there yet, and rotated if that is due.

    :raises CaError: the Secret holds no usable CA.
    """

    def make() -> tuple[bytes, bytes]:
        return made(f"Countersign attestation CA {cluster}", [OID_AK], now)

    return await _kept(kube, namespace, _ATTESTATION, make, now, overlap, told=lambda _next: True)


def identity_secret_name(issuer: dict[str, Any]) -> str:
    """Return the name of the Secret that holds the CA of ``issuer``: the given one, or ours."""
    given = (issuer["spec"].get("embedded") or {}).get("caSecretRef")
    return str(given["name"]) if given else _own_name(issuer)


async def identity_ca(
    kube: Kube, namespace: str, issuer: dict[str, Any], now: datetime, overlap: Overlap
) -> CertificateAuthority:
    """Return the identity CA of an Embedded issuer; ours is made and rotated, a given one is only read.

    The next one signs only when the issuer's status, as ``issuer`` has it, names it.

    :raises CaError: ``SecretNotFound``, ``SecretInvalid`` or ``CAExpired``; of an issuer of another type
        ``DirectoryUnreachable``.
    """
    if issuer["spec"]["type"] != "Embedded":
        raise CaError("DirectoryUnreachable", "this version signs itself only; external CAs are not asked yet")
    name = identity_secret_name(issuer)
    if (issuer["spec"].get("embedded") or {}).get("caSecretRef"):
        try:
            secret = await kube.get(SECRETS, name, namespace)
        except NotFound as error:
            raise CaError("SecretNotFound", f"Secret {namespace}/{name} does not exist") from error
        return await _given(kube, namespace, issuer, read_ca(secret, now), now, overlap)

    def make() -> tuple[bytes, bytes]:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return made(f"Countersign identity CA {issuer['metadata']['name']}", usages, now)

    published = certificates_of(_published(issuer).encode())
    return await _kept(kube, namespace, name, make, now, overlap, told=lambda following: following in published)


async def _kept(
    kube: Kube,
    namespace: str,
    name: str,
    make: Callable[[], tuple[bytes, bytes]],
    now: datetime,
    overlap: Overlap,
    *,
    told: Callable[[x509.Certificate], bool],
) -> CertificateAuthority:
    """Return the CA of a Secret of ours at ``now``: made if there is none, rotated if that is due or asked for.

    Of two replicas one writes; the other finds a Conflict, and takes what is there.
    """
    try:
        secret = await kube.get(SECRETS, name, namespace)
    except NotFound:
        try:
            secret = await kube.create(SECRETS, new_secret(namespace, name, *make()))
        except Conflict:
            secret = await kube.get(SECRETS, name, namespace)
    ca, asked = read_ca(secret, now), rotation_asked(secret)
    if not (asked or _is_ours(secret)):
        return ca
    present = _members(secret)
    following = next(iter(certificates_of(present.get("next.crt", b""))), None)
    known = following is not None and told(following)
    members = succeeded(present, now, overlap, make, forced=asked, told=known)
    if members != present or asked:
        body = {**secret, "metadata": without_request(secret["metadata"]), "data": _encoded(members)}
        body["metadata"]["labels"] = {**(secret["metadata"].get("labels") or {}), **OWNER}
        try:
            secret = await kube.replace(SECRETS, body)
        except Conflict:
            secret = await kube.get(SECRETS, name, namespace)
    rotated = read_ca(secret, now)
    took_over = rotated.certificate != ca.certificate
    return replace(rotated, others=_others(rotated, _members(secret)), took_over=took_over)


async def _given(
    kube: Kube, namespace: str, issuer: dict[str, Any], ca: CertificateAuthority, now: datetime, overlap: Overlap
) -> CertificateAuthority:
    """Return a CA that its owner may replace at will, with those beside it that signed before.

    A ConfigMap of ours remembers them, for the certificates alone; before there is one, the issuer's status does.
    """
    name = _own_name(issuer)
    try:
        found: dict[str, Any] | None = await kube.get(CONFIG_MAPS, name, namespace)
    except NotFound:
        found = None
    data = {"ca.crt": _published(issuer)} if found is None else found.get("data") or {}
    present = {member: text.encode() for member, text in data.items()}
    members = adopted(present, ca.pem.encode(), now, overlap)
    took_over = found is not None and present.get("tls.crt") != members["tls.crt"]
    if found is None or members != present:
        text = {member: value.decode() for member, value in members.items()}
        meta = {"name": name, "namespace": namespace, "labels": OWNER}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": text}
        try:
            if found is None:
                await kube.create(CONFIG_MAPS, body)
            else:
                await kube.replace(CONFIG_MAPS, {**found, "data": text})
        except Conflict:
            took_over = False  # another replica wrote it, and tells it
    return replace(ca, others=_others(ca, members), took_over=took_over)


def _own_name(issuer: dict[str, Any]) -> str:
    return f"countersign-identity-ca-{issuer['metadata']['name']}"


def _published(issuer: dict[str, Any]) -> str:
    bundle = (issuer.get("status") or {}).get("trustBundle")
    return bundle if isinstance(bundle, str) else ""


def _is_ours(secret: dict[str, Any]) -> bool:
    return OWNER.items() <= (secret["metadata"].get("labels") or {}).items()


def _members(secret: dict[str, Any]) -> Members:
    return {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}


def _encoded(members: Members) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in members.items()}


def _others(ca: CertificateAuthority, members: Members) -> tuple[x509.Certificate, ...]:
    return tuple(one for one in certificates_of(members.get("ca.crt", b"")) if one != ca.certificate)

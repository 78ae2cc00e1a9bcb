"""What our ACME CA checks beyond RFC 8555 (enrolment.md section 3): three named sequences, one question a function.

The instance, its device and the AK on record are asked about at the challenge *and* at finalize, each time as they are now.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from countersign.acme import AcmeProblem, NewOrder, permanent_identifier
from countersign.attest import attestation_object, verify_csr, verify_statement
from countersign.authority.checks import refuse_unapproved
from countersign.authority.cluster import condition, is_going, is_live
from countersign.authority.exam import got
from countersign.errors import Denied, Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from countersign.authority.ca import CertificateAuthority
    from countersign.authority.cluster import Cluster
    from countersign.authority.store import OrderStore
    from countersign.authority.tables import AkRecord, OrderRecord

__all__ = ["CHALLENGE_STEPS", "FINALIZE_STEPS", "ORDER_STEPS", "OrderExam", "OrderStep"]

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
"""What a Kubernetes name of ours is made of: anything else is not even asked for."""


@dataclass
class OrderExam:
    """One ACME request about an order; each check reads what those before it found."""

    cluster: Cluster
    store: OrderStore
    ak_roots: Sequence[x509.Certificate]
    identity_cas: Callable[[str], CertificateAuthority | None]
    cluster_name: str
    issuer_name: str
    now: datetime
    wanted: NewOrder | None = None
    order: OrderRecord | None = None
    payload: dict[str, Any] | None = None
    key_authorization: str = ""
    csr: bytes = b""
    identifier: str = ""
    namespace: str = ""
    name: str = ""
    instance: dict[str, Any] | None = None
    identity: dict[str, Any] | None = None
    issuer: dict[str, Any] | None = None
    statement: bytes = b""
    spki: bytes = b""
    ak_serial: str = ""
    ak: AkRecord | None = None
    ca: CertificateAuthority | None = None
    public_key: ec.EllipticCurvePublicKey | None = None


OrderStep = Callable[[OrderExam], Awaitable[None]]


# newOrder


async def one_identifier(exam: OrderExam) -> None:
    """order: asks for exactly one permanent-identifier that follows the draft's grammar."""
    wanted = exam.wanted
    if wanted is None or len(wanted.identifiers) != 1:
        raise AcmeProblem("rejectedIdentifier", "an order names exactly one identifier")
    exam.identifier = permanent_identifier(wanted.identifiers[0])


async def no_validity_asked(exam: OrderExam) -> None:
    """order: leaves notBefore and notAfter to us; the zero time of the step CLI is no time."""
    if exam.wanted is not None and exam.wanted.names_times():
        raise AcmeProblem("malformed", "notBefore and notAfter are not for the client to choose")


async def identifier_of_this_cluster(exam: OrderExam) -> None:
    """order: the identifier is ``<cluster>.<namespace>.<name>`` of this cluster, octet for octet."""
    head, _, exam.name = exam.identifier.rpartition(".")
    cluster, _, exam.namespace = head.rpartition(".")
    if cluster != exam.cluster_name or not _LABEL.match(exam.namespace) or not _LABEL.match(exam.name):
        raise Denied("attest.instance_unknown", "the identifier is not of this cluster")


# the instance, as it is now


async def instance_known(exam: OrderExam) -> None:
    """instance: exists, and is the one that the order was made for."""
    exam.cluster.require_fresh()
    exam.instance = await exam.cluster.instance(got(exam.namespace or None), got(exam.name or None))
    if exam.instance is None or is_going(exam.instance):
        raise Denied("attest.instance_unknown", "no such AgentInstance")
    if exam.order is not None and exam.instance["metadata"]["uid"] != exam.order.instance_uid:
        raise Denied("attest.instance_unknown", "the AgentInstance is a later one of that name")


async def instance_active(exam: OrderExam) -> None:
    """instance: is Active."""
    if not is_live(got(exam.instance)):
        raise Denied("attest.instance_inactive", "the AgentInstance is revoked")


async def instance_of_this_issuer(exam: OrderExam) -> None:
    """instance: its agent exists and names this directory's issuer; any other is not told that it exists."""
    agent = got(exam.instance)["spec"]["agentRef"]
    exam.identity = exam.cluster.identity(exam.namespace, agent["name"])
    if exam.identity is None or exam.identity["metadata"]["uid"] != agent["uid"]:
        raise Denied("attest.instance_unknown", "the instance's AgentIdentity is gone")
    if (exam.identity["spec"].get("issuerRef") or {}).get("name", "default") != exam.issuer_name:
        raise Denied("attest.instance_unknown", "no such AgentInstance at this issuer")


async def device_still_approved(exam: OrderExam) -> None:
    """device: exists and is Approved now."""
    ref = got(exam.instance)["spec"]["deviceRef"]
    device = await exam.cluster.device(ref["name"])
    if device is None or is_going(device) or device["metadata"]["uid"] != ref["uid"]:
        raise Denied("attest.device_unknown", "the instance's Device is gone")
    refuse_unapproved(device)


# the statement


async def statement_present(exam: OrderExam) -> None:
    """statement: the payload brings an attestation object in base64url."""
    exam.statement = attestation_object(exam.payload or {})


async def statement_verified(exam: OrderExam) -> None:
    """statement: is good (a sequence of its own, ``attest.STATEMENT_STEPS``)."""
    order = got(exam.order)
    evidence = verify_statement(
        exam.statement,
        key_authorization=exam.key_authorization,
        identifier=order.identifier,
        ak_roots=exam.ak_roots,
        now=exam.now,
    )
    exam.spki, exam.ak_serial = evidence.spki, f"{evidence.ak_certificate.serial_number:x}"


# the attestation key, on record


async def ak_on_record(exam: OrderExam) -> None:
    """AK: our attestation CA issued its certificate and remembers it."""
    exam.ak = await exam.store.ak_certificate(exam.ak_serial)
    if exam.ak is None:
        raise Denied("attest.chain", "the AK certificate is not on record")


async def ak_unrevoked(exam: OrderExam) -> None:
    """AK: no later enrolment of the instance has taken its place."""
    if got(exam.ak).revoked is not None:
        raise Denied("attest.chain", "the AK certificate was revoked by a later enrolment")


async def ak_unexpired(exam: OrderExam) -> None:
    """AK: its certificate has not expired since."""
    if exam.now.timestamp() >= got(exam.ak).expires:
        raise Denied("attest.chain", "the AK certificate has expired")


async def ak_of_instance(exam: OrderExam) -> None:
    """AK: its certificate was made for this very instance."""
    if got(exam.ak).instance_uid != got(exam.order).instance_uid:
        raise Denied("attest.identifier_mismatch", "the AK certificate was made for another instance")


async def key_of_secret(exam: OrderExam) -> None:
    """key: is the one that ``/secret`` tied to the instance."""
    if not hmac.compare_digest(got(exam.ak).key_spki, exam.spki):
        raise Denied("attest.csr_key", "the certified key is not the one that was proven at /secret")


# finalize


async def csr_verified(exam: OrderExam) -> None:
    """csr: is the attested key's and names nothing (a sequence of its own, ``attest.CSR_STEPS``)."""
    csr = verify_csr(exam.csr, attested_spki=exam.spki, identifier=got(exam.order).identifier)
    key = csr.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Denied("attest.csr_key", "an instance key is P-256")
    exam.public_key = key


async def issuer_signs(exam: OrderExam) -> None:
    """issuer: is Ready, and its CA is here."""
    exam.issuer = exam.cluster.issuer(exam.issuer_name)
    exam.ca = exam.identity_cas(exam.issuer_name)
    ready = None if exam.issuer is None else condition(exam.issuer, "Ready")
    if exam.issuer is None or exam.ca is None or ready is None or ready.get("status") != "True":
        raise Unavailable("attest.issuer_not_ready", "the IdentityIssuer is not Ready", retry_after=5)


_INSTANCE: Final[tuple[OrderStep, ...]] = (instance_known, instance_active, instance_of_this_issuer)
_AK: Final[tuple[OrderStep, ...]] = (ak_on_record, ak_unrevoked, ak_unexpired, ak_of_instance, key_of_secret)

ORDER_STEPS: Final[tuple[OrderStep, ...]] = (one_identifier, no_validity_asked, identifier_of_this_cluster, *_INSTANCE)
"""newOrder."""

CHALLENGE_STEPS: Final[tuple[OrderStep, ...]] = (
    statement_present,
    *_INSTANCE,
    device_still_approved,
    statement_verified,
    *_AK,
)
"""The answer to device-attest-01."""

FINALIZE_STEPS: Final[tuple[OrderStep, ...]] = (*_INSTANCE, device_still_approved, *_AK, csr_verified, issuer_signs)
"""finalize: instance, device and AK again, then the CSR."""

"""The numbered checks of enrolment.md section 2, each one function, and the two sequences they form.

Every function asks one question and raises ``Denied`` or ``Invalid`` with the code of the table; it returns nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from countersign.attest import TpmtPublic, verify_ak, verify_ek, verify_key_proof
from countersign.authority.cluster import condition, is_going, is_live
from countersign.authority.exam import AttestRequest, Exam, SecretRequest, from_base64, got, read_request
from countersign.authority.trust import ASSURANCE, EkFacts, exposed_to, model_denied
from countersign.errors import Denied, Invalid, Unavailable
from countersign.kube.injection import injection_faults, select_identities
from countersign.kube.pods import has_ended
from countersign.wire import thumbprint

if TYPE_CHECKING:
    from countersign.authority.tables import AkRecord

__all__ = [
    "ATTEST_STEPS",
    "COMMIT_STEPS",
    "PENDING_STEPS",
    "SECRET_STEPS",
    "TOKEN_STEPS",
    "EnrolmentStep",
    "secret_digest",
]

EnrolmentStep = Callable[[Exam], Awaitable[None]]
_OPT_IN: Final = "countersign.dev/injection"
_ENABLED: Final = "enabled"


# 1: what came


async def attest_members(exam: Exam) -> None:
    """1: strict JSON with the members of ``/attest``, all of them base64."""
    request = read_request(AttestRequest, exam.body)
    for text in (request.ek, *request.ek_certs, *request.params.model_dump().values()):
        from_base64(text)
    exam.learn(request=request)


async def secret_members(exam: Exam) -> None:
    """1: strict JSON with the members of ``/secret``, all of them base64."""
    request = read_request(SecretRequest, exam.body)
    proof = {} if request.key is None else request.key.model_dump()
    for text in (request.secret, *proof.values()):
        from_base64(text)
    exam.learn(request=request)


# 2: who asks


async def bearer_present(exam: Exam) -> None:
    """2: there is a bearer token."""
    if not exam.bearer:
        raise Denied("attest.token_missing", "Authorization: Bearer with a ServiceAccount token is wanted")


async def token_authenticated(exam: Exam) -> None:
    """2: the API server knows the token, and it was made for our audience."""
    review = await exam.cluster.review(exam.bearer or "")
    exam.learn(review=review)
    if not review.authenticated:
        raise Denied("attest.token_invalid", "the API server does not accept the token for this audience")


# 3: which pod


async def token_bound_to_pod(exam: Exam) -> None:
    """3: the token is bound to a pod."""
    review = exam.review
    if not (review.pod_name and review.pod_uid and review.namespace):
        raise Denied("attest.token_unbound", "the token is not bound to a pod")


async def pod_patient(exam: Exam) -> None:
    """3: neither the pod nor its node asks too often."""
    exam.askers.pod(exam.review)


async def pod_exists(exam: Exam) -> None:
    """3: the pod exists now and is not being deleted."""
    review = exam.review
    exam.cluster.require_fresh()
    pod = await exam.cluster.pod(got(review.namespace), got(review.pod_name))
    exam.learn(pod=pod)
    if pod is None or is_going(pod):
        raise Denied("attest.pod_gone", f"pod {review.namespace}/{review.pod_name} is gone or going")


async def pod_not_ended(exam: Exam) -> None:
    """3: something runs in it: the token of a Job's pod is good for as long as the pod is kept, also when it is done."""
    if has_ended(exam.pod):
        raise Denied("attest.pod_gone", f"pod {exam.review.namespace}/{exam.review.pod_name} has ended")


async def pod_has_uid(exam: Exam) -> None:
    """3: it is the pod that the token was made for, not a later one of its name."""
    if exam.pod["metadata"]["uid"] != exam.review.pod_uid:
        raise Denied("attest.pod_mismatch", "a later pod has that name now")


async def pod_on_node_of_token(exam: Exam) -> None:
    """3: the token was made on the node where the pod runs."""
    node = exam.pod["spec"].get("nodeName")
    if not node or exam.review.node_name != node:
        raise Denied("attest.pod_mismatch", f"the token is of node {exam.review.node_name}, the pod runs on {node}")


# 4: which agent


async def namespace_of_agents(exam: Exam) -> None:
    """4: the pod is not one of Countersign's own; ``kube-system`` is never selected either (crds.md 4.1)."""
    if _namespace(exam) == exam.own_namespace:
        raise Denied("attest.identity_none", "pods of Countersign's own namespace are no agents")


async def identity_exists(exam: Exam) -> None:
    """4: an AgentIdentity selects the pod."""
    asked = {_OPT_IN: _ENABLED}  # whether the namespace opted in is a later question, with a code of its own
    exam.identities = select_identities(exam.pod, exam.cluster.identities(_namespace(exam)), asked)
    if not exam.identities:
        raise Denied("attest.identity_none", "no AgentIdentity selects this pod")


async def identity_unique(exam: Exam) -> None:
    """4: no other AgentIdentity selects it too."""
    if len(exam.identities) > 1:
        names = ", ".join(sorted(found["metadata"]["name"] for found in exam.identities))
        raise Denied("attest.identity_overlap", f"{names} all select this pod")


async def issuer_exposed(exam: Exam) -> None:
    """4: the identity's issuer exists, is ours to sign for, and may be used from this namespace."""
    name = (exam.identity["spec"].get("issuerRef") or {}).get("name", "default")
    issuer = exam.cluster.issuer(name)
    exam.learn(issuer=issuer)
    if issuer is None or not exposed_to(issuer, exam.cluster.namespace(_namespace(exam))):
        raise Denied(
            "attest.issuer_not_ready", f"IdentityIssuer {name} does not exist or is not exposed to this namespace"
        )
    if issuer["spec"]["type"] != "Embedded":
        raise Denied("attest.issuer_not_ready", f"IdentityIssuer {name} is of type {issuer['spec']['type']}")


async def issuer_ready(exam: Exam) -> None:
    """4: the issuer is Ready."""
    ready = condition(exam.issuer, "Ready")
    if ready is None or ready.get("status") != "True":
        reason = "Unknown" if ready is None else ready.get("reason")
        raise Unavailable("attest.issuer_not_ready", f"IdentityIssuer is not Ready: {reason}", retry_after=5)


async def pod_injected(exam: Exam) -> None:
    """4: the namespace opted in, and the pod is what injection makes of it, unless the identity brings its own signer."""
    if (exam.identity["spec"].get("signer") or {}).get("injection", "Sidecar") == "None":
        return
    if _labels(exam).get(_OPT_IN) != _ENABLED:
        raise Denied("attest.not_injected", "the namespace is not opted in")
    if faults := injection_faults(exam.pod, exam.identity, exam.injection):
        raise Denied("attest.not_injected", "; ".join(faults)[:512])


# 5 and 6: which device


async def endorsed(exam: Exam) -> None:
    """5: the endorsement key is certified under exactly one pool (a sequence of its own, ``attest.EK_STEPS``)."""
    request = exam.attest_request
    ek = verify_ek(
        from_base64(request.ek), [from_base64(der) for der in request.ek_certs], exam.cluster.roots(), exam.now
    )
    exam.verified_ek = ek
    exam.learn(ek=EkFacts(ek.sha256, ek.pool, ek.manufacturer, ek.model, ek.firmware))


async def device_known(exam: Exam) -> None:
    """6: exactly one Device has this endorsement key."""
    exam.devices = exam.cluster.devices_by_ek(exam.ek.sha256)
    if not exam.devices:
        raise Denied("attest.device_unknown", f"no Device has the endorsement key {exam.ek.sha256}")
    if len(exam.devices) > 1:
        names = ", ".join(sorted(found["metadata"]["name"] for found in exam.devices))
        raise Denied("attest.device_unknown", f"Devices {names} claim the same endorsement key")


async def device_approved(exam: Exam) -> None:
    """6: people approved the Device."""
    refuse_unapproved(exam.device)


async def device_bound_to_node(exam: Exam) -> None:
    """6: the Device belongs to the token's node."""
    binding = exam.device["spec"]["binding"]
    if binding["type"] != "Node":
        raise Denied("attest.user_mismatch", "the Device is bound to users, not to a node")
    if binding["node"]["name"] != exam.review.node_name:
        raise Denied("attest.node_mismatch", f"the Device belongs to node {binding['node']['name']}")


async def pool_admitted(exam: Exam) -> None:
    """6: the pool that vouches for the TPM is the Device's, and the identity admits it."""
    name = exam.device["spec"]["poolRef"]["name"]
    if exam.ek.pool != name or exam.pool is None:
        raise Denied(
            "attest.pool_not_admitted", f"the Device is of pool {name}, its certificate of pool {exam.ek.pool}"
        )
    refs = exam.identity["spec"].get("devicePoolRefs")
    if refs is not None and name not in {ref["name"] for ref in refs}:
        raise Denied("attest.pool_not_admitted", f"the AgentIdentity does not admit pool {name}")


async def assurance_enough(exam: Exam) -> None:
    """6: the pool's assurance is at least the identity's."""
    has = (exam.pool or {"spec": {}})["spec"].get("assurance", ASSURANCE[0])
    wants = exam.identity["spec"].get("minAssurance", ASSURANCE[-1])
    if ASSURANCE.index(has) < ASSURANCE.index(wants):
        raise Denied("attest.assurance_too_low", f"the pool's assurance is {has}, the AgentIdentity wants {wants}")


async def model_allowed(exam: Exam) -> None:
    """6: the pool does not deny this model and firmware."""
    ek, pool = exam.ek, exam.pool
    if pool is not None and model_denied(pool, ek.manufacturer, ek.model, ek.firmware):
        raise Denied("attest.model_denied", f"pool {ek.pool} denies {ek.manufacturer} {ek.model} {ek.firmware}")


async def registers_not_judged(exam: Exam) -> None:
    """6: the pool names no PCRs; until quotes are read, such a pool admits nobody (enrolment.md section 4)."""
    if exam.pool is not None and (exam.pool["spec"].get("attestation") or {}).get("pcrs"):
        raise Denied("attest.quote_missing", f"pool {exam.ek.pool} judges PCRs")


# 7: which attestation key


async def ak_proven(exam: Exam) -> None:
    """7: the AK was made in a TPM, with the right attributes, and signed its own creation (``attest.AK_STEPS``)."""
    request = exam.attest_request.params
    members = (request.public, request.create_data, request.create_attestation, request.create_signature)
    exam.learn(ak=verify_ak(*(from_base64(member) for member in members)))


async def ak_unused(exam: Exam) -> None:
    """7: no other live instance has this AK."""
    if await _belongs_to_another(exam, await exam.store.ak_certificates_of(ak_name=exam.ak_name)):
        raise Denied("attest.ak_reused", "another live instance has this AK")


# /secret: the answer to the challenge, and the instance key


async def secret_beside_key(exam: Exam) -> None:
    """secret: a key came with it; only a node's enrolment has none (1 of the table, asked when it is known who asks)."""
    if exam.secret_request.key is None:
        raise Invalid("attest.request", "member key is missing or of another type")


async def secret_known(exam: Exam) -> None:
    """secret: this authority handed it out."""
    pending = await exam.store.secret(secret_digest(from_base64(exam.secret_request.secret)))
    if pending is None:
        raise Denied("attest.secret_invalid", "no such secret is pending")
    exam.learn(
        pending=pending,
        ek=EkFacts(pending.ek_sha256, pending.pool, pending.manufacturer, pending.model, pending.firmware),
    )


async def secret_unexpired(exam: Exam) -> None:
    """secret: less than its life ago."""
    if exam.now.timestamp() >= exam.pending.expires:
        raise Denied("attest.secret_invalid", "the secret has expired")


async def secret_of_this_pod(exam: Exam) -> None:
    """secret: to this very pod."""
    if exam.pending.pod_uid != exam.pod_uid:
        raise Denied("attest.secret_invalid", "the secret was made for another pod")


async def secret_unused(exam: Exam) -> None:
    """secret: used for the first time; from here on it is used."""
    if not await exam.store.use_secret(exam.pending.digest):
        raise Denied("attest.secret_invalid", "the secret was used before")


async def key_proven(exam: Exam) -> None:
    """key: certified by the AK over this secret (``attest.KEY_STEPS``)."""
    ak = TpmtPublic.parse(exam.pending.ak_public).public_key()
    proof = got(exam.secret_request.key)
    secret = from_base64(exam.secret_request.secret)
    public, attest, signature = (from_base64(member) for member in (proof.public, proof.attest, proof.signature))
    exam.learn(key=verify_key_proof(ak, public, attest, signature, secret))


async def key_unused(exam: Exam) -> None:
    """key: no other live instance has it."""
    if await _belongs_to_another(exam, await exam.store.ak_certificates_of(key_jkt=thumbprint(exam.key))):
        raise Denied("attest.key_reused", "another live instance has this key")


TOKEN_STEPS: Final[tuple[EnrolmentStep, ...]] = (
    bearer_present,
    token_authenticated,
    token_bound_to_pod,
    pod_patient,
    pod_exists,
    pod_not_ended,
    pod_has_uid,
    pod_on_node_of_token,
)
PENDING_STEPS: Final[tuple[EnrolmentStep, ...]] = (
    secret_known,
    secret_unexpired,
    secret_of_this_pod,
    secret_unused,
)
_AGENT: Final[tuple[EnrolmentStep, ...]] = (
    namespace_of_agents,
    identity_exists,
    identity_unique,
    issuer_exposed,
    issuer_ready,
    pod_injected,
)
_DEVICE: Final[tuple[EnrolmentStep, ...]] = (
    device_known,
    device_approved,
    device_bound_to_node,
    pool_admitted,
    assurance_enough,
    model_allowed,
    registers_not_judged,
)

ATTEST_STEPS: Final[tuple[EnrolmentStep, ...]] = (
    attest_members,
    *TOKEN_STEPS,
    *_AGENT,
    endorsed,
    *_DEVICE,
    ak_proven,
    ak_unused,
)
"""``/attest``: checks 1 to 7 of the table, in its order."""

SECRET_STEPS: Final[tuple[EnrolmentStep, ...]] = (
    secret_members,
    *TOKEN_STEPS,
    secret_beside_key,
    *PENDING_STEPS,
    key_proven,
    key_unused,
    *_AGENT,
    *_DEVICE,
)
"""``/secret``: 2 and 3 again, the secret, the key, 4 and 6 again."""

COMMIT_STEPS: Final[tuple[EnrolmentStep, ...]] = (ak_unused, key_unused)
"""Asked once more with the desk to oneself, so that two enrolments cannot both find a key unused."""


def secret_digest(secret: bytes) -> str:
    """Return what the store keeps of a secret."""
    return f"sha256:{hashlib.sha256(secret).hexdigest()}"


def refuse_unapproved(device: dict[str, Any]) -> None:
    """Refuse a Device that is not Approved.

    :raises Denied: ``attest.device_pending`` or ``attest.device_denied``.
    """
    state = device["spec"].get("state", "Pending")
    if state == "Pending":
        raise Denied("attest.device_pending", f"Device {device['metadata']['name']} waits for approval")
    if state != "Approved":
        raise Denied("attest.device_denied", f"Device {device['metadata']['name']} is {state}")


def _namespace(exam: Exam) -> str:
    return str(exam.pod["metadata"]["namespace"])


def _labels(exam: Exam) -> dict[str, str]:
    return exam.cluster.namespace(_namespace(exam))["metadata"].get("labels") or {}


async def _belongs_to_another(exam: Exam, records: Sequence[AkRecord]) -> bool:
    """Tell whether one of the records is of another pod's instance that still exists and is Active."""
    for record in records:
        if record.pod_uid == exam.pod_uid:
            continue
        found = await exam.cluster.instance(record.namespace, record.instance)
        if found is not None and found["metadata"]["uid"] == record.instance_uid and is_live(found):
            return True
    return False

"""AgentIdentity: which pods are which agent, and whether they can be (crds.md 3.4). Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.controller.indexes import account_of, counts, is_injected
from countersign.controller.plan import Fact, Notice, Plan, conditions, is_going, is_true, listed, news
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
)
from countersign.kube.injection import InjectionSettings, hindrances, select_identities
from countersign.policy import exposes

if TYPE_CHECKING:
    from countersign.controller.view import View

__all__ = [
    "NO_SIGNER",
    "OPT_IN",
    "issuer_of",
    "plan_identity",
    "plan_pod",
    "selecting",
    "wants_signer",
]

OPT_IN: Final = ("countersign.dev/injection", "enabled")
NO_SIGNER: Final = InjectionSettings(image="", version="")
"""What is known of the signer where nothing was told: no pod has this version, so no image is judged by it."""

_WARNED: Final = ("Overlap", "NotInjected")
# A pod is spoken of while it is new: a restarted operator does not repeat what it said of every pod there is.
_NEW_SECONDS: Final = 60


def plan_identity(identity: dict[str, Any], view: View, now: datetime, signer: InjectionSettings = NO_SIGNER) -> Plan:
    """Return status and Events of one AgentIdentity."""
    meta = identity["metadata"]
    issuer, fault = issuer_of(identity, view)
    fact = (
        fault
        or _account(identity, view)
        or _pods(identity, view, signer)
        or ("True", "Ready", "pods can be this agent")
    )
    facts = {"Ready": fact}
    status: dict[str, Any] = {
        "observedGeneration": meta.get("generation", 0),
        "instances": view.count(AGENT_INSTANCES, "agent", meta["uid"]),
        "readyInstances": view.count(AGENT_INSTANCES, "ready", meta["uid"]),
        "conditions": conditions(identity, facts, now),
    }
    if issuer is not None:
        domain, account = issuer["spec"]["trustDomain"], identity["spec"]["serviceAccountName"]
        status["spiffeID"] = f"spiffe://{domain}/ns/{meta['namespace']}/sa/{account}"
    return Plan(status, tuple(news(identity, facts, (), _WARNED)))


def issuer_of(identity: dict[str, Any], view: View) -> tuple[dict[str, Any] | None, Fact | None]:
    """Return the issuer that an AgentIdentity may use, and what is wrong with it; no issuer, no SPIFFE ID."""
    name = (identity["spec"].get("issuerRef") or {}).get("name", "default")
    namespace = identity["metadata"]["namespace"]
    issuer = view.get(IDENTITY_ISSUERS, name)
    if issuer is None or is_going(issuer):
        return None, ("False", "IssuerNotFound", f"IdentityIssuer {name} does not exist")
    expose = issuer["spec"].get("exposeTo")
    if expose is not None and not exposes(expose, own=False, labels=_labels(view, namespace)):
        return None, ("False", "IssuerNotFound", f"IdentityIssuer {name} is not exposed to namespace {namespace}")
    domain = issuer["spec"]["trustDomain"]
    owner = min(view.by(IDENTITY_ISSUERS, "domain", domain), key=_age)
    if owner["metadata"]["uid"] != issuer["metadata"]["uid"]:
        message = f"trust domain {domain} of IdentityIssuer {name} belongs to the older {owner['metadata']['name']}"
        return None, ("False", "IssuerNotReady", message)
    if not is_true(issuer, "Ready"):
        return issuer, ("False", "IssuerNotReady", f"IdentityIssuer {name} is not Ready")
    return issuer, None


def plan_pod(pod: dict[str, Any], view: View, now: datetime, signer: InjectionSettings = NO_SIGNER) -> Plan:
    """Return the Events of a pod that is new: injected or not, for the pod and for its identity."""
    meta = pod["metadata"]
    if (now - datetime.fromisoformat(meta["creationTimestamp"])).total_seconds() > _NEW_SECONDS or not counts(pod):
        return Plan()
    found, uid = selecting(pod, view), meta["uid"]
    if len(found) > 1:
        names = listed(one["metadata"]["name"] for one in found)
        return Plan(notices=(Notice(pod, "Warning", "Overlap", f"AgentIdentities {names} select this pod", uid),))
    if not found or not wants_signer(found[0]):
        return Plan()
    own = meta["name"], found[0]["metadata"]["name"]
    if is_injected(pod):
        of_pod = Notice(pod, "Normal", "Injected", f"signer of AgentIdentity {own[1]}", uid)
        return Plan(notices=(of_pod, Notice(found[0], "Normal", "Injected", f"signer in pod {own[0]}", uid)))
    note = f"AgentIdentity {own[1]} selects this pod, which has no signer: {_why(pod, found[0], view, signer)}"
    return Plan(notices=(Notice(pod, "Warning", "NotInjected", note, uid),))


def wants_signer(identity: dict[str, Any]) -> bool:
    """Tell whether pods of an AgentIdentity get the signer from us."""
    return bool((identity["spec"].get("signer") or {}).get("injection", "Sidecar") == "Sidecar")


def _account(identity: dict[str, Any], view: View) -> Fact | None:
    name, namespace = identity["spec"]["serviceAccountName"], identity["metadata"]["namespace"]
    account = view.get(SERVICE_ACCOUNTS, name, namespace)
    if account is None or is_going(account):
        return "False", "ServiceAccountNotFound", f"ServiceAccount {name} does not exist in namespace {namespace}"
    return None


def _pods(identity: dict[str, Any], view: View, signer: InjectionSettings) -> Fact | None:
    """Look at the pods that the identity selects: another identity's too, or without a signer."""
    uid = identity["metadata"]["uid"]
    shared: list[str] = []
    bare: list[dict[str, Any]] = []
    # A pod that has its signer says nothing, unless another identity could mean it too.
    account = account_of(identity)
    alone = all(one["metadata"]["uid"] == uid for one in view.by(AGENT_IDENTITIES, "account", account))
    if alone and not wants_signer(identity):
        return None
    for pod in view.by(PODS, "bare" if alone else "account", account):
        if not counts(pod) or not selecting(pod, view, [identity]):
            continue
        found = selecting(pod, view)
        if len(found) > 1:
            others = listed(one["metadata"]["name"] for one in found if one["metadata"]["uid"] != uid)
            shared.append(f"{pod['metadata']['name']} ({others})")
        elif wants_signer(identity) and not is_injected(pod):
            bare.append(pod)
    if shared:
        return (
            "False",
            "Overlap",
            f"other AgentIdentities select the same pods, which get no identity: {listed(shared)}",
        )
    if bare:
        reasons = listed(_why(pod, identity, view, signer) for pod in bare)
        names = listed(pod["metadata"]["name"] for pod in bare)
        return "False", "NotInjected", f"pods without a signer: {names}; {reasons}"
    return None


def selecting(pod: dict[str, Any], view: View, among: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return the identities (of ``among``, or all) that mean this pod, whether or not its namespace has opted in."""
    opted_in = {**(_labels(view, pod["metadata"]["namespace"]) or {}), OPT_IN[0]: OPT_IN[1]}
    every = view.by(AGENT_IDENTITIES, "account", account_of(pod)) if among is None else among
    return select_identities(pod, every, opted_in)


def _why(pod: dict[str, Any], identity: dict[str, Any], view: View, signer: InjectionSettings) -> str:
    """Return why a pod has no signer: what keeps one out of any pod like it, its namespace, or its age."""
    namespace = pod["metadata"]["namespace"]
    if found := hindrances(pod, identity, signer):
        return "; ".join(found)
    if (_labels(view, namespace) or {}).get(OPT_IN[0]) != OPT_IN[1]:
        return f"namespace {namespace} is not labelled {OPT_IN[0]}={OPT_IN[1]}"
    return "a pod made before its AgentIdentity must be made again"


def _labels(view: View, namespace: str) -> dict[str, str] | None:
    found = view.get(NAMESPACES, namespace)
    return None if found is None else dict(found["metadata"].get("labels") or {})


def _age(found: dict[str, Any]) -> tuple[str, str]:
    return found["metadata"].get("creationTimestamp") or "", found["metadata"]["name"]

"""Why is this pod an agent, or why not, and what to do next? From objects of one moment. Pure; ``why`` reads and prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.console.cluster import condition, is_true, moment, part
from countersign.console.output import age
from countersign.kube.injection import InjectionSettings, hindrances, select_identities
from countersign.kube.pods import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Diagnosis", "PodFacts", "diagnose", "hint"]

_SIGNER: Final = "countersign-signer"
_OPT_IN: Final = "countersign.dev/injection"
_OPT_OUT: Final = "countersign.dev/inject"
# Nothing is known here of the image that this release injects; no pod is judged by it.
_UNTOLD: Final = InjectionSettings(image="", version="")
_EVENTS: Final = 5
_HINTS: Final[dict[str, str]] = {
    "policy.default_deny": "no rule allows it: write one, and try it with countersign policy eval",
    "policy.denied": "a Deny rule matched, and no Allow lifts it: the call has to change, or the rule",
    "policy.undecided": "a rule could not be judged: look at the arguments, and at the condition of the rule",
    "approval": "a person has to approve this very call",
    "tool": "look at the ToolServer: kubectl get toolservers, its tools and their inputSchema",
    "environment.attestation_stale": "the TPM has not attested lately: look at the signer's log",
    "environment": "the agent, the server or the pool wants a better TPM or key tier",
    "device": "the Device is not approved: kubectl countersign device list",
    "instance": "the instance has ended or was revoked: a new pod gets a new one",
    "task": "the agent needs a task",
    "attest.device_unknown": "no Device has this TPM's key: kubectl countersign device list --pending",
    "attest.device_pending": "approve the Device: kubectl countersign device approve NAME",
    "attest.device_denied": "the Device is denied; move the pod, or approve the Device",
    "attest.node_mismatch": "the TPM belongs to another node's Device",
    "attest.not_injected": "make the pod again, so that it is injected as it is now",
    "attest": "see the signer's log: kubectl logs POD -c countersign-signer",
}


@dataclass(frozen=True)
class PodFacts:
    """What was read; None is what this person may not see."""

    pod: dict[str, Any]
    labels: dict[str, str] | None
    identities: list[dict[str, Any]] | None
    instances: list[dict[str, Any]] | None
    devices: list[dict[str, Any]] | None
    events: list[dict[str, Any]] | None
    now: datetime


@dataclass(frozen=True)
class Diagnosis:
    """The answer: ``well`` if the pod is an agent that may call; what is said of it; what a person can do."""

    well: bool
    lines: list[tuple[str, str]] = field(default_factory=list)
    next: list[str] = field(default_factory=list)


def diagnose(seen: PodFacts) -> Diagnosis:
    """Follow the way of an identity: selected, injected, attested, certified; and say where it ended."""
    lines, steps = [("pod", _pod(seen))], []
    well = False
    identity = None
    for word, text, step in _agent(seen):
        lines.append((word, text))
        steps += [step] if step else []
    if (found := _selected(seen)) is not None and len(found) == 1:
        identity = found[0]
        more, well = _running(seen, identity)
        for word, text, step in more:
            lines.append((word, text))
            steps += [step] if step else []
    denials = list(_denials(seen))
    lines += [("events" if place == 0 else "", text) for place, (text, _step) in enumerate(denials)]
    if not steps:  # what its own state asks for comes first: old refusals often follow from it
        steps = [step for _text, step in denials if step]
    return Diagnosis(well, lines, list(dict.fromkeys(steps)))


def hint(code: str) -> str:
    """Return what a person can do about a code; empty if nothing in general can be said."""
    return _HINTS.get(code) or _HINTS.get(code.partition(".")[0], "")


_Told = tuple[str, str, str]


def _pod(seen: PodFacts) -> str:
    meta = seen.pod["metadata"]
    phase = "being deleted" if meta.get("deletionTimestamp") else str(part(seen.pod, "status", "phase") or "new")
    node = part(seen.pod, "spec", "nodeName")
    return f"{meta['namespace']}/{meta['name']}: {phase}{f' on node {node}' if node else ''}"


def _selected(seen: PodFacts) -> list[dict[str, Any]] | None:
    """Return the identities that mean this pod, whether or not its namespace has opted in."""
    if seen.identities is None:
        return None
    return select_identities(seen.pod, seen.identities, {**(seen.labels or {}), _OPT_IN: "enabled"})


def _agent(seen: PodFacts) -> Iterator[_Told]:
    """Say which agent it is, and whether it has its signer."""
    found = _selected(seen)
    if found is None:
        yield "agent", "you may not list AgentIdentities here", ""
        return
    if not found:
        account = part(seen.pod, "spec", "serviceAccountName") or "default"
        yield (
            "agent",
            f"no AgentIdentity selects it (ServiceAccount {account}): it is no agent",
            _no_agent(seen, account),
        )
        return
    names = ", ".join(sorted(one["metadata"]["name"] for one in found))
    if len(found) > 1:
        yield (
            "agent",
            f"AgentIdentities {names} all select it, so it gets no identity (Overlap)",
            "narrow their podSelector",
        )
        return
    ready = condition(found[0], "Ready")
    good = ready.get("status") == "True"
    yield "agent", f"AgentIdentity {names}: {_told(ready)}", "" if good else f"kubectl describe agentidentity {names}"
    yield _injected(seen, found[0])


def _no_agent(seen: PodFacts, account: str) -> str:
    if (part(seen.pod, "metadata", "labels") or {}).get(_OPT_OUT) == "disabled":
        return f"its label {_OPT_OUT}=disabled keeps it out"
    return f"make an AgentIdentity with serviceAccountName {account} whose podSelector matches its labels"


def _injected(seen: PodFacts, identity: dict[str, Any]) -> _Told:
    """Say whether the signer is there; the same functions as admission's say why not."""
    own = part(identity, "spec", "signer", "injection") == "None"
    has = any(one.get("name") == _SIGNER for one in part(seen.pod, "spec", "initContainers") or [])
    if own:
        return "signer", "it brings its own (signer.injection: None)", ""
    if has:
        version = (part(seen.pod, "metadata", "annotations") or {}).get("countersign.dev/injected", "")
        return "signer", f"injected{f' by {version}' if version else ''}", ""
    if why := hindrances(seen.pod, identity, _UNTOLD):
        return "signer", f"not injected: {'; '.join(why)}", "change the pod's template, and make it again"
    namespace = seen.pod["metadata"]["namespace"]
    if seen.labels is not None and seen.labels.get(_OPT_IN) != "enabled":
        step = f"kubectl label namespace {namespace} {_OPT_IN}=enabled, and make the pod again"
        return "signer", f"not injected: namespace {namespace} is not labelled {_OPT_IN}=enabled", step
    return (
        "signer",
        "not injected: the pod is older than its AgentIdentity, or admission was away",
        "make the pod again",
    )


def _running(seen: PodFacts, identity: dict[str, Any]) -> tuple[list[_Told], bool]:
    """Say which instance and device it has, and whether it may call."""
    if seen.instances is None:
        return [("instance", "you may not list AgentInstances here", "")], False
    uid = seen.pod["metadata"]["uid"]
    mine = [one for one in seen.instances if part(one, "spec", "pod", "uid") == uid]
    if not mine:
        if has_ended(seen.pod):
            return [("instance", "none: the pod has ended, and its identity with it", "")], False
        name = seen.pod["metadata"]["name"]
        step = f"kubectl logs {name} -c {_SIGNER} -n {seen.pod['metadata']['namespace']}"
        return [("instance", "none: its signer has not attested", step)], False
    told: list[_Told] = []
    for one in mine:
        told += [*_instance(one, seen.now), *_device(one, seen)]
    active = [one for one in mine if part(one, "spec", "agentRef", "uid") == identity["metadata"]["uid"]]
    return told, any(is_true(one, "Ready") for one in active)


def _instance(instance: dict[str, Any], now: datetime) -> Iterator[_Told]:
    name, ready = instance["metadata"]["name"], condition(instance, "Ready")
    revoked = condition(instance, "Revoked")
    step = ""
    if revoked.get("status") == "True":
        step = "a revoked instance stays so: delete the pod, and the next one gets its own"
    yield "instance", f"{name}: {_told(ready)}", step
    for kind in ("Attested", "Revoked"):
        yield f"  {kind}", _told(condition(instance, kind)), ""
    until = moment(part(instance, "status", "certificate", "notAfter"))
    if until is not None:
        left = (until - now).total_seconds()
        when = f"{age(left)} left" if left > 0 else f"ended {age(-left)} ago"
        yield "  certificate", f"until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, {when}", ""
    if spiffe := part(instance, "status", "spiffeID"):
        yield "  SPIFFE ID", str(spiffe), ""


def _device(instance: dict[str, Any], seen: PodFacts) -> Iterator[_Told]:
    name = instance["spec"]["deviceRef"]["name"]
    if seen.devices is None:
        yield "device", f"{name} (you may not list Devices)", ""
        return
    found = next((one for one in seen.devices if one["metadata"]["name"] == name), None)
    if found is None:
        yield "device", f"{name}: there is no such Device any more", ""
        return
    state = str(found["spec"].get("state") or "Pending")
    pool, assurance = part(found, "spec", "poolRef", "name"), part(found, "status", "assurance") or "no assurance yet"
    attested = condition(found, "Attested")
    step = "" if state == "Approved" else f"kubectl countersign device approve {name}"
    yield "device", f"{name}: {state}, pool {pool}, {assurance}, attested: {attested.get('status', 'Unknown')}", step


def _denials(seen: PodFacts) -> Iterator[tuple[str, str]]:
    """Say the last warnings about the pod and its instances, the newest first."""
    uids = {seen.pod["metadata"]["uid"]}
    uids |= {
        one["metadata"]["uid"]
        for one in seen.instances or []
        if part(one, "spec", "pod", "uid") == seen.pod["metadata"]["uid"]
    }
    about = [one for one in seen.events or [] if part(one, "regarding", "uid") in uids and one.get("type") == "Warning"]
    ours = [one for one in about if str(one.get("reportingController") or "").startswith("countersign-")]
    for one in sorted(ours, key=_last, reverse=True)[:_EVENTS]:
        count, note = int(part(one, "series", "count") or 1), str(one.get("note") or "")
        times = f" x{count}" if count > 1 else ""
        code = note.partition(":")[0].partition(" ")[0]
        yield f"{age((seen.now - _last(one)).total_seconds())} ago{times}  {one.get('reason')}: {note}", hint(code)


def _last(event: dict[str, Any]) -> datetime:
    found = moment(part(event, "series", "lastObservedTime")) or moment(event.get("eventTime"))
    return found or datetime.fromtimestamp(0, UTC)


def _told(told: dict[str, Any]) -> str:
    if not told:
        return "not looked at yet"
    message = f": {told['message']}" if told.get("message") and told.get("status") != "True" else ""
    words = {"True": "", "False": "not "}
    why = f" ({told.get('reason')})" if told.get("reason") != told["type"] else ""
    return f"{words.get(str(told.get('status')), 'unknown, ')}{told['type']}{why}{message}"

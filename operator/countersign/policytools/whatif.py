"""What would a described call get? The caller as the objects and the options describe it, and the decision, part by part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from countersign.policy import (
    Agent,
    Caller,
    Catalogue,
    Decision,
    Device,
    Fact,
    Instance,
    Question,
    RuleSet,
    RuleView,
    decide,
    explain,
)
from countersign.policy.times import read_time
from countersign.policytools.facts import claims_of
from countersign.policytools.strict import BadFile

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.policytools.objects import Objects

__all__ = ["Described", "Verdict", "what_if"]

_NAME: Final = "what-if"
_UID: Final = "what-if-instance"


@dataclass(frozen=True)
class Described:
    """A call as a person describes it; what is None is read from the objects, or left at what a good caller has.

    ``agent`` is ``namespace/name``, ``server`` the same or an audience, ``instance`` an AgentInstance of the agent's namespace.
    ``attested_seconds`` is the age of the attestation; ``facts`` are ``name=value`` of the device.
    """

    agent: str
    server: str
    tool: str
    arguments: Any
    now: datetime
    instance: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    purpose: str | None = None
    key_tier: str = "TPM"
    assurance: str | None = None
    pool: str | None = None
    source: str | None = None
    cluster: str = "kubernetes"
    attested_seconds: int | None = None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The decision, the caller that it was made for, and what each rule said."""

    decision: Decision
    caller: Caller
    rules: tuple[RuleView, ...]


def what_if(call: Described, objects: Objects) -> Verdict:
    """Decide a described call with the function that the webhook asks.

    Raises
    ------
    BadFile
        If the agent or the instance is not among the objects, or an option cannot be read.

    """
    namespace, _, name = call.agent.partition("/")
    if not namespace or not name or "/" in name:
        raise BadFile(f"--agent {call.agent}: NAMESPACE/NAME is wanted")
    caller = Caller(
        agent=_agent(objects, namespace, name),
        instance=_instance(call, objects, namespace),
        device=_device(call, objects, namespace),
        key_tier=call.key_tier,
        cluster=call.cluster,
    )
    servers = [one for one in objects.list("ToolServer") if not _refused(one)]
    catalogue = Catalogue.build(servers, claims_of(servers))
    question = Question(
        now=call.now,
        caller=caller,
        server=call.server,
        tool=call.tool,
        arguments=call.arguments,
        task=_task(call, namespace, name, caller.instance.uid),
    )
    server = catalogue.find(call.server)
    if server is not None:
        question = replace(question, protocol=server.protocol)
    rules = RuleSet.compile(objects.policies)
    return Verdict(decide(question, rules, catalogue), caller, explain(question, rules, catalogue))


def _refused(server: dict[str, Any]) -> bool:
    """Whether the operator found that this server is not acceptable, such as for its audience."""
    conditions = (server.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Accepted" and one.get("status") == "False" for one in conditions)


def _agent(objects: Objects, namespace: str, name: str) -> Agent:
    found = objects.get("AgentIdentity", name, namespace)
    if found is None:
        raise BadFile(f"there is no AgentIdentity {namespace}/{name} here: its floors are part of every decision")
    spec = found.get("spec") or {}
    return Agent(
        namespace=namespace,
        name=name,
        tasks=spec.get("tasks", "Required"),
        min_assurance=spec.get("minAssurance", "Hardware"),
        min_key_tier=spec.get("minKeyTier", "TPMSession"),
        namespace_labels=objects.labels_of(namespace),
    )


def _found_instance(call: Described, objects: Objects, namespace: str) -> dict[str, Any] | None:
    if call.instance is None:
        return None
    found = objects.get("AgentInstance", call.instance, namespace)
    if found is None:
        raise BadFile(f"there is no AgentInstance {namespace}/{call.instance} here")
    return found


def _instance(call: Described, objects: Objects, namespace: str) -> Instance:
    found = _found_instance(call, objects, namespace)
    digests = (((found or {}).get("spec") or {}).get("pod") or {}).get("imageDigests")
    return Instance(
        name=_NAME if found is None else found["metadata"]["name"],
        uid=str((found or {"metadata": {}})["metadata"].get("uid") or _UID),
        source=call.source or "Pod",
        image_digests=tuple(digests) if digests else None,
    )


def _device(call: Described, objects: Objects, namespace: str) -> Device:
    instance = _found_instance(call, objects, namespace)
    name = (((instance or {}).get("spec") or {}).get("deviceRef") or {}).get("name")
    found = None if name is None else objects.get("Device", name)
    if name is not None and found is None:
        raise BadFile(f"there is no Device {name}, on which this instance runs, here")
    status, spec = (found or {}).get("status") or {}, (found or {}).get("spec") or {}
    attested = call.now if found is None else read_time(status.get("attestationTime"))
    if call.attested_seconds is not None:
        attested = call.now - timedelta(seconds=call.attested_seconds)
    said = [_said(one, call.now) for one in call.facts]
    seen = [_seen(one) for one in status.get("facts") or [] if one["name"] not in {fact.name for fact in said}]
    return Device(
        name=name or _NAME,
        pool=call.pool or (spec.get("poolRef") or {}).get("name") or "default",
        assurance=call.assurance or status.get("assurance") or ("Hardware" if found is None else "Software"),
        attestation_time=attested,
        facts=(*said, *seen),
    )


def _said(text: str, now: datetime) -> Fact:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadFile(f"--fact {text}: NAME=VALUE is wanted")
    return Fact(name, value, _NAME, now)


def _seen(entry: dict[str, Any]) -> Fact:
    return Fact(entry["name"], entry["value"], entry.get("source", ""), read_time(entry.get("observedTime")))


def _task(call: Described, namespace: str, agent: str, instance: str) -> dict[str, Any] | None:
    """Return a task that is bound and open, if the call is described as one for a user or a purpose."""
    if call.user is None and call.purpose is None:
        if call.groups:
            raise BadFile("--group says something of a user: give --user too")
        return None
    spec: dict[str, Any] = {"agentRef": {"name": agent}}
    if call.user is not None:
        spec["user"] = {"username": call.user, "groups": list(call.groups)}
    if call.purpose is not None:
        spec["purpose"] = call.purpose
    ends = (call.now + timedelta(hours=1)).isoformat()
    return {
        "metadata": {"namespace": namespace, "name": _NAME, "uid": _NAME},
        "spec": spec,
        "status": {"instanceRef": {"name": _NAME, "uid": instance}, "expirationTime": ends},
    }

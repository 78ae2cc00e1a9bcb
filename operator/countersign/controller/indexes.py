"""By what else than its name the operator finds an object, so that no look walks over everything there is. Pure.

Each function says of one object, alone, under which values it is found; one that is being deleted is found nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from countersign.controller.plan import is_going, is_true
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    CLUSTER_TOOL_POLICIES,
    DEVICES,
    IDENTITY_ISSUERS,
    PODS,
    TOOL_POLICIES,
    TOOL_SERVERS,
    Resource,
)
from countersign.kube.pods import has_ended

__all__ = ["ANY", "INDEXES", "OPT_OUT", "SIGNER", "account_of", "counts", "is_injected"]

Values = Callable[[dict[str, Any]], Iterable[str]]

SIGNER: Final = "countersign-signer"
OPT_OUT: Final = "countersign.dev/inject"
ANY: Final = "*"
"""Stands for every agent of a namespace (``namespace/*``), or of all."""


def is_injected(pod: dict[str, Any]) -> bool:
    """Tell whether a pod has the signer among its init containers; whether it is ours is asked when it enrols."""
    return any(one.get("name") == SIGNER for one in pod["spec"].get("initContainers") or [])


def counts(pod: dict[str, Any]) -> bool:
    """Leave out pods that are ending or have ended, and those that a person kept out."""
    return not (is_going(pod) or has_ended(pod)) and (pod["metadata"].get("labels") or {}).get(OPT_OUT) != "disabled"


def account_of(found: dict[str, Any]) -> str:
    """Return the ServiceAccount of a pod or an AgentIdentity as ``namespace/name``."""
    return f"{found['metadata']['namespace']}/{found['spec'].get('serviceAccountName') or 'default'}"


def _instance_names(instance: dict[str, Any]) -> Iterator[str]:
    """Yield what an AgentInstance hangs on."""
    spec, namespace = instance["spec"], instance["metadata"]["namespace"]
    yield f"agent {namespace}/{spec['agentRef']['name']}"
    yield f"device {spec['deviceRef']['name']}"
    if "pod" in spec:
        yield f"pod {namespace}/{spec['pod']['name']}"


def _agents_of(policy: dict[str, Any]) -> Iterator[str]:
    """Yield the agents that rules name, and ``ANY`` of the policy's namespace for a rule that names none."""
    own = policy["metadata"].get("namespace")
    for rule in policy["spec"]["rules"]:
        agents = (rule.get("subjects") or {}).get("agents")
        if agents is None:
            yield ANY if own is None else f"{own}/{ANY}"
        for one in agents or []:
            yield f"{one.get('namespace') or own or ''}/{one['name']}"


def _servers_of(policy: dict[str, Any]) -> Iterator[str]:
    own = policy["metadata"].get("namespace")
    for rule in policy["spec"]["rules"]:
        for tool in rule.get("tools") or []:
            if (server := tool.get("server")) is not None:
                yield f"{server.get('namespace') or own or ''}/{server['name']}"


def _agent_uid(instance: dict[str, Any]) -> str:
    return str(instance["spec"]["agentRef"]["uid"])


_POLICY: Final[Mapping[str, Values]] = {
    "agent": lambda one: {*_agents_of(one)},
    "server": lambda one: {*_servers_of(one)},
}

INDEXES: Final[Mapping[Resource, Mapping[str, Values]]] = {
    PODS: {
        "account": lambda pod: (account_of(pod),),
        # Those that should perhaps have a signer and have none.
        "bare": lambda pod: (account_of(pod),) if counts(pod) and not is_injected(pod) else (),
    },
    AGENT_IDENTITIES: {
        "account": lambda one: (account_of(one),),
        "namespace": lambda one: (one["metadata"]["namespace"],),
    },
    AGENT_INSTANCES: {
        "name": _instance_names,
        "agent": lambda one: (_agent_uid(one),),
        "ready": lambda one: (_agent_uid(one),) if is_true(one, "Ready") else (),
    },
    DEVICES: {
        "pool": lambda one: (one["spec"]["poolRef"]["name"],),
        "approved": lambda one: (one["spec"]["poolRef"]["name"],) if one["spec"].get("state") == "Approved" else (),
        "attested": lambda one: (one["spec"]["poolRef"]["name"],) if is_true(one, "Attested") else (),
    },
    IDENTITY_ISSUERS: {"domain": lambda one: (one["spec"]["trustDomain"],)},
    TOOL_SERVERS: {"audience": lambda one: (one["spec"]["audience"],)},
    TOOL_POLICIES: _POLICY,
    CLUSTER_TOOL_POLICIES: _POLICY,
}

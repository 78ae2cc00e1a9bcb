"""The quickstart's manifests, with what only this machine knows filled in, and the second agent and the spare beside it.

``examples/quickstart/*.yaml`` is what a user copies. What differs here is said in one place: the EK roots and digests of
the simulated TPMs, the node that each pod is on, and the tool server's port.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from countersign.demo.layout import Layout
    from countersign.devcluster import EkAuthority, Tpm

__all__ = ["AGENT_PORTS", "Call", "Quickstart"]

_SECOND: Final = "second"
_SPARE: Final = "spare"
_NODES: Final = ("node-a", "node-b", "node-c")
_SECOND_PORT: Final = 7090
_SPARE_PORT: Final = 7100
AGENT_PORTS: Final = (7080, _SECOND_PORT)
"""Loopback ports of the agents' signers; health and metrics are on the next ones."""


@dataclass(frozen=True)
class Call:
    """A tool call of the story, and the code with which it is to be refused (empty: allowed)."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    code: str = ""


class Quickstart:
    """The objects of the story and the names that scenes use."""

    allowed = Call("get_charge", {"charge": "ch_1"})
    denied_argument = Call("create_refund", {"charge": "ch_1", "amount": 50_000}, "policy.denied")
    not_named = Call("delete_customer", {"customer": "cus_1"}, "policy.default_deny")
    listable = ("get_charge", "create_refund")

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Read the manifests of ``directory``."""
        self._layout = layout
        texts = [path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.yaml"))]
        self._objects: list[dict[str, Any]] = [each for text in texts for each in yaml.safe_load_all(text) if each]
        self._identity = self._one("AgentIdentity")
        self._pod = self._one("Pod")
        server = self._one("ToolServer")
        self.namespace: str = self._identity["metadata"]["namespace"]
        self.server: str = server["metadata"]["name"]
        self.audience: str = server["spec"]["audience"]
        self.audiences = [{"prefix": self.audience, "namespaces": [self.namespace]}]
        name = self._pod["metadata"]["name"]
        self.pods = (name, f"{name}-{_SECOND}")
        self.spare = f"{name}-{_SPARE}"
        self.ports: tuple[int, int] = (self._identity["spec"].get("signer", {}).get("port", 7080), _SECOND_PORT)
        self.spare_port = _SPARE_PORT
        self.devices = {node: node for node in _NODES}

    def objects(self, manufacturer: EkAuthority, tpm_of: Callable[[str], Tpm]) -> list[dict[str, Any]]:
        """Return everything but pods, in the order in which a person would apply it."""
        found = [copy.deepcopy(each) for each in self._objects if each["kind"] not in {"Pod", "Device"}]
        pool = next(each for each in found if each["kind"] == "DevicePool")
        pool["spec"]["ekRoots"] = manufacturer.roots_pem.decode() + manufacturer.issuer_pem.decode()
        server = next(each for each in found if each["kind"] == "ToolServer")
        server["spec"]["endpoint"] = self._layout.tools_url
        device = self._one("Device")
        for node in _NODES:
            one = copy.deepcopy(device)
            one["metadata"]["name"] = self.devices[node]
            one["spec"]["ek"] = {"publicKeySHA256": tpm_of(node).ek_digests["RSA"]}
            one["spec"]["binding"] = {"type": "Node", "node": {"name": node}}
            one["spec"]["state"] = "Approved"
            found.append(one)
        for suffix, port in ((_SECOND, _SECOND_PORT), (_SPARE, _SPARE_PORT)):
            found += self._another(suffix, port)
        return found

    def pod_objects(self) -> list[dict[str, Any]]:
        """Return the two agents' pods, on node-a and node-b."""
        return [self._pod_of("", _NODES[0]), self._pod_of(_SECOND, _NODES[1])]

    def spare_pod(self) -> dict[str, Any]:
        """Return the pod that waits for a stranger's signer, on node-c."""
        return self._pod_of(_SPARE, _NODES[2])

    def misspelt_policy(self) -> dict[str, Any]:
        """Return the policy with ``arguments`` misspelt in its first rule."""
        policy = self._policy("misspelt")
        rule = policy["spec"]["rules"][0]
        rule["argumnets"] = rule.pop(
            "arguments", [{"pointer": "/charge", "type": "String", "string": {"equals": ["ch_1"]}}]
        )
        policy["spec"]["rules"] = [rule]
        return policy

    def deny_policy(self) -> dict[str, Any]:
        """Return a policy that denies the allowed call."""
        policy = self._policy("stop")
        tools = [{"server": {"name": self.server}, "names": [self.allowed.tool]}]
        reason = "Stopped while we look into it."
        policy["spec"] = {"rules": [{"name": "stop", "effect": "Deny", "reason": reason, "tools": tools}]}
        return policy

    def _policy(self, name: str) -> dict[str, Any]:
        policy = copy.deepcopy(self._one("ToolPolicy"))
        policy["metadata"] = {"name": name, "namespace": self.namespace}
        return policy

    def _one(self, kind: str) -> dict[str, Any]:
        return next(each for each in self._objects if each["kind"] == kind)

    def _another(self, suffix: str, port: int) -> list[dict[str, Any]]:
        """Return ServiceAccount, AgentIdentity and policy of an agent like the first, called ``NAME-SUFFIX``."""
        first = self._identity["metadata"]["name"]
        identity = copy.deepcopy(self._identity)
        name, account = f"{first}-{suffix}", f"{self._identity['spec']['serviceAccountName']}-{suffix}"
        identity["metadata"]["name"] = name
        identity["spec"]["serviceAccountName"] = account
        identity["spec"].pop("podSelector", None)
        identity["spec"]["signer"] = {**identity["spec"].get("signer", {}), "port": port}
        policy = self._policy(name)
        for rule in policy["spec"]["rules"]:
            for agent in rule.get("subjects", {}).get("agents", []):
                agent["name"] = name
        service_account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": self.namespace},
        }
        return [service_account, identity, policy]

    def _pod_of(self, suffix: str, node: str) -> dict[str, Any]:
        pod = copy.deepcopy(self._pod)
        pod["spec"]["nodeName"] = node
        if suffix:
            pod["metadata"]["name"] += f"-{suffix}"
            pod["spec"]["serviceAccountName"] += f"-{suffix}"
        return pod

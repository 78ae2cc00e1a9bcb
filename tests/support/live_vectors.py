"""A case of `countersign policy test` put before the live front door: its objects installed, its call signed and sent over TLS."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from support.front_door import SERVING
from support.world import DOMAIN, Ca, SoftwareKey, World, form, thing

from countersign import kube
from countersign.audit import Filters
from countersign.audit.tail import Tail
from countersign.policytools.cases import Case
from countersign.policytools.facts import read_now
from countersign.policytools.trial import run_case
from countersign.wire import MemoryReplayCache
from countersign_webhook.main import Ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime
    from pathlib import Path

    from countersign.devcluster.pki import LocalCA
    from countersign.wire import Message

__all__ = ["Live", "live_form", "open_live", "why_not_live"]

POLICY_KINDS = {"ToolPolicy": kube.TOOL_POLICIES, "ClusterToolPolicy": kube.CLUSTER_TOOL_POLICIES}


def live_form(case: Case) -> Case:
    """Return the case as a live front door could meet it: no task, no approval, and the tier that a signature in a TPM has."""
    caller = case.given["caller"]
    caller = {**caller, "agent": {**caller["agent"], "tasks": "Optional"}, "keyTier": "TPM"}
    given = {**case.given, "caller": caller, "task": None, "approvals": []}
    return Case(case.file, case.name, given, case.call, case.expect)


def why_not_live(case: Case) -> str:
    """Say what the case is about that no live front door has yet, or that its proof decides before policy is asked."""
    given, caller = case.given, case.given["caller"]
    tools = [tool for server in given["toolServers"] for tool in server["spec"]["tools"]]
    if any(tool.get("definitionDigest") and tool["name"] == case.call.get("tool") for tool in tools):
        return "an observed definition"
    if given.get("approvals") or str(dict(case.expect if isinstance(case.expect, dict) else {}).get("code")).startswith(
        "approval."
    ):
        return "an approval"
    if case.call.get("protocol", "MCP") != "MCP":
        return "plain HTTP"
    if caller["instance"]["source"] not in ("Pod", "OwnSigner"):
        return "an instance that is no pod"
    if caller["device"].get("attestationTime") is None:
        return "a device that never attested"
    without = {**given, "task": None, "caller": {**caller, "agent": {**caller["agent"], "tasks": "Optional"}}}
    if run_case(Case(case.file, case.name, without, case.call, case.expect)).got != case.expect:
        return "a task"
    return "a key tier other than TPM"


@asynccontextmanager
async def open_live(directory: Path, ca: LocalCA, **more: Any) -> AsyncIterator[Live]:
    """Open a front door on its ports, whose replay store believes what is of the first moment of a case."""
    world = await World.make(directory, **more)
    world.use(replay=MemoryReplayCache(epoch=0))
    ports = Ports(world.context)
    await ports.start()
    tls = ssl.create_default_context(cadata=ca.pem.decode())
    try:
        async with httpx.AsyncClient(verify=tls) as client:
            yield Live(world, ports, client)
    finally:
        await ports.aclose()
        await world.context.aclose()


@dataclass
class Live:
    """The front door on its port, and everything that cases put into it."""

    world: World
    ports: Ports
    client: httpx.AsyncClient
    _tail: Tail = field(init=False)
    _put: list[tuple[Any, str, str | None]] = field(default_factory=list)
    _cas: dict[datetime, Ca] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Follow the log from here."""
        self._tail = Tail([self.world.directory / "audit"], Filters())
        self._tail.newest(0)
        self.key = SoftwareKey()
        for resource in (*POLICY_KINDS.values(), kube.TOOL_SERVERS):
            for obj in self.world.source.list(resource):
                self.world.source.drop(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))

    async def answer(self, case: Case) -> tuple[Any, str]:
        """Install, call, take away; return the answer as `expect` is written, and the code that the caller was shown."""
        self._clean()
        for resource, obj in self._objects(case):
            meta = obj["metadata"]
            self._put.append((resource, meta["name"], meta.get("namespace")))
            self.world.source.put(resource, obj)
        now = read_now(case.given["now"], "now")
        self.world.clock.advance(now - self.world.clock.now())
        if now not in self._cas:
            self._cas[now] = Ca(start=now)
        self.world.ca = self._cas[now]
        issuer = {"trustDomain": DOMAIN, "type": "Embedded"}
        self.world.source.put(
            kube.IDENTITY_ISSUERS, thing("IdentityIssuer", "default", issuer, trustBundle=self.world.ca.pem)
        )
        response = await self._send(await self._signed(case))
        document = response.json()
        code = "ok" if "access_token" in document else str(document["code"])
        records = self._tail.new()
        if case.lists:
            return document.get("tools", []), code
        return (_as_expected(records[0]) if records else {}), code

    async def _signed(self, case: Case) -> Message:
        agent, call = case.given["caller"]["agent"], case.call
        server = call["server"]
        audience = server if "://" in server else self._audience(server)
        method = call.get("method", "tools/call")
        entry = {"type": "countersign_call", "protocol": call.get("protocol", "MCP"), "method": method}
        text = json.dumps([{**entry, "tool": call.get("tool", ""), "arguments": call.get("arguments", {})}])
        if "argumentsJSON" in call:
            text = json.dumps([{**entry, "tool": call.get("tool", ""), "arguments": 0}])
            text = text.replace('"arguments": 0', f'"arguments": {call["argumentsJSON"]}')
        leaf = self.world.ca.leaf(self.key.public_key, _spiffe_id(agent))
        return await self.world.signed(body=form(text, resource=audience), key=self.key, chain=[leaf])

    def _audience(self, server: str) -> str:
        namespace, _, name = server.partition("/")
        found = self.world.source.get(kube.TOOL_SERVERS, name, namespace)
        audience = ((found or {}).get("spec") or {}).get("audience")
        return audience if isinstance(audience, str) else "https://nowhere.example.com"

    async def _send(self, message: Message) -> httpx.Response:
        url = f"https://{SERVING}:{self.ports.calls.number}{message.target}"
        return await self.client.post(url, content=message.body, headers=dict(message.headers))

    def _clean(self) -> None:
        for resource, name, namespace in self._put:
            if self.world.source.get(resource, name, namespace) is not None:
                self.world.source.drop(resource, name, namespace)
        self._put.clear()

    def _objects(self, case: Case) -> Iterator[tuple[Any, dict[str, Any]]]:
        given = case.given
        yield from self._caller(given["caller"])
        for server in given.get("toolServers") or []:
            yield kube.TOOL_SERVERS, {"kind": "ToolServer", **server}
        for number, policy in enumerate(given.get("policies") or []):
            resource = POLICY_KINDS.get(policy.get("kind"), kube.TOOL_POLICIES)
            meta = policy.get("metadata") or {}
            yield resource, {**policy, "metadata": {**meta, "name": meta.get("name") or f"nameless-{number}"}}

    def _caller(self, caller: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        agent, device, instance = caller["agent"], caller["device"], caller["instance"]
        namespace, labels = agent["namespace"], agent.get("namespaceLabels")
        if labels is None:
            if self.world.source.get(kube.NAMESPACES, namespace) is not None:
                self.world.source.drop(kube.NAMESPACES, namespace)
        else:
            yield kube.NAMESPACES, {"metadata": {"name": namespace, "uid": "uid-ns", "labels": labels}}
        identity = {
            "serviceAccountName": agent["name"],
            "tasks": agent["tasks"],
            "minAssurance": agent["minAssurance"],
            "minKeyTier": agent["minKeyTier"],
            "signer": {"injection": "None" if instance["source"] == "OwnSigner" else "Sidecar"},
        }
        yield kube.AGENT_IDENTITIES, thing("AgentIdentity", agent["name"], identity, namespace)
        pool = {"assurance": device["assurance"], "attestation": {"maxAgeSeconds": 604800}}
        yield kube.DEVICE_POOLS, thing("DevicePool", device["pool"], pool)
        spec = {
            "poolRef": {"name": device["pool"]},
            "ek": {"publicKeySHA256": f"sha256:{'5a' * 32}"},
            "binding": {"type": "Node", "node": {"name": "node-of-case"}},
            "state": "Approved",
        }
        facts = [{"source": "", **fact} for fact in device.get("facts") or []]
        status = {"assurance": device["assurance"], "attestationTime": device.get("attestationTime"), "facts": facts}
        yield kube.DEVICES, thing("Device", device["name"], spec, **status)
        yield (
            kube.PODS,
            {"metadata": {"name": "pod-of-case", "namespace": namespace, "uid": "uid-pod-of-case"}, "spec": {}},
        )
        pod = {"name": "pod-of-case", "uid": "uid-pod-of-case", "nodeName": "node-of-case"}
        of_instance = {
            "agentRef": {"name": agent["name"], "uid": f"uid-agentidentity-{agent['name']}"},
            "deviceRef": {"name": device["name"], "uid": f"uid-device-{device['name']}"},
            "type": "Pod" if instance["source"] in ("Pod", "OwnSigner") else "Run",
            "pod": {**pod, "imageDigests": instance.get("imageDigests")},
            "state": "Active",
        }
        keyed = {"certificate": {"keyThumbprint": self.key.jkt}}
        yield kube.AGENT_INSTANCES, thing("AgentInstance", instance["name"], of_instance, namespace, **keyed)


def _spiffe_id(agent: dict[str, Any]) -> str:
    return f"spiffe://{DOMAIN}/ns/{agent['namespace']}/sa/{agent['name']}"


def _as_expected(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says as a case's ``expect`` is written."""
    ours, code = record["unmapped"]["countersign"], record["status_code"]
    effect = "Allow" if code == "policy.allowed" else "RequireApproval" if code == "approval.required" else "Deny"
    found = {"effect": effect, "code": code}
    found |= {name: ours[name] for name in ("policy", "rule", "reason") if name in ours}
    if "audited" in ours:
        found["audit"] = ours["audited"]
    return found

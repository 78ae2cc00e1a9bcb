"""The front door under load: the whole decision over objects in memory, two agents, and a client as a signer is one.

What is real: the ASGI application, proof, chain, nonces, replay store, policy, the audit log on disk, token. What is not: the
socket and TLS in front of it and the API server behind it, which ``kills`` has both.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.soak.attacks import foreign
from support.soak.scenes import SCENES, Scene
from support.world import AUDIENCE, DOMAIN, FORM, ISSUER, SoftwareKey, World, policy, thing

from countersign import kube
from countersign.wire import Message, chain_header, sign_request
from countersign_webhook.decide.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography import x509

__all__ = ["Call", "Stage", "Who", "add_agent", "spiffe_id"]

UNBOUNDED = {"instance_rate": 1e9, "instance_burst": 10**9, "address_rate": 1e9, "address_burst": 10**9}
PATIENCE_SECONDS = 600.0
READER_TOOLS = ("read_file", "list_things")


@dataclass(frozen=True)
class Who:
    """An agent with one instance on a device of its own."""

    agent: str
    key: SoftwareKey
    chain: str

    @property
    def instance(self) -> str:
        """The AgentInstance's name."""
        return f"{self.agent}-1"

    @property
    def pod(self) -> str:
        """The Pod's name."""
        return f"pod-{self.agent}"

    @property
    def device(self) -> str:
        """The Device's name."""
        return f"device-{self.agent}"


@dataclass(frozen=True)
class Call:
    """One call of a scene, as it is before anybody spoils it."""

    who: Who
    scene: Scene
    arguments: Any
    details: bytes | None = None
    body: bytes | None = None
    tool: str | None = None
    method: str = "tools/call"
    protocol: str = "MCP"
    audience: str = AUDIENCE

    def entry(self) -> dict[str, Any]:
        """The member of ``authorization_details``."""
        tool = self.scene.tool if self.tool is None else self.tool
        named = {"method": self.method, "tool": tool, "arguments": self.arguments}
        return {"type": "countersign_call", "protocol": self.protocol, **named}


@dataclass
class Stage:
    """A world with the scenes in it."""

    world: World
    whole: Who
    reader: Who
    foreign: Any
    stranger: SoftwareKey
    foreign_leaf: x509.Certificate
    stranger_leaf: x509.Certificate
    _renamed: dict[str, x509.Certificate] = field(default_factory=dict)
    _versions: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    async def make(cls, directory: Path) -> Stage:
        """Open a front door; its log is in ``directory/audit``."""
        world = await World.make(directory, limits=UNBOUNDED)
        # A machine that has other things to do is not what is looked at here: the time for a decision has its own tests.
        settings = world.context.settings
        patient = settings.decide.model_copy(update={"timeout_seconds": PATIENCE_SECONDS})
        world.use(
            settings=settings.model_copy(update={"decide": patient}),
            recorder=Recorder(world.context.audit, seconds=PATIENCE_SECONDS),
        )
        other, stranger = foreign()
        whole, reader = (add_agent(world, name) for name in ("refunder", "reader"))
        stage = cls(
            world,
            whole,
            reader,
            other,
            stranger,
            other.leaf(stranger.public_key, spiffe_id("refunder")),
            world.ca.leaf(stranger.public_key, spiffe_id("refunder")),
        )
        for resource, obj in _objects():
            stage.put(resource, obj)
        await world.context.book.settle()  # what is much is compiled between requests
        return stage

    def put(self, resource: kube.Resource, obj: dict[str, Any]) -> None:
        """Make or replace an object, with a resourceVersion of its own as the API server gives one."""
        version = {"resourceVersion": str(next(self._versions))}
        self.world.source.put(resource, {**obj, "metadata": {**obj["metadata"], **version}})

    def seconds(self) -> int:
        """Return the time, in whole seconds since 1970."""
        return int(self.world.clock.now().timestamp())

    def nonce(self, key: SoftwareKey) -> str:
        """Return a nonce for a key."""
        return self.world.context.nonces.make(key.jkt, self.seconds())

    def renamed_leaf(self, call: Call) -> x509.Certificate:
        """Return a certificate of the caller's key with the other agent's name."""
        name = "reader" if call.who is self.whole else "refunder"
        if name not in self._renamed:
            self._renamed[name] = self.world.ca.leaf(call.who.key.public_key, spiffe_id(name))
        return self._renamed[name]

    def stale(self) -> Iterator[None]:
        """Let the caches be too old for a while."""
        self.world.source.stale_kinds = ["pods"]
        yield
        self.world.source.stale_kinds = []

    async def signed(
        self,
        call: Call,
        *,
        body: bytes = b"",
        key: SoftwareKey | None = None,
        chain: list[x509.Certificate] | None = None,
        nonce: str | None = None,
        later: int = 0,
        audience: str | None = None,
    ) -> Message:
        """Return the request for a token for ``call``, signed now; each part may be replaced."""
        content = body or call.body or b""
        headers = (
            ("host", "countersign.example.com"),
            ("countersign-chain", call.who.chain if chain is None else chain_header(chain)),
            ("content-type", FORM),
            ("content-length", str(len(content))),
        )
        return await sign_request(
            Message("POST", "/token", headers, content),
            key or call.who.key,
            audience=audience or f"{ISSUER}/token",
            nonce=nonce or self.nonce(key or call.who.key),
            created=self.seconds() + later,
        )

    async def send(self, message: Message) -> tuple[str, dict[str, Any]]:
        """Send a request to the application as a server hands it on; return the code, ``ok`` for a token, and the document."""
        path, _, query = message.target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": message.method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers],
            "client": ("192.0.2.7", 4711),
            "server": ("127.0.0.1", 8443),
        }
        parts: list[bytes] = []
        status: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": message.body, "more_body": False}

        async def send(event: Any) -> None:
            if event["type"] == "http.response.start":
                status.append(event["status"])
            else:
                parts.append(event.get("body", b""))

        await self.world.app(scope, receive, send)
        document = json.loads(b"".join(parts) or b"{}")
        code = "ok" if "access_token" in document else str(document.get("code", f"status {status}"))
        assert (status == [200]) is (code == "ok"), (status, document)
        return code, document


def spiffe_id(agent: str) -> str:
    """Return the name in an agent's certificates."""
    return f"spiffe://{DOMAIN}/ns/billing/sa/{agent}"


def add_agent(world: World, agent: str) -> Who:
    """Add an agent, its pod, device and instance."""
    key = SoftwareKey()
    who = Who(agent, key, chain_header([world.ca.leaf(key.public_key, spiffe_id(agent))]))
    identity, device = world.identity(serviceAccountName=agent), world.device()
    identity["metadata"] = identity["metadata"] | {"name": agent, "uid": f"uid-{agent}"}
    device["metadata"] = device["metadata"] | {"name": who.device, "uid": f"uid-{who.device}"}
    device["spec"] |= {
        "ek": {"publicKeySHA256": f"sha256:{agent.encode().hex():0>64}"},
        "binding": {"type": "Node", "node": {"name": f"node-{agent}"}},
    }
    instance = world.instance(
        agentRef={"name": agent, "uid": f"uid-{agent}"},
        deviceRef={"name": who.device, "uid": f"uid-{who.device}"},
        pod={"name": who.pod, "uid": f"uid-{who.pod}", "nodeName": f"node-{agent}"},
    )
    instance["metadata"] = instance["metadata"] | {"name": who.instance, "uid": f"uid-{who.instance}"}
    instance["status"] = {"spiffeID": spiffe_id(agent), "certificate": {"keyThumbprint": key.jkt}}
    put = world.source.put
    put(kube.AGENT_IDENTITIES, identity)
    put(kube.DEVICES, device)
    put(kube.PODS, {"metadata": {"name": who.pod, "namespace": "billing", "uid": f"uid-{who.pod}"}, "spec": {}})
    put(kube.AGENT_INSTANCES, instance)
    return who


def _objects() -> Iterator[tuple[kube.Resource, dict[str, Any]]]:
    tools: list[dict[str, Any]] = [
        {
            "name": scene.tool,
            "access": "ReadWrite",
            "inputSchema": {"type": "object", "properties": {name: {} for name in scene.names}},
        }
        for scene in SCENES
    ]
    anything = {"inputSchema": {"type": "object", "additionalProperties": True}}
    tools.append({"name": "delete_all", "access": "Destructive", **anything})
    tools.append({"name": "pinned", "access": "ReadOnly", "definitionDigest": f"sha256:{'b' * 64}", **anything})
    yield kube.TOOL_SERVERS, _server("stripe", "billing", AUDIENCE, tools)
    yield kube.TOOL_SERVERS, _server("hidden", "tools", "https://hidden.tools.svc/mcp", tools)
    yield kube.TOOL_SERVERS, _server("stolen", "billing", "https://stolen.other.svc/mcp", tools)
    for scene in SCENES:
        agents = [{"name": "refunder"}, *([{"name": "reader"}] if scene.tool in READER_TOOLS else [])]
        scope = [{"server": {"name": "stripe"}, "names": [scene.tool]}]
        rules = [{"name": "allow", "effect": "Allow", "subjects": {"agents": agents}, "tools": scope, **scene.parts}]
        rules += [
            {"name": f"deny-{place}", "effect": "Deny", "tools": scope, "arguments": [condition]}
            for place, condition in enumerate(scene.denies)
        ]
        yield kube.TOOL_POLICIES, policy(*rules, name=scene.tool.replace("_", "-"))
    # Who may be asked about the other servers and tools is somebody else.
    for server in ("hidden", "stolen"):
        rule = {"name": "all", "effect": "Allow", "tools": [{"server": {"name": server, "namespace": "tools"}}]}
        yield kube.TOOL_POLICIES, policy(rule, name=server)
    for number in range(50):
        rule = {
            "name": "all",
            "effect": "Allow",
            "subjects": {"agents": [{"name": f"agent-{number}"}]},
            "tools": [{"server": {"name": "stripe"}}],
        }
        yield kube.TOOL_POLICIES, policy(rule, name=f"other-{number}")
    rule = {
        "name": "destructive",
        "effect": "Deny",
        "tools": [{"access": ["Destructive"]}],
        "unless": {"minKeyTier": "TPM"},
    }
    yield kube.CLUSTER_TOOL_POLICIES, thing("ClusterToolPolicy", "baseline", {"rules": [rule]})
    yield kube.TOOL_POLICIES, policy(rule | {"effect": "Deny", "unless": {"minAssurance": "Hardware"}}, name="refunds")


def _server(name: str, namespace: str, audience: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    return thing("ToolServer", name, {"audience": audience, "protocol": "MCP", "tools": tools}, namespace)

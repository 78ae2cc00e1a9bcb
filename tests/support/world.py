"""A cluster in memory with one agent on one device, its keys and certificates, and a front door that believes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from countersign import kube
from countersign.audit import AuditLog
from countersign.clock import FakeClock
from countersign.wire import Message, chain_header, sign_request, thumbprint
from countersign_webhook.app import CallsApp
from countersign_webhook.context import WebhookContext
from countersign_webhook.decide.notices import Notices
from countersign_webhook.reading import Readers
from countersign_webhook.settings import WebhookSettings
from countersign_webhook.source import MemorySource

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ISSUER = "https://countersign.example.com"
AUDIENCE = "https://tools.billing.svc/stripe"
DOMAIN = "agents.example.com"
SPIFFE_ID = f"spiffe://{DOMAIN}/ns/billing/sa/refund-agent"
FORM = "application/x-www-form-urlencoded"


class SoftwareKey:
    """A key that signs as an instance key does: ``wire.RequestKey``."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public_key = self.private.public_key()
        self.jkt = thumbprint(self.public_key)

    async def sign(self, data: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Ca:
    """An identity CA."""

    def __init__(self, name: str = "Test Identity CA", *, start: datetime = START) -> None:
        self.start = start
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._build(
            x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)]), self.key.public_key(), ca=True
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(self, key: ec.EllipticCurvePublicKey, spiffe_id: str = SPIFFE_ID) -> x509.Certificate:
        return self._build(x509.Name([]), key, ca=False, spiffe_id=spiffe_id)

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool, spiffe_id: str | None = None
    ) -> x509.Certificate:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if ca else self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start - timedelta(hours=1))
            .not_valid_after(self.start + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if not ca:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        if spiffe_id is not None:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256())


def thing(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None, **status: Any) -> dict[str, Any]:
    """An object of ours as the API server would store it."""
    meta: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{kind.lower()}-{name}",
        "generation": 1,
        "creationTimestamp": "2026-11-24T10:00:00Z",
    }
    if namespace is not None:
        meta["namespace"] = namespace
    obj = {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    return {**obj, "status": status} if status else obj


def accepted() -> list[dict[str, Any]]:
    return [{"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 1}]


def policy(*rules: dict[str, Any], name: str = "refunds") -> dict[str, Any]:
    return thing("ToolPolicy", name, {"rules": list(rules)}, "billing")


def allow(*names: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"allow-{'-'.join(names) or 'all'}".replace("_", "-"),
        "effect": "Allow",
        "tools": [{"server": {"name": "stripe"}, **({"names": list(names)} if names else {})}],
        **more,
    }


def write_keys(directory: Path, *entries: tuple[ec.EllipticCurvePrivateKey, datetime, datetime]) -> None:
    """Write ``keys.json`` as the operator does."""
    keys = [
        {
            "kid": thumbprint(key.public_key()),
            "privateKey": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
            "createdAt": int(start.timestamp()),
            "useFrom": int(start.timestamp()),
            "useUntil": int(end.timestamp()),
        }
        for key, start, end in entries
    ]
    directory.mkdir(exist_ok=True)
    fresh = directory / "keys.json.new"
    fresh.write_text(json.dumps({"keys": keys}))
    fresh.rename(directory / "keys.json")


def settings(directory: Path, **more: Any) -> WebhookSettings:
    return WebhookSettings(
        **{
            "cluster": "prod-eu",
            "issuer": ISSUER,
            "admission": {
                "host": "127.0.0.1",
                "port": 0,
                "tls_cert": directory / "tls.crt",
                "tls_key": directory / "tls.key",
            },
            "calls": {
                "host": "127.0.0.1",
                "port": 0,
                "tls_cert": directory / "tls.crt",
                "tls_key": directory / "tls.key",
            },
            "health": {"host": "127.0.0.1", "port": 0},
            "token_keys": directory / "keys",
            "audit": {"directory": directory / "audit"},
            "injection": {"image": "countersign:test", "version": "0.1.0"},
            "decide": {"timeout_seconds": 10},  # a busy machine is not what is tested
            **more,
        }
    )


@dataclass
class World:
    """The parts that a test moves: clock, objects, keys; and the application that must notice."""

    directory: Path
    clock: FakeClock
    source: MemorySource
    ca: Ca
    key: SoftwareKey
    token_key: ec.EllipticCurvePrivateKey
    context: WebhookContext
    app: CallsApp

    @classmethod
    async def make(cls, directory: Path, *, accounts: Any = None, **more: Any) -> World:
        clock = FakeClock(START)
        source, ca, key = MemorySource(), Ca(), SoftwareKey()
        token_key = ec.generate_private_key(ec.SECP256R1())
        write_keys(directory / "keys", (token_key, START - timedelta(days=1), START + timedelta(days=30)))
        (directory / "audit").mkdir(exist_ok=True)
        audit = await AuditLog.open(directory / "audit", process="webhook", clock=clock)
        context = WebhookContext.of(
            settings(directory, **more),
            clock=clock,
            source=source,
            audit=audit,
            notices=Notices(None),
        )
        context = replace(context, readers=Readers(accounts, issuer=ISSUER))
        context.keys.refresh()
        world = cls(directory, clock, source, ca, key, token_key, context, CallsApp(context))
        world.populate()
        clock.advance(2)  # past the first second of the replay store, whose nonces it does not believe
        return world

    def use(self, **parts: Any) -> None:
        """Put other parts into the front door."""
        self.context = replace(self.context, **parts)
        self.app = CallsApp(self.context)

    def populate(self) -> None:
        put = self.source.put
        put(
            kube.NAMESPACES,
            {"metadata": {"name": "billing", "uid": "uid-ns", "labels": {"kubernetes.io/metadata.name": "billing"}}},
        )
        put(
            kube.IDENTITY_ISSUERS,
            thing("IdentityIssuer", "default", {"trustDomain": DOMAIN, "type": "Embedded"}, trustBundle=self.ca.pem),
        )
        put(kube.DEVICE_POOLS, thing("DevicePool", "racks", {"assurance": "Hardware", "ekRoots": self.ca.pem}))
        put(kube.DEVICES, self.device())
        put(kube.AGENT_IDENTITIES, self.identity())
        put(kube.PODS, {"metadata": {"name": "refund-1", "namespace": "billing", "uid": "uid-pod-1"}, "spec": {}})
        put(kube.AGENT_INSTANCES, self.instance())
        put(kube.TOOL_SERVERS, self.server())
        put(kube.TOOL_POLICIES, policy(allow("get_charge", "list_charges")))

    def device(self, **spec: Any) -> dict[str, Any]:
        return thing(
            "Device",
            "worker-1",
            {
                "poolRef": {"name": "racks"},
                "ek": {"publicKeySHA256": f"sha256:{'3f' * 32}"},
                "binding": {"type": "Node", "node": {"name": "worker-1.example.com"}},
                "state": "Approved",
                **spec,
            },
            assurance="Hardware",
            attestationTime="2026-11-24T11:59:00Z",
            manufacturer="id:49465800",
            model="SLB9670",
            firmware="id:00070055",
        )

    def identity(self, **spec: Any) -> dict[str, Any]:
        return thing(
            "AgentIdentity",
            "refund-agent",
            {
                "serviceAccountName": "refund-agent",
                "issuerRef": {"name": "default"},
                "minAssurance": "Hardware",
                "minKeyTier": "TPMSession",
                "tasks": "Optional",
                **spec,
            },
            "billing",
        )

    def instance(self, **spec: Any) -> dict[str, Any]:
        return thing(
            "AgentInstance",
            "refund-agent-7f9c4",
            {
                "agentRef": {"name": "refund-agent", "uid": "uid-agentidentity-refund-agent"},
                "deviceRef": {"name": "worker-1", "uid": "uid-device-worker-1"},
                "type": "Pod",
                "pod": {"name": "refund-1", "uid": "uid-pod-1", "nodeName": "worker-1.example.com"},
                "state": "Active",
                **spec,
            },
            "billing",
            spiffeID=SPIFFE_ID,
            certificate={"keyThumbprint": self.key.jkt, "notAfter": "2026-11-25T12:00:00Z"},
        )

    def server(self, name: str = "stripe", namespace: str = "billing", **spec: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"charge": {"type": "string"}}}
        return thing(
            "ToolServer",
            name,
            {
                "audience": AUDIENCE,
                "protocol": "MCP",
                "enforcement": "Verifier",
                "requires": {"minAssurance": "Virtual", "minKeyTier": "TPMSession"},
                "tools": [
                    {"name": "get_charge", "access": "ReadOnly", "inputSchema": schema},
                    {"name": "list_charges", "access": "ReadOnly", "inputSchema": schema},
                    {"name": "create_refund", "access": "Destructive", "inputSchema": schema},
                ],
                **spec,
            },
            namespace,
            conditions=accepted(),
        )

    def nonce(self, key: SoftwareKey | None = None) -> str:
        return self.context.nonces.make((key or self.key).jkt, int(self.clock.now().timestamp()))

    async def signed(
        self,
        method: str = "POST",
        path: str = "/token",
        body: bytes = b"",
        *,
        key: SoftwareKey | None = None,
        chain: list[x509.Certificate] | None = None,
        nonce: str | None = None,
        audience: str | None = None,
        content_type: str = FORM,
        more: tuple[tuple[str, str], ...] = (),
    ) -> Message:
        """A request signed as a signer would; each part may be replaced."""
        key = key or self.key
        headers = [
            ("host", "countersign.example.com"),
            ("countersign-chain", chain_header(chain or [self.ca.leaf(key.public_key)])),
            *more,
        ]
        if body:
            headers += [("content-type", content_type), ("content-length", str(len(body)))]
        return await sign_request(
            Message.build(method, path, headers, body, max_body=1 << 22),
            key,
            audience=audience or ISSUER + path,
            nonce=nonce or self.nonce(key),
            created=int(self.clock.now().timestamp()),
        )

    async def send(self, message: Message) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True, client=("192.0.2.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            return await client.request(message.method, message.target, headers=message.headers, content=message.body)

    async def call(self, tool: str = "get_charge", arguments: Any = None, **more: Any) -> httpx.Response:
        """Ask for a token for one ``tools/call``, as a signer would."""
        return await self.send(await self.signed(body=form(details(tool, arguments, **more))))

    async def records(self) -> list[dict[str, Any]]:
        """What the audit log has on disk, but the opening record."""
        lines = [
            json.loads(line)
            for path in sorted((self.directory / "audit").iterdir())
            if path.is_file()
            for line in path.read_bytes().splitlines()
        ]
        return [line for line in lines if line.get("status_code") != "audit.open"]


def details(tool: str = "get_charge", arguments: Any = None, *, method: str = "tools/call", **more: Any) -> str:
    entry = {
        "type": "countersign_call",
        "protocol": "MCP",
        "method": method,
        "tool": tool,
        "arguments": {} if arguments is None else arguments,
        **more,
    }
    return json.dumps([entry])


def form(authorization_details: str | None = "", **changes: str | None) -> bytes:
    """The form of ``/token``; a change to None leaves a parameter out."""
    parameters: dict[str, str | None] = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:countersign:token-type:task",
        "subject_token": "current",
        "resource": AUDIENCE,
        "authorization_details": details() if authorization_details == "" else authorization_details,
        **changes,
    }
    return urlencode({name: value for name, value in parameters.items() if value is not None}).encode()

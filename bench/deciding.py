"""The front door's own parts over objects in memory: the watch cache's store, the real log, keys and application.

What is left out is the API server behind the cache, and nothing of a decision asks it. Instances have software keys under a
CA of this run: the door believes what the certificate and the AgentInstance say, and does the same work.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from inside import AUDIENCE, GRANTS, TOOL, policies_of, server

from countersign import kube
from countersign.audit import AuditLog
from countersign.clock import SystemClock
from countersign.devcluster import LocalCA, write_private
from countersign.devcluster.pki import private_pem
from countersign.kube.store import Store
from countersign.verifier.testing import TestKey
from countersign.wire import MemoryReplayCache, Message, chain_header, sign_request, thumbprint
from countersign_webhook.context import WebhookContext
from countersign_webhook.decide.notices import Notices
from countersign_webhook.settings import WebhookSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["ISSUER", "SPIFFE_ID", "Cluster", "Member", "context_of", "crew", "details", "request"]

ISSUER = "https://countersign.example.com"
SPIFFE_ID = "spiffe://agents.example.com/ns/billing/sa/refund-agent"
_UNBOUNDED = 1_000_000_000


class Cluster:
    """A ``PolicySource`` of the watch cache's stores, filled by hand."""

    synced = True

    def __init__(self) -> None:
        """Start empty."""
        self._stores: defaultdict[str, Store] = defaultdict(Store)
        self._callbacks: list[Callable[[kube.Resource, str, dict[str, Any]], None]] = []
        self._version = 0

    def put(self, r: kube.Resource, obj: dict[str, Any]) -> None:
        """Create or replace one object."""
        self._version += 1
        fresh = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self._stores[r.plural].put(fresh)
        for callback in self._callbacks:
            callback(r, "MODIFIED", fresh)

    def stale(self, max_age_seconds: float) -> list[str]:
        """Return nothing: it is all fresh."""
        del max_age_seconds
        return []

    def age(self, r: kube.Resource) -> float:
        """Return no time: it is all fresh."""
        del r
        return 0.0

    def get(self, r: kube.Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._stores[r.plural].get(name, namespace)

    def list(self, r: kube.Resource, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        return self._stores[r.plural].list(namespace)

    def add_index(self, r: kube.Resource, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Keep an index."""
        self._stores[r.plural].add_index(name, fn)

    def by_index(self, r: kube.Resource, name: str, value: str) -> Any:
        """Return what the index finds."""
        return self._stores[r.plural].by_index(name, value)

    def subscribe(self, callback: Callable[[kube.Resource, str, dict[str, Any]], None]) -> None:
        """Tell ``callback`` of each change."""
        self._callbacks.append(callback)


@dataclass(frozen=True)
class Member:
    """An instance: its key, its certificate, and the value of ``Countersign-Chain``."""

    key: TestKey
    certificate: str
    chain: str


def crew(count: int) -> tuple[list[Member], dict[str, Any]]:
    """Return ``count`` instances of one agent, and what a front door must know of them (JSON).

    One more comes last whose certificate is of another CA, though its instance is known: it gets no answer but no.
    """
    ca = LocalCA("Bench Identity CA")
    members = [*(_member(ca) for _ in range(count)), _member(LocalCA("Another CA"))]
    return members, {"bundle": ca.pem.decode(), "thumbprints": [one.key.jkt for one in members]}


def _member(ca: LocalCA) -> Member:
    """Return an instance with a certificate of ``ca``."""
    key = TestKey()
    leaf = _leaf(ca, key.public_key)
    return Member(key, leaf.public_bytes(Encoding.PEM).decode(), chain_header([leaf]))


async def context_of(directory: Path, known: dict[str, Any], policies: int) -> tuple[WebhookContext, Cluster]:
    """Return the parts of a front door with that many policies; its log is in ``directory``. The caller closes it."""
    now, clock, source = datetime.now(UTC), SystemClock(), Cluster()
    for resource, obj in _objects(known, policies, now):
        source.put(resource, obj)
    key = ec.generate_private_key(ec.SECP256R1())
    start, end = (int((now + timedelta(days=days)).timestamp()) for days in (-1, 30))
    entry: dict[str, Any] = {"kid": thumbprint(key.public_key()), "privateKey": private_pem(key).decode()}
    entry |= {"createdAt": start, "useFrom": start, "useUntil": end}
    write_private(directory / "keys" / "keys.json", json.dumps({"keys": [entry]}).encode())
    audit = await AuditLog.open(directory / "audit", process="webhook", clock=clock)
    context = WebhookContext.of(_settings(directory), clock=clock, source=source, audit=audit, notices=Notices(None))
    context.keys.refresh()
    return replace(context, replay=MemoryReplayCache(epoch=0)), source


def details(tool: str = TOOL, arguments: Any = None) -> dict[str, Any]:
    """Return the call that is asked about, as ``authorization_details`` has it."""
    what = {"type": "countersign_call", "protocol": "MCP", "method": "tools/call", "tool": tool}
    return {**what, "arguments": arguments or {"charge": "ch_1", "amount": 1200}}


async def request(member: Member, nonce: str, call: dict[str, Any] | None = None) -> Message:
    """Return the question for a token for one ``tools/call``, as a signer signs it."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:countersign:token-type:task",
        "subject_token": "current",
        "resource": AUDIENCE,
        "authorization_details": json.dumps([details() if call is None else call]),
    }
    body = urlencode(form).encode()
    headers = (
        ("host", "countersign.example.com"),
        ("countersign-chain", member.chain),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", str(len(body))),
    )
    message = Message("POST", "/token", headers, body)
    created = int(datetime.now(UTC).timestamp())
    return await sign_request(message, member.key, audience=f"{ISSUER}/token", nonce=nonce, created=created)


def _leaf(ca: LocalCA, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    now = datetime.now(UTC)
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    usage = dict.fromkeys((*others, "crl_sign", "encipher_only", "decipher_only"), False)
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SPIFFE_ID)])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(name, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca.key, hashes.SHA256())
    )


def _settings(directory: Path) -> WebhookSettings:
    """Return the default settings, but for the bounds on one caller's rate and on the time of a decision.

    A few instances ask for everybody here, and a machine that others use too must not end the run.
    """
    port = {"host": "127.0.0.1", "port": 0, "tls_cert": directory / "tls.crt", "tls_key": directory / "tls.key"}
    bounds = ("instance_rate", "instance_burst", "address_rate", "address_burst")
    return WebhookSettings.model_validate(
        {
            "cluster": "bench",
            "issuer": ISSUER,
            "admission": port,
            "calls": port,
            "token_keys": directory / "keys",
            "audit": {"directory": directory / "audit"},
            "audiences": [{"prefix": prefix, "namespaces": names} for prefix, names in GRANTS],
            "injection": {"image": "countersign:bench", "version": "bench"},
            "limits": dict.fromkeys(bounds, _UNBOUNDED),
            "decide": {"timeout_seconds": 10},
        }
    )


def _objects(known: dict[str, Any], policies: int, now: datetime) -> list[tuple[kube.Resource, dict[str, Any]]]:
    issuer = _object("default", {"trustDomain": "agents.example.com"}, status={"trustBundle": known["bundle"]})
    device = _object(
        "worker-1",
        {
            "poolRef": {"name": "racks"},
            "ek": {"publicKeySHA256": "sha256:" + "3f" * 32},
            "binding": {"type": "Node", "node": {"name": "worker-1"}},
            "state": "Approved",
        },
        status={"assurance": "Hardware", "attestationTime": (now - timedelta(minutes=5)).isoformat()},
    )
    identity = {"serviceAccountName": "refund-agent", "minKeyTier": "TPM", "tasks": "Optional"}
    found = [
        (kube.NAMESPACES, {"metadata": {"name": "billing", "uid": "uid-billing", "labels": {"team": "billing"}}}),
        (kube.IDENTITY_ISSUERS, issuer),
        (kube.DEVICE_POOLS, _object("racks", {"assurance": "Hardware"})),
        (kube.DEVICES, device),
        (kube.AGENT_IDENTITIES, _object("refund-agent", identity, "billing")),
        (kube.TOOL_SERVERS, server()),
        *((kube.TOOL_POLICIES, one) for one in policies_of(policies)),
    ]
    for number, jkt in enumerate(known["thumbprints"]):
        pod, instance = _object(f"pod-{number}", {}, "billing"), f"refund-agent-{number}"
        spec = {
            "agentRef": {"name": "refund-agent", "uid": "uid-refund-agent"},
            "deviceRef": {"name": "worker-1", "uid": "uid-worker-1"},
            "type": "Pod",
            "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "nodeName": "worker-1"},
            "state": "Active",
        }
        status = {"spiffeID": SPIFFE_ID, "certificate": {"keyThumbprint": jkt}}
        found += [(kube.PODS, pod), (kube.AGENT_INSTANCES, _object(instance, spec, "billing", status=status))]
    return found


def _object(name: str, spec: dict[str, Any], namespace: str | None = None, **parts: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-11-24T10:00:00Z"}
    if namespace is not None:
        meta["namespace"] = namespace
    return {"apiVersion": "countersign.dev/v1alpha1", "metadata": meta, "spec": spec, **parts}

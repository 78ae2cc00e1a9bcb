"""Attacks on an allowed call that are not in its arguments: another tool, server, method, text, form, key, time, or world.

Each names the codes that may come of it; ``ok`` is never among them.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from support.soak.mutate import dumped
from support.world import AUDIENCE, ISSUER, Ca, SoftwareKey, form, policy, thing

from countersign import kube
from countersign.wire import Message, Nonces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from support.soak.stage import Call, Stage

__all__ = ["AUDIENCES", "METHODS", "PROOFS", "TOOLS", "WORLDS", "changed", "form_tricks", "json_tricks"]

TOOLS: dict[str, set[str]] = {
    "delete_all": {"policy.default_deny", "policy.denied"},
    "pinned": {"tool.definition_changed"},
    "Pay": {"tool.unknown"},
    "PAY": {"tool.unknown"},
    "pay_": {"tool.unknown"},
    "pay2": {"tool.unknown"},
    "pay ": {"request.details", "tool.unknown"},
    "p\u0430y": {"request.details", "tool.unknown"},
    "": {"request.details", "tool.unknown"},
    "*": {"request.details", "tool.unknown"},
    "billing/stripe/pay": {"request.details", "tool.unknown"},
}
AUDIENCES: dict[str, set[str]] = {
    AUDIENCE + "/": {"tool.server_unknown"},
    AUDIENCE.upper(): {"tool.server_unknown"},
    AUDIENCE.replace("https://", "http://"): {"tool.server_unknown"},
    AUDIENCE.replace(".svc", ".svc:443"): {"tool.server_unknown"},
    AUDIENCE + "?x=1": {"tool.server_unknown"},
    AUDIENCE.replace("stripe", "%73tripe"): {"tool.server_unknown"},
    AUDIENCE.replace("/stripe", "/x/../stripe"): {"tool.server_unknown"},
    "billing/stripe": {"tool.server_unknown"},
    ISSUER: {"tool.server_unknown"},
    "https://hidden.tools.svc/mcp": {"tool.server_not_exposed"},
    "https://stolen.other.svc/mcp": {"tool.server_unknown"},
    "": {"request.resource"},
}
METHODS = (
    "resources/read",
    "prompts/get",
    "completion/complete",
    "tools/Call",
    "TOOLS/CALL",
    "tools/call ",
    "tasks/update",
    "",
    "*",
)
BEFORE_POLICY = {"request.details", "parse.duplicate", "parse.syntax", "parse.type", "parse.trailing", "parse.bom", "parse.utf8",
                 "parse.nul", "parse.surrogate", "parse.number_range", "parse.number_precision", "parse.negative_zero", "parse.depth",
                 "parse.number_length", "parse.members", "request.parameter", "tool.unknown", "tool.arguments_invalid"}  # fmt: skip


def json_tricks(rng: Random, call: Call) -> bytes:
    """Return a text of ``authorization_details`` that two readers could read differently, or that is none."""
    good = dumped(rng, [call.entry()])
    inner = json.dumps(call.arguments).encode()
    tool = json.dumps(call.scene.tool).encode()
    tricks = (
        good.replace(b"{", b'{"tool":"delete_all",', 1),
        good.replace(b"{", b'{"Tool":"delete_all",', 1),
        good.replace(b"{", b'{"t\\u006fol":"delete_all",', 1),
        good.replace(b"{", b'{"arguments":{},', 1),
        b'[{"type":"countersign_call","protocol":"MCP","method":"tools/call","tool":%s,"arguments":%s,"arguments":%s}]' % (tool, inner, inner),
        b"\xef\xbb\xbf" + good,
        good + b"x",
        good + good,
        good[:-1],
        b"[" + good + b"]",
        good.replace(b"]", b",]"),
        good.replace(b"{", b"{/**/", 1),
        good.replace(b"{", b'{"extra":1,', 1),
        good.replace(b"{", b'{"extra":NaN,', 1),
        good.replace(b"{", b'{"extra":-0,', 1),
        good.replace(b"{", b'{"extra":1e999,', 1),
        good.replace(b"{", b'{"extra":9007199254740993,', 1),
        good.replace(b"{", b'{"extra":"\\ud800",', 1),
        good.replace(b"{", b'{"extra":"\\u0000",', 1),
        good.replace(b"{", b'{"extra":"\xff",', 1),
        good.replace(b"{", b'{"extra":' + b"[" * 40 + b"]" * 40 + b",", 1),
        good.replace(b'"', b"'"),
        b"null",
        b"[]",
        b"{}",
        b'"' + base64.b64encode(good) + b'"',
    )  # fmt: skip
    return rng.choice(tricks)


def form_tricks(rng: Random, call: Call) -> bytes:
    """Return a form that is refused, though each of its parts was good."""
    good = form(dumped(rng, [call.entry()]).decode())
    other = quote(json.dumps([{**call.entry(), "tool": "delete_all"}]), safe="")
    tricks = (
        good + b"&resource=" + quote(AUDIENCE, safe="").encode(),
        good + b"&authorization_details=" + other.encode(),
        b"authorization_details=" + other.encode() + b"&" + good,
        good.replace(b"&", b";"),
        good + b"&",
        good + b"&&",
        good + b"&actor_token=x",
        good + b"&scope=all",
        good + b"&audience=x",
        good.replace(b"resource=", b"Resource="),
        good.replace(b"resource=", b"re%73ource="),
        good.replace(b"token-exchange", b"token-exchang"),
        good.replace(b"token-type%3Atask", b"token-type%3Ajwt"),
        good.replace(b"subject_token=current", b"subject_token=some-task"),
        good.replace(b"subject_token=current", b"subject_token="),
        good + b"\r\n",
        good.replace(b"resource=https", b"resource=%zzhttps"),
        good[: len(good) // 2],
        b"",
    )
    return rng.choice(tricks)


def _with(message: Message, *fields: tuple[str, str], without: str = "") -> Message:
    return replace(message, headers=(*(one for one in message.headers if one[0] != without), *fields))


def _resigned_body(message: Message) -> Message:
    """Another body, with a digest that fits it, under the old signature."""
    body = message.body.replace(b"current", b"curren%74")
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    changed = _with(message, ("content-digest", f"sha-256=:{digest}:"), without="content-digest")
    return replace(changed, body=body)


Proof = tuple[set[str], Any]

PROOFS: dict[str, Proof] = {
    "another key under this chain": (
        {"proof.signature"},
        lambda stage, call, _rng: stage.signed(call, key=stage.stranger),
    ),
    "a CA that nobody knows": (
        {"cert.chain"},
        lambda stage, call, _rng: stage.signed(call, key=stage.stranger, chain=[stage.foreign_leaf]),
    ),
    "a key that no instance has": (
        {"instance.unknown"},
        lambda stage, call, _rng: stage.signed(call, key=stage.stranger, chain=[stage.stranger_leaf]),
    ),
    "a certificate with another agent's name": (
        {"instance.mismatch"},
        lambda stage, call, _rng: stage.signed(call, chain=[stage.renamed_leaf(call)]),
    ),
    "a nonce of another key": (
        {"nonce.invalid"},
        lambda stage, call, _rng: stage.signed(call, nonce=stage.nonce(stage.stranger)),
    ),
    "a nonce that somebody made up": (
        {"nonce.invalid"},
        lambda stage, call, rng: stage.signed(
            call, nonce=Nonces(rng.randbytes(32)).make(call.who.key.jkt, stage.seconds())
        ),
    ),
    "a nonce of long ago": (
        {"nonce.expired"},
        lambda stage, call, rng: stage.signed(
            call, nonce=stage.world.context.nonces.make(call.who.key.jkt, stage.seconds() - 61 - rng.randrange(1000))
        ),
    ),
    "made ahead": ({"proof.future"}, lambda stage, call, rng: stage.signed(call, later=6 + rng.randrange(100_000))),
    "made long ago": (
        {"proof.expired"},
        lambda stage, call, rng: stage.signed(call, later=-30 - rng.randrange(100_000)),
    ),
    "for another endpoint": (
        {"proof.audience"},
        lambda stage, call, rng: stage.signed(
            call, audience=rng.choice((ISSUER, ISSUER + "/", ISSUER + "/catalogue", AUDIENCE, ISSUER + "/token/"))
        ),
    ),
}
"""By name: what may come of it, and how the request is signed."""


async def changed(stage: Stage, call: Call, rng: Random) -> tuple[Message, set[str]]:
    """Return a request that was changed after it was signed, and what may come of it."""
    message = await stage.signed(call)
    place = rng.randrange(len(message.body))
    flipped = message.body[:place] + bytes([message.body[place] ^ 1 << rng.randrange(8)]) + message.body[place + 1 :]
    ways: tuple[tuple[Message, set[str]], ...] = (
        (replace(message, body=flipped), {"digest.mismatch"}),
        (_resigned_body(message), {"proof.signature"}),
        (_with(message, without="signature"), {"proof.missing"}),
        (_with(message, without="signature-input"), {"proof.missing"}),
        (_with(message, without="content-digest"), {"digest.missing"}),
        (_with(message, without="countersign-chain"), {"cert.missing"}),
        (_with(message, without="content-type"), {"proof.components"}),
        (_with(message, ("mcp-name", "pay")), {"proof.components"}),
        (_with(message, ("authorization", "Countersign x.y.z")), {"proof.ambiguous"}),
        (_with(message, ("dpop", "x")), {"proof.ambiguous"}),
        (_with(message, ("signature", message.get("signature") or "")), {"parse.duplicate_header"}),
        (_with(message, ("countersign-session", "x.y.z")), {"proof.components", "session.format"}),
        (replace(message, target="/token?x=1"), {"proof.signature", "mcp.http_method", "away"}),
        (replace(message, target="/catalogue"), {"proof.audience", "mcp.http_method"}),
    )
    return rng.choice(ways)


def _put(stage: Stage, resource: kube.Resource, obj: dict[str, Any]) -> Iterator[None]:
    """Put an object over another one, then the other one back."""
    meta = obj["metadata"]
    old = stage.world.source.get(resource, meta["name"], meta.get("namespace"))
    stage.put(resource, obj)
    yield
    if old is None:
        stage.world.source.drop(resource, meta["name"], meta.get("namespace"))
    else:
        stage.put(resource, old)


def _edited(stage: Stage, resource: kube.Resource, name: str, namespace: str | None, **changes: Any) -> Iterator[None]:
    found = copy.deepcopy(stage.world.source.get(resource, name, namespace))
    assert found is not None
    for path, value in changes.items():
        place = found
        *way, last = path.split("__")
        for step in way:
            place = place.setdefault(step, {})
        place[last] = value
    return _put(stage, resource, found)


def _dropped(stage: Stage, resource: kube.Resource, name: str, namespace: str | None) -> Iterator[None]:
    old = stage.world.source.get(resource, name, namespace)
    assert old is not None
    stage.world.source.drop(resource, name, namespace)
    yield
    stage.put(resource, old)


def _deny(call: Call, **rule: Any) -> dict[str, Any]:
    return policy(
        {
            "name": "stop",
            "effect": "Deny",
            "tools": [{"server": {"name": "stripe"}, "names": [call.scene.tool]}],
            **rule,
        },
        name="zz-stop",
    )


GONE = "2026-11-24T12:00:00Z"
World = tuple[set[str], "Callable[[Stage, Call], Iterator[None]]"]
WORLDS: dict[str, World] = {
    "the instance is revoked": (
        {"instance.revoked"},
        lambda s, c: _edited(s, kube.AGENT_INSTANCES, c.who.instance, "billing", spec__state="Revoked"),
    ),
    "the instance is gone": (
        {"instance.unknown"},
        lambda s, c: _dropped(s, kube.AGENT_INSTANCES, c.who.instance, "billing"),
    ),
    "the instance is going": (
        {"instance.unknown"},
        lambda s, c: _edited(s, kube.AGENT_INSTANCES, c.who.instance, "billing", metadata__deletionTimestamp=GONE),
    ),
    "the pod is gone": ({"instance.ended"}, lambda s, c: _dropped(s, kube.PODS, c.who.pod, "billing")),
    "the pod is another": (
        {"instance.ended"},
        lambda s, c: _edited(s, kube.PODS, c.who.pod, "billing", metadata__uid="other"),
    ),
    "the pod is going": (
        {"instance.ended"},
        lambda s, c: _edited(s, kube.PODS, c.who.pod, "billing", metadata__deletionTimestamp=GONE),
    ),
    "the device is denied": (
        {"device.not_approved"},
        lambda s, c: _edited(s, kube.DEVICES, c.who.device, None, spec__state="Denied"),
    ),
    "the device is pending": (
        {"device.not_approved"},
        lambda s, c: _edited(s, kube.DEVICES, c.who.device, None, spec__state="Pending"),
    ),
    "the device is gone": ({"device.not_approved"}, lambda s, c: _dropped(s, kube.DEVICES, c.who.device, None)),
    "the evidence is old": (
        {"environment.attestation_stale"},
        lambda s, c: _edited(s, kube.DEVICES, c.who.device, None, status__attestationTime="2026-11-23T12:00:00Z"),
    ),
    "the device never attested": (
        {"environment.attestation_stale", "device.not_approved"},
        lambda s, c: _edited(s, kube.DEVICES, c.who.device, None, status__attestationTime=None),
    ),
    "the pool is gone": ({"device.not_approved"}, lambda s, _c: _dropped(s, kube.DEVICE_POOLS, "racks", None)),
    "the agent is gone": (
        {"instance.mismatch", "instance.revoked"},
        lambda s, c: _dropped(s, kube.AGENT_IDENTITIES, c.who.agent, "billing"),
    ),
    "the agent was made anew": (
        {"instance.mismatch", "instance.revoked"},
        lambda s, c: _edited(s, kube.AGENT_IDENTITIES, c.who.agent, "billing", metadata__uid="other"),
    ),
    "the agent needs a task": (
        {"task.required"},
        lambda s, c: _edited(s, kube.AGENT_IDENTITIES, c.who.agent, "billing", spec__tasks="Required"),
    ),
    "the issuer is gone": (
        {"cert.chain", "instance.mismatch"},
        lambda s, _c: _dropped(s, kube.IDENTITY_ISSUERS, "default", None),
    ),
    "another CA": (
        {"cert.chain"},
        lambda s, _c: _edited(s, kube.IDENTITY_ISSUERS, "default", None, status__trustBundle=s.foreign.pem),
    ),
    "the server is gone": ({"tool.server_unknown"}, lambda s, _c: _dropped(s, kube.TOOL_SERVERS, "stripe", "billing")),
    "the server is going": (
        {"tool.server_unknown"},
        lambda s, _c: _edited(s, kube.TOOL_SERVERS, "stripe", "billing", metadata__deletionTimestamp=GONE),
    ),
    "the server wants fresher evidence": (
        {"environment.attestation_stale"},
        lambda s, _c: _edited(
            s, kube.TOOL_SERVERS, "stripe", "billing", spec__requires={"maxAttestationAgeSeconds": 1}
        ),
    ),
    "the rule is gone": (
        {"policy.default_deny"},
        lambda s, c: _dropped(s, kube.TOOL_POLICIES, c.scene.tool.replace("_", "-"), "billing"),
    ),
    "the policy is only recorded": (
        {"policy.default_deny"},
        lambda s, c: _edited(s, kube.TOOL_POLICIES, c.scene.tool.replace("_", "-"), "billing", spec__mode="Audit"),
    ),
    "a Deny": ({"policy.denied"}, lambda s, c: _put(s, kube.TOOL_POLICIES, _deny(c))),
    "a Deny for the cluster": (
        {"policy.denied"},
        lambda s, _c: _put(
            s,
            kube.CLUSTER_TOOL_POLICIES,
            thing("ClusterToolPolicy", "zz", {"rules": [{"name": "stop", "effect": "Deny"}]}),
        ),
    ),
    "a Deny that nobody can read": (
        {"policy.undecided"},
        lambda s, c: _put(s, kube.TOOL_POLICIES, _deny(c, argumants=[])),
    ),
    "a Deny with an error in it": (
        {"policy.undecided"},
        lambda s, c: _put(s, kube.TOOL_POLICIES, _deny(c, when="args.nothing > 1")),
    ),
    "an effect that nobody knows": (
        {"policy.denied"},
        lambda s, c: _put(s, kube.TOOL_POLICIES, _deny(c, effect="Perhaps")),
    ),
    "a policy without rules": ({"policy.undecided"}, lambda s, _c: _put(s, kube.TOOL_POLICIES, policy(name="zz-none"))),
    "a question to a person": (
        {"approval.required"},
        lambda s, c: _put(s, kube.TOOL_POLICIES, _deny(c, effect="RequireApproval", approval={"groups": ["finance"]})),
    ),
    "caches that are too old": ({"decide.unavailable"}, lambda s, _c: s.stale()),
}
"""By name: what may come of a good call in a world that was changed so, and how it is changed and put back."""


def foreign() -> tuple[Ca, SoftwareKey]:
    """Return a CA and a key that nobody knows."""
    return Ca("Foreign CA"), SoftwareKey()

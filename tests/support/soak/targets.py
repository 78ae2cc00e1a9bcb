"""What is fuzzed: each target makes an input from a seed and reads it with the production function.

A refusal of the kind that a room promises is what should happen; whatever else comes out is a bug. Where it is known what an
accepted input must mean, that is asserted too.
"""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.attestation import IDENTIFIER, KEY_AUTHORIZATION, NOW, Lab, make_ca
from support.signed_vectors import VectorNonces, _instance, certificate, issuer_key
from support.signed_vectors import cases as signed_cases
from support.soak.mutate import dumped, junk, mangled, mangled_headers, mangled_text, mangled_tree
from support.wire_vectors import body_of, load
from support.world import details, form

from countersign.acme import (
    AcmeProblem,
    NewAccount,
    NewOrder,
    check_algorithm,
    key_from_jwk,
    parse_jws,
    read_payload,
    verify,
)
from countersign.acme import sign as sign_jws
from countersign.attest import SoftwareDevice, attestation_object, verify_csr, verify_ek, verify_statement
from countersign.audit import read_head
from countersign.audit.chain import digest, line_chain, links, parse_line
from countersign.audit.lines import Line
from countersign.audit.scan import scan_lines
from countersign.errors import CODES, CountersignError, Denied
from countersign.policy import Catalogue, Question, RuleSet, decide, explain, listable, names_server, schema_fault
from countersign.policy.expression import InvalidExpression, compile_when
from countersign.policy.facts import CallFacts
from countersign.policytools.cases import Case, read_cases
from countersign.policytools.facts import claims_of, read_caller, read_now
from countersign.wire import (
    LegT,
    MemoryReplayCache,
    Message,
    TokenExam,
    parse_chain,
    parse_http,
    parse_json,
    parse_mcp,
    verify_leg_t,
    verify_token,
)
from countersign.wire.chain import check_key, check_name, check_times, check_usage, find_path
from countersign.wire.signature_fields import read_signature, read_signature_input
from countersign_webhook.decide.form import parse_token_request

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

__all__ = ["TARGETS", "Target"]

DATA = Path(__file__).parents[2] / "data"
RULE_WORDS = (
    "rules", "name", "effect", "Allow", "Deny", "RequireApproval", "subjects", "agents", "users", "groups", "task", "purposes",
    "environment", "unless", "minAssurance", "minKeyTier", "maxAttestationAgeSeconds", "imageDigests", "devicePools", "clusters",
    "sources", "facts", "tools", "server", "names", "access", "ReadOnly", "Destructive", "arguments", "pointer", "/a/*/b", "type",
    "String", "Integer", "Boolean", "Path", "URL", "Absent", "string", "integer", "boolean", "path", "url", "values", "minimum",
    "maximum", "under", "hosts", "*.example.com", "schemes", "ports", "quantifier", "All", "Any", "whenMissing", "Matches", "when",
    "approval", "expiresSeconds", "mode", "Audit", "Enforce", "namespaceSelector", "matchLabels", "matchExpressions", "operator",
    "In", "NotIn", "Exists", "key", "namespace", "billing", "inputSchema", "properties", "additionalProperties", "$ref", "$defs",
    "allOf", "anyOf", "oneOf", "not", "if", "pattern", "patternProperties", "unevaluatedProperties", "required", "enum", "const",
    "$schema", "items", "uniqueItems", "exposeTo", "Selector", "requires", "definitionDigest", "recordArguments", "http",
)  # fmt: skip
CEL_PIECES = (
    "args.amount", "args", "user.name", "user.groups", "task.calls", "device.facts", "device.attestationAge", "now",
    "instance.imageDigests", "call.tool", "true", "false", "null", "1", "-1", "9223372036854775807", "0.1", "'a'", "b'a'", "[1, 2]",
    "{'a': 1}", "duration('1s')", "timestamp('2026-01-01T00:00:00Z')", "r'(a+)+$'", "'a{1000}'", "'\\u007b'", "[]", "{}", "dyn(1)",
    "type(1)", "int", "has(args.x)", "__not_strictly_false__", "cel.bind(x, 1, x)", ".x", "[0]", "['x']", "size(args)",
)  # fmt: skip
CEL_JOINTS = (
    " && ", " || ", " == ", " != ", " < ", " >= ", " in ", " + ", " - ", " * ", " / ", " % ", ".matches(", ").startsWith(", " ? ",
    " : ", ".all(x, ", ".exists(y, ", ".map(z, ", ".filter(w, ", ".exists_one(v, ", "(", ")", "!", ", ", ".getHours('Europe/Berlin')",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """``make`` an input, ``read`` it; ``read`` raises nothing for a refusal that is promised. ``share`` is how often it is due."""

    name: str
    make: Callable[[Random], Any]
    read: Callable[[Any], None]
    share: int = 1


def _now(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


# Policy


@cache
def _vectors() -> tuple[Case, ...]:
    return tuple(
        case for path in sorted((DATA / "policy").glob("*.yaml")) for case in read_cases(path) if not case.lists
    )


def _question(case: Case) -> Question:
    given, call = case.given, case.call
    caller = read_caller(given["caller"], given["cluster"], "caller")
    return Question(
        now=read_now(given["now"], "now"),
        caller=replace(caller, agent=replace(caller.agent, tasks="Optional")),
        server=call["server"],
        tool=call.get("tool", ""),
        arguments=call.get("arguments", {}),
        task=given.get("task"),
        approvals=given.get("approvals") or [],
    )


def _policies(rng: Random) -> tuple[Case, Any]:
    case = rng.choice(_vectors())
    policies = case.given.get("policies") or []
    return case, mangled_tree(rng, policies, words=RULE_WORDS) if rng.random() < 0.95 else [junk(rng)]


@cache
def _servers_of(text: str) -> Catalogue:
    servers = json.loads(text)
    return Catalogue.build(servers, claims_of(servers), pins_observed=True)


def _catalogue(case: Case) -> Catalogue:
    return _servers_of(json.dumps(case.given.get("toolServers") or [], default=repr))


def _read_policies(made: tuple[Case, Any]) -> None:
    case, policies = made
    servers, asked = _catalogue(case), _question(case)
    rules = RuleSet.compile(policies if isinstance(policies, list) else [policies])
    decision = decide(asked, rules, servers)
    assert decision.code in CODES, decision
    assert decision.allowed == (decision.code == "policy.allowed"), decision
    # Independent of how the rules are combined: what is not granted by a readable rule that is true is not allowed.
    views = explain(asked, rules, servers)
    if decision.allowed:
        said = {(view.mark.effect, view.value) for view in views if view.enforced}
        assert ("Deny", True) not in said, said
        assert ("Deny", None) not in said, said
        assert said & {("Allow", True), ("RequireApproval", True)}, said
    listable(asked, rules, servers)
    names_server(asked, rules, servers)


def _server(rng: Random) -> tuple[Case, Any]:
    case = rng.choice(_vectors())
    return case, mangled_tree(rng, case.given.get("toolServers") or [], words=RULE_WORDS)


def _read_server(made: tuple[Case, Any]) -> None:
    case, servers = made
    servers = servers if isinstance(servers, list) else [servers]
    catalogue = Catalogue.build(servers, claims_of(servers), pins_observed=True)
    decision = decide(_question(case), RuleSet.compile(case.given["policies"]), catalogue)
    assert decision.code in CODES
    for one in servers:
        spec = one.get("spec") if isinstance(one, dict) else None
        tools = spec.get("tools") if isinstance(spec, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            schema_fault(tool.get("inputSchema") if isinstance(tool, dict) else tool)


def _arguments(rng: Random) -> tuple[Case, Any]:
    case = rng.choice(_vectors())
    return case, mangled_tree(rng, case.call.get("arguments", {}), words=("*", "/", "%2e", "a"))


def _read_arguments(made: tuple[Case, Any]) -> None:
    case, arguments = made
    asked, servers = replace(_question(case), arguments=arguments), _catalogue(case)
    decision = decide(asked, RuleSet.compile(case.given["policies"]), servers)
    assert decision.code in CODES
    if decision.allowed:
        assert isinstance(arguments, dict)


@cache
def _whens() -> tuple[str, ...]:
    found = {
        str(rule["when"])
        for case in _vectors()
        for policy in case.given["policies"]
        if isinstance(policy, dict) and isinstance(policy.get("spec"), dict)
        for rule in policy["spec"].get("rules") or []
        if isinstance(rule, dict) and isinstance(rule.get("when"), str)
    }
    return tuple(sorted(found))


def _cel(rng: Random) -> str:
    if rng.random() < 0.5:
        return mangled_text(rng, rng.choice(_whens()))
    parts = [rng.choice(CEL_PIECES) + rng.choice(CEL_JOINTS) for _ in range(rng.randrange(1, 12))]
    text = "".join(parts) + rng.choice(CEL_PIECES)
    return text + ")" * max(0, text.count("(") - text.count(")")) if rng.random() < 0.7 else text


@cache
def _facts() -> CallFacts:
    asked = _question(_vectors()[0])
    return CallFacts.of(asked, server="billing/stripe", tool="create_refund", access="Destructive")


def _read_cel(text: str) -> None:
    with contextlib.suppress(InvalidExpression):
        compiled = compile_when(text)
        facts = _facts()._replace(arguments={"amount": 5, "charge": "ch_1", "list": ["a" * 20] * 30}).aside()
        assert compiled.holds(facts) in (True, False, None)
        assert compiled.holds(facts._replace(arguments_known=False).aside()) is None


# Bytes of a call


@cache
def _json_bodies() -> tuple[bytes, ...]:
    return tuple(body for case in load("arguments")["cases"] if len(body := body_of(case)) < 4000)


def _json(rng: Random) -> bytes:
    if rng.random() < 0.3:
        return mangled(
            rng, dumped(rng, {"a": junk(rng)} if rng.random() < 0.2 else {"charge": "ch_1", "amount": 5, "l": [1, "x"]})
        )
    return mangled(rng, rng.choice(_json_bodies()))


def _read_json(data: bytes) -> None:
    with contextlib.suppress(CountersignError):
        value = parse_json(data)
        assert value == json.loads(data), "it means something else to another reader"


@cache
def _mcp_messages() -> tuple[tuple[str, tuple[tuple[str, str], ...], bytes], ...]:
    return tuple(
        (case["method"], tuple(map(tuple, case["headers"])), base64.b64decode(case["body"]))
        for case in load("mcp-calls")["cases"]
    )


def _mcp(rng: Random) -> tuple[str, str, Any, bytes]:
    method, headers, body = rng.choice(_mcp_messages())
    fields = mangled_headers(rng, headers) if rng.random() < 0.6 else list(headers)
    body = mangled(rng, body) if rng.random() < 0.7 else body
    return method if rng.random() < 0.97 else mangled_text(rng, method), "/mcp", fields, body


def _read_mcp(made: tuple[str, str, Any, bytes]) -> None:
    method, target, headers, body = made
    schemas = _mcp_schemas()
    with contextlib.suppress(CountersignError):
        message = Message.build(method, target, headers, body)
        request = parse_mcp(message, path="/mcp", input_schemas=schemas)
        said = json.loads(body)
        assert request.method == said["method"], "another method than the body's"
        if request.method == "tools/call":
            assert request.tool == said["params"]["name"], "another tool than the body's"
            assert request.arguments == said["params"].get("arguments", {}), "other arguments than the body's"


@cache
def _mcp_schemas() -> Any:
    return load("mcp-calls")["input_schemas"]


@cache
def _http_messages() -> tuple[dict[str, Any], ...]:
    return tuple(load("http-calls")["cases"])


def _http(rng: Random) -> tuple[str, str, Any, bytes, str]:
    case = rng.choice(_http_messages())
    target, body = case["target"], base64.b64decode(case["body"])
    target = mangled_text(rng, target) if rng.random() < 0.7 else target
    body = mangled(rng, body) if rng.random() < 0.4 else body
    headers = [("content-type", case["content_type"])] if case["content_type"] else []
    return (
        case["method"],
        target,
        mangled_headers(rng, headers) if rng.random() < 0.3 else headers,
        body,
        case["base_path"],
    )


def _read_http(made: tuple[str, str, Any, bytes, str]) -> None:
    method, target, headers, body, base = made
    with contextlib.suppress(CountersignError):
        parse_http(Message.build(method, target, headers, body), audience="https://a.example", base_path=base)


# Who signed


@cache
def _leg_t() -> tuple[tuple[Message, LegT], ...]:
    found = []
    for case in signed_cases("T"):
        roots = [certificate(name) for name in case.context["roots"]]
        leg = LegT(
            audience=case.context["audience"],
            issuer=case.context["issuer"],
            now=case.context["now"],
            roots=lambda _domain, roots=roots: roots,  # type: ignore[misc]
            nonces=VectorNonces(case.context["nonces"]),
            replay=MemoryReplayCache(epoch=0),
            instance=lambda jkt, context=case.context: _instance(context["instances"].get(jkt)),  # type: ignore[misc]
        )
        found.append((case.message(), leg))
    return tuple(found)


def _proof(rng: Random) -> tuple[int, str, str, Any, bytes]:
    place = rng.randrange(len(_leg_t()))
    message, _leg = _leg_t()[place]
    return place, message.method, message.target, mangled_headers(rng, message.headers), message.body


def _covered(message: Message) -> Any:
    """What a signature on leg T is about, read by hand; the fields that nobody signs are left out."""
    names = ("content-type", "content-digest", "authorization", "countersign-chain", "countersign-session", "mcp-protocol-version",
             "mcp-method", "mcp-name", "mcp-session-id", "signature", "signature-input")  # fmt: skip
    fields = {name: value for name, value in message.headers if name in names or name.startswith("mcp-param-")}
    return message.method, message.target, fields, message.body


@cache
def _good() -> list[Any]:
    return [_covered(case.message()) for case in signed_cases("T") if case.code is None]


def _read_proof(made: tuple[int, str, str, Any, bytes]) -> None:
    place, method, target, headers, body = made
    _original, leg = _leg_t()[place]
    with contextlib.suppress(CountersignError):
        message = Message.build(method, target, headers, body)
        _now(verify_leg_t(message, leg._replace(replay=MemoryReplayCache(epoch=0))))
        assert _covered(message) in _good(), "a request that nobody signed was believed"


def _fields(rng: Random) -> str:
    message, _leg = rng.choice(_leg_t())
    name = rng.choice(("signature-input", "signature", "countersign-chain", "content-digest"))
    return mangled_text(rng, message.get(name) or "")


def _read_fields(text: str) -> None:
    for reader in (read_signature_input, read_signature):
        with contextlib.suppress(CountersignError):
            reader(text)
    with contextlib.suppress(CountersignError):
        parse_chain(text)


@cache
def _tokens() -> dict[str, Any]:
    return load("tokens")


@cache
def _issuer_keys() -> dict[str, ec.EllipticCurvePublicKey]:
    found = {}
    for jwk in _tokens()["jwks"]["keys"]:
        key = _now(issuer_key(jwk["kid"]))
        assert key is not None
        found[jwk["kid"]] = key
    return found


async def _key(kid: str) -> ec.EllipticCurvePublicKey | None:
    return _issuer_keys().get(kid)


def _token(rng: Random) -> tuple[str, str]:
    token = str(rng.choice(_tokens()["cases"])["token"])
    if rng.random() < 0.3:
        parts = token.split(".")
        place = rng.randrange(len(parts))
        with contextlib.suppress(ValueError):
            data = base64.urlsafe_b64decode(parts[place] + "=" * (-len(parts[place]) % 4))
            parts[place] = base64.urlsafe_b64encode(mangled(rng, data)).rstrip(b"=").decode()
        return token, ".".join(parts)
    return token, mangled_text(rng, token)


def _read_token(made: tuple[str, str]) -> None:
    original, token = made
    file = _tokens()
    with contextlib.suppress(CountersignError):
        _now(
            verify_token(
                TokenExam(token, issuer=file["issuer"], audience=file["audience"], now=file["now"], skew=5, keys=_key)
            )
        )
        assert token == original, "a token that nobody signed was believed"


@cache
def _form() -> bytes:
    return form(details("create_refund", {"charge": "ch_1", "amount": 5, "path": "/a/b", "é": ["x"]}))


def _token_form(rng: Random) -> bytes:
    if rng.random() < 0.4:
        text = dumped(rng, json.loads(details("create_refund", {"charge": "ch_1", "amount": 5})))
        return form(mangled(rng, text).decode("utf-8", "replace"))
    return mangled(rng, _form())


def _read_form(body: bytes) -> None:
    with contextlib.suppress(CountersignError):
        headers = (("content-type", "application/x-www-form-urlencoded"),)
        parse_token_request(Message("POST", "/token", headers, body))


@cache
def _certificates() -> tuple[bytes, ...]:
    return tuple(base64.b64decode(text) for text in load("keys")["certificates"].values())


def _chain(rng: Random) -> str:
    ders = rng.sample(_certificates(), k=min(len(_certificates()), rng.choice((1, 2, 2, 3))))
    place = rng.randrange(len(ders))
    ders[place] = mangled(rng, ders[place])
    return ", ".join(f":{base64.b64encode(der).decode()}:" for der in ders)


@cache
def _roots() -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(der) for der in _certificates()]


def _read_chain(value: str) -> None:
    with contextlib.suppress(CountersignError):
        chain = parse_chain(value)
        for check in (
            lambda: find_path(chain, _roots()),
            lambda: check_times(chain, now=1795521600, skew=5),
            lambda: check_usage(chain[0]),
            lambda: check_name(chain[0]),
            lambda: check_key(chain[0]),
        ):
            with contextlib.suppress(CountersignError):
                check()


# Enrolment


@cache
def _lab() -> tuple[Lab, tuple[bytes, ...]]:
    lab = Lab.make()
    recorded = [
        attestation_object(json.loads(path.read_text())["challengePayload"])
        for path in sorted((DATA / "acme").glob("good-*.json"))
    ]
    return lab, (lab.statement(), *recorded)


def _statement(rng: Random) -> bytes:
    return mangled(rng, rng.choice(_lab()[1]))


def _read_statement(data: bytes) -> None:
    with contextlib.suppress(Denied):
        verify_statement(
            data, key_authorization=KEY_AUTHORIZATION, identifier=IDENTIFIER, ak_roots=[_lab()[0].root], now=NOW
        )


@cache
def _device() -> tuple[bytes, bytes, x509.Certificate]:
    ca, key = make_ca("EK CA")
    device = SoftwareDevice.make((ca, key))
    spki = device.endorsement_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return device.certificates[0], spki, ca


def _endorsement(rng: Random) -> tuple[bytes, bytes]:
    der, spki, _ca = _device()
    return (mangled(rng, der), spki) if rng.random() < 0.7 else (der, mangled(rng, spki))


def _read_endorsement(made: tuple[bytes, bytes]) -> None:
    der, spki = made
    with contextlib.suppress(Denied):
        verify_ek(spki, [der], {"pool": [_device()[2]]}, NOW)
    with contextlib.suppress(Denied):
        verify_csr(der, attested_spki=spki, identifier=IDENTIFIER)


@cache
def _jws_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def _requests() -> tuple[bytes, ...]:
    url = "https://ca.test/acme/default/new-order"
    account, order = (
        {"termsOfServiceAgreed": True},
        {"identifiers": [{"type": "permanent-identifier", "value": "a.b.c"}]},
    )
    return (
        sign_jws(account, key=_jws_key(), url=url, nonce="n1"),
        sign_jws(order, key=_jws_key(), url=url, nonce="n2", kid="https://ca.test/acme/default/account/1"),
        sign_jws(None, key=_jws_key(), url=url, nonce="n3", kid="https://ca.test/acme/default/account/1"),
    )


def _jws(rng: Random) -> bytes:
    body = rng.choice(_requests())
    if rng.random() < 0.5:
        outer = json.loads(body)
        name = rng.choice(sorted(outer))
        data = base64.urlsafe_b64decode(outer[name] + "=" * (-len(outer[name]) % 4))
        outer[name] = base64.urlsafe_b64encode(mangled(rng, data)).rstrip(b"=").decode()
        return dumped(rng, outer)
    return mangled(rng, body)


def _read_jws(body: bytes) -> None:
    with contextlib.suppress(AcmeProblem):
        jws = parse_jws(body)
        for model in (NewAccount, NewOrder):
            with contextlib.suppress(AcmeProblem):
                read_payload(model, jws.payload)
        check_algorithm(jws)
        if jws.jwk is not None:
            key_from_jwk(jws.jwk)
        verify(jws, _jws_key().public_key())
        assert jws.signing_input in {parse_jws(one).signing_input for one in _requests()}, (
            "a request that nobody signed"
        )


# What people write, and what we wrote


@cache
def _texts() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted((DATA / "audit").glob("*.json")))


@cache
def _lines() -> tuple[bytes, ...]:
    return tuple(line.encode() for text in _texts() for line in json.loads(text).get("lines", ()))


def _line(rng: Random) -> bytes:
    return mangled(rng, rng.choice(_lines()))


def _read_line(line: bytes) -> None:
    record = parse_line(line)
    assert record is None or (links(record) is not None and line_chain(record) is not Ellipsis)
    scan_lines("countersign-webhook-7c9d-01998f1e", [Line(line, digest(line), len(line))])
    with contextlib.suppress(ValueError):
        read_head(line.decode("latin-1"), None)


TARGETS = (
    Target("policies", _policies, _read_policies, 5),
    Target("arguments", _arguments, _read_arguments, 3),
    Target("servers", _server, _read_server, 1),
    Target("cel", _cel, _read_cel, 5),
    Target("json", _json, _read_json, 5),
    Target("mcp calls", _mcp, _read_mcp, 5),
    Target("http calls", _http, _read_http, 3),
    Target("token forms", _token_form, _read_form, 3),
    Target("signature fields", _fields, _read_fields, 3),
    Target("proofs", _proof, _read_proof, 4),
    Target("call tokens", _token, _read_token, 3),
    Target("certificate chains", _chain, _read_chain, 2),
    Target("attestation statements", _statement, _read_statement, 2),
    Target("endorsements and CSRs", _endorsement, _read_endorsement, 2),
    Target("ACME requests", _jws, _read_jws, 3),
    Target("audit lines", _line, _read_line, 1),
)

"""The words of AuthZEN's requests, read strictly, and what they mean to us (wire.md 8). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from countersign.errors import Denied, Invalid
from countersign.policy import BASE_METHODS
from countersign.wire import KEY_TIERS, TOOL_NAME, Call, parse_json

__all__ = ["MAX_BATCH", "Batch", "Evaluation", "Meaning", "meaning", "read_evaluation", "read_evaluations", "server_of"]

MAX_BATCH: Final = 64
_ALL: Final = "execute_all"
_STOPS: Final = {_ALL: None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_PARTS: Final = ("subject", "action", "resource", "context")
_STRINGS: Final = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id"), "context": ()}


@dataclass(frozen=True)
class Evaluation:
    """One question, of the right form; unknown members are dropped, as AuthZEN says."""

    subject: dict[str, Any]
    action: dict[str, Any]
    resource: dict[str, Any]
    context: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Several questions. ``stop_at`` is the decision that ends the work, or None; ``single`` if it is asked as one."""

    items: tuple[Evaluation, ...]
    stop_at: bool | None
    single: bool


@dataclass(frozen=True)
class Meaning:
    """What a question asks in our words. ``instance`` is (namespace, name) or None for "the only one of this agent"."""

    sub: str
    agent: str
    instance: tuple[str, str] | None
    key_tier: str
    call: Call


def read_evaluation(body: bytes, *, limit: int) -> Batch:
    """Read ``/access/v1/evaluation``. Raises Invalid ``parse.*`` or ``request.parameter``."""
    return Batch((_evaluation(parse_json(body, max_bytes=limit), {}),), None, single=True)


def read_evaluations(body: bytes, *, limit: int) -> Batch:
    """Read ``/access/v1/evaluations``: an item's member stands in the place of the default of that name."""
    document = parse_json(body, max_bytes=limit)
    items = document.get("evaluations", [])
    options = document.get("options", {})
    if not isinstance(items, list) or not isinstance(options, dict):
        raise _malformed("evaluations is an array, options an object")
    semantic = options.get("evaluations_semantic", _ALL)
    if not isinstance(semantic, str) or semantic not in _STOPS:
        raise _malformed(f"evaluations_semantic is one of {', '.join(_STOPS)}")
    if len(items) > MAX_BATCH:
        raise _malformed(f"at most {MAX_BATCH} evaluations")
    if not items:
        return Batch((_evaluation(document, {}),), None, single=True)
    return Batch(tuple(_evaluation(item, document) for item in items), _STOPS[semantic], single=False)


def meaning(asked: Evaluation) -> Meaning:
    """Return what a question asks.

    Raises
    ------
    Denied
        ``request.mapping`` for what has no meaning here.

    """
    agent, tier = asked.context.get("agent"), asked.context.get("key_tier", KEY_TIERS[0])
    if asked.subject["type"] != "identity" or not isinstance(agent, str) or tier not in KEY_TIERS:
        raise _unmapped("a subject of type identity, and in context the agent's SPIFFE ID and a key tier")
    return Meaning(asked.subject["id"], agent, _instance(asked.context.get("instance")), tier, _call(asked))


def server_of(asked: Evaluation) -> str | None:
    """Return the audience that a question is about; None if it has none."""
    kind = asked.resource["type"]
    found = (
        _properties(asked).get("server") if kind == "tool" else asked.resource["id"] if kind == "mcp_server" else None
    )
    return found if isinstance(found, str) else None


def _call(asked: Evaluation) -> Call:
    audience, method = server_of(asked), asked.action["name"]
    if audience is None:
        raise _unmapped("a resource of type tool with its server, or of type mcp_server")
    if asked.resource["type"] == "mcp_server":
        if method not in BASE_METHODS:
            raise _unmapped("a base method is asked of an mcp_server")
        return Call("MCP", method, "", {}, audience)
    arguments = _properties(asked).get("arguments", {})
    if method != "tools/call" or not isinstance(arguments, dict) or not TOOL_NAME.fullmatch(asked.resource["id"]):
        raise _unmapped("tools/call is asked of a tool, with its arguments")
    return Call("MCP", method, asked.resource["id"], arguments, audience)


def _properties(asked: Evaluation) -> dict[str, Any]:
    found = asked.resource.get("properties")
    return found if isinstance(found, dict) else {}


def _instance(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    namespace, slash, name = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (namespace and slash and name) or "/" in name:
        raise _unmapped("an instance is namespace/name")
    return namespace, name


def _evaluation(item: Any, defaults: dict[str, Any]) -> Evaluation:
    if not isinstance(item, dict):
        raise _malformed("an evaluation is an object")
    parts: dict[str, dict[str, Any]] = {}
    for name in _PARTS:
        part = item.get(name, defaults.get(name, {} if name == "context" else None))
        if not isinstance(part, dict) or not all(isinstance(part.get(one), str) for one in _STRINGS[name]):
            raise _malformed(f"{name} is an object{''.join(f' with the string {one}' for one in _STRINGS[name])}")
        parts[name] = part
    return Evaluation(**parts)


def _malformed(detail: str) -> Invalid:
    return Invalid("request.parameter", detail)


def _unmapped(detail: str) -> Denied:
    return Denied("request.mapping", detail)

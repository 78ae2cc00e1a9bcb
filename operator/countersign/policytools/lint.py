"""``countersign policy lint``: every check, over every policy and server that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from countersign.api import ClusterToolPolicy, ToolPolicy, ToolServer
from countersign.policytools.findings import Finding, rules_of
from countersign.policytools.lint_pairs import approvers_apart, pairs
from countersign.policytools.lint_rules import one_rule
from countersign.policytools.objects import Objects, unknown_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from countersign.api import Kind

__all__ = ["lint", "unanswerable"]

_SHAPES: Final[Mapping[str, type[Kind]]] = {
    "ToolPolicy": ToolPolicy,
    "ClusterToolPolicy": ClusterToolPolicy,
    "ToolServer": ToolServer,
}
# Labels that a Namespace's editor cannot choose: guarded by admission, or set by the API server.
_GUARDED: Final = "scope.countersign.dev/"
_OWN_NAME: Final = "kubernetes.io/metadata.name"


def lint(objects: Objects) -> list[Finding]:
    """Return what looks wrong, by object and rule. What is missing among ``objects`` is dangling, so give them all.

    An object without the shape of its kind is named, and left out of what is looked at further.
    """
    sound, found = sorted_out(objects)
    return sorted(found | _looked_at(sound))


def sorted_out(objects: Objects) -> tuple[Objects, set[Finding]]:
    """Return the objects that have the shape of their kind, and what is wrong with each of the others."""
    found: set[Finding] = set()
    sound = Objects(live=objects.live)
    for obj in objects.list(*_SHAPES, "Namespace", "AgentIdentity"):
        fault = _fault(obj)
        if fault is None:
            sound.put(obj)
        else:
            found.add(Finding(_name(obj), "", "invalid", "error", fault))
    return sound, found


def unanswerable(objects: Objects) -> list[Finding]:
    """Return the rules that ask for what no single person can answer."""
    sound, _broken = sorted_out(objects)
    return sorted(approvers_apart([rule for rule in rules_of(sound.policies) if rule.enforced], sound))


def _looked_at(objects: Objects) -> set[Finding]:
    rules = list(rules_of(objects.policies))
    found = {*_fields(objects), *_selectors(objects), *pairs(rules, objects)}
    for rule in rules:
        found.update(one_rule(rule, objects))
    return found


def _fault(obj: dict[str, Any]) -> str | None:
    """Return the first thing that its kind's model refuses; what only the API server can say is left to it."""
    shape = _SHAPES.get(obj["kind"])
    if shape is None:
        return None
    try:
        shape.model_validate(obj)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(one) for one in first['loc'])}: {first['msg']}"
    return None


def _name(obj: dict[str, Any]) -> str:
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{obj['kind']} {namespace}/{meta['name']}" if namespace else f"{obj['kind']} {meta['name']}"


def _fields(objects: Objects) -> Iterator[Finding]:
    for obj in objects.list("ToolPolicy", "ClusterToolPolicy", "ToolServer"):
        for path in unknown_fields(obj):
            message = (
                f"{path} is no field: the API server drops it, and a replica that sees it leaves the rule undecided"
            )
            yield Finding(_name(obj), "", "unknown-field", "error", message)


def _selectors(objects: Objects) -> Iterator[Finding]:
    for obj in objects.list("ClusterToolPolicy", "ToolServer"):
        spec = obj.get("spec") or {}
        selector = spec.get("namespaceSelector") or (spec.get("exposeTo") or {}).get("selector")
        for key in sorted(_keys(selector)):
            if not key.startswith(_GUARDED) and key != _OWN_NAME:
                message = f"who may edit a Namespace steers the label {key}: use {_GUARDED}… or {_OWN_NAME}"
                yield Finding(_name(obj), "", "selector-key", "warning", message)


def _keys(selector: Any) -> set[str]:
    if not isinstance(selector, dict):
        return set()
    labels = selector.get("matchLabels")
    expressions = selector.get("matchExpressions")
    found = set(labels) if isinstance(labels, dict) else set()
    return found | {
        str(one.get("key")) for one in (expressions if isinstance(expressions, list) else []) if isinstance(one, dict)
    }

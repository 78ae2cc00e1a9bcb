"""Our policies as the Rego that OPA indexes best: a rule of a policy is a rule there, and its subjects come first.

The same set, the same questions, the same answers: ``tests/bench`` asks both. What a benchmark's policies do not use is
refused here, so nothing is left out in silence.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["helpers", "module_of"]

_PACKAGE = "package bench.rules\n"
_HELPERS = """tiers := {"Software": 0, "DPoP": 1, "TPMSession": 2, "TPM": 3}

whole(x) if {
	is_number(x)
	floor(x) == x
}
"""
_TYPES = {"Integer": "whole", "String": "is_string"}
_RULE = {"name", "effect", "reason", "subjects", "environment", "tools", "arguments"}


def helpers() -> str:
    """Return the module with what the rules call."""
    return f"{_PACKAGE}\n{_HELPERS}"


def module_of(policies: list[dict[str, Any]]) -> str:
    """Return one module with every rule of ``policies`` (ToolPolicies). Raises ValueError for what it cannot say."""
    return "\n".join([_PACKAGE, *(text for policy in policies for text in _policy(policy))])


def _policy(policy: dict[str, Any]) -> Iterator[str]:
    meta = policy["metadata"]
    for rule in policy["spec"]["rules"]:
        _only(rule, _RULE)
        name = f"ToolPolicy {meta['namespace']}/{meta['name']}/{rule['name']}"
        (agent,), (tool,) = rule["subjects"]["agents"], rule["tools"]
        _only(agent, {"name"})
        for each in tool["names"]:
            about = [
                f"input.agent == {_text(agent['name'])}",
                f"input.tool == {_text(each)}",
                f"input.server == {_text(meta['namespace'] + '/' + tool['server']['name'])}",
                f"input.namespace == {_text(meta['namespace'])}",
            ]
            yield from _rule(name, rule, about)


def _rule(name: str, rule: dict[str, Any], about: list[str]) -> Iterator[str]:
    """Yield the rule; a Deny once more for each argument that may be of another type, for then it cannot be judged."""
    conditions = [*_environment(rule.get("environment", {}))]
    arguments = [_argument(one) for one in rule.get("arguments", [])]
    matched = [*conditions, *(line for lines in arguments for line in lines)]
    if rule["effect"] == "Allow":
        yield _said("allow", name, [*about, *matched])
        return
    if rule["effect"] != "Deny" or conditions:
        raise ValueError(f"{name}: a Deny by its arguments, or an Allow")
    yield _said("deny", name, [*about, *matched])
    for one in rule["arguments"]:
        # Not ``not is_string(input.arguments.x)``: with nothing there, that is not true but undefined.
        found = f"object.get(input.arguments, {_text(_key(one))}, null)"
        yield _said("deny", name, [*about, f"not {_TYPES[one['type']]}({found})"])


def _said(kind: str, name: str, lines: list[str]) -> str:
    return "\n\t".join([f"{kind} contains {_text(name)} if {{", *lines]) + "\n}\n"


def _environment(wanted: dict[str, Any]) -> Iterator[str]:
    _only(wanted, {"minKeyTier", "maxAttestationAgeSeconds"})
    if tier := wanted.get("minKeyTier"):
        yield f"tiers[input.key_tier] >= tiers[{_text(tier)}]"
    if age := wanted.get("maxAttestationAgeSeconds"):
        yield f"input.attestation_age <= {age}"


def _argument(wanted: dict[str, Any]) -> list[str]:
    where = f"input.arguments[{_text(_key(wanted))}]"
    typed = f"{_TYPES[wanted['type']]}({where})"
    if wanted["type"] == "Integer":
        return [typed, f"{where} >= {wanted['integer']['minimum']}", f"{where} <= {wanted['integer']['maximum']}"]
    return [typed, f"{where} in {{{', '.join(_text(one) for one in wanted['string']['values'])}}}"]


def _key(wanted: dict[str, Any]) -> str:
    key = str(wanted["pointer"]).removeprefix("/")
    if "/" in key or wanted["type"] not in _TYPES:
        raise ValueError(f"an argument that is not said in Rego here: {wanted}")
    return key


def _only(found: dict[str, Any], known: set[str]) -> None:
    if unknown := found.keys() - known:
        raise ValueError(f"not said in Rego here: {', '.join(sorted(unknown))}")


def _text(value: str) -> str:
    return json.dumps(value)

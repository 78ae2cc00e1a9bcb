"""What can be said of one rule alone: dangling, unreachable, contradictory, too wide, and what its expression costs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from countersign.policy import when_fault
from countersign.policy.cost import MAX_STEPS, counts, loops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.policytools.findings import Finding, RuleAt
    from countersign.policytools.objects import Objects

__all__ = ["matched_tools", "one_rule"]

_ARGUMENT: Final = re.compile(r"""\bargs(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[(?:'([^'\\]*)'|"([^"\\]*)")\])""")
_CONSTANT: Final = {"true": "always true: leave it out", "false": "never true: the rule never speaks"}


def one_rule(rule: RuleAt, objects: Objects) -> Iterator[Finding]:
    """Yield what looks wrong with a rule."""
    yield from _dangling(rule, objects)
    yield from _unreachable(rule, objects)
    yield from _contradictory(rule)
    yield from _wide(rule, objects)
    yield from _when(rule, objects)


def _server(rule: RuleAt, entry: dict[str, Any], objects: Objects) -> dict[str, Any] | None:
    namespace, _, name = (rule.server_of(entry) or "/").partition("/")
    return objects.get("ToolServer", name, namespace)


def _registered(server: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in (server.get("spec") or {}).get("tools") or [] if isinstance(one, dict)]


def _matches(entry: dict[str, Any], tool: dict[str, Any]) -> bool:
    names, access = entry.get("names"), entry.get("access")
    return (names is None or tool.get("name") in names) and (access is None or tool.get("access") in access)


def matched_tools(rule: RuleAt, objects: Objects) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the registered tools that a rule speaks about, by server and name; one without ``tools`` speaks about all."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for server in objects.list("ToolServer"):
        key = f"{server['metadata'].get('namespace')}/{server['metadata']['name']}"
        for tool in _registered(server):
            entries = rule.tools if "tools" in rule.rule else [{}]
            if any(rule.server_of(entry) in (None, key) and _matches(entry, tool) for entry in entries):
                found[key, str(tool.get("name"))] = tool
    return found


def _dangling(rule: RuleAt, objects: Objects) -> Iterator[Finding]:
    for agent in (rule.rule.get("subjects") or {}).get("agents") or []:
        namespace = agent.get("namespace") or rule.namespace
        if objects.get("AgentIdentity", str(agent.get("name")), namespace) is None:
            yield rule.finding("dangling", "warning", f"there is no AgentIdentity {namespace}/{agent.get('name')}")
    for entry in rule.tools:
        if "server" not in entry:
            continue
        server = _server(rule, entry, objects)
        if server is None:
            yield rule.finding("dangling", "warning", f"there is no ToolServer {rule.server_of(entry)}")
            continue
        known = {str(tool.get("name")) for tool in _registered(server)}
        for name in entry.get("names") or []:
            if name not in known:
                yield rule.finding("dangling", "warning", f"{rule.server_of(entry)} registers no tool {name}")


def _unreachable(rule: RuleAt, objects: Objects) -> Iterator[Finding]:
    """Yield a rule that can never be true: its servers are all known, and register nothing that it speaks about."""
    if not rule.tools or any("server" in entry and _server(rule, entry, objects) is None for entry in rule.tools):
        return
    if objects.list("ToolServer") and not matched_tools(rule, objects):
        yield rule.finding("unreachable", "warning", "no registered tool has these names and this access")


def _contradictory(rule: RuleAt) -> Iterator[Finding]:
    arguments = [one for one in rule.rule.get("arguments") or [] if isinstance(one, dict)]
    for place, one in enumerate(arguments):
        for other in arguments[place + 1 :]:
            if one.get("pointer") == other.get("pointer") and _exclude(one, other):
                message = f"two conditions on {one.get('pointer')} exclude each other: the rule is never true"
                yield rule.finding("contradictory", "warning", message)
    environment, unless = rule.rule.get("environment"), rule.rule.get("unless")
    if isinstance(environment, dict) and isinstance(unless, dict) and unless and _implies(environment, unless):
        yield rule.finding("contradictory", "warning", "environment implies unless: the rule always steps aside")


def _exclude(one: dict[str, Any], other: dict[str, Any]) -> bool:
    kinds = {one.get("type"), other.get("type")}
    if "*" in str(one.get("pointer")):
        return False
    if len(kinds) > 1:
        return not kinds.issubset({"String", "Path", "URL"})
    if kinds == {"Boolean"}:
        return (one.get("boolean") or {}).get("value") is not (other.get("boolean") or {}).get("value")
    if kinds == {"String"}:
        return _apart(one.get("string"), other.get("string"))
    return kinds == {"Integer"} and _no_number(one.get("integer") or {}, other.get("integer") or {})


def _apart(one: Any, other: Any) -> bool:
    return set((one or {}).get("values") or []).isdisjoint((other or {}).get("values") or [])


def _no_number(one: dict[str, Any], other: dict[str, Any]) -> bool:
    least = max((each["minimum"] for each in (one, other) if "minimum" in each), default=None)
    most = min((each["maximum"] for each in (one, other) if "maximum" in each), default=None)
    listed = [set(each["values"]) for each in (one, other) if "values" in each]
    if listed:
        fits = set.intersection(*listed)
        return not any((least is None or one >= least) and (most is None or one <= most) for one in fits)
    return least is not None and most is not None and least > most


def _implies(environment: dict[str, Any], unless: dict[str, Any]) -> bool:
    """Whether ``environment`` being true makes ``unless`` true, as far as lists of names can say."""
    return all(
        isinstance(unless[name], list)
        and isinstance(environment.get(name), list)
        and name in ("devicePools", "clusters", "sources")
        and set(environment[name]) <= set(unless[name])
        for name in unless
    )


def _wide(rule: RuleAt, objects: Objects) -> Iterator[Finding]:
    if rule.effect != "Allow":
        return
    subjects = rule.rule.get("subjects")
    if not rule.namespace and not (isinstance(subjects, dict) and "agents" in subjects):
        message = "an Allow of a ClusterToolPolicy without subjects.agents speaks about every agent that it selects"
        yield rule.finding("too-wide", "warning", message)
    conditions = {"arguments", "when", "task"} & set(rule.rule)
    for entry in rule.tools:
        if "names" in entry or conditions:
            continue
        server = _server(rule, entry, objects)
        dangerous = sorted(
            str(tool.get("name"))
            for tool in (_registered(server) if server else [])
            if tool.get("access") == "Destructive" and _matches(entry, tool)
        )
        if dangerous:
            message = (
                f"allows every tool of {rule.server_of(entry)}, also those that destroy: {', '.join(dangerous[:4])}"
            )
            yield rule.finding("too-wide", "warning", message)
        elif "access" not in entry and server is not None:
            message = f"allows whatever {rule.server_of(entry)} will register: say names or access"
            yield rule.finding("too-wide", "note", message)


def _when(rule: RuleAt, objects: Objects) -> Iterator[Finding]:
    text = rule.rule.get("when")
    if text is None:
        return
    if (fault := when_fault(text)) is not None:
        yield rule.finding("expression", "error", f"when: {fault}")
        return
    if (constant := _CONSTANT.get(str(text).strip())) is not None:
        check = "contradictory" if str(text).strip() == "false" else "too-wide"
        yield rule.finding(check, "warning", f"when is {constant}")
    yield from _cost(rule, text)
    yield from _arguments(rule, text, objects)


def _cost(rule: RuleAt, text: str) -> Iterator[Finding]:
    nested = loops(text)
    if nested > 1:
        enough = round(MAX_STEPS ** (1 / nested))
        message = f"{nested} comprehensions: from about {enough} elements on the limit of {MAX_STEPS} steps leaves it undecided"
        yield rule.finding("cost", "warning", message)
    if re.search(r"\.\s*(?:map|filter)\s*\(", text):
        message = (
            "map and filter copy their list at each step: over 1,000 elements it is undecided; all and exists do not"
        )
        yield rule.finding("cost", "note", message)
    if counts(text):
        message = "a counted repetition in a pattern is slow: on a text over 10,000 characters it is undecided"
        yield rule.finding("cost", "note", message)


def _arguments(rule: RuleAt, text: str, objects: Objects) -> Iterator[Finding]:
    """Arguments that an expression reads, and that no schema of a tool that it speaks about gives."""
    schemas = [tool.get("inputSchema") for tool in matched_tools(rule, objects).values()]
    if not schemas or not all(_closed(schema) for schema in schemas):
        return
    given = {name for schema in schemas for name in (schema or {}).get("properties") or {}}
    read = {next(filter(None, found), "") for found in _ARGUMENT.findall(text)}
    for name in sorted(read - given - {""}):
        message = f"when reads args.{name}, which no tool of this rule takes: such a call is tool.arguments_invalid"
        yield rule.finding("dangling", "warning", message)


def _closed(schema: Any) -> bool:
    """Whether a schema says by itself which members there are."""
    return (
        isinstance(schema, dict)
        and isinstance(schema.get("properties"), dict)
        and schema.get("additionalProperties") is not True
        and not {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "$dynamicRef", "if"} & set(schema)
    )

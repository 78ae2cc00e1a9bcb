"""Typed conditions on arguments: crds.md 5.5. Each compiles to a function from the arguments to a truth value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from countersign.policy.logic import Unreadable, all_of, any_of, block, integer, items, text, texts
from countersign.policy.plain import PORTS, CanonicalUrl, is_address, is_host, is_plain, path_segments, read_url
from countersign.policy.pointer import BLOCKED, MISSING, Pointer

__all__ = ["Condition", "compile_argument"]

Condition = Callable[[Any], bool | None]

_LARGEST: Final = 2**53 - 1
_PORT_MAX: Final = 65535
_STAR_LABELS: Final = 2
_WHEN_MISSING: Final = {"Undecided": None, "Matches": True, "DoesNotMatch": False}
_FIELDS: Final = frozenset(
    {"pointer", "type", "string", "integer", "boolean", "path", "url", "quantifier", "whenMissing"}
)


def compile_argument(value: Any) -> Condition:
    """Compile one entry of ``arguments``; raise ``Unreadable`` for one that this replica does not know."""
    entry = block(value, _FIELDS)
    pointer = Pointer.parse(entry.get("pointer"))
    kind = text(entry.get("type"))
    match, missing = _matcher(kind, entry), _missing(kind, entry)

    def judge(found: Any) -> bool | None:
        if found is MISSING:
            return missing
        return None if found is BLOCKED else match(found)

    if pointer.tail is None:
        if "quantifier" in entry:
            raise Unreadable
        return lambda arguments: judge(pointer.one(arguments))
    combine = {"All": all_of, "Any": any_of}.get(text(entry.get("quantifier")))
    if combine is None:
        raise Unreadable

    def each(arguments: Any) -> bool | None:
        found = pointer.every(arguments)
        return combine(map(judge, found)) if isinstance(found, list) else judge(found)

    return each


def _missing(kind: str, entry: Any) -> bool | None:
    if kind == "Absent":
        if "whenMissing" in entry:
            raise Unreadable
        return True
    choice = entry.get("whenMissing", "Undecided")
    if not isinstance(choice, str) or choice not in _WHEN_MISSING:
        raise Unreadable
    return _WHEN_MISSING[choice]


def _matcher(kind: str, entry: Any) -> Condition:
    """Return the test of the type, whose block must be there and the only one."""
    blocks = {name for name in ("string", "integer", "boolean", "path", "url") if name in entry}
    if kind == "Absent":
        if blocks:
            raise Unreadable
        return lambda _found: False
    if kind not in _TYPES or blocks != {kind.lower()}:
        raise Unreadable
    return _TYPES[kind](entry[kind.lower()])


def _string(value: Any) -> Condition:
    values = _strings(block(value, frozenset({"values"})).get("values"))
    return lambda found: found in values if is_plain(found) else None


def _strings(value: Any) -> frozenset[str]:
    """Return the strings of a non-empty list; here the empty string is a value like any other."""
    if not all(isinstance(entry, str) for entry in items(value)):
        raise Unreadable
    return frozenset(value)


def _whole(value: Any) -> int | None:
    """Return a JSON number with a whole value in ±(2^53-1) as an integer: ``5000.0`` is 5000."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if abs(value) <= _LARGEST else None


def _integer(value: Any) -> Condition:
    entry = block(value, frozenset({"minimum", "maximum", "values"}))
    if "values" in entry:
        if len(entry) > 1:
            raise Unreadable
        values = frozenset(integer(one) for one in items(entry["values"]))
        return lambda found: None if (number := _whole(found)) is None else number in values
    least = integer(entry["minimum"]) if "minimum" in entry else -_LARGEST
    most = integer(entry["maximum"]) if "maximum" in entry else _LARGEST
    if least > most:
        raise Unreadable
    return lambda found: None if (number := _whole(found)) is None else least <= number <= most


def _boolean(value: Any) -> Condition:
    wanted = block(value, frozenset({"value"})).get("value")
    if not isinstance(wanted, bool):
        raise Unreadable
    return lambda found: found is wanted if isinstance(found, bool) else None


def _under(value: Any) -> Condition:
    """Return the test for "equal to an entry or below it, by whole segments"; the entry ``/`` holds every clean path."""
    roots: list[tuple[str, ...]] = []
    for entry in items(value):
        segments = () if entry == "/" else path_segments(entry)
        if segments is None:
            raise Unreadable
        roots.append(segments)

    def below(found: Any) -> bool | None:
        segments = path_segments(found)
        return None if segments is None else any(segments[: len(root)] == root for root in roots)

    return below


def _path(value: Any) -> Condition:
    return _under(block(value, frozenset({"under"})).get("under"))


def _hosts(value: Any) -> Callable[[str], bool]:
    exact, suffixes = set(), []
    for entry in texts(value):
        name = entry.removeprefix("*.")
        if not is_host(name) or (name != entry and (is_address(name) or name.count(".") + 1 < _STAR_LABELS)):
            raise Unreadable
        if name == entry:
            exact.add(entry)
        else:
            suffixes.append("." + name)
    return lambda host: host in exact or (not is_address(host) and any(host.endswith(end) for end in suffixes))


def _url(value: Any) -> Condition:
    entry = block(value, frozenset({"hosts", "schemes", "ports", "under"}))
    hosts = _hosts(entry.get("hosts"))
    schemes = texts(entry["schemes"]) if "schemes" in entry else frozenset({"https"})
    ports = frozenset(integer(one, least=1) for one in items(entry["ports"])) if "ports" in entry else None
    if ports and max(ports) > _PORT_MAX:
        raise Unreadable
    under = _under(entry["under"]) if "under" in entry else None

    def matches(found: Any) -> bool | None:
        url = read_url(found)
        if url is None:
            return None
        return all_of((url.scheme in schemes, hosts(url.host), _port(url, ports), under(url.path) if under else True))

    return matches


def _port(url: CanonicalUrl, ports: frozenset[int] | None) -> bool | None:
    """Whether the port is listed, or the scheme's own; undecided where the scheme has none that we know."""
    if url.port is None:
        return None
    default = PORTS.get(url.scheme)
    wanted = ports if ports is not None else ({default} if default is not None else None)
    return None if wanted is None else url.port in wanted


_TYPES: Final[dict[str, Callable[[Any], Condition]]] = {
    "String": _string,
    "Integer": _integer,
    "Boolean": _boolean,
    "Path": _path,
    "URL": _url,
}

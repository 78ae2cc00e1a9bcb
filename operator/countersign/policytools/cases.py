"""Cases of decisions: the file format of ``tests/data/policy``, read strictly (its README says what each part means).

A file has ``given``, ``call`` and ``cases``; a case lays its own ``given`` over the file's map by map, and its own ``call``
over the file's at the top level. The scalar ``DELETE`` removes a key.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import CODES
from countersign.policytools.facts import read_caller, read_now
from countersign.policytools.strict import BadFile, block, documents, items, mapping, text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Case", "read_cases"]

_GONE: Final = "DELETE"
_EFFECTS: Final = frozenset({"Allow", "Deny", "RequireApproval"})


@dataclass(frozen=True)
class Case:
    """One case: what is given, the call (or the server to list), and the whole answer that is expected."""

    file: str
    name: str
    given: Mapping[str, Any]
    call: Mapping[str, Any]
    expect: Any

    @property
    def lists(self) -> bool:
        """Whether it is about which tools are shown; then ``expect`` is their names."""
        return self.call.get("method") == "tools/list" and isinstance(self.expect, list)


def read_cases(path: Path, policies: list[Any] | None = None) -> list[Case]:
    """Return the cases of a file; ``policies`` stand in the place of those that it gives.

    Raises
    ------
    BadFile
        For whatever is missing, unknown or of another type.

    """
    found: list[Case] = []
    for document in documents(path):
        file = block(document, str(path), required=frozenset({"cases"}), optional=frozenset({"given", "call"}))
        given, call = mapping(file.get("given", {}), f"{path}: given"), mapping(file.get("call", {}), f"{path}: call")
        for place, value in enumerate(items(file["cases"], f"{path}: cases")):
            found.append(_case(path, place, value, given, call, policies))
    if not found:
        raise BadFile(f"{path}: there are no cases")
    return found


def _case(
    path: Path, place: int, value: Any, given: Mapping[str, Any], call: Mapping[str, Any], policies: list[Any] | None
) -> Case:
    where = f"{path}: cases[{place}]"
    name = text(mapping(value, where).get("name"), f"{where}.name")
    where = f"{path}: {name}"
    case = block(value, where, required=frozenset({"name", "expect"}), optional=frozenset({"given", "call", "list"}))
    facts = _given(_merged(given, mapping(case.get("given", {}), f"{where}: given")), where, policies)
    if "list" in case:
        if "call" in case:
            raise BadFile(f"{where}: 'list' and 'call' exclude each other")
        names = items(case["expect"], f"{where}: expect")
        asked = {"server": text(case["list"], f"{where}: list"), "method": "tools/list"}
        return Case(str(path), name, facts, asked, [text(one, f"{where}: expect") for one in names])
    laid = {**call, **mapping(case.get("call", {}), f"{where}: call")}
    return Case(str(path), name, facts, _call(laid, where), _expect(case["expect"], where))


def _merged(below: Any, above: Any) -> Any:
    """Lay ``above`` over ``below``, map by map; lists and scalars are replaced."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return copy.deepcopy(above)
    merged = {key: copy.deepcopy(value) for key, value in below.items() if above.get(key) != _GONE}
    for key, value in above.items():
        if value != _GONE:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _given(value: Any, where: str, policies: list[Any] | None) -> Mapping[str, Any]:
    found = block(
        value,
        f"{where}: given",
        required=frozenset({"now", "cluster", "caller"}),
        optional=frozenset({"task", "toolServers", "policies", "approvals"}),
    )
    read_now(found["now"], f"{where}: given.now")
    read_caller(found["caller"], text(found["cluster"], f"{where}: given.cluster"), f"{where}: given.caller")
    for name in ("toolServers", "policies", "approvals"):
        items(found.get(name), f"{where}: given.{name}")
    if found.get("task") is not None:
        mapping(found["task"], f"{where}: given.task")
    return {**found, "policies": found.get("policies") if policies is None else policies}


def _call(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    kept = {key: one for key, one in value.items() if one != _GONE}
    found = block(
        kept,
        f"{where}: call",
        required=frozenset({"server"}),
        optional=frozenset({"tool", "arguments", "argumentsJSON", "digest", "method", "protocol"}),
    )
    for name in ("tool", "argumentsJSON", "digest", "method", "protocol"):
        if name in found and not isinstance(found[name], str):
            raise BadFile(f"{where}: call.{name}: a text is wanted")
    return found


def _expect(value: Any, where: str) -> Mapping[str, Any]:
    found = block(
        value,
        f"{where}: expect",
        required=frozenset({"effect", "code"}),
        optional=frozenset({"policy", "rule", "reason", "audit"}),
    )
    if found["effect"] not in _EFFECTS:
        raise BadFile(f"{where}: expect.effect: one of {', '.join(sorted(_EFFECTS))}")
    if found["code"] not in CODES:
        raise BadFile(f"{where}: expect.code: there is no code {found['code']!r}")
    for one in items(found.get("audit"), f"{where}: expect.audit"):
        block(one, f"{where}: expect.audit", required=frozenset({"policy", "effect"}), optional=frozenset({"rule"}))
    return found

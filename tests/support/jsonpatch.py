"""JSON Patch (RFC 6902) as the API server applies it: ``add``, ``remove`` and ``replace``, and an error where it would refuse."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def patched(document: dict[str, Any], patch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ``document`` with ``patch`` applied; the input stays as it is."""
    found = copy.deepcopy(document)
    for step in patch:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place: Any = found
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        value = copy.deepcopy(step.get("value"))
        if step["op"] == "add" and isinstance(place, list):
            at = len(place) if last == "-" else int(last)
            assert 0 <= at <= len(place)
            place.insert(at, value)
        elif step["op"] == "add":
            place[last] = value
        else:
            key = int(last) if isinstance(place, list) else last
            # Both fail where there is nothing, as they do at the API server.
            old = place.pop(key)
            assert old is not None
            if step["op"] == "replace" and isinstance(place, list):
                place.insert(int(last), value)
            elif step["op"] == "replace":
                place[key] = value
            else:
                assert step["op"] == "remove"
    return found

"""Changing an answer as little as possible: ``tools/list`` loses the entries that the agent may not call (wire.md 2.3.8).

The filter is a courtesy, each call is decided anyway; but what it cannot read it does not pass on.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["filter_json", "filter_sse"]


def filter_json(body: bytes, tools: frozenset[str], pinned: Mapping[str, str]) -> bytes:
    """Return the JSON-RPC answer with only the ``tools`` left, those with a pinned definition only where it fits.

    Raises:
        ValueError: the answer is not one that can be filtered.
    """
    message = json.loads(body)
    return json.dumps(_filtered(message, tools, pinned), separators=(",", ":"), ensure_ascii=False).encode()


def filter_sse(body: bytes, tools: frozenset[str], pinned: Mapping[str, str]) -> bytes:
    """Do the same in each ``data:`` of an event stream that was read to its end.

    Raises:
        ValueError: as :func:`filter_json`.
    """
    events = body.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    return "\n\n".join(_event(one, tools, pinned) for one in events).encode()


def _event(event: str, tools: frozenset[str], pinned: Mapping[str, str]) -> str:
    lines = event.split("\n")
    data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
    if not data:
        return event
    kept = [line for line in lines if line and not line.startswith("data:")]
    return "\n".join([*kept, "data: " + filter_json(data.encode(), tools, pinned).decode()])


def _filtered(message: Any, tools: frozenset[str], pinned: Mapping[str, str]) -> Any:
    if not isinstance(message, dict):
        msg = "the answer is no JSON-RPC message"
        raise ValueError(msg)  # noqa: TRY004 - one error for whatever cannot be filtered
    result = message.get("result")
    if result is None:
        return message  # an error, or a notification on the way to the answer
    if not isinstance(result, dict) or not isinstance(result.get("tools"), list):
        msg = "the answer lists no tools"
        raise ValueError(msg)  # noqa: TRY004 - as above
    result["tools"] = [one for one in result["tools"] if _shown(one, tools, pinned)]
    return message


def _shown(entry: Any, tools: frozenset[str], pinned: Mapping[str, str]) -> bool:
    if not isinstance(entry, dict) or entry.get("name") not in tools:
        return False
    wanted = pinned.get(entry["name"])
    if wanted is None:
        return True
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(entry)).hexdigest() == wanted
    except (ValueError, RecursionError):
        return False

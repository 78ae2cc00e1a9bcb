"""Changing an answer as little as possible: lists lose what the agent may not call, and tokens do not come back.

``tools/list`` loses the entries that the agent may not call (wire.md 2.3.8). That filter is a courtesy, each call is
decided anyway; but what it cannot read it does not pass on. :class:`TokenFilter` is for every answer: a tool server that
echoes its request would otherwise put the call's token into the agent's memory (wire.md 4.1, A3).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REMOVED", "TokenFilter", "filter_json", "filter_sse"]

REMOVED: Final = b"[call token removed]"


class TokenFilter:
    """Takes one call token out of a stream of bytes.

    It sees the token as it was sent. A tool server that re-codes or cuts it up gets it past here; what the agent then
    holds is used, names one call, ends within 30 s and needs the key's signature: so this is the second line, not the first.
    """

    def __init__(self, token: str) -> None:
        """Look for ``token``."""
        self._token = token.encode("ascii")
        self._held = b""
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """Return what can go on; held back is only an end that could be the token's beginning."""
        data = self._held + data
        if self._token in data:
            self.found = True
            data = data.replace(self._token, REMOVED)
        at = self._possible_start(data)
        self._held = data[at:]
        return data[:at]

    def end(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held

    def clean(self, data: bytes) -> bytes:
        """Return ``data``, which is whole, without the token."""
        return self.feed(data) + self.end()

    def _possible_start(self, data: bytes) -> int:
        at = data.find(self._token[:1], max(len(data) - len(self._token) + 1, 0))
        while at >= 0 and not self._token.startswith(data[at:]):
            at = data.find(self._token[:1], at + 1)
        return at if at >= 0 else len(data)


def filter_json(body: bytes, tools: frozenset[str], pinned: Mapping[str, str]) -> bytes:
    """Return the JSON-RPC answer with only the ``tools`` left, those with a pinned definition only where it fits.

    Raises:
        ValueError: the answer is not one that can be filtered.
    """
    message = json.loads(body, parse_constant=_no_json)
    return json.dumps(_filtered(message, tools, pinned), separators=(",", ":"), ensure_ascii=False).encode()


def filter_sse(body: bytes, tools: frozenset[str], pinned: Mapping[str, str]) -> bytes:
    """Do the same in each ``data:`` of an event stream that was read to its end.

    Raises:
        ValueError: as :func:`filter_json`.
    """
    events = body.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
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
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or name not in tools:
        return False
    wanted = pinned.get(name)
    if wanted is None:
        return True
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(entry)).hexdigest() == wanted
    except (ValueError, RecursionError):
        return False


def _no_json(name: str) -> Any:
    msg = f"{name} is no JSON"
    raise ValueError(msg)

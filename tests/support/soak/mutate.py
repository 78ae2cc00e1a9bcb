"""Hostile variations of good inputs, from one seed: bytes, texts, and trees of JSON whose fields are known.

Each takes a ``random.Random`` and nothing else that varies, so that an input can be made again from its number.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

__all__ = ["dumped", "junk", "mangled", "mangled_headers", "mangled_text", "mangled_tree"]

TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"\x00", b"\xff", b"\xef\xbb\xbf",
    b"-0", b"1e400", b"1.0", b"9007199254740993", b"NaN", b"null", b"true", b"%2e%2e", b"%00", b"%", b"..", b"//", b";", b"=",
    b"?", b"&", b"+", b"\r\n", b"\n", b" ", b"\t", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x84\xaa", b"\xe2\x80\x8b",
    b"\xc2\xa0", b"0x", b"()", b"((((", b"))))", b"'", b"||", b"&&", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x9f", b"\xbf",
    b"\xff" * 8, b"A" * 64,
)  # fmt: skip
"""What parsers trip over: put in where it does not belong."""

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 5, 2**31, 2**53, 2**53 - 1, -(2**53), 2**63, 10**30, 0.5, 5.0, -0.0, 1e308, float("nan"),
    float("inf"), "", " ", "*", "a", "Allow", "Deny", "true", "5", "/", "/*", "/*/*", "~", "/~2", "..", "\x00", "\u200b", "\ud800",
    "é", "e\u0301", "ﬁ", "https://a.example", "http://[::1]", "(a+)+$", "(?=x)", "a{1000}", "#/$defs/x", "x" * 2000, [], {}, [[]],
    {"": None}, [None] * 50,
)  # fmt: skip


def mangled(rng: Random, base: bytes) -> bytes:
    """Return ``base`` with one to four pieces overwritten, cut out, put in, doubled or swapped; now and then something else."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randint(0, len(base))
        end = min(len(base), at + rng.choice((0, 1, 1, 2, 4, 8, 40)))
        how = rng.randrange(6)
        if how == 0:
            piece = rng.choice(TOKENS)
        elif how == 1:
            piece = rng.randbytes(end - at)
        elif how == 2:
            piece = b""
        elif how == 3:
            piece = base[at:end] * rng.choice((2, 3, 50))
        elif how == 4 and at < len(base):
            piece, end = bytes([base[at] ^ 1 << rng.randrange(8)]), at + 1
        else:
            other = rng.randint(0, len(base))
            piece = base[other : other + rng.randrange(30)]
        base = base[:at] + piece + base[end:]
    return base


def mangled_text(rng: Random, base: str) -> str:
    """Return a text changed as :func:`mangled` changes bytes; what is no UTF-8 becomes what surrogateescape makes of it."""
    return mangled(rng, base.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")


def junk(rng: Random, depth: int = 0) -> Any:
    """Return any value that JSON has, and some that it has not."""
    if depth > 3 or rng.random() < 0.6:
        return copy.deepcopy(rng.choice(SCALARS))
    if rng.random() < 0.5:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(SCALARS)): junk(rng, depth + 1) for _ in range(rng.randrange(4))}


def _places(tree: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every container with every key in it."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        keys: Sequence[Any] = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def mangled_tree(rng: Random, tree: Any, *, words: Sequence[str] = ()) -> Any:
    """Return a tree with one to three members replaced, removed, renamed, doubled, moved or nested.

    ``words`` are names and values that mean something where the tree is read.
    """
    changed = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(changed, [])
        if not places:
            return junk(rng)
        holder, key = rng.choice(places)
        how = rng.randrange(7)
        if how == 0:
            holder[key] = junk(rng)
        elif how == 1:
            del holder[key]
        elif how == 2 and words:
            holder[key] = rng.choice(words)
        elif how == 3 and isinstance(holder, dict):
            name = rng.choice((*words, str(key).upper(), f"{key} ", f"{key}s", "")) if words else f"{key}s"
            holder[name] = holder[key] if rng.random() < 0.5 else holder.pop(key)
        elif how == 4 and isinstance(holder[key], str):
            holder[key] = mangled_text(rng, holder[key])
        elif how == 5:
            other, place = rng.choice(places)
            if isinstance(other, list) or isinstance(place, str):
                _move(other, place, copy.deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
    return changed


def _move(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, dict) or (isinstance(holder, list) and isinstance(key, int) and key < len(holder)):
        holder[key] = value


def mangled_headers(rng: Random, headers: Sequence[tuple[str, str]]) -> list[tuple[str | bytes, str | bytes]]:
    """Return header fields with one added, removed, doubled, renamed, changed or moved."""
    fields: list[tuple[str | bytes, str | bytes]] = list(headers)
    for _ in range(rng.choice((1, 1, 2))):
        if not fields:
            break
        place = rng.randrange(len(fields))
        name, value = fields[place]
        text = value if isinstance(value, str) else value.decode("latin-1")
        how = rng.randrange(6)
        if how == 0:
            del fields[place]
        elif how == 1:
            fields.insert(rng.randint(0, len(fields)), (name, value))
        elif how == 2:
            fields[place] = (name, mangled(rng, text.encode("latin-1", "replace")))
        elif how == 3:
            fields[place] = (mangled(rng, str(name).encode("latin-1", "replace")), value)
        elif how == 4:
            rng.shuffle(fields)
        else:
            extra = rng.choice(
                ("authorization", "mcp-name", "mcp-param-x", "content-encoding", "dpop", "x-a", "signature")
            )
            fields.append((extra, rng.choice((text, "", "a, b", "=?base64?eA==?="))))
    return fields


def dumped(rng: Random, value: Any) -> bytes:
    """Return one of the many texts of a JSON value: white space, escapes, order of names, spelling of whole numbers."""
    if isinstance(value, dict):
        names = list(value)
        rng.shuffle(names)
        parts = [_text(rng, name) + _space(rng) + b":" + _space(rng) + dumped(rng, value[name]) for name in names]
        return b"{" + _space(rng) + (_space(rng) + b"," + _space(rng)).join(parts) + _space(rng) + b"}"
    if isinstance(value, list):
        return b"[" + _space(rng) + (b"," + _space(rng)).join(dumped(rng, one) for one in value) + _space(rng) + b"]"
    if isinstance(value, str):
        return _text(rng, value)
    if isinstance(value, int) and not isinstance(value, bool) and value and abs(value) < 10**6:
        spelt = [f"{value}", f"{value}.0", f"{value}e0", f"{value}0e-1", f"{value}E+0", f"{value}.00"]
        return rng.choice(spelt).encode()
    return json.dumps(value).encode()


def _space(rng: Random) -> bytes:
    return rng.choice((b"", b"", b"", b" ", b"\n", b"\t", b"\r\n  "))


def _text(rng: Random, text: str) -> bytes:
    found = []
    for character in text:
        if rng.random() < 0.2 and ord(character) < 0x10000:
            spelt = f"\\u{ord(character):04x}"
            found.append(spelt if rng.random() < 0.5 else "\\u" + spelt[2:].upper())
        elif character == "/" and rng.random() < 0.3:
            found.append("\\/")
        else:
            found.append(json.dumps(character, ensure_ascii=rng.random() < 0.5)[1:-1])
    return b'"' + "".join(found).encode("utf-8", "surrogatepass") + b'"'

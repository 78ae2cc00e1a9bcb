"""How is an attestation object read? RFC 8949 CBOR, only what such an object needs, and only one spelling of it.

Accepted: unsigned and negative integers below 2**64, byte and text strings, arrays, maps with text keys, all of definite
length. Refused: tags, floats, simple values, indefinite lengths, duplicate keys, bytes after the value. The length of
an integer or a string may be written longer than needed: some encoders do, and it changes no meaning.
"""

from __future__ import annotations

from typing import Final

from countersign.attest.reader import Reader

__all__ = ["Cbor", "decode", "encode"]

Cbor = int | bytes | str | list["Cbor"] | dict[str, "Cbor"]

_MAX_DEPTH: Final = 8
_MAX_MEMBERS: Final = 64
_WIDTH: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_DIRECT: Final = 24
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)


def decode(data: bytes, *, code: str = "attest.cbor") -> Cbor:
    """Return the one value that ``data`` is.

    Raises:
        Denied: ``code``.
    """
    reader = Reader(data, code=code)
    value = _value(reader, 0)
    reader.end()
    return value


def encode(value: Cbor) -> bytes:
    """Return ``value`` as CBOR, lengths in their shortest form, members in the order given."""
    if isinstance(value, int):
        return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _head(_TEXT, len(text)) + text
    if isinstance(value, list):
        return _head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
    return _head(_MAP, len(value)) + b"".join(encode(name) + encode(item) for name, item in value.items())


def _value(reader: Reader, depth: int) -> Cbor:
    if depth > _MAX_DEPTH:
        raise reader.fail(f"nested deeper than {_MAX_DEPTH}")
    first = reader.u8()
    major, argument = first >> 5, _argument(reader, first & 0x1F)
    if major == _UNSIGNED:
        return argument
    if major == _NEGATIVE:
        return -1 - argument
    if major == _BYTES:
        return reader.take(argument)
    if major == _TEXT:
        return _text(reader, argument)
    if major not in {_ARRAY, _MAP}:
        raise reader.fail("a tag, float or simple value")
    if argument > _MAX_MEMBERS:
        raise reader.fail(f"{argument} members, at most {_MAX_MEMBERS}")
    if major == _ARRAY:
        return [_value(reader, depth + 1) for _ in range(argument)]
    return _map(reader, argument, depth)


def _argument(reader: Reader, low: int) -> int:
    if low < _DIRECT:
        return low
    if low not in _WIDTH:
        raise reader.fail("an indefinite or reserved length")
    return int.from_bytes(reader.take(_WIDTH[low]))


def _text(reader: Reader, size: int) -> str:
    try:
        return reader.take(size).decode()
    except UnicodeDecodeError as error:
        raise reader.fail("text that is not UTF-8") from error


def _map(reader: Reader, count: int, depth: int) -> dict[str, Cbor]:
    members: dict[str, Cbor] = {}
    for _ in range(count):
        name = _value(reader, depth + 1)
        if not isinstance(name, str):
            raise reader.fail("a key that is not text")
        if name in members:
            raise reader.fail("a key occurs twice")
        members[name] = _value(reader, depth + 1)
    return members


def _head(major: int, argument: int) -> bytes:
    if argument < _DIRECT:
        return bytes([major << 5 | argument])
    for low, width in _WIDTH.items():
        if argument < 1 << (8 * width):
            return bytes([major << 5 | low]) + argument.to_bytes(width)
    msg = "CBOR integers end at 64 bits"
    raise ValueError(msg)

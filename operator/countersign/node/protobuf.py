"""The wire format of proto3, as far as kubelet's messages need it: varints and length-delimited fields. Pure.

A reader keeps what it knows and passes over the rest, as proto3 says, so that a newer kubelet is understood; what does not
parse to the last byte is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MalformedError", "flag", "message", "string", "string_map", "strings", "submessages"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_MORE: Final = 0x80
_LOW: Final = 0x7F
_BITS: Final = 64


class MalformedError(ValueError):
    """Bytes that are no message."""


def string(number: int, value: str) -> bytes:
    """Return a string field; proto3 writes no empty one."""
    return message(number, value.encode()) if value else b""


def flag(number: int, *, value: bool) -> bytes:
    """Return a bool field; proto3 writes no false one."""
    return _varint(number << 3 | _VARINT) + b"\x01" if value else b""


def message(number: int, body: bytes) -> bytes:
    """Return an embedded message, which is written even if it is empty."""
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


def string_map(number: int, values: Mapping[str, str]) -> bytes:
    """Return a map of strings: one entry message for each, in the order of their keys. An entry has both its fields."""
    return b"".join(
        message(number, message(1, key.encode()) + message(2, value.encode())) for key, value in sorted(values.items())
    )


def strings(data: bytes, number: int) -> list[str]:
    """Return the values of a string field, in their order.

    :raises MalformedError: it is no message, or the field is no text.
    """
    try:
        return [each.decode() for each in submessages(data, number)]
    except UnicodeDecodeError as error:
        raise MalformedError("a string is not UTF-8") from error


def submessages(data: bytes, number: int) -> list[bytes]:
    """Return the bodies of a length-delimited field, in their order.

    :raises MalformedError: it is no message, or the field is of another wire type.
    """
    found = [value for at, value in _fields(data) if at == number]
    if not all(isinstance(each, bytes) for each in found):
        raise MalformedError(f"field {number} is not length-delimited")
    return [each for each in found if isinstance(each, bytes)]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise MalformedError("field 0")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise MalformedError(f"wire type {kind}")
        if at + size > len(data):
            raise MalformedError("the message ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > _LOW:
        out.append(value & _LOW | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _BITS + 6, 7):
        if at >= len(data):
            raise MalformedError("the message ends too early")
        byte, at = data[at], at + 1
        value |= (byte & _LOW) << shift
        if not byte & _MORE:
            if value >> _BITS:
                raise MalformedError("a number of more than 64 bits")
            return value, at
    raise MalformedError("a number of more than 64 bits")

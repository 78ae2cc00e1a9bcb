"""The two encodings of ACME, read strictly: base64url without padding, and JSON in which a name occurs once."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from countersign.acme.problems import AcmeProblem

__all__ = ["from_base64url", "read_json", "to_base64url"]

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*\Z")


def to_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Return the bytes; padding, white space, another alphabet and loose last bits are ``malformed``."""
    if not _ALPHABET.match(text):
        raise AcmeProblem("malformed", "not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise AcmeProblem("malformed", "not base64url without padding") from error
    if to_base64url(data) != text:
        raise AcmeProblem("malformed", "not canonical base64url")
    return data


def read_json(data: bytes) -> dict[str, Any]:
    """Return the object that ``data`` holds; no duplicate names, no NaN, UTF-8 without a BOM (RFC 8259)."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise AcmeProblem("malformed", "not strict JSON") from error
    if not isinstance(value, dict):
        raise AcmeProblem("malformed", "expected a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)

"""Base64 in its one canonical spelling: what decodes to the same bytes from another text is refused."""

from __future__ import annotations

import base64
import binascii

__all__ = ["b64", "b64u", "unb64", "unb64u"]


_TO_URL = bytes.maketrans(b"+/", b"-_")


def b64(data: bytes) -> str:
    """Return padded base64."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64u(data: bytes) -> str:
    """Return base64url without padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode("ascii")


def unb64(text: str) -> bytes:
    """Decode padded base64. Raises ValueError for any other spelling, unused bits that are set included."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "not base64"
        raise ValueError(msg) from error
    if b64(data) != text:
        msg = "not canonical base64"
        raise ValueError(msg)
    return data


def unb64u(text: str) -> bytes:
    """Decode base64url without padding. Raises ValueError for any other spelling."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        msg = "not base64url"
        raise ValueError(msg) from error
    if b64u(data) != text:  # also what the decoder skips: it discards characters outside of its alphabet
        msg = "not canonical base64url"
        raise ValueError(msg)
    return data

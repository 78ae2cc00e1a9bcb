"""The wire vectors of ``tests/data/wire``: files, cases, and bodies as bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

_DATA = Path(__file__).parents[1] / "data" / "wire"


def load(name: str) -> dict[str, Any]:
    """Return a file of vectors by its name without ``.json``."""
    found: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_bytes())
    return found


def body_of(case: dict[str, Any]) -> bytes:
    """Return a case's body: base64, or pieces to repeat and join."""
    if "body_repeat" in case:
        return b"".join(base64.b64decode(piece) * times for piece, times in case["body_repeat"])
    return base64.b64decode(case["body"])


def cases(name: str, *, accept: bool) -> list[Any]:
    """Return a file's accepted or refused cases as parameters, each under its name and, if refused, its code."""
    return [
        pytest.param(case, id=case["name"] if accept else f"{case['name']}-{case['code']}")
        for case in load(name)["cases"]
        if case["accept"] is accept
    ]

"""Heads and keys that were kept outside the log: a list of JWS, or ConfigMaps as ``kubectl get -o json`` prints them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from countersign.audit.heads import HeadKeys, read_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_heads", "read_jwks"]


def read_heads(text: str) -> tuple[list[str], HeadKeys]:
    """Return the heads of a file, and the keys that ConfigMaps in it name.

    Raises
    ------
    ValueError
        If it is neither one JWS a line nor ConfigMaps of ours.

    """
    if "apiVersion" not in text:
        return [line.strip() for line in text.splitlines() if line.strip()], {}
    heads: list[str] = []
    keys: HeadKeys = {}
    try:
        for data in _config_maps(yaml.safe_load(text)):
            heads.append(data["head"])
            keys |= read_jwks(data["jwks.json"])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        msg = "not ConfigMaps with heads"
        raise ValueError(msg) from error
    return heads, keys


def read_jwks(text: str) -> HeadKeys:
    """Return the keys of a JWKS. Raises ValueError for anything else."""
    return read_keys(json.loads(text))


def _config_maps(document: Any) -> Iterator[dict[str, str]]:
    for one in document.get("items", [document]):
        yield one["data"]

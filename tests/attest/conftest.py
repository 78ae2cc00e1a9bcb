"""Fixtures of this room."""

from __future__ import annotations

from support.swtpm import simulator

__all__ = ["simulator"]

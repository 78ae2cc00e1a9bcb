"""Fixtures that every room may use."""

from __future__ import annotations

from support.plane import crds, namespace, plane

__all__ = ["crds", "namespace", "plane"]

"""Pods of agents as the tests of admission create them, and who tries what with them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from kube.given import identity, pod
from support.chart import FACTS, render
from support.jsonpatch import patched

from countersign.devcluster import Plane, PlaneError
from countersign.kube.injection import InjectionSettings, inject

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = InjectionSettings(image="localhost/countersign:0.1.0", version="0.1.0")
# May do with pods what `edit` may, and nothing with our kinds.
DEVELOPER, DEBUGGER = "chart-test-developer", "chart-test-debugger"


def init(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": name, **fields}


def label(plane: Plane, namespace: str, *labels: str, user: str | None = None) -> None:
    plane.kubectl("label", "--overwrite", "namespace", namespace, *labels, *([f"--as={user}"] if user else []))


def injected(namespace: str, *, plain: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    before = plain or pod(**spec)
    before["metadata"]["namespace"] = namespace
    return patched(before, inject(before, identity(), SETTINGS))


def create(plane: Plane, found: dict[str, Any], *words: str, user: str | None = None) -> None:
    plane.kubectl("create", *words, "-f", "-", *([f"--as={user}"] if user else []), data=json.dumps(found))


def refused(plane: Plane, found: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaneError) as caught:
        create(plane, found, "--dry-run=server")
    assert message in str(caught.value)


def patch(plane: Plane, namespace: str, change: Any, *words: str, user: str | None = None) -> None:
    as_user = [f"--as={user}"] if user else []
    kind = "--type=json" if isinstance(change, list) else "--type=strategic"
    where = ["pod", "refund-1", "-n", namespace, *words, *as_user]
    plane.kubectl("patch", *where, kind, "-p", json.dumps(change))


def answer_to(plane: Plane, found: dict[str, Any]) -> str:
    """What the API server says against a pod, in a dry run; nothing if it would take it."""
    try:
        create(plane, found, "--dry-run=server")
    except PlaneError as error:
        return str(error)
    return ""


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what


def policy(name: str, *values: str) -> dict[str, Any]:
    objects = [each for each in render(*FACTS, *values) if each["kind"] == "ValidatingAdmissionPolicy"]
    (found,) = [each for each in objects if each["metadata"]["name"] == name]
    return found

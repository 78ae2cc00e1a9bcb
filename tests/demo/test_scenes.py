"""Each scene of the demo, on the real processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from countersign.demo.scenes import LAST, SCENES

if TYPE_CHECKING:
    from support.demo import Ran

pytestmark = [pytest.mark.demo, pytest.mark.timeout(400)]
ALL = [*SCENES, LAST]


@pytest.mark.parametrize("name", [scene.name for scene in ALL])
def test_scene(told: Ran, name: str) -> None:
    scene = told.scenes[name]
    assert scene["passed"], f"{scene['expected']}\nsaw: {scene['observed']}"
    assert set(scene) == {"name", "expected", "observed", "passed"}


def test_the_run_ends_with_its_count_and_exits_with_0(told: Ran) -> None:
    assert told.err.strip().splitlines()[-1] == f"{len(ALL)} passed, 0 failed"
    assert told.status == 0


def test_every_denial_shows_its_reason_code(told: Ran) -> None:
    coded = {
        "a tool that no rule names": "policy.default_deny",
        "a denied argument": "policy.",
        "a page in the pod's browser": "request.origin",
        "captured token, no key": "proof.missing",
        "captured token, key of another approved TPM": "proof.signature",
        "captured request sent again at once": "proof.replayed",
        "captured request, one byte changed": "digest.mismatch",
        "unknown TPM with the pod's own token": "attest.device_unknown",
        "approved TPM of the other node with the stolen pod token": "attest.node_mismatch",
        "decision point killed": "decide.",
        "a Deny applied with kubectl": "policy.denied",
        "pod deleted, certificate still valid": "instance.",
        "device set to Denied": "device.not_approved",
    }
    seen = {name: told.scenes[name]["observed"] for name in coded}
    assert {name: seen[name] for name, code in coded.items() if code not in seen[name]} == {}


def test_no_scene_left_a_file_that_others_can_read(told: Ran, own_cache: dict[str, str]) -> None:
    assert told.status == 0
    open_to_others = []
    for folder, _, files in os.walk(f"{own_cache['XDG_CACHE_HOME']}/countersign/run/demo"):
        for name in files:
            if name.endswith((".key", ".token")) or name in {"token", "tls.key", "keys.json", "sa.key"}:
                path = f"{folder}/{name}"
                if os.stat(path).st_mode & 0o077:  # noqa: PTH116 - a path of text
                    open_to_others.append(path)
    assert open_to_others == []

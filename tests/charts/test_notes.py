"""What helm says after an installation: what comes next, for what was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.chart import CHART, helm

if TYPE_CHECKING:
    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane


def notes(plane: Plane, *values: str) -> str:
    words = [word for each in values for word in ("--set", each)]
    where = ["--namespace", "default", f"--kubeconfig={plane.admin_kubeconfig}"]
    # Objects of other tests are not helm's; nothing is written.
    done = helm("install", "countersign", str(CHART), *where, "--dry-run=client", "--take-ownership", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_say_what_comes_next(plane: Plane) -> None:
    assert "helm test countersign" in notes(plane)
    assert "EmptyDir" not in notes(plane)
    trial = notes(
        plane, "node.enabled=true", "node.type=Simulator", "node.simulator.image=swtpm", "webhook.storage.type=EmptyDir"
    )
    assert "-c simulators --tail=-1" in trial
    assert "storage.type is EmptyDir" in trial
    given = ("certificates.existingSecret.webhook=a", "certificates.existingSecret.authority=b")
    assert "Secrets a and b" in notes(plane, "certificates.source=ExistingSecret", *given)

"""Reading objects with the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from countersign.api import KINDS, AgentIdentity, Device, ToolPolicy, ToolServer

GOOD = sorted((Path(__file__).parents[1] / "data" / "crds" / "good").glob("*.yaml"))
MODELS = {kind.__name__: kind for kind in KINDS}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(next(path for path in GOOD if path.stem == name).read_text("utf-8"))
    return found


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_object_is_read_and_written_back_without_loss(path: Path) -> None:
    found = yaml.safe_load(path.read_text("utf-8"))
    model = MODELS[found["kind"]].model_validate(found)
    again = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert again["spec"] == found["spec"]


def test_defaults_are_those_of_the_schema() -> None:
    spec = AgentIdentity.model_validate(read("agentidentity-refund-agent")).spec
    assert (spec.issuer_ref.name, spec.min_assurance, spec.min_key_tier) == ("default", "Hardware", "TPMSession")
    assert (spec.signer.injection, spec.signer.port, spec.tasks) == ("Sidecar", 7080, "Required")
    server = ToolServer.model_validate(read("toolserver-loopback")).spec
    assert (server.expose_to.from_, server.enforcement) == ("All", "Verifier")


def test_fields_of_a_newer_version_are_ignored() -> None:
    found = read("device-worker-1")
    found["spec"]["colour"] = "blue"
    found["spec"]["binding"]["node"]["rack"] = 7
    device = Device.model_validate(found)
    assert device.spec.binding.node is not None
    assert device.spec.binding.node.name == "worker-1.eu.example.com"


def test_an_object_is_a_value() -> None:
    device = Device.model_validate(read("device-worker-1"))
    with pytest.raises(ValidationError, match="frozen"):
        device.spec.state = "Denied"


def test_a_word_that_the_schema_does_not_know_is_refused() -> None:
    found = read("toolpolicy-refunds")
    found["spec"]["rules"][0]["effect"] = "allow"
    with pytest.raises(ValidationError, match="effect"):
        ToolPolicy.model_validate(found)

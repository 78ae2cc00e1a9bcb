"""The cluster for whoever has Docker."""

from __future__ import annotations

from pathlib import Path

import yaml
from support.chart import CHART

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "kind-config.yaml").read_text())


def test_a_control_plane_and_two_workers() -> None:
    assert [node["role"] for node in CONFIG["nodes"]] == ["control-plane", "worker", "worker"]


def test_its_pods_have_the_addresses_that_the_chart_keeps_off_admission() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["networkPolicy"]["podCIDRs"] == [CONFIG["networking"]["podSubnet"]]

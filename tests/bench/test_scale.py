"""What the benchmark of scale makes of what it saw: no processes here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("scale")


def test_cost_is_of_each_pod_that_came_in_a_stage(scale: Any) -> None:
    def stage(pods: int, cpu: float, requests: float) -> Any:
        return scale._Stage(
            pods, dict.fromkeys(scale._PROCESSES, 80.0), dict.fromkeys(scale._PROCESSES, cpu), requests, 2.0
        )

    facts = dict(scale._growth([stage(0, 5.0, 40), stage(1_000, 10.0, 3_040), stage(3_000, 20.0, 11_040)]))
    assert facts["CPU of the operator for each pod, ms"] == "5.0 (to 1,000), 5.0 (to 3,000)"
    assert facts["requests of our processes for each pod"] == "3.0 (to 1,000), 4.0 (to 3,000)"
    assert facts["memory (PSS, MiB) with 3,000 pods and 1,500 instances"] == "operator 80, webhook 80, authority 80"


def test_admission_is_what_came_between_two_readings(scale: Any) -> None:
    inf = float("inf")
    before = ({0.005: 1.0, 0.025: 2.0, 0.1: 2.0, inf: 2.0}, 0.1)
    after = ({0.005: 11.0, 0.025: 18.0, 0.1: 22.0, inf: 22.0}, 0.5)
    facts = dict(scale._admission([0.010] * 19 + [0.200], 50.0, before, after))
    name = "create a pod, 20 at 50 a second (50 reached)"
    assert facts[f"{name}: p50, p99, as the client sees it"] == "10.0 ms, 200.0 ms"
    assert facts[f"{name}: the mutating webhook as the API server sees it: mean"] == "20.0 ms"
    assert facts["of these within 5 ms"] == "50.00%"


def test_the_stages_of_kwok_are_what_it_reads() -> None:
    stages = [one["metadata"]["name"] for one in yaml.safe_load_all((BENCH / "kwok.yaml").read_text())]
    assert stages == ["node-initialize", "pod-ready", "pod-delete"]

"""`countersign policy explain`: a record of the audit log, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from audit.test_log import opened, record
from typer.testing import CliRunner

from countersign.policytools.main import command

if TYPE_CHECKING:
    from pathlib import Path

RUN = CliRunner()


@pytest.fixture
async def logs(tmp_path: Path) -> Path:
    log = await opened(tmp_path)
    await log.append(record(decision="other"))
    await log.append(
        record(
            decision="wanted",
            code="policy.denied",
            allowed=False,
            tool="create_refund",
            agent="spiffe://agents.example.com/ns/billing/sa/refund-agent",
            instance="billing/one",
            user="bent@example.com",
            device_name="worker-1",
            assurance="Hardware",
            key_tier="TPM",
            attested_at=1_795_521_600,
            rule_set="sha256:ab",
            policy="ClusterToolPolicy base",
            rule="stop",
            reason="Not today.\x1b[2J",
            settled=[
                {"policy": "ClusterToolPolicy base", "rule": "stop", "effect": "Deny"},
                {"policy": "ToolPolicy billing/a", "rule": "no", "effect": "Deny"},
            ],
            audited=[{"policy": "ToolPolicy billing/b", "rule": "later", "effect": "RequireApproval"}],
            recorded_arguments={"/amount": 4000},
        )
    )
    await log.aclose()
    return tmp_path


def test_a_decision_is_explained(logs: Path) -> None:
    result = RUN.invoke(command, ["explain", "wanted", str(logs)])
    assert result.exit_code == 0, result.output
    said = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert said["answer"] == "deny  policy.denied: a Deny rule matched; no Allow lifts it"
    assert said["who.agent"] == "spiffe://agents.example.com/ns/billing/sa/refund-agent"
    assert said["who.user"] == "bent@example.com"
    assert said["what.tool"] == "create_refund"
    assert said["what.recorded_arguments"] == "/amount=4000"
    assert (said["rule.policy"], said["rule.rule"]) == ("ClusterToolPolicy base", "stop")
    assert said["rule.reason"] == "Not today.\\x1b[2J"
    assert said["facts.device"] == "worker-1"
    assert said["facts.attested"] == "2026-11-24T12:00:00Z"
    assert [line.split(maxsplit=1)[1] for line in result.output.splitlines() if line.startswith("settled")] == [
        "Deny  ClusterToolPolicy base  stop",
        "Deny  ToolPolicy billing/a  no",
    ]
    assert said["audited"] == "RequireApproval  ToolPolicy billing/b  later"


def test_programs_read_json(logs: Path) -> None:
    result = RUN.invoke(command, ["explain", "wanted", str(logs), "-o", "json"])
    found = json.loads(result.output)
    assert (found["decision"], found["answer"], found["code"]) == ("wanted", "deny", "policy.denied")
    assert found["facts"]["assurance"] == "Hardware"
    assert [mark["rule"] for mark in found["settled"]] == ["stop", "no"]


def test_what_is_not_there_is_said(logs: Path) -> None:
    assert RUN.invoke(command, ["explain", "gone", str(logs)]).exit_code == 1
    assert RUN.invoke(command, ["explain", "wanted", str(logs / "gone")]).exit_code == 2

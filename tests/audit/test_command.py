"""`countersign audit`: exit codes, filters, and forms of output."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from audit.test_log import NOW, opened, record
from typer.testing import CliRunner

from countersign.audit.main import command

if TYPE_CHECKING:
    from pathlib import Path

RUN = CliRunner()


@pytest.fixture
async def logs(tmp_path: Path) -> Path:
    log = await opened(tmp_path)
    agent = "spiffe://agents.example.com/ns/billing/sa/refund-agent"
    await log.append(record(agent=agent, device_name="worker-1", user="bent@example.com", instance="billing/one"))
    await log.append(
        record(
            code="policy.denied",
            allowed=False,
            tool="create_refund",
            now=NOW + timedelta(minutes=5),
            rule="stop",
            policy="ClusterToolPolicy base",
        )
    )
    await log.append(record(code="policy.default_deny", allowed=False, tool="evil\x1b[2J[red]"))
    await log.aclose()
    return tmp_path


def found(logs: Path, *options: str) -> list[str]:
    result = RUN.invoke(command, ["query", str(logs), "-o", "json", *options])
    assert result.exit_code == 0, result.output
    return [json.loads(line)["status_code"] for line in result.output.splitlines()]


def the_log(logs: Path) -> Path:
    (path,) = logs.glob("*.jsonl")
    return path


async def test_verify_says_whole_and_0(logs: Path) -> None:
    result = RUN.invoke(command, ["verify", str(logs)])
    assert result.exit_code == 0
    assert "4 records in 1 logs: the chain is whole" in result.output


async def test_verify_says_broken_and_1(logs: Path) -> None:
    path = the_log(logs)
    path.write_bytes(path.read_bytes().replace(b"worker-1", b"worker-2"))
    result = RUN.invoke(command, ["verify", str(logs)])
    assert result.exit_code == 1
    assert f"BROKEN: {path.stem} line 2" in result.output
    result = RUN.invoke(command, ["verify", str(path), "-o", "json"])
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["ok"], report["faults"][0]["line"]) == (False, 2)


@pytest.mark.parametrize(
    "words",
    [["verify", "/nowhere"], ["query", "/nowhere"], ["verify"], ["query", "/tmp", "--since", "soon"], ["query", "--x"]],
)
def test_wrong_use_is_2(words: list[str]) -> None:
    assert RUN.invoke(command, words).exit_code == 2


def test_no_logs_is_2(tmp_path: Path) -> None:
    assert RUN.invoke(command, ["verify", str(tmp_path)]).exit_code == 2


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ([], ["policy.allowed", "policy.default_deny", "policy.denied"]),
        (["--agent", "refund-agent"], ["policy.allowed"]),
        (["--agent", "billing/one"], ["policy.allowed"]),
        (["--agent", "agent"], []),
        (["--user", "bent@example.com"], ["policy.allowed"]),
        (["--device", "worker-1"], ["policy.allowed"]),
        (["--tool", "create_refund"], ["policy.denied"]),
        (["--answer", "deny"], ["policy.default_deny", "policy.denied"]),
        (["--code", "policy.denied"], ["policy.denied"]),
        (["--code", "policy."], ["policy.allowed", "policy.default_deny", "policy.denied"]),
        (["--code", "audit.open"], ["audit.open"]),
        (["--since", "2026-11-24T12:05:00Z"], ["policy.denied"]),
        (["--until", "2026-11-24T12:05:00Z"], ["policy.allowed", "policy.default_deny"]),
        (["--decision", "nothing"], []),
    ],
)
async def test_query_filters(logs: Path, options: list[str], codes: list[str]) -> None:
    assert found(logs, *options) == codes


async def test_e7_the_table_shows_no_control_characters(logs: Path) -> None:
    for form in ("table", "wide"):
        result = RUN.invoke(command, ["query", str(logs), "-o", form])
        assert result.exit_code == 0
        assert "\x1b[2J" not in result.output
        assert "evil\\x1b[2J[red]" in result.output
    assert "ClusterToolPolicy base" in result.output


@pytest.mark.parametrize("words", [["--help"], ["verify", "--help"], ["query", "--help"]])
def test_help_has_examples(words: list[str]) -> None:
    result = RUN.invoke(command, words)
    assert result.exit_code == 0
    if len(words) > 1:
        assert "Examples" in result.output

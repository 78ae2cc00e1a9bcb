"""The newest records of a namespace, from files that are being written; and the process that finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from countersign.audit import AuditLog, Filters, decision_record, new_decision_id
from countersign.audit.reading import namespace_of, newest
from countersign.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """Twelve records, one a minute: of two namespaces in turn, and each third of nobody that is known."""
    log = await AuditLog.open(tmp_path, process="webhook", clock=FakeClock(NOON))
    for number in range(12):
        instance = (f"billing/agent-{number}", f"other/agent-{number}", None)[number % 3]
        await log.append(
            decision_record(
                decision=new_decision_id(),
                now=NOON + timedelta(minutes=number),
                code="policy.default_deny" if number % 2 else "policy.allowed",
                allowed=not number % 2,
                leg="T",
                operation="tools/call",
                service="https://tools.example.com",
                tool=f"tool-{number}",
                instance=instance,
            )
        )
    await log.aclose()
    return tmp_path


def tools(records: list[dict[str, Any]]) -> list[str]:
    return [record["resources"][0]["name"] for record in records]


def test_the_newest_of_a_namespace_come_by_time(log: Path) -> None:
    records, more = newest(log, Filters(), "billing", 3)

    assert (tools(records), more) == (["tool-3", "tool-6", "tool-9"], True)
    assert {namespace_of(record) for record in records} == {"billing"}


def test_a_record_of_nobody_is_of_no_namespace_but_of_all(log: Path) -> None:
    assert tools(newest(log, Filters(), None, 100)[0]) == [f"tool-{number}" for number in range(12)]
    assert newest(log, Filters(tool="tool-2"), "billing", 1) == ([], False)
    assert newest(log, Filters(), "", 100)[0] != newest(log, Filters(), None, 100)[0]


def test_filters_are_those_of_the_query(log: Path) -> None:
    found, more = newest(log, Filters(answer="deny", since=NOON + timedelta(minutes=5)), "billing", 10)

    assert (tools(found), more) == (["tool-9"], False)


def test_a_file_that_was_not_written_since_is_not_gone_through(log: Path) -> None:
    for path in log.glob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b'{"time": 9999999999999, "status_code": "policy.allowed"}\n')
        os.utime(path, (NOON.timestamp(), NOON.timestamp()))

    assert newest(log, Filters(since=NOON + timedelta(days=1)), None, 1) == ([], False)


def test_it_is_a_process_of_its_own(log: Path) -> None:
    asked = {
        "directory": str(log),
        "filters": {"since": "2026-11-24T12:08:00+00:00"},
        "namespace": "billing",
        "limit": 9,
    }

    done = subprocess.run(
        [sys.executable, "-m", "countersign.audit.reading"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )

    answer = json.loads(done.stdout)
    assert (tools(answer["records"]), answer["more"], done.stderr) == (["tool-9"], False, "")

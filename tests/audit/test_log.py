"""The writer on a real disk: durable, chained, grouped, and no after any doubt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from countersign.audit import AuditLog, decision_record, new_decision_id, verify_log
from countersign.audit import log as log_module
from countersign.clock import FakeClock
from countersign.errors import Unavailable

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def record(**more: Any) -> dict[str, Any]:
    facts = {
        "decision": new_decision_id(),
        "now": NOW,
        "code": "policy.allowed",
        "allowed": True,
        "leg": "T",
        "operation": "tools/call",
        "service": "https://tools.example.com/stripe",
        "tool": "get_charge",
    }
    return decision_record(**{**facts, **more})


async def opened(directory: Path, process: str = "webhook") -> AuditLog:
    return await AuditLog.open(directory, process=process, clock=FakeClock(NOW))


def lines(log: AuditLog) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.path.read_bytes().splitlines()]


async def test_a_log_opens_with_its_name_and_numbers_its_lines(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    await log.append(record())
    await log.append(record(code="policy.denied", allowed=False))
    await log.aclose()
    first, *rest = lines(log)
    assert first["status_code"] == "audit.open"
    assert "follows" not in first["unmapped"]["countersign"]
    assert log.name.startswith("countersign-webhook-")
    assert [one["unmapped"]["countersign"]["chain"]["seq"] for one in rest] == [1, 2]
    assert verify_log([tmp_path]).ok


async def test_a_line_is_rfc_8785_and_one_line_feed(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    await log.append(record(tool="a\nb\u2028c", user="bent@example.com"))
    await log.aclose()
    raw = log.path.read_bytes()
    assert raw.count(b"\n") == 2
    assert raw.endswith(b"\n")
    assert all(rfc8785.dumps(json.loads(line)) == line for line in raw.splitlines())


async def test_e1_a_record_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(tmp_path)
    seen: list[int] = []
    real = os.fdatasync

    def sync(descriptor: int) -> None:
        real(descriptor)
        seen.append(len(log.path.read_bytes().splitlines()))

    monkeypatch.setattr(log_module.os, "fdatasync", sync)
    await log.append(record())
    assert seen == [2]
    await log.aclose()


async def test_appends_that_wait_together_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(tmp_path)
    syncs: list[int] = []
    monkeypatch.setattr(log_module.os, "fdatasync", syncs.append)
    await asyncio.gather(*(log.append(record()) for _ in range(200)))
    await log.aclose()
    assert len(syncs) <= 3
    report = verify_log([tmp_path])
    assert report.ok
    assert report.records == 201


async def test_e1_a_disk_that_fails_refuses_now_and_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(log_module.os, "fdatasync", full)
        results = await asyncio.gather(*(log.append(record()) for _ in range(3)), return_exceptions=True)
    assert [getattr(result, "code", None) for result in results] == ["audit.unavailable"] * 3
    assert not log.ready
    with pytest.raises(Unavailable, match=r"audit\.unavailable"):
        await log.append(record())
    await log.aclose()


@pytest.mark.parametrize("harm", ["removed", "replaced", "cut", "grown"])
async def test_e1_a_log_that_was_tampered_with_while_open_takes_no_more(tmp_path: Path, harm: str) -> None:
    log = await opened(tmp_path)
    await log.append(record())
    whole = log.path.read_bytes()
    if harm == "removed":
        log.path.unlink()
    elif harm == "replaced":
        log.path.rename(tmp_path / "old")
        log.path.write_bytes(whole)
    elif harm == "cut":
        log.path.write_bytes(whole[:-1])
    else:
        log.path.write_bytes(whole + b"{}\n")
    with pytest.raises(Unavailable, match=r"audit\.unavailable"):
        await log.append(record())
    assert not log.ready
    await log.aclose()


async def test_no_directory_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"audit\.unavailable"):
        await opened(tmp_path / "file" / "audit")


async def test_a_closed_log_takes_no_more(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    await log.aclose()
    await log.aclose()
    assert not log.ready
    with pytest.raises(Unavailable, match=r"audit\.unavailable"):
        await log.append(record())


async def test_a_record_without_canonical_form_is_refused_alone(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    bad = {**record(), "time": 2**60}
    results = await asyncio.gather(log.append(bad), log.append(record()), return_exceptions=True)
    assert isinstance(results[0], Unavailable)
    assert results[1] is None
    await log.aclose()
    assert verify_log([tmp_path]).ok


async def test_a_caller_that_gives_up_does_not_stop_the_writer(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    waiting = asyncio.create_task(log.append(record()))
    await asyncio.sleep(0)
    waiting.cancel()
    await log.append(record())
    await log.aclose()
    assert verify_log([tmp_path]).ok


async def test_the_next_log_names_the_head_that_it_follows(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    await first.append(record())
    await first.aclose()
    second = await opened(tmp_path)
    await second.aclose()
    report = verify_log([tmp_path])
    assert report.ok
    follows = lines(second)[0]["unmapped"]["countersign"]["follows"]
    assert (follows["log"], follows["seq"]) == (first.name, 1)
    assert follows["head"] in {log.head for log in report.logs if log.log == first.name}


async def test_a_log_that_is_still_written_is_not_followed(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    second = await opened(tmp_path)
    assert "follows" not in lines(second)[0]["unmapped"]["countersign"]
    await first.aclose()
    await second.aclose()
    assert verify_log([tmp_path]).ok


_CHILD = """
import asyncio, os, sys
from pathlib import Path
from countersign.audit import AuditLog
from countersign.clock import SystemClock

async def main():
    log = await AuditLog.open(Path(sys.argv[1]), process="webhook", clock=SystemClock())
    from audit.test_log import record
    for _ in range(5):
        await log.append(record())
    with log.path.open("ab") as file:
        file.write(b'{"activity_id":99,"cat')
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_kill_9_with_a_torn_line_is_continued_and_told(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _CHILD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tests)},
        check=False,
        capture_output=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    before = verify_log([tmp_path])
    assert [fault.what for fault in before.faults] == ["an unfinished line of 22 bytes that no later log accounts for"]
    log = await opened(tmp_path)
    await log.append(record())
    await log.aclose()
    after = verify_log([tmp_path])
    assert after.ok
    assert any("unfinished line of 22 bytes" in note for note in after.notes)
    assert lines(log)[0]["unmapped"]["countersign"]["follows"]["torn"]["bytes"] == 22


_FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from countersign.audit import AuditLog
from countersign.clock import SystemClock
from countersign.errors import Unavailable

async def main():
    log = await AuditLog.open(Path(sys.argv[1]), process="webhook", clock=SystemClock(), segment_bytes=int(sys.argv[2]))
    from audit.test_log import record
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
    durable, code = 0, ""
    try:
        while durable < 100:
            await log.append(record())
            durable += 1
    except Unavailable as error:
        code = error.code
    print(durable, code or "none", log.ready)
    await log.aclose()

asyncio.run(main())
"""


async def limited(directory: Path, *, segment: int) -> list[str]:
    """Write up to 100 records where no file may have more than 8,000 bytes: how many, with which code, and still ready."""
    tests = Path(__file__).parent.parent
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _FULL, str(directory), str(segment)],
        env={**os.environ, "PYTHONPATH": str(tests)},
        check=True,
        capture_output=True,
        text=True,
    )
    return child.stdout.split()[-3:]


async def test_e1_a_full_disk_refuses_and_what_was_answered_is_there(tmp_path: Path) -> None:
    durable, code, ready = await limited(tmp_path, segment=1 << 20)
    assert (code, ready) == ("audit.unavailable", "False")
    assert 0 < int(durable) < 100
    log = await opened(tmp_path)
    await log.aclose()
    report = verify_log([tmp_path])
    assert report.ok
    assert report.records == int(durable) + 2
    assert "torn" in lines(log)[0]["unmapped"]["countersign"]["follows"]


async def test_files_that_stay_small_never_meet_the_limit_of_one(tmp_path: Path) -> None:
    assert await limited(tmp_path, segment=4096) == ["100", "none", "True"]
    assert verify_log([tmp_path]).records == 101

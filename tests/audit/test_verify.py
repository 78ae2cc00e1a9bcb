"""Whatever is done to a log afterwards is found, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audit.test_log import opened, record

from countersign.audit import verify_log
from countersign.audit.chain import digest
from countersign.audit.lines import Line
from countersign.audit.scan import Fault, scan_lines

VECTOR = json.loads((Path(__file__).parent.parent / "data" / "audit" / "audit-chain.json").read_text("utf-8"))
NAME = "countersign-webhook-7c9d-01998f1e"


def verify_lines(lines: list[bytes]) -> list[Fault]:
    return scan_lines(NAME, [Line(line, digest(line), len(line)) for line in lines]).faults


def test_the_published_chain_verifies() -> None:
    encoded = [line.encode() for line in VECTOR["lines"]]
    assert verify_lines(encoded) == []
    assert digest(encoded[-1]) == VECTOR["head"]


@pytest.mark.parametrize("case", VECTOR["tampered"], ids=lambda case: case["name"])
def test_a_tampered_chain_is_found_at_its_line(case: dict[str, Any]) -> None:
    faults = verify_lines([line.encode() for line in case["lines"]])
    assert faults[0].line == case["first_bad"]


async def two_logs(directory: Path) -> tuple[Path, Path]:
    paths = []
    for _ in range(2):
        log = await opened(directory)
        for number in range(4):
            await log.append(record(tool=f"tool-{number}"))
        await log.aclose()
        paths.append(log.path)
    assert verify_log([directory]).ok
    return paths[0], paths[1]


async def test_e1_one_edited_byte_anywhere_is_found(tmp_path: Path) -> None:
    first, second = await two_logs(tmp_path)
    for path in (first, second):
        whole = path.read_bytes()
        # The end of the newest log is held by nothing yet, and the report says so; everything before it is.
        end = len(whole) if path == first else whole.rindex(b"\n", 0, -1) + 1
        for place in range(0, end, 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            report = verify_log([tmp_path])
            assert not report.ok, place
            assert any(fault.log in (first.stem, second.stem) for fault in report.faults)
        path.write_bytes(whole)
    assert f"nothing after line 4 of {second.stem} vouches for it yet" in verify_log([tmp_path]).notes


async def test_an_edited_line_is_named(tmp_path: Path) -> None:
    first, _second = await two_logs(tmp_path)
    first.write_bytes(first.read_bytes().replace(b"tool-1", b"tool-7"))
    fault = verify_log([tmp_path]).faults[0]
    assert (fault.log, fault.line) == (first.stem, 3)
    assert "line 2" in fault.what


@pytest.mark.parametrize("line", range(5))
async def test_a_missing_line_is_found(tmp_path: Path, line: int) -> None:
    first, _second = await two_logs(tmp_path)
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    assert not verify_log([tmp_path]).ok


async def test_a_cut_end_is_found_by_the_log_after_it(tmp_path: Path) -> None:
    first, second = await two_logs(tmp_path)
    first.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:-1]))
    faults = verify_log([tmp_path]).faults
    assert [fault.log for fault in faults] == [first.stem]
    assert second.stem in faults[0].what


async def test_a_missing_log_is_found(tmp_path: Path) -> None:
    first, second = await two_logs(tmp_path)
    first.unlink()
    faults = verify_log([tmp_path]).faults
    assert [fault.what for fault in faults] == [f"follows {first.stem}, which is missing"]
    alone = verify_log([second])
    assert alone.ok
    assert any("was not given" in note for note in alone.notes)


async def test_a_log_under_another_name_is_found(tmp_path: Path) -> None:
    _first, second = await two_logs(tmp_path)
    second.rename(tmp_path / "countersign-webhook-0000-000000000000.jsonl")
    assert not verify_log([tmp_path]).ok


async def test_a_second_successor_is_found(tmp_path: Path) -> None:
    _first, second = await two_logs(tmp_path)
    fork = second.read_bytes().splitlines()[0].replace(second.stem.encode(), b"countersign-webhook-0000-1")
    (tmp_path / "countersign-webhook-0000-1.jsonl").write_bytes(fork + b"\n")
    assert any("as countersign-webhook-" in fault.what for fault in verify_log([tmp_path]).faults)


async def test_the_wrong_seq_is_found(tmp_path: Path) -> None:
    first, _second = await two_logs(tmp_path)
    first.write_bytes(first.read_bytes().replace(b'"seq":2', b'"seq":3'))
    assert verify_log([tmp_path]).faults[0].line == 2


@pytest.mark.parametrize("tail", [b"{", b"\xff\n", b"\n", b"[]\n", b'{"unmapped":7}\n', b"[" * 5000 + b"\n"])
async def test_what_no_writer_wrote_is_found(tmp_path: Path, tail: bytes) -> None:
    first, second = await two_logs(tmp_path)
    second.write_bytes(second.read_bytes() + tail)
    assert not verify_log([tmp_path]).ok
    first.write_bytes(b"")
    assert not verify_log([tmp_path]).ok

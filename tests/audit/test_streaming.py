"""Logs far larger than memory: read a line at a time, forwards and backwards, with the end that a killed process left."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from audit.test_heads import KEY, KEYS
from audit.test_log import NOW, opened, record
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from countersign.audit import Filters, Head, query, sign_head, verify_log
from countersign.audit.chain import NO_PREVIOUS, digest, encode
from countersign.audit.lines import LINE_MAX, read_back, read_lines, whole_size
from countersign.audit.main import command
from countersign.audit.reading import newest
from countersign.audit.record import head_record, open_record
from countersign.audit.scan import FAULTS_MAX
from countersign.audit.shown import Output, Shown
from countersign.audit.tail import LINES_MAX, Tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


NAME = "countersign-webhook-7c9d-01998f1e"
LATER = "countersign-webhook-7c9d-01998f1f"


def chained(records: Iterable[dict[str, Any]], name: str = NAME) -> Iterator[bytes]:
    """Lines of a log as its writer would write them, without LF."""
    prev = NO_PREVIOUS
    for seq, one in enumerate(records):
        line = encode(one, log=name, seq=seq, prev=prev)
        prev = digest(line)
        yield line


def write(path: Path, lines: Iterable[bytes]) -> int:
    with path.open("wb") as file:
        return sum(file.write(line + b"\n") for line in lines)


def opening() -> dict[str, Any]:
    return open_record("01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10", NOW, [], [], process="countersign-webhook")


def many(count: int, *, tool: str = "get_charge") -> Iterator[dict[str, Any]]:
    """An opening, and records a second apart with a long name in each."""
    yield opening()
    for number in range(count):
        yield record(tool=f"{tool}-{number}", now=NOW + timedelta(seconds=number), user="u" * 2000)


def tools(records: Iterable[dict[str, Any]]) -> list[str]:
    return [one["resources"][0]["name"] for one in records]


def peak(run: Any) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    assert write(path, chained(many(2000))) > 5_000_000

    assert peak(lambda: verify_log([path])) < 1_500_000
    assert peak(lambda: [None for _ in query([path], Filters())]) < 1_500_000
    assert peak(lambda: Tail([path], Filters()).newest(20)) < 1_000_000
    assert peak(lambda: Tail([path], Filters(tool="get_charge-3")).newest(20)) < 1_000_000
    assert verify_log([path]).ok
    assert sum(1 for _ in query([path], Filters())) == 2000


def test_a_file_that_was_never_a_log_has_a_bounded_number_of_faults(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    path.write_bytes(b"x\n" * (FAULTS_MAX + 50))

    faults = verify_log([path]).faults

    assert len(faults) == FAULTS_MAX + 1
    assert faults[-1].what == "50 further faults"


def test_a_line_that_is_longer_than_any_record_is_a_fault_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    lines = list(chained(many(3)))
    write(path, [*lines[:2], b"x" * (LINE_MAX + 1), *lines[2:]])

    def scanned() -> None:
        report = verify_log([path])
        assert [fault.line for fault in report.faults][:1] == [2]
        assert report.records == 5

    assert peak(scanned) < 1.2 * LINE_MAX
    assert tools(query([path], Filters())) == ["get_charge-0", "get_charge-1", "get_charge-2"]
    assert tools(Tail([path], Filters()).newest(9)) == ["get_charge-0", "get_charge-1", "get_charge-2"]


def test_an_unfinished_line_is_no_record_though_all_of_it_is_there(tmp_path: Path) -> None:
    # Killed between the last byte of a record and its LF: nobody was answered, and the next log names these bytes.
    path = tmp_path / f"{NAME}.jsonl"
    write(path, chained(many(3)))
    path.write_bytes(path.read_bytes()[:-1])

    assert tools(query([path], Filters())) == ["get_charge-0", "get_charge-1"]
    assert tools(newest(tmp_path, Filters(), None, 5)[0])[::-1] == ["get_charge-1", "get_charge-0"]
    tail = Tail([path], Filters())
    assert tools(tail.newest(5)) == ["get_charge-0", "get_charge-1"]
    assert tail.new() == []
    [fault] = verify_log([path]).faults
    assert "an unfinished line of" in fault.what


async def test_an_unfinished_line_that_the_next_log_names_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    write(path, chained(many(3)))
    path.write_bytes(path.read_bytes()[:-1])
    log = await opened(tmp_path)
    await log.append(record(tool="after", now=NOW + timedelta(hours=1)))
    await log.aclose()

    assert verify_log([tmp_path]).ok
    assert tools(query([tmp_path], Filters())) == ["get_charge-0", "get_charge-1", "after"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert not verify_log([tmp_path]).ok


def test_records_of_several_logs_come_by_time_also_where_one_was_written_late(tmp_path: Path) -> None:
    def at(second: int) -> dict[str, Any]:
        return record(tool=f"t{second}", now=NOW + timedelta(seconds=second))

    later = opening() | {"time": opening()["time"] + 100_000}
    write(tmp_path / f"{NAME}.jsonl", chained([opening(), *map(at, [1, 4, 3, 40, 2, 150, 152])]))
    write(tmp_path / f"{LATER}.jsonl", chained([later, *map(at, [102, 151, 101])], LATER))

    shown = tools(query([tmp_path], Filters()))

    assert shown == ["t1", "t2", "t3", "t4", "t40", "t101", "t102", "t150", "t151", "t152"]
    assert tools(Tail([tmp_path], Filters()).newest(3)) == ["t150", "t151", "t152"]


def test_a_head_of_a_line_long_ago_is_judged_as_well(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    plain = list(chained(many(9000)))
    for named, ok in ((plain[1], True), (plain[2], False)):
        jws = sign_head(Head("https://c.example.com", NAME, 1, digest(named), 1), key=KEY, kid="k1")
        head = head_record("01998f1e-6c1a-7d43-9a55-3d5f0b8f7a11", NOW, jws, process="countersign-webhook")
        line = encode(head, log=NAME, seq=len(plain), prev=digest(plain[-1]))
        write(path, [*plain, line])
        report = verify_log([path], keys=KEYS)
        assert [fault.what for fault in report.faults] == ([] if ok else ["is not the line that a head names"])


def test_tail_gives_what_it_found_before_it_read_everything(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    tail = Tail([tmp_path], Filters())
    write(path, chained([opening()]))
    assert tail.newest(5) == []
    write(path, chained([opening(), *(record(tool=f"t{number}") for number in range(LINES_MAX + 5))]))

    first, behind = tail.new(), tail.behind
    assert (len(first), behind) == (LINES_MAX, True)
    assert tools(tail.new()) == [f"t{LINES_MAX + number}" for number in range(5)]
    assert not tail.behind


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300).map(lambda data: data.replace(b"\x01", b"\n")))
def test_a_file_read_backwards_has_the_lines_that_it_has_forwards(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "backwards"
    path.write_bytes(data)
    lines = data.split(b"\n")[:-1]

    assert list(read_back(path, len(data))) == lines[::-1]
    assert [one.data for one in read_lines([path]) if not one.torn] == lines
    assert whole_size(path, len(data)) == sum(len(line) + 1 for line in lines)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000, 300_000, 300_001])
def test_lines_across_blocks_are_read_backwards(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blocks"
    lines = [b"first", b"y" * size, b"", b"z" * 65_536, b"last"]
    path.write_bytes(b"".join(line + b"\n" for line in lines) + b"torn")
    wanted = [line for line in lines if len(line) <= 300_000]

    assert list(read_back(path, path.stat().st_size, longest=300_000)) == wanted[::-1]
    assert [one.data for one in read_lines([path], longest=300_000) if one.data and not one.torn] == [
        *filter(None, wanted)
    ]
    assert whole_size(path, path.stat().st_size) == path.stat().st_size - 4


def test_a_table_of_many_pages_has_one_header_and_its_columns_stay(capsys: pytest.CaptureFixture[str]) -> None:
    Shown(Output.table).add(record(tool="x" * (1 + number // 1000)) for number in range(2500))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2501
    assert sum("DECISION" in line for line in lines) == 1
    assert {line.index("xxx") for line in lines[2001:]} == {lines[0].index("TOOL")}


def test_what_was_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.jsonl"
    size = write(path, chained(many(20)))
    told: list[int] = []
    verify_log([tmp_path], told=told.append)
    assert sum(told) == size
    told.clear()
    assert len(list(query([tmp_path], Filters(), told.append))) == 20
    assert sum(told) == size


def test_no_progress_is_mixed_into_what_a_program_reads(tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.jsonl", chained(many(200)))
    result = CliRunner().invoke(command, ["query", str(tmp_path), "--tool", "get_charge-7", "-o", "json"])
    assert [json.loads(line)["resources"][0]["name"] for line in result.output.splitlines()] == ["get_charge-7"]

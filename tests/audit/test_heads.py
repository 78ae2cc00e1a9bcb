"""Signed heads: what they say, when they are made, and what they find that the chain alone does not (E1)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from audit.test_log import NOW, lines, opened, record
from audit.test_verify import two_logs
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from countersign.audit import AuditLog, Filters, Head, HeadKeeper, read_head, read_keys, sign_head, verify_log
from countersign.audit.chain import digest
from countersign.audit.keeper import HEAD_RECORDS
from countersign.audit.main import command
from countersign.audit.tail import Tail
from countersign.audit.verify import log_paths
from countersign.clock import FakeClock
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://countersign.example.com"
KEY = ec.generate_private_key(ec.SECP256R1())


def jwk(key: ec.EllipticCurvePrivateKey = KEY, kid: str = "k1") -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid}


KEYS = read_keys({"keys": [jwk()]})


class Kept:
    """Where heads are kept outside the log."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.fails = False

    async def keep(self, _head: Head, text: str, _kid: str) -> None:
        if self.fails:
            raise Unavailable("decide.unavailable", "the API server is away")
        self.heads.append(text)


def keeper(log: AuditLog, kept: Kept) -> HeadKeeper:
    return HeadKeeper(log, issuer=ISSUER, key=lambda: ("k1", KEY), publish=kept.keep, clock=FakeClock(NOW))


async def signed_log(directory: Path, kept: Kept, count: int = 3) -> Path:
    log = await opened(directory)
    heads = keeper(log, kept)
    for number in range(count):
        await log.append(record(tool=f"tool-{number}"))
    assert await heads.sign()
    await log.aclose()
    return log.path


def what(report: Any) -> list[str]:
    return [fault.what for fault in report.faults]


async def test_a_head_says_what_the_page_says(tmp_path: Path) -> None:
    kept = Kept()
    path = await signed_log(tmp_path, kept)
    [text] = kept.heads
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in text.split(".")[:2])
    line = path.read_bytes().splitlines()[3]
    assert header == {"alg": "ES256", "typ": "countersign-audit-head+jwt", "kid": "k1"}
    assert claims == {
        "iss": ISSUER,
        "log": path.stem,
        "seq": 3,
        "head": digest(line),
        "iat": int(NOW.timestamp()),
    }
    last = json.loads(path.read_bytes().splitlines()[-1])
    assert (last["status_code"], last["unmapped"]["countersign"]["head"]) == ("audit.head", text)
    assert verify_log([tmp_path], heads=kept.heads, keys=KEYS).ok


async def test_a_head_is_signed_again_only_if_something_else_was_added(tmp_path: Path) -> None:
    log, kept = await opened(tmp_path), Kept()
    heads = keeper(log, kept)
    assert await heads.sign()
    assert not await heads.sign()
    await log.append(record())
    assert await heads.sign()
    assert [read_head(text, KEYS).seq for text in kept.heads] == [0, 2]
    await log.aclose()


async def test_many_records_have_a_head_signed_before_its_time(tmp_path: Path) -> None:
    log, kept = await opened(tmp_path), Kept()
    running = asyncio.create_task(keeper(log, kept).run(every=3600))
    await asyncio.gather(*(log.append(record()) for _ in range(HEAD_RECORDS)))
    for _ in range(1000):
        if kept.heads:
            break
        await log.append(record())
    running.cancel()
    assert read_head(kept.heads[0], KEYS).seq >= HEAD_RECORDS
    await log.aclose()


async def test_time_alone_has_a_head_signed(tmp_path: Path) -> None:
    log, kept = await opened(tmp_path), Kept()
    running = asyncio.create_task(keeper(log, kept).run(every=0))
    await log.append(record())
    while not kept.heads:
        await log.append(record())
    running.cancel()
    await log.aclose()


async def test_a_head_that_could_not_be_kept_is_made_again(tmp_path: Path) -> None:
    log, kept = await opened(tmp_path), Kept()
    heads = keeper(log, kept)
    kept.fails = True
    assert not await heads.sign()
    kept.fails = False
    assert await heads.sign()
    assert log.ready
    await log.aclose()


async def test_e1_a_cut_end_is_found_by_a_head(tmp_path: Path) -> None:
    kept = Kept()
    path = await signed_log(tmp_path, kept)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert verify_log([tmp_path]).ok  # the chain alone cannot know
    report = verify_log([tmp_path], heads=kept.heads, keys=KEYS)
    assert what(report) == ["a head names its line 3, and it has 2 lines"]


async def test_e1_a_log_written_anew_is_found_by_a_head(tmp_path: Path) -> None:
    kept = Kept()
    path = await signed_log(tmp_path, kept)
    before = path.read_bytes().splitlines()
    forged = await opened(tmp_path / "forged")
    for number in range(3):
        await forged.append(record(tool=f"tool-{number + 1}"))
    await forged.aclose()
    data = forged.path.read_bytes().splitlines()
    assert len(data) == len(before) - 1
    chain, prev = [], "sha256:" + "0" * 64
    for line in data:
        new = line.replace(forged.name.encode(), path.stem.encode())
        value = json.loads(new)
        new = new.replace(value["unmapped"]["countersign"]["chain"]["prev"].encode(), prev.encode())
        chain.append(new)
        prev = digest(new)
    path.write_bytes(b"\n".join(chain) + b"\n")
    assert verify_log([path]).ok
    assert what(verify_log([path], heads=kept.heads, keys=KEYS)) == ["is not the line that a head names"]


async def test_e1_a_log_that_is_gone_is_found_by_a_head(tmp_path: Path) -> None:
    kept = Kept()
    path = await signed_log(tmp_path, kept)
    path.unlink()
    assert what(verify_log([tmp_path], heads=kept.heads, keys=KEYS)) == ["is missing: a head names its line 3"]


async def test_a_head_by_another_key_is_not_believed(tmp_path: Path) -> None:
    await signed_log(tmp_path, Kept())
    other = read_keys({"keys": [jwk(ec.generate_private_key(ec.SECP256R1()))]})
    assert what(verify_log([tmp_path], keys=other)) == ["a head cannot be believed: its signature is wrong"]
    unknown = read_keys({"keys": [jwk(kid="k2")]})
    assert what(verify_log([tmp_path], keys=unknown)) == [
        "a head cannot be believed: signed by a key that was not given"
    ]
    assert any("were not checked" in note for note in verify_log([tmp_path]).notes)


async def test_a_record_with_a_head_of_another_log_is_found(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    heads = HeadKeeper(log, issuer=ISSUER, key=lambda: ("k1", KEY), publish=Kept().keep, clock=FakeClock(NOW))
    await heads.sign()
    moved = lines(log)[-1]["unmapped"]["countersign"]["head"]
    other = await opened(tmp_path / "other")
    await other.append({**lines(log)[-1], "unmapped": {"countersign": {"head": moved}}})
    await log.aclose()
    await other.aclose()
    assert what(verify_log([other.path], keys=KEYS)) == ["holds a head that is not of the lines before it"]


def changed(part: str, **members: Any) -> str:
    value = json.loads(base64.urlsafe_b64decode(part + "=="))
    new = {name: one for name, one in {**value, **members}.items() if one is not None}
    return base64.urlsafe_b64encode(json.dumps(new).encode()).rstrip(b"=").decode()


GOOD = sign_head(Head(ISSUER, "log", 1, "sha256:" + "0" * 64, 1), key=KEY, kid="k1")


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "HS256"}, {"typ": "at+jwt"}, {"crit": []}, {"kid": None}], ids=str
)
def test_a_head_with_another_header_is_none(header: dict[str, Any]) -> None:
    first, *rest = GOOD.split(".")
    with pytest.raises(ValueError, match="not a signed head"):
        read_head(".".join((changed(first, **header), *rest)), None)


@pytest.mark.parametrize(
    "claims", [{"seq": -1}, {"seq": True}, {"seq": "1"}, {"head": "x"}, {"log": 1}, {"iat": None}, {"more": 1}], ids=str
)
def test_a_head_with_other_claims_is_none(claims: dict[str, Any]) -> None:
    first, second, third = GOOD.split(".")
    with pytest.raises(ValueError, match="a head has"):
        read_head(f"{first}.{changed(second, **claims)}.{third}", None)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "=.=.=", GOOD[:-4], "x" * 5000, f"{'W10.' * 2}AA"])
def test_what_is_no_head_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_head(text, KEYS)


@pytest.mark.parametrize(
    "document", [{}, [], {"keys": {}}, {"keys": [{}]}, {"keys": [{**jwk(), "crv": "P-384"}]}, {"keys": [7]}], ids=str
)
def test_what_is_no_jwks_is_a_value_error(document: Any) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_keys(document)


# Rotation, and links between logs


async def rotated(directory: Path, count: int = 40) -> AuditLog:
    log = await AuditLog.open(directory, process="webhook", clock=FakeClock(NOW), segment_bytes=4096)
    for number in range(count):
        await log.append(record(tool=f"tool-{number}"))
    await log.aclose()
    return log


async def test_a_log_goes_on_in_further_files_and_is_one_chain(tmp_path: Path) -> None:
    log = await rotated(tmp_path)
    files, _whole = log_paths([tmp_path])
    assert len(files) > 3
    assert all(path.stat().st_size <= 4096 for path in files)
    assert files[1].name == f"{log.name}.0001.jsonl"
    report = verify_log([tmp_path])
    assert (report.ok, report.records, len(report.logs)) == (True, 41, 1)
    after = await opened(tmp_path)
    await after.aclose()
    assert lines(after)[0]["unmapped"]["countersign"]["follows"]["seq"] == 40
    assert verify_log([tmp_path]).ok


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_missing_file_of_a_log_is_found(tmp_path: Path, number: int) -> None:
    log = await rotated(tmp_path)
    path = tmp_path / (f"{log.name}.{number:04d}.jsonl" if number else f"{log.name}.jsonl")
    path.unlink()
    assert not verify_log([tmp_path]).ok


async def test_a_rotated_log_that_is_still_written_is_not_followed(tmp_path: Path) -> None:
    log = await AuditLog.open(tmp_path, process="webhook", clock=FakeClock(NOW), segment_bytes=1024)
    for _ in range(10):
        await log.append(record())
    after = await opened(tmp_path)
    assert lines(after)[0]["unmapped"]["countersign"] | {"chain": 0} == {"beside": [log.name], "chain": 0}
    await log.aclose()
    await after.aclose()


async def test_the_next_log_links_every_log_that_ended(tmp_path: Path) -> None:
    both = [await opened(tmp_path), await opened(tmp_path)]
    for log in both:
        await log.append(record())
        await log.aclose()
    after = await opened(tmp_path)
    await after.aclose()
    report = verify_log([tmp_path])
    assert report.ok
    facts = lines(after)[0]["unmapped"]["countersign"]
    assert {facts["follows"]["log"], *(one["log"] for one in facts["also"])} == {log.name for log in both}
    both[0].path.unlink()
    assert what(verify_log([tmp_path])) == [f"follows {both[0].name}, which is missing"]


async def test_a_log_without_its_successors_link_fails(tmp_path: Path) -> None:
    first, second = await two_logs(tmp_path)
    third = await opened(tmp_path)
    await third.aclose()
    second.unlink()
    assert f"{third.name} has no link to it" in what(verify_log([tmp_path]))
    assert first.exists()


# The command


@pytest.fixture
async def given(tmp_path: Path) -> tuple[Path, Path, Path, Path]:
    """A directory of logs, heads one a line, ConfigMaps as kubectl prints them, and a JWKS."""
    kept = Kept()
    path = await signed_log(tmp_path / "logs", kept)
    (tmp_path / "heads").write_text("\n".join(kept.heads) + "\n")
    jwks = json.dumps({"keys": [jwk()]})
    (tmp_path / "jwks.json").write_text(jwks)
    one = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"head": kept.heads[0], "jwks.json": jwks}}
    (tmp_path / "maps").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [one]}))
    return path, tmp_path / "heads", tmp_path / "maps", tmp_path / "jwks.json"


async def test_verify_takes_heads_from_a_file_or_from_config_maps(given: tuple[Path, ...]) -> None:
    path, heads, maps, jwks = given
    for options in (["--heads", str(heads), "--jwks", str(jwks)], ["--heads", str(maps)]):
        words = ["verify", str(path.parent), *options]
        good = CliRunner().invoke(command, words)
        assert (good.exit_code, "not checked" in good.output) == (0, False), good.output
    piped = CliRunner().invoke(command, ["verify", str(path.parent), "--heads", "-"], input=maps.read_text())
    assert piped.exit_code == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    bad = CliRunner().invoke(command, ["verify", str(path.parent), "--heads", str(maps)])
    assert (bad.exit_code, "a head names its line 3" in bad.output) == (1, True)
    path.unlink()
    assert CliRunner().invoke(command, ["verify", str(path.parent), "--heads", str(maps)]).exit_code == 1


@pytest.mark.parametrize("text", ["", '{"apiVersion": "v1"}', '{"apiVersion": "v1", "items": 7}', "apiVersion: ["])
async def test_verify_with_a_file_that_holds_no_head_is_wrong_use(given: tuple[Path, ...], text: str) -> None:
    path, heads, _maps, jwks = given
    heads.write_text(text)
    assert CliRunner().invoke(command, ["verify", str(path.parent), "--heads", str(heads)]).exit_code == 2
    jwks.write_text(text)
    assert CliRunner().invoke(command, ["verify", str(path.parent), "--jwks", str(jwks)]).exit_code == 2


async def test_tail_prints_the_newest_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = await rotated(tmp_path, 10)
    result = CliRunner().invoke(command, ["tail", str(tmp_path), "-n", "2", "-o", "json"])
    names = [json.loads(line)["resources"][0]["name"] for line in result.output.splitlines()]
    assert names == ["tool-8", "tool-9"]
    tail = Tail([tmp_path], Filters(tool="tool-1"))
    assert len(tail.new()) == 1
    log = await opened(tmp_path)
    await log.append(record(tool="tool-2"))
    await log.append(record(tool="tool-1"))
    with first.path.open("ab") as file:
        file.write(b'{"half a line')
    assert [one["resources"][0]["name"] for one in tail.new()] == ["tool-1"]
    assert tail.new() == []
    await log.aclose()

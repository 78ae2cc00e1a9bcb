"""Token keys over months, as the front door reads them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from support.cluster import NOW

from countersign.clock import FakeClock
from countersign.controller.tokenkeys import TokenKey, read_keys, rotated, written
from countersign_webhook.keys import TokenKeys

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400


def seconds(clock: FakeClock) -> int:
    return int(clock.now().timestamp())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def test_the_first_key_is_used_at_once_for_thirty_days(clock: FakeClock) -> None:
    [key] = rotated((), seconds(clock))

    assert (key.created_at, key.use_from, key.use_until) == (
        seconds(clock),
        seconds(clock),
        seconds(clock) + 30 * DAY,
    )


def test_nothing_changes_before_something_is_due(clock: FakeClock) -> None:
    keys = rotated((), seconds(clock))

    clock.advance(timedelta(days=28, hours=23))

    assert rotated(keys, seconds(clock)) == keys


def test_the_successor_is_published_ten_minutes_before_it_signs(clock: FakeClock) -> None:
    keys = rotated((), seconds(clock))
    clock.advance(timedelta(days=29))

    old, new = rotated(keys, seconds(clock))

    assert [old] == list(keys)
    assert new.use_from == seconds(clock) + 600
    assert new.use_until == new.use_from + 30 * DAY
    assert rotated((old, new), seconds(clock)) == (old, new)


def test_a_key_stays_published_ten_minutes_after_it_last_signed(clock: FakeClock) -> None:
    first = rotated((), seconds(clock))
    clock.advance(timedelta(days=29))
    both = rotated(first, seconds(clock))

    clock.advance(timedelta(days=1, seconds=599))
    assert rotated(both, seconds(clock)) == both

    clock.advance(1)
    assert rotated(both, seconds(clock)) == both[1:]


def test_after_a_long_absence_there_is_a_key_at_once(clock: FakeClock) -> None:
    keys = rotated((), seconds(clock))
    clock.advance(timedelta(days=90))

    [key] = rotated(keys, seconds(clock))

    assert key not in keys
    assert key.use_from == seconds(clock)


def test_e5_the_front_door_always_has_a_key_that_was_published_for_ten_minutes(
    clock: FakeClock, tmp_path: Path
) -> None:
    keys: tuple[TokenKey, ...] = ()
    published: dict[str, int] = {}
    front = TokenKeys(tmp_path)
    for _hour in range(24 * 95):
        keys = rotated(keys, seconds(clock))
        (tmp_path / "keys.json.new").write_bytes(written(keys))
        (tmp_path / "keys.json.new").rename(tmp_path / "keys.json")
        front.refresh()
        for shown in front.jwks(seconds(clock))["keys"]:
            published.setdefault(shown["kid"], seconds(clock))
        signing = front.signing(seconds(clock))
        first = not any(kid != signing.kid for kid in published)
        assert first or seconds(clock) - published[signing.kid] >= 600
        clock.advance(3600)

    assert len(published) == 4


def test_what_is_written_is_read_again(clock: FakeClock) -> None:
    keys = rotated((), seconds(clock))

    assert read_keys(written(keys)) == keys


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("kid"),
        lambda entry: entry.update(extra=1),
        lambda entry: entry.update(kid="other"),
        lambda entry: entry.update(privateKey="-----BEGIN"),
        lambda entry: entry.update(useFrom="1"),
        lambda entry: entry.update(useFrom=True),
    ],
)
def test_a_key_of_another_form_is_refused_without_showing_it(clock: FakeClock, change: object) -> None:
    document = json.loads(written(rotated((), seconds(clock))))
    secret = document["keys"][0]["privateKey"]
    change(document["keys"][0])  # type: ignore[operator]

    with pytest.raises(ValueError, match=r"keys\.json") as refused:
        read_keys(json.dumps(document).encode())

    assert secret[40:80] not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"\xff"])
def test_a_file_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_keys(text)


def test_a_private_key_is_not_shown(clock: FakeClock) -> None:
    assert "PRIVATE" not in repr(rotated((), seconds(clock)))

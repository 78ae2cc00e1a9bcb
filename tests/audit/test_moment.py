"""A time is an RFC 3339 time with its offset, or an age; anything else is refused in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from countersign.audit.moment import moment


def test_a_time_and_an_age() -> None:
    assert moment("2026-11-24T12:00:00Z") == datetime(2026, 11, 24, 12, tzinfo=UTC)
    then = moment("30m")
    assert timedelta(minutes=30) <= datetime.now(UTC) - then < timedelta(minutes=31)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-24T12:00:00", "30", "-5m", "999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an RFC 3339 time with an offset, or an age such as 30m"):
        moment(text)

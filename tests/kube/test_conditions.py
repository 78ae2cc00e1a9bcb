"""A condition changes its time when its status changes, and only then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from countersign.kube import set_condition

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "all is well",
    "observedGeneration": 3,
    "lastTransitionTime": "2026-11-24T12:00:00Z",
}


def test_a_new_condition_is_appended() -> None:
    other = {"type": "Attested", "status": "True"}
    assert set_condition([other], "Ready", "True", "Ready", "all is well", 3, NOON) == [other, READY]


def test_saying_the_same_later_yields_an_equal_list() -> None:
    assert set_condition([READY], "Ready", "True", "Ready", "all is well", 3, LATER) == [READY]


def test_another_reason_keeps_the_time() -> None:
    [found] = set_condition([READY], "Ready", "True", "CAExpiring", "soon", 4, LATER)
    assert found == {**READY, "reason": "CAExpiring", "message": "soon", "observedGeneration": 4}


def test_another_status_moves_the_time_and_keeps_the_place() -> None:
    other = {"type": "Attested", "status": "True"}
    found = set_condition([READY, other], "Ready", "False", "CAExpired", "over", 3, LATER)
    assert [one["type"] for one in found] == ["Ready", "Attested"]
    assert found[0]["lastTransitionTime"] == "2026-11-24T12:05:00Z"


def test_the_input_is_left_alone_and_times_are_utc() -> None:
    before = [dict(READY)]
    berlin = LATER.astimezone(timezone(timedelta(hours=1)))
    [found] = set_condition(before, "Ready", "False", "CAExpired", "over", 3, berlin)
    assert before == [READY]
    assert found["lastTransitionTime"] == "2026-11-24T12:05:00Z"


@pytest.mark.parametrize(("status", "reason"), [("true", "Ready"), ("", "Ready"), ("True", "")])
def test_what_the_api_server_would_refuse_is_refused_here(status: str, reason: str) -> None:
    with pytest.raises(ValueError, match="condition Ready"):
        set_condition([], "Ready", status, reason, "", 1, NOON)

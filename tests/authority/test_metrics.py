"""What the authority exports about the ends of things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from countersign.authority.metrics import is_overdue

if TYPE_CHECKING:
    from support.enrolment import Office

BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
END = BEGIN + timedelta(hours=1)


def instance(*, ready: str = "Ready", state: str = "Active", **certificate: str) -> dict[str, Any]:
    given = {"notBefore": "2026-11-24T12:00:00Z", "notAfter": "2026-11-24T13:00:00Z"} | certificate
    status = {"certificate": given, "conditions": [{"type": "Ready", "status": "True", "reason": ready}]}
    return {"metadata": {"name": "agent"}, "spec": {"state": state}, "status": status}


@pytest.mark.parametrize(
    ("minutes", "overdue"), [(0, False), (45, False), (53.9, False), (54, True), (59.9, True), (60, False)]
)
def test_a_signer_is_overdue_in_the_last_tenth_of_its_certificates_life(minutes: float, overdue: bool) -> None:  # noqa: FBT001
    assert is_overdue(instance(), BEGIN + timedelta(minutes=minutes)) is overdue


@pytest.mark.parametrize(
    "found",
    [
        instance(state="Revoked"),
        instance(ready="PodNotReady"),
        {"metadata": {"name": "new"}, "spec": {}},
        {"metadata": {"name": "waits"}, "spec": {}, "status": {"certificate": {}}},
        instance() | {"metadata": {"name": "going", "deletionTimestamp": "2026-11-24T12:50:00Z"}},
    ],
    ids=["revoked", "its pod has ended", "no status", "no certificate", "deleted"],
)
def test_one_that_has_no_reason_to_renew_is_not_overdue(found: dict[str, Any]) -> None:
    assert not is_overdue(found, END - timedelta(minutes=1))


async def test_a_running_authority_tells_its_view_its_log_and_its_cas(office: Office) -> None:
    registry = office.context.metrics.registry
    assert registry.get_sample_value("countersign_authority_audit_accepting") == 1
    assert registry.get_sample_value("countersign_authority_audit_write_seconds_count") == 0
    await (await office.signer()).admitted()
    assert (registry.get_sample_value("countersign_authority_audit_write_seconds_count") or 0) > 0
    ca = office.context.ca.certificate.not_valid_after_utc.timestamp()
    name = "countersign_authority_ca_expiry_timestamp_seconds"
    assert registry.get_sample_value(name, {"ca": "attestation"}) == ca
    assert (registry.get_sample_value(name, {"ca": "identity"}) or 0) > office.clock.now().timestamp()
    assert registry.get_sample_value("countersign_authority_renewals_overdue") == 0

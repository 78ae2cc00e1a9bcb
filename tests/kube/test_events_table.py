"""The table of Events of docs/crds.md 7: each reason is emitted where a named test sees it, or it cannot occur yet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("operator/countersign", "webhook/countersign_webhook")
STATUS = "tests/authority/test_status.py"
EXCHANGE = "tests/authority/test_exchange.py"
PLANS = "tests/controller/test_plans.py"
OPERATOR = "tests/controller/test_plane.py"
SEEN = {
    ("AgentInstance", "Attested"): (EXCHANGE, "test_the_instance_names_the_certificate_before_the_client_can_fetch_it"),
    ("AgentInstance", "CertificateIssued"): ("tests/authority/test_plane.py", "test_"),
    ("AgentInstance", "CertificateRenewed"): (EXCHANGE, "test_renewal_is_the_same_key_in_a_new_order"),
    ("AgentInstance", "AttestationFailed"): (EXCHANGE, "test_a_failed_attestation_is_told_on_the_instance"),
    ("AgentInstance", "RenewalFailed"): (EXCHANGE, "test_a_renewal_that_is_refused_is_an_event_with_its_code"),
    ("AgentInstance", "CallsDenied"): (
        "tests/webhook/test_plane.py",
        "test_the_owner_of_an_instance_sees_denied_calls_once_with_no_word_of_the_caller",
    ),
    ("AgentInstance", "DuplicateKey"): (
        EXCHANGE,
        "test_another_device_for_the_same_pod_is_refused_and_the_first_stays",
    ),
    ("AgentInstance", "Revoked"): (OPERATOR, "test_a_denied_device_revokes_its_instance_within_seconds"),
    ("AgentIdentity, and the pod", "Injected"): (OPERATOR, "test_everything_in_order_says_so"),
    ("AgentIdentity, and the pod", "NotInjected"): (
        OPERATOR,
        "test_a_pod_that_cannot_be_injected_has_an_event_that_says_why",
    ),
    ("AgentIdentity, and the pod", "Overlap"): (PLANS, "test_overlap_is_an_event_once"),
    ("Device, DevicePool", "Enrolled"): ("tests/authority/test_proposals.py", "test_"),
    ("Device, DevicePool", "Approved"): (OPERATOR, "test_an_approval_is_an_event"),
    ("Device, DevicePool", "Attested"): (EXCHANGE, "test_"),
    ("Device, DevicePool", "EvidenceRejected"): (EXCHANGE, "test_a_refusal_is_told_where_people_look"),
    ("Device, DevicePool", "DuplicateEK"): (PLANS, "test_what_happens_to_a_device_is_an_event"),
    ("Device, DevicePool", "AmbiguousPool"): (EXCHANGE, "test_a_refusal_is_told_where_people_look"),
    ("Device, DevicePool", "ModelDenied"): (PLANS, "test_what_happens_to_a_device_is_an_event"),
    ("ToolServer, policies", "Accepted"): (PLANS, "test_"),
    ("ToolServer, policies", "AudienceConflict"): (PLANS, "test_"),
    ("ToolServer, policies", "InvalidExpression"): (
        PLANS,
        "test_the_place_of_a_fault_in_an_expression_is_in_the_message",
    ),
    ("ToolServer, policies", "RefNotFound"): (OPERATOR, "test_a_dangling_reference_is_reported_and_resolves_by_itself"),
    ("IdentityIssuer", "Rotated"): ("tests/authority/test_rotation.py", "test_"),
    ("IdentityIssuer", "CAExpiring"): (STATUS, "test_a_ca_that_ends_soon_is_told_and_one_that_ended_signs_nothing"),
    ("IdentityIssuer", "DirectoryUnreachable"): (STATUS, "test_an_external_ca_that_is_not_asked_is_told_once"),
}
NOT_YET = {
    ("AgentInstance", "TaskBound"),
    *(("AgentTask", reason) for reason in ("Bound", "Ended", "DeadlineExceeded", "BudgetExhausted", "InstanceGone")),
    *(("ToolApproval", reason) for reason in ("Requested", "Approved", "Used", "Denied", "Expired")),
    ("ToolServer, policies", "DefinitionChanged"),
}


def rows() -> set[tuple[str, str]]:
    page = (ROOT / "docs" / "crds.md").read_text()
    table = page.partition("| on | Normal | Warning |")[2].partition("\n\n")[0]
    lines = [re.match(r"\| ([^|]+) \| ([^|]+) \| ([^|]+) \|", line) for line in table.splitlines()]
    return {
        (match[1], reason)
        for match in lines
        if match and "---" not in match[1]
        for reason in re.findall(r"`(\w+)`", match[2] + match[3])
    }


def source() -> str:
    return "\n".join(path.read_text() for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py")))


def test_every_row_is_seen_by_a_test_or_cannot_occur_yet() -> None:
    assert rows() == set(SEEN) | NOT_YET
    assert not set(SEEN) & NOT_YET


@pytest.mark.parametrize(("row", "where"), SEEN.items(), ids=[reason for _, reason in SEEN])
def test_the_test_is_there_and_speaks_of_the_reason(row: tuple[str, str], where: tuple[str, str]) -> None:
    text = (ROOT / where[0]).read_text()
    assert f"def {where[1]}" in text
    assert row[1] in text
    assert f'"{row[1]}"' in source()


def test_what_cannot_occur_yet_is_emitted_nowhere() -> None:
    told = source()
    shared = {reason for _, reason in SEEN}  # the same word on another kind
    code = {reason for _, reason in NOT_YET} - shared - {"Ended", "Denied", "Bound", "Approved", "Expired"}
    assert [reason for reason in sorted(code) if f'"{reason}"' in told] == []

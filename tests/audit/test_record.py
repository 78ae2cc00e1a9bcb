"""The shape of a record: OCSF 1.7 API Activity, and nothing secret in it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import rfc8785
from audit.test_log import NOW, record
from hypothesis import example, given
from hypothesis import strategies as st

from countersign.audit import DecisionFacts, decision_record, new_decision_id
from countersign.audit.chain import encode
from countersign.audit.record import Certain, head_record, open_record
from countersign.errors import CODES

OCSF = json.loads((Path(__file__).parents[1] / "data" / "audit" / "ocsf-api-activity.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(OCSF)


def test_an_allowed_read_in_full() -> None:
    found = decision_record(
        decision="01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10",
        now=datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC),
        code="policy.allowed",
        allowed=True,
        leg="T",
        operation="tools/call",
        service="https://tools.example.com/stripe",
        tool="get_charge",
        access="ReadOnly",
        user="bent@example.com",
        agent="spiffe://agents.example.com/ns/billing/sa/refund-agent",
        instance="billing/refund-agent-7f9c4",
        peer="10.0.0.7",
        device_uid="9b1deb4d",
        device_name="worker-1",
        args="sha256:aa",
        attested_at=1795521600,
        jti=None,
        audited=[{"policy": "ToolPolicy billing/b", "rule": "stop", "effect": "Deny"}],
        settled=(),
        actors=[],
    )
    product = found["metadata"].pop("product")
    assert (product["name"], product["vendor_name"]) == ("Countersign", "Countersign")
    assert found == {
        "activity_id": 2,
        "action_id": 1,
        "category_uid": 6,
        "class_uid": 6003,
        "type_uid": 600302,
        "metadata": {"uid": "01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10", "version": "1.7.0"},
        "severity_id": 1,
        "status_id": 1,
        "status_code": "policy.allowed",
        "time": 1795521600123,
        "api": {"operation": "tools/call", "service": {"name": "https://tools.example.com/stripe"}},
        "actor": {
            "user": {"name": "bent@example.com"},
            "app_name": "spiffe://agents.example.com/ns/billing/sa/refund-agent",
            "app_uid": "billing/refund-agent-7f9c4",
        },
        "resources": [{"type": "tool", "name": "get_charge"}],
        "src_endpoint": {"ip": "10.0.0.7"},
        "device": {"uid": "9b1deb4d", "name": "worker-1"},
        "unmapped": {
            "countersign": {
                "leg": "T",
                "args": "sha256:aa",
                "attested_at": 1795521600,
                "audited": [{"policy": "ToolPolicy billing/b", "rule": "stop", "effect": "Deny"}],
            }
        },
    }


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        ("policy.denied", 2),
        ("environment.attestation_stale", 2),
        ("proof.replayed", 4),
        ("token.signature", 4),
        ("session.expired", 4),
        ("instance.revoked", 4),
        ("instance.ended", 2),
    ],
)
def test_severity_of_a_refusal(code: str, severity: int) -> None:
    found = record(code=code, allowed=False)
    assert (found["status_id"], found["action_id"], found["severity_id"]) == (2, 2, severity)
    assert (found["activity_id"], found["type_uid"]) == (99, 600399)


def test_a_code_that_does_not_exist_is_a_bug() -> None:
    with pytest.raises(ValueError, match="unregistered"):
        record(code="policy.perhaps")


def test_e2_no_fact_can_carry_a_secret() -> None:
    hints = DecisionFacts.__annotations__
    assert not {
        name for name in hints if re.search(r"token|proof_|signature|key$|secret|header|body|arguments$", name)
    } - {"recorded_arguments"}


def test_decision_ids_are_uuid_7_and_sort_by_time() -> None:
    ids = [new_decision_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)


@pytest.mark.parametrize("code", sorted(CODES))
@pytest.mark.parametrize("allowed", [True, False])
def test_every_record_has_what_ocsf_requires_of_api_activity(code: str, allowed: bool) -> None:  # noqa: FBT001
    VALID.validate(record(code=code, allowed=allowed))
    VALID.validate(record(code=code, allowed=allowed, access="ReadOnly", tool=None, agent="a", peer="10.0.0.1"))


def test_what_the_log_says_of_itself_has_what_ocsf_requires() -> None:
    follows = {"log": "countersign-webhook-1", "seq": 3, "head": "sha256:" + "0" * 64}
    for ended, beside in (((), ()), ((follows, follows), ("countersign-webhook-2",))):
        VALID.validate(open_record(new_decision_id(), NOW, ended, beside, process="countersign-webhook"))
    VALID.validate(head_record(new_decision_id(), NOW, "a.b.c", process="countersign-webhook"))


@pytest.mark.parametrize(
    "name",
    [
        "activity_id",
        "actor",
        "api",
        "category_uid",
        "class_uid",
        "metadata",
        "severity_id",
        "src_endpoint",
        "time",
        "type_uid",
    ],
)
def test_the_schema_misses_each_required_field(name: str) -> None:
    found: dict[str, Any] = record()
    del found[name]
    assert not VALID.is_valid(found)


_WORDS = st.sampled_from(["", "x", "é", "\u2028", "\x01"])
_ODD = st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | _WORDS | st.just(NOW)
_VALUES = st.recursive(_ODD, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2))
_FACTS = [
    "access",
    "tool",
    "agent",
    "device_uid",
    "attested_at",
    "policy",
    "reason",
    "recorded_arguments",
    "actors",
    "approval",
]


@given(st.dictionaries(st.sampled_from(_FACTS), _VALUES, max_size=4), st.booleans())
@example({"attested_at": 0}, False)
def test_a_line_has_the_rfcs_bytes_whatever_the_facts_are(facts: dict[str, Any], marked: bool) -> None:  # noqa: FBT001
    marks = [{"policy": "ToolPolicy b/c", "rule": None, "effect": "Deny"}] if marked else []
    base = {
        "decision": "d",
        "now": NOW,
        "code": "policy.denied",
        "allowed": False,
        "leg": "T",
        "operation": "o",
        "service": "",
    }
    made = decision_record(**base, settled=marks, **facts)  # type: ignore[typeddict-item]
    chain = {"log": "l", "seq": 3, "prev": "p"}
    ours = {**made["unmapped"]["countersign"], "chain": chain}
    try:
        wanted: Any = rfc8785.dumps({**made, "unmapped": {"countersign": ours}})
    except Exception as error:  # noqa: BLE001 - which one it is, is what is compared
        wanted = type(error)

    try:
        line: Any = encode(made, **chain)
    except Exception as error:  # noqa: BLE001 - as above
        line = type(error)

    assert line == wanted


def test_the_record_of_a_call_is_certain() -> None:
    assert type(record()) is Certain

"""Every code of enrolment.md sections 2 to 4 is raised by a case of some test, or by nothing because it is not built."""

from __future__ import annotations

from attest.test_ak import HOSTILE as HOSTILE_AKS
from attest.test_ak import KEY_HOSTILE as HOSTILE_KEYS
from attest.test_csr import HOSTILE as HOSTILE_CSRS
from attest.test_ek import HOSTILE as HOSTILE_EKS
from attest.test_statement import HOSTILE as HOSTILE_STATEMENTS
from authority.test_enrolment_checks import SHARED
from authority.test_order_checks import INSTANCE_CASES, LATER_CASES

from countersign.errors import CODES

ALONE = {
    "request",
    "ak_reused",
    "key_reused",
    "secret_invalid",
    "instance_inactive",
    "pending_full",
    "unavailable",
    "failed",
}
"""Raised by tests of their own in this room."""
NOT_BUILT = {"quote_signature", "quote_nonce", "pcr_mismatch", "counters"}
"""Of quotes: a pool that would need them is refused with ``attest.quote_missing``."""


def test_every_code_has_a_case() -> None:
    tables = (HOSTILE_EKS, HOSTILE_STATEMENTS, HOSTILE_CSRS)
    raised = {code for table in tables for code, *_ in table}
    raised |= {code for table in (HOSTILE_AKS, HOSTILE_KEYS) for _, code, *_ in table}
    raised |= {case.code for case in (*SHARED, *INSTANCE_CASES, *LATER_CASES)}
    assert {f"attest.{code}" for code in raised | ALONE | NOT_BUILT} == {
        code for code in CODES if code.startswith("attest.")
    }
    assert not NOT_BUILT & (raised | ALONE)

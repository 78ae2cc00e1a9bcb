"""The recorded device-attest-01 exchanges, each with the code it must end in."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from countersign.attest import CSR_STEPS, STATEMENT_STEPS, attestation_object, verify_csr, verify_statement
from countersign.errors import Denied

DATA = Path(__file__).parent.parent / "data" / "acme"
GOOD = [json.loads(path.read_text()) for path in sorted(DATA.glob("good-*.json"))]
REFUSE = json.loads((DATA / "refuse.json").read_text())
CODES = {
    "identifier.missing": "attest.identifier_missing",
    "identifier.mismatch": "attest.identifier_mismatch",
    "extraData": "attest.extra_data",
    "certInfo.name": "attest.name",
    "csr.key": "attest.csr_key",
}


def run(case: dict[str, Any], left_out: str = "") -> None:
    evidence = verify_statement(
        attestation_object(case["challengePayload"]),
        key_authorization=case["keyAuthorization"],
        identifier=case["order"]["value"],
        ak_roots=[x509.load_der_x509_certificate(base64.b64decode(root)) for root in case["akRoots"]],
        now=datetime.fromisoformat(case["at"]),
        steps=[step for step in STATEMENT_STEPS if step.code != left_out],
    )
    verify_csr(
        base64.b64decode(case["csr"]),
        attested_spki=evidence.spki,
        identifier=case["order"]["value"],
        steps=[step for step in CSR_STEPS if step.code != left_out],
    )


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["id"])
def test_a_good_exchange_is_accepted(case: dict[str, Any]) -> None:
    run(case)


@pytest.mark.parametrize("case", REFUSE, ids=lambda case: f"{case['id']}: {CODES[case['check']]}")
def test_a_bad_exchange_is_refused_with_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(Denied) as caught:
        run(case)

    assert caught.value.code == CODES[case["check"]]


@pytest.mark.parametrize("case", REFUSE, ids=lambda case: f"{case['id']}: {CODES[case['check']]}")
def test_without_that_one_check_the_bad_exchange_passes_or_fails_later(case: dict[str, Any]) -> None:
    code = CODES[case["check"]]
    order = [step.code for step in (*STATEMENT_STEPS, *CSR_STEPS)]

    try:
        run(case, left_out=code)
        later = len(order)
    except Denied as denied:
        later = order.index(denied.code)

    assert later > order.index(code)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["id"])
def test_truncated_anywhere_a_good_statement_is_refused(case: dict[str, Any]) -> None:
    data = attestation_object(case["challengePayload"])
    roots = [x509.load_der_x509_certificate(base64.b64decode(root)) for root in case["akRoots"]]

    for end in range(len(data)):
        with pytest.raises(Denied):
            verify_statement(
                data[:end],
                key_authorization=case["keyAuthorization"],
                identifier=case["order"]["value"],
                ak_roots=roots,
                now=datetime.fromisoformat(case["at"]),
            )


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"attObj": ""},
        {"attObj": 7},
        {"attObj": {"a": 1}},
        {"attObj": "YQ=="},
        {"attObj": "Y Q"},
        {"attObj": "YWI\n"},
        {"attObj": "YR"},
        {"attObj": "+/+/"},
        {"attObj": "A" * 60000},
        {"attObj": "é"},
    ],
    ids=str,
)
def test_a_payload_without_one_spelling_of_an_object_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(Denied) as caught:
        attestation_object(payload)

    assert caught.value.code == "attest.payload"

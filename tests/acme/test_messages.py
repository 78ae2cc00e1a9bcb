"""The bodies: what is read, what is ignored, what is refused."""

from __future__ import annotations

import pytest

from countersign.acme import AcmeProblem, Identifier, NewOrder, permanent_identifier, read_payload

STEP_ORDER = (
    b'{"identifiers":[{"type":"permanent-identifier","value":"agent-1"}],'
    b'"notBefore":"0001-01-01T00:00:00Z","notAfter":"0001-01-01T00:00:00Z"}'
)


def test_the_step_cli_s_zero_times_are_no_times() -> None:
    assert not read_payload(NewOrder, STEP_ORDER).names_times()


def test_another_time_is_a_time() -> None:
    assert read_payload(NewOrder, STEP_ORDER.replace(b"0001", b"2030")).names_times()


def test_a_missing_member_is_named_and_its_value_is_not() -> None:
    with pytest.raises(AcmeProblem, match=r"member identifiers\.0\.value") as refused:
        read_payload(NewOrder, b'{"identifiers":[{"type":"permanent-identifier","value":4711}]}')
    assert "4711" not in refused.value.detail


@pytest.mark.parametrize("value", ["ABC", "ABC/1.2.3.4", "A/2.999", "prod-eu.billing.refund-agent-7f9c4"])
def test_a_value_of_the_draft_s_grammar_is_taken(value: str) -> None:
    assert permanent_identifier(Identifier(type="permanent-identifier", value=value)) == value


@pytest.mark.parametrize("value", ["ABC/", "/1.2.3", "A/B", "A/1.40", "A/1.02", "A/1", "", "A/3.1", "A\n/1.2.x"])
def test_another_value_is_malformed(value: str) -> None:
    with pytest.raises(AcmeProblem, match="malformed"):
        permanent_identifier(Identifier(type="permanent-identifier", value=value))


def test_b3_control_characters_are_rejected() -> None:
    with pytest.raises(AcmeProblem, match="rejectedIdentifier"):
        permanent_identifier(Identifier(type="permanent-identifier", value="a\x00b"))


def test_b10_another_type_of_identifier_is_not_offered() -> None:
    with pytest.raises(AcmeProblem, match="unsupportedIdentifier"):
        permanent_identifier(Identifier(type="dns", value="example.com"))


def test_a_problem_document_survives_the_way() -> None:
    sent = AcmeProblem("badCSR", "names something", "attest.csr_names", subproblems=({"type": "x"},))
    read = AcmeProblem.read(sent.document(), status=400)
    assert (read.type, read.name, read.detail, read.code, read.subproblems) == (
        "urn:ietf:params:acme:error:badCSR",
        "badCSR",
        "names something",
        "attest.csr_names",
        ({"type": "x"},),
    )


@pytest.mark.parametrize(
    "document", [None, [], "x", {"type": 5, "detail": "a\x1b[31m", "code": {}, "subproblems": "x"}]
)
def test_what_is_no_problem_document_is_still_an_error_that_prints(document: object) -> None:
    problem = AcmeProblem.read(document, status=502)
    assert problem.status == 502
    assert str(problem).isprintable()

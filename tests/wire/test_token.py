"""The call token: every vector of the page, what each check stands for, and what the front door mints."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.signed_vectors import issuer_key, private_key
from support.wire_vectors import load

from countersign.errors import CountersignError, Denied
from countersign.wire import TOKEN_STEPS, Step, TokenClaims, TokenExam, digest_of, mint_token, thumbprint, verify_token
from countersign.wire.keys import sign_es256

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = load("tokens")
ACCEPTED = [case for case in FILE["cases"] if case["accept"]]
REFUSED = [case for case in FILE["cases"] if not case["accept"]]
AGENT = "spiffe://agents.example.com/ns/billing/sa/refund-agent"
NOW = FILE["now"]


def named(case: dict[str, Any]) -> str:
    return f"{case['name']}-{case.get('code', 'accepted')}"


def exam_of(token: str, **changes: Any) -> TokenExam:
    known = {
        "issuer": FILE["issuer"],
        "audience": FILE["audience"],
        "now": FILE["now"],
        "skew": 5,
        "keys": issuer_key,
        **changes,
    }
    return TokenExam(token, **known)


@pytest.mark.parametrize("case", ACCEPTED, ids=named)
async def test_a_good_token_says_what_it_says(case: dict[str, Any]) -> None:
    token = await verify_token(exam_of(case["token"]))

    claims = jwt.decode(case["token"], options={"verify_signature": False})
    facts = claims["countersign"]
    assert (token.sub, token.client_id, token.jti, token.txn) == tuple(
        claims[name] for name in ("sub", "client_id", "jti", "txn")
    )
    assert thumbprint(token.public_key) == claims["cnf"]["jkt"]
    assert [dict(token.details)] == claims["authorization_details"]
    assert (token.instance, token.key_tier, token.assurance, token.attested_at) == tuple(
        facts[name] for name in ("instance", "key_tier", "assurance", "attested_at")
    )


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_a_bad_token_fails_with_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refusal:
        await verify_token(exam_of(case["token"]))

    assert refusal.value.code == case["code"]


async def stops_at(token: str, steps: Sequence[Step[TokenExam]]) -> tuple[int, str | None]:
    """Return the place in TOKEN_STEPS at which a token fails, with its code; or the end, if it passes."""
    reached: list[Step[TokenExam]] = []

    def watched(step: Step[TokenExam]) -> Step[TokenExam]:
        def check(exam: TokenExam) -> Any:
            reached.append(step)
            return step.check(exam)

        return replace(step, check=check)

    exam = exam_of(token)
    try:
        await verify_token(exam, steps=[watched(step) for step in steps])
    except CountersignError as error:
        if len(reached) < len(steps) or steps[-1] is not reached[-1] or _fails(reached[-1], exam):
            return TOKEN_STEPS.index(reached[-1]), error.code
        return len(TOKEN_STEPS), error.code  # every step passed, and the result could not be made
    return len(TOKEN_STEPS), None


def _fails(step: Step[TokenExam], exam: TokenExam) -> bool:
    try:
        step.check(exam)
    except CountersignError:
        return True
    return False


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_without_its_check_a_bad_token_passes_or_fails_later(case: dict[str, Any]) -> None:
    at, _ = await stops_at(case["token"], TOKEN_STEPS)
    left_out = TOKEN_STEPS[at]
    assert case["code"] in left_out.codes

    later, _ = await stops_at(case["token"], [step for step in TOKEN_STEPS if step is not left_out])

    assert later > at


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_no_other_check_is_needed_to_refuse_it(case: dict[str, Any]) -> None:
    at, _ = await stops_at(case["token"], TOKEN_STEPS)

    for other in TOKEN_STEPS[:at]:
        if "token.kid" in other.codes:
            continue  # it finds the key that the next step needs
        stopped, code = await stops_at(case["token"], [step for step in TOKEN_STEPS if step is not other])
        assert (stopped, code) == (at, case["code"]), other.codes


def test_the_numbers_are_those_of_the_page_in_its_order() -> None:
    numbers = [step.number for step in TOKEN_STEPS]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(7, 17))


def claims(**changes: Any) -> TokenClaims:
    given = {
        "iss": FILE["issuer"],
        "sub": AGENT,
        "aud": FILE["audience"],
        "client_id": AGENT,
        "iat": NOW,
        "exp": NOW + 30,
        "jti": "0pZ6u5h9T2uY8yqkq1c3Xw",
        "txn": "01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10",
        "public_key": private_key("tpm").public_key(),
        "protocol": "MCP",
        "method": "tools/call",
        "tool": "create_refund",
        "args": digest_of(b"{}"),
        "instance": "billing/refund-agent-7f9c4",
        "key_tier": "TPM",
        "assurance": "Hardware",
        "attested_at": NOW - 60,
        "policy": digest_of(b"rules"),
        **changes,
    }
    return TokenClaims(**given)


def signed(payload: bytes) -> str:
    """A token of the issuer with these bytes as its claims."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(private_key("issuer").public_key())}
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload)]
    signature = sign_es256(private_key("issuer"), b".".join(parts))
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def test_the_claims_are_those_of_the_page_and_a_stranger_reads_them() -> None:
    key = private_key("issuer")

    token = mint_token(claims(task="uid-task", purpose="support"), key=key)

    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(key.public_key())}
    read = jwt.decode(
        token,
        key=key.public_key(),
        algorithms=["ES256"],
        audience=FILE["audience"],
        issuer=FILE["issuer"],
        options={"verify_exp": False, "verify_iat": False},
    )
    example = FILE["example_claims"]
    assert read.keys() == example.keys()
    assert read["countersign"].keys() == example["countersign"].keys()
    assert read["cnf"] == example["cnf"]
    assert read["act"] == {"sub": AGENT}
    assert read["authorization_details"] == [claims().details]


def test_without_task_and_purpose_the_token_has_no_such_members() -> None:
    assert claims().document["countersign"].keys() == {"instance", "key_tier", "assurance", "attested_at", "policy"}


async def test_what_we_mint_our_verifier_takes() -> None:
    token = await verify_token(exam_of(mint_token(claims(), key=private_key("issuer"))))

    assert (token.sub, token.instance, token.details["tool"]) == (AGENT, "billing/refund-agent-7f9c4", "create_refund")


def test_a_token_that_no_verifier_takes_is_not_minted() -> None:
    with pytest.raises(ValueError, match="8192"):
        mint_token(claims(tool="t" * 9000), key=private_key("issuer"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"jti": "short"}, "token.claims"),
        ({"iat": NOW + 6, "exp": NOW + 30}, "token.future"),
        ({"exp": NOW + 61}, "token.life"),
        ({"iat": NOW - 30, "exp": NOW}, "token.expired"),
        ({"client_id": "refund-agent", "sub": "user:x"}, "token.actor"),
        ({"sub": "user:"}, "token.actor"),
        ({"protocol": "SOAP"}, "token.details"),
        ({"args": "sha256:AB"}, "token.details"),
        ({"assurance": "Software"}, "token.facts"),
        ({"attested_at": -1}, "token.claims"),
    ],
)
async def test_more_that_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Denied) as refusal:
        await verify_token(exam_of(mint_token(claims(**changes), key=private_key("issuer"))))

    assert refusal.value.code == code


@pytest.mark.parametrize("member", [{"use": "sig"}, {"kid": "mine"}, {"x5u": "https://evil.example/key"}], ids=str)
async def test_a_confirmed_key_has_no_members_of_which_nobody_here_knows_what_they_mean(member: dict[str, str]) -> None:
    document = claims().document
    document["cnf"]["jwk"] |= member

    with pytest.raises(Denied) as refusal:
        await verify_token(exam_of(signed(json.dumps(document).encode())))

    assert refusal.value.code == "token.confirmation"


@given(st.text(max_size=200))
async def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(Denied):
        await verify_token(exam_of(text))


async def test_truncated_anywhere_a_token_is_refused() -> None:
    token = ACCEPTED[0]["token"]
    for end in range(len(token)):
        with pytest.raises(Denied):
            await verify_token(exam_of(token[:end]))


@pytest.mark.parametrize("payload", [b"[]", b'{"iat":null}', b'{"cnf":[]}', b"\xff", b""])
async def test_claims_of_any_form_under_a_good_signature_are_refused_not_a_crash(payload: bytes) -> None:
    with pytest.raises(Denied) as refusal:
        await verify_token(exam_of(signed(payload)))

    assert refusal.value.code in ("token.format", "token.claims")

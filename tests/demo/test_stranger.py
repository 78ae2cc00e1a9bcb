"""A client by somebody else, written from the pages alone (tests/stranger/client.py), against a demo that was kept."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stranger.client import Answer, Stranger, Tpm, request
from support.demo import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.demo import Kept

pytestmark = [pytest.mark.demo, pytest.mark.tpm, pytest.mark.timeout(400)]
CALL = ("get_charge", {"charge": "ch_1"})


@pytest.fixture(scope="module")
def stranger(kept: Kept) -> Iterator[Stranger]:
    found = kept.document
    tpm = Tpm(found["spare"]["tcti"])
    token = Path(found["spare"]["token_file"]).read_text().strip()
    one = Stranger(tpm, found["urls"]["authority"], found["issuer"], token, Path(found["ca"]).read_text())
    one.enrol()
    try:
        yield one
    finally:
        tpm.close()


@pytest.fixture(scope="module")
def server(stranger: Stranger, kept: Kept) -> dict[str, Any]:
    found: list[dict[str, Any]] = stranger.catalogue()
    assert [each["audience"] for each in found] == [kept.document["audience"]]
    return found[0]


def sent(stranger: Stranger, server: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Ask for a token and prepare the tool call, unsent."""
    granted = stranger.token(server["audience"], *CALL)
    assert granted.status == 200, granted
    return stranger.prepare(server["audience"], server["endpoint"], *CALL, granted.json["access_token"])


def send(server: dict[str, Any], fields: dict[str, str], body: bytes) -> Answer:
    return request("POST", server["endpoint"], fields, body, None)


def test_the_kept_demo_says_what_is_there(kept: Kept) -> None:
    assert kept.ran.status == 0, kept.ran.out
    found = kept.document
    assert found["urls"].keys() >= {"apiserver", "webhook", "authority", "tools"}
    assert found["spare"]["node"] == "node-c"
    assert found["nodes"].keys() == {"node-a", "node-b", "node-c"}
    named = [found["kubeconfig"], found["ca"], found["spare"]["token_file"]]
    named += [path for node in found["nodes"].values() for path in (node["certificate"], node["key"])]
    assert [path for path in named if not Path(path).is_file()] == []
    assert "export KUBECONFIG=" in kept.ran.out


def test_a_stranger_enrols_asks_and_calls(stranger: Stranger, server: dict[str, Any]) -> None:
    fields, body = sent(stranger, server)
    answer = send(server, fields, body)
    assert answer.status == 200, answer
    assert b'"result"' in answer.body


def test_the_same_request_again_is_refused(stranger: Stranger, server: dict[str, Any]) -> None:
    fields, body = sent(stranger, server)
    assert send(server, fields, body).status == 200
    again = send(server, fields, body)
    assert (again.status, again.json["code"]) == (401, "proof.replayed")


def test_a_changed_body_is_refused(stranger: Stranger, server: dict[str, Any]) -> None:
    fields, body = sent(stranger, server)
    changed = send(server, fields, body.replace(b"ch_1", b"ch_2"))
    assert (changed.status, changed.json["code"]) == (401, "digest.mismatch")


def test_a_token_for_one_call_does_not_do_another(stranger: Stranger, server: dict[str, Any]) -> None:
    granted = stranger.token(server["audience"], *CALL)
    other = stranger.prepare(
        server["audience"], server["endpoint"], "get_charge", {"charge": "ch_2"}, granted.json["access_token"]
    )
    answer = send(server, *other)
    assert (answer.status, answer.json["code"]) == (403, "call.args")


def test_a_nonce_works_once(stranger: Stranger) -> None:
    nonce = stranger.nonce()
    assert stranger.ask("GET", "/catalogue", nonce=nonce).status == 200
    again = stranger.ask("GET", "/catalogue", nonce=nonce)
    assert (again.status, again.json["code"]) == (400, "proof.replayed")


def test_what_no_rule_names_is_denied_with_a_decision(stranger: Stranger, server: dict[str, Any]) -> None:
    answer = stranger.token(server["audience"], "delete_customer", {"customer": "cus_1"})
    assert (answer.status, answer.json["code"], answer.json["error"]) == (403, "policy.default_deny", "access_denied")
    assert answer.json["decision"]
    assert answer.headers["countersign-nonce"]


def test_an_unknown_parameter_is_refused(stranger: Stranger, server: dict[str, Any]) -> None:
    form = urllib.parse.urlencode({"scope": "all", "resource": server["audience"]}).encode()
    answer = stranger.ask("POST", "/token", form)
    assert (answer.status, answer.json["code"]) == (400, "request.parameter")


def test_its_certificate_names_no_hardware(stranger: Stranger) -> None:
    assert b"urn:ek" not in b"".join(stranger.chain)
    assert b"permanent" not in b"".join(stranger.chain)


def test_audit_query_finds_the_strangers_calls(stranger: Stranger, server: dict[str, Any], kept: Kept) -> None:
    fields, body = sent(stranger, server)
    assert send(server, fields, body).status == 200
    found = run("audit", "query", kept.document["audit"]["webhook"], "-o", "json", env=kept.env)
    assert found.status == 0, found.err
    assert stranger.instance in found.out
    assert json.dumps("policy.allowed") in found.out


def test_dev_status_and_down_know_the_kept_demo(kept: Kept) -> None:
    status = run("dev", "status", "-o", "json", env=kept.env)
    assert status.status == 0
    assert [each["name"] for each in json.loads(status.out)["runs"] if each["running"]] == ["demo"]

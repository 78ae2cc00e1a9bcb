"""From a TPM to a certificate against the real authority, and what a signer makes of every other answer (enrolment.md)."""

from __future__ import annotations

import base64
import json
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.enrolment import AGENT, DOMAIN, EK_ROOT, NAMESPACE, POD, TOKEN, Office
from support.loopback import WEB, Seen, answer, read_request, serving

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.devcluster.pki import LocalCA
from countersign.errors import CountersignError, Denied, Unavailable
from countersign.signer.enrol import Enroller, ak_expiry
from countersign.signer.trust import Trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Desk:
    """The real authority on a port, with a script of answers that come instead of its own."""

    device: SoftwareDevice
    enroller: Enroller
    token_file: Path
    app: Any = None
    trust: Trust | None = None
    office: Office | None = None
    certificate: bytes = b""
    script: dict[str, deque[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def says(self, path: str, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.script.setdefault(path, deque()).append((status, headers, content))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = await read_request(scope, receive)
        self.seen.append(request)
        if self.script.get(scope["path"]):
            status, headers, body = self.script[scope["path"]].popleft()
            fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            await answer(send, status, fields, body)
            return
        if self.certificate and "/cert" in scope["path"]:
            await answer(send, 200, [(b"content-type", b"application/pem-certificate-chain")], self.certificate)
            return
        events = [{"type": "http.request", "body": request.body}]

        async def again() -> dict[str, Any]:
            return events.pop() if events else {"type": "http.disconnect"}

        await self.app(scope, again, send)

    async def fails(self) -> CountersignError:
        assert self.trust is not None
        key = await self.device.create_key()
        with pytest.raises((Denied, Unavailable)) as caught:
            await self.enroller.certify(self.trust, key, await self.enroller.admit(self.trust, key))
        return caught.value


@asynccontextmanager
async def desk_of(directory: Path, **more: Any) -> AsyncIterator[Desk]:
    token_file = directory / "token"
    token_file.write_text(TOKEN + "\n")
    tls = WEB.issue("authority", names=["127.0.0.1"])
    (directory / "tls").mkdir()
    for name, pem in (("tls.crt", tls.certificate), ("tls.key", tls.key), ("ca.crt", WEB.pem)):
        (directory / "tls" / name).write_bytes(pem)
    device = SoftwareDevice.make(EK_ROOT)
    desk = Desk(device, Enroller(device, token_file=token_file), token_file)
    async with serving(desk, "127.0.0.1") as port:
        url = f"https://127.0.0.1:{port}"
        desk.trust = Trust(url, "https://countersign.example.com", WEB.pem.decode())
        async with Office.open(directory, url=url, **more) as office:
            await office.register(device)
            desk.app, desk.office = office.app, office
            yield desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_of(tmp_path) as made:
        yield made


async def test_a_tpm_becomes_a_certificate_that_names_the_agent_and_nothing_else(desk: Desk) -> None:
    key = await desk.device.create_key()
    admission = await desk.enroller.admit(desk.trust, key)
    chain = await desk.enroller.certify(desk.trust, key, admission)
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in names] == [f"spiffe://{DOMAIN}/ns/{NAMESPACE}/sa/{AGENT}"]
    assert chain[0].public_key() == key.public_key
    assert admission.instance.startswith(f"{NAMESPACE}/")
    assert ak_expiry(admission) - desk.office.clock.now().timestamp() == pytest.approx(600, abs=120)
    assert desk.office.instance()["status"]["certificate"]["keyThumbprint"] == key.jkt


async def test_the_same_key_is_certified_again(desk: Desk) -> None:
    key = await desk.device.create_key()
    admission = await desk.enroller.admit(desk.trust, key)
    first = await desk.enroller.certify(desk.trust, key, admission)
    second = await desk.enroller.certify(desk.trust, key, admission)
    assert first[0].serial_number != second[0].serial_number
    assert first[0].public_key() == second[0].public_key()


async def test_a_new_attestation_of_the_same_key_finds_the_same_instance(desk: Desk) -> None:
    key = await desk.device.create_key()
    first = await desk.enroller.admit(desk.trust, key)
    second = await desk.enroller.admit(desk.trust, key)
    assert first.instance == second.instance
    assert first.chain != second.chain


async def test_both_posts_have_the_token_in_a_header_and_nowhere_else(desk: Desk) -> None:
    await desk.enroller.admit(desk.trust, await desk.device.create_key())
    assert [one.target for one in desk.seen] == ["/attest", "/secret"]
    assert {one.get("authorization") for one in desk.seen} == {f"Bearer {TOKEN}"}
    assert all(TOKEN.encode() not in one.body for one in desk.seen)
    assert set(json.loads(desk.seen[0].body)) == {"tpmInfo", "ek", "ekCerts", "params"}
    assert set(json.loads(desk.seen[1].body)) == {"secret", "key"}


async def test_the_token_is_read_anew_at_each_use(desk: Desk) -> None:
    key = await desk.device.create_key()
    await desk.enroller.admit(desk.trust, key)
    desk.token_file.write_text("stale")
    assert (await desk.fails()).code == "attest.token_invalid"
    desk.token_file.write_text(TOKEN)
    await desk.enroller.admit(desk.trust, key)


@pytest.mark.parametrize("text", ["", "\n", "two words", "a\r\nx-other: b", "h\u00e9"])
async def test_a_token_file_without_a_token_is_not_sent(desk: Desk, text: str) -> None:
    desk.token_file.write_text(text)
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Unavailable, "attest.unavailable")
    assert desk.seen == []


async def test_a_token_file_that_is_not_there_is_waited_for(desk: Desk) -> None:
    desk.token_file.unlink()
    assert isinstance(await desk.fails(), Unavailable)


async def test_an_unknown_device_is_a_refusal_with_the_authoritys_code(desk: Desk) -> None:
    desk.device.endorsement_key = SoftwareDevice.make(EK_ROOT).endorsement_key
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Denied, "attest.ek_mismatch")


async def test_a_tpm_without_an_endorsement_certificate_is_not_shown_to_anybody(desk: Desk) -> None:
    desk.device.certificates.clear()
    assert (await desk.fails()).code == "attest.ek_certificate"
    assert desk.seen == []


async def test_a_pod_that_is_gone_is_a_refusal(desk: Desk) -> None:
    desk.office.cluster.drop(kube.PODS, POD, NAMESPACE)
    assert (await desk.fails()).code == "attest.pod_gone"


@pytest.mark.parametrize("path", ["/attest", "/secret"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429])
async def test_every_4xx_is_a_no(desk: Desk, path: str, status: int) -> None:
    desk.says(path, status, {"code": "attest.device_pending", "detail": "wait for a person"})
    problem = await desk.fails()
    assert (type(problem), problem.code, problem.detail) == (Denied, "attest.device_pending", "wait for a person")


@pytest.mark.parametrize("path", ["/attest", "/secret"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 301, 307])
async def test_everything_else_is_not_now(desk: Desk, path: str, status: int) -> None:
    desk.says(path, status, {"code": "attest.issuer_not_ready"}, location="/elsewhere")
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Unavailable, "attest.issuer_not_ready")
    assert desk.seen[-1].target == path


async def test_a_refusal_without_a_known_code_is_still_one(desk: Desk) -> None:
    desk.says("/attest", 403, b"<html>")
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Denied, "attest.failed")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"credential":5,"secret":"AA=="}', b'{"credential":"!","secret":"AA=="}']
)
async def test_a_challenge_that_cannot_be_read_is_not_answered(desk: Desk, body: bytes) -> None:
    desk.says("/attest", 200, body)
    assert isinstance(await desk.fails(), Unavailable)
    assert [one.target for one in desk.seen] == ["/attest"]


async def test_a_challenge_for_another_tpm_is_a_no(desk: Desk) -> None:
    blob = base64.b64encode(b"\x00\x04abcd").decode()
    desk.says("/attest", 200, {"credential": blob, "secret": blob})
    assert isinstance(await desk.fails(), CountersignError)
    assert [one.target for one in desk.seen] == ["/attest"]


@pytest.mark.parametrize(
    "change",
    [
        {"chain": []},
        {"chain": ["AA=="]},
        {"chain": "x"},
        {"acme": None},
        {"acme": {}},
        {"acme": {"directory": "https://x/", "akType": "RSA1024"}},
        {"life": "long"},
    ],
)
async def test_an_admission_that_cannot_be_read_is_not_used(desk: Desk, change: dict[str, Any]) -> None:
    admission = {
        "chain": [base64.b64encode(x509.load_pem_x509_certificate(WEB.pem).public_bytes(Encoding.DER)).decode()],
        "instance": "billing/x",
        "identifier": "c.billing.x",
        "acme": {"directory": "https://127.0.0.1:1/directory", "akType": "P256"},
        "life": 3600,
    }
    desk.says("/secret", 200, {**admission, **change})
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Unavailable, "attest.unavailable")


async def test_an_issuer_that_takes_another_kind_of_ak_gets_one(desk: Desk) -> None:
    assert desk.office is not None
    key = await desk.device.create_key()
    first = await desk.enroller.admit(desk.trust, key)
    other = {
        "chain": [base64.b64encode(one).decode() for one in first.chain],
        "instance": first.instance,
        "identifier": first.identifier,
        "acme": {"directory": first.directory, "akType": "RSA2048"},
        "life": 3600,
    }
    desk.seen.clear()
    desk.says("/secret", 200, other)
    await desk.enroller.admit(desk.trust, key)
    kinds = [base64.b64decode(json.loads(one.body)["params"]["public"])[:2] for one in desk.seen[::2]]
    assert kinds == [b"\x00\x23", b"\x00\x01"]  # ECC, then RSA


async def test_an_answer_without_an_end_is_not_read_to_it(desk: Desk) -> None:
    desk.says("/attest", 200, b"x" * 300_000)
    assert (await desk.fails()).detail == "the authority's answer is too long"


async def test_an_authority_that_is_not_there_is_not_now(desk: Desk) -> None:
    desk.trust = Trust("https://127.0.0.1:1", desk.trust.webhook_url, desk.trust.ca)
    problem = await desk.fails()
    assert (type(problem), problem.code) == (Unavailable, "attest.unavailable")


async def test_an_authority_that_tls_does_not_prove_gets_no_token(desk: Desk) -> None:
    desk.trust = Trust(desk.trust.authority_url, desk.trust.webhook_url, LocalCA("another").pem.decode())
    assert isinstance(await desk.fails(), Unavailable)
    assert desk.seen == []


@pytest.mark.parametrize(("status", "kind"), [(403, Denied), (429, Denied), (500, Unavailable), (503, Unavailable)])
async def test_a_ca_that_refuses_is_a_no_or_a_not_now(desk: Desk, status: int, kind: type[CountersignError]) -> None:
    key = await desk.device.create_key()
    admission = await desk.enroller.admit(desk.trust, key)
    problem = {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "code": "attest.instance_inactive"}
    desk.says(admission.directory.removeprefix(desk.trust.authority_url), status, problem)
    with pytest.raises(kind) as caught:
        await desk.enroller.certify(desk.trust, key, admission)
    assert caught.value.code == "attest.instance_inactive"


async def test_a_certificate_for_another_key_is_not_used(desk: Desk) -> None:
    desk.certificate = WEB.pem
    problem = await desk.fails()
    assert (type(problem), problem.detail) == (Unavailable, "the CA certified another key")

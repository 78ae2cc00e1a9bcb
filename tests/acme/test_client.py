"""The client against a CA that does what no CA should: other addresses, endless answers, no nonces, nonsense."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.attestation import make_ca
from support.enrolment import serving_certificate

from countersign.acme import URN, AcmeClient, AcmeProblem, from_base64url, to_base64url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

IDENTIFIER = "prod-eu.billing.refund-agent-bcdfg"
PEM = make_ca("leaf")[0].public_bytes(serialization.Encoding.PEM)
Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Ca:
    """A scripted CA: what it answers by path; a test replaces one answer. ``seen`` is what was posted, by path."""

    base: str = ""
    answers: dict[str, Callable[[], Reply]] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    nonces: int = 0
    handles: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    def script(self) -> None:
        order = {"status": "pending", "authorizations": [self.url("authz")], "finalize": self.url("finalize")}
        identifiers = [{"type": "permanent-identifier", "value": IDENTIFIER}]
        challenge = {"type": "device-attest-01", "url": self.url("challenge"), "status": "pending", "token": "token"}
        places = {"newNonce": "nonce", "newAccount": "account", "newOrder": "new-order"}
        self.answers = {
            "directory": self.json(200, {name: self.url(path) for name, path in places.items()}),
            "nonce": self.json(200, {}),
            "account": self.json(201, {"status": "valid"}, location=self.url("account/1")),
            "new-order": self.json(201, order | {"identifiers": identifiers}, location=self.url("order")),
            "authz": self.json(200, {"status": "pending", "identifier": identifiers[0], "challenges": [challenge]}),
            "challenge": self.json(200, challenge | {"status": "valid"}),
            "order": self.states(order | {"identifiers": identifiers}),
            "finalize": self.json(200, order | {"identifiers": identifiers, "status": "valid"}),
            "certificate": lambda: (200, {}, PEM),
        }

    def states(self, order: dict[str, Any]) -> Callable[[], Reply]:
        left = [order | {"status": "ready"}, order | {"status": "valid", "certificate": self.url("certificate")}]
        return lambda: self.json(200, left.pop(0))()  # noqa: PLW0108 - another answer each time

    def json(self, status: int, document: Any, **headers: str) -> Callable[[], Reply]:
        return lambda: (status, headers, json.dumps(document).encode())

    def problem(self, status: int, kind: str, **more: Any) -> Callable[[], Reply]:
        return self.json(status, {"type": URN + kind, "detail": "why", **more})

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                body = await reader.readexactly(length)
                path = target.removeprefix("/")
                self.handles.append(f"{method} {path}")
                if body:
                    self.seen.append((path, json.loads(body)))
                status, headers, content = self.answers[path]()
                self.nonces += 1
                lines = [f"HTTP/1.1 {status} Answer", f"content-length: {len(content)}"]
                lines += [f"{name}: {value}" for name, value in ({"replay-nonce": f"n{self.nonces}"} | headers).items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else content))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def payload(self, path: str) -> dict[str, Any]:
        """Return the payload of the last post to a path."""
        found = [body for where, body in self.seen if where == path][-1]
        return dict(json.loads(from_base64url(found["payload"])))

    def protected(self, path: str) -> dict[str, Any]:
        found = [body for where, body in self.seen if where == path][-1]["protected"]
        return dict(json.loads(urlsafe_b64decode(found + "=" * (-len(found) % 4))))


@dataclass
class Setting:
    ca: Ca
    context: ssl.SSLContext

    def client(self, url: str | None = None) -> AcmeClient:
        return AcmeClient(url or self.ca.url("directory"), ssl_context=self.context, timeout=5, poll_seconds=0)

    async def obtain(self) -> Any:
        async def attest(authorization: str) -> bytes:
            assert authorization.startswith("token.")
            return b"statement"

        async def csr() -> bytes:
            return b"csr"

        async with self.client() as client:
            return await client.obtain(IDENTIFIER, attest=attest, csr=csr)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    serving_certificate(tmp_path)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    ca = Ca()
    server = await asyncio.start_server(ca.handle, "localhost", 0, ssl=server_side)
    ca.base = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    ca.script()
    yield Setting(ca, ssl.create_default_context(cafile=tmp_path / "ca.crt"))
    server.close()
    await server.wait_closed()


async def refused(setting: Setting, name: str, status: int) -> AcmeProblem:
    with pytest.raises(AcmeProblem) as caught:
        await setting.obtain()
    assert (caught.value.name, caught.value.status) == (name, status)
    return caught.value


async def test_the_exchange_as_the_rfc_has_it(setting: Setting) -> None:
    chain = await setting.obtain()
    ca = setting.ca
    assert [one.public_bytes(serialization.Encoding.PEM) for one in chain] == [PEM]
    assert ca.payload("new-order") == {"identifiers": [{"type": "permanent-identifier", "value": IDENTIFIER}]}
    assert ca.payload("challenge") == {"attObj": to_base64url(b"statement")}
    assert ca.payload("finalize") == {"csr": to_base64url(b"csr")}
    assert "jwk" in ca.protected("account")
    assert ca.protected("new-order")["kid"] == ca.url("account/1")
    nonces = [json.loads(from_base64url(body["protected"]))["nonce"] for _, body in ca.seen]
    assert len(set(nonces)) == len(nonces)


async def test_a_bad_nonce_is_tried_again_once(setting: Setting) -> None:
    good = setting.ca.answers["new-order"]
    answers = [setting.ca.problem(400, "badNonce"), good]
    setting.ca.answers["new-order"] = lambda: answers.pop(0)()  # noqa: PLW0108 - another answer each time
    await setting.obtain()
    setting.ca.script()
    setting.ca.answers["new-order"] = setting.ca.problem(400, "badNonce")
    before = len(setting.ca.seen)
    await refused(setting, "badNonce", 400)
    assert [path for path, _ in setting.ca.seen[before:]].count("new-order") == 2


@pytest.mark.parametrize("member", ["newNonce", "newAccount", "newOrder"])
@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254/latest",
        "http://localhost/x",
        "file:///etc/passwd",
        "https://localhost:1/x",
        "//x",
        "https://[",
        "",
    ],
)
async def test_d19_an_address_of_another_origin_is_not_asked(setting: Setting, member: str, address: str) -> None:
    document = json.loads(setting.ca.answers["directory"]()[2]) | {member: address}
    setting.ca.answers["directory"] = setting.ca.json(200, document, **{"replay-nonce": ""})
    await refused(setting, "serverInternal", 502)


async def test_d19_a_redirect_is_not_followed(setting: Setting) -> None:
    setting.ca.answers["directory"] = lambda: (302, {"location": setting.ca.url("nonce")}, b"")
    await refused(setting, "serverInternal", 302)
    assert setting.ca.handles == ["GET directory"]


async def test_a_directory_without_tls_is_not_asked() -> None:
    with pytest.raises(AcmeProblem):
        AcmeClient("http://localhost/directory", ssl_context=ssl.create_default_context())


@pytest.mark.parametrize("path", ["directory", "new-order", "authz", "challenge", "order"])
@pytest.mark.parametrize(
    "body", [b"", b"junk", b"[]", b"{}", b'{"status":7}', b"[" * 100_000, b" " * 300_000], ids=range(7)
)
async def test_an_answer_that_is_no_acme(setting: Setting, path: str, body: bytes) -> None:
    headers = setting.ca.answers[path]()[1]
    setting.ca.answers[path] = lambda: (200, headers, body)
    await refused(setting, "serverInternal", 502)


@pytest.mark.parametrize("path", ["account", "new-order"])
async def test_a_missing_location(setting: Setting, path: str) -> None:
    _, _, body = setting.ca.answers[path]()
    setting.ca.answers[path] = lambda: (201, {}, body)
    await refused(setting, "serverInternal", 502)


async def test_a_ca_without_nonces(setting: Setting) -> None:
    for path, answer in setting.ca.answers.items():
        setting.ca.answers[path] = lambda answer=answer: (answer()[0], answer()[1] | {"replay-nonce": ""}, answer()[2])  # type: ignore[misc]
    await refused(setting, "serverInternal", 502)


async def test_b10_another_challenge_is_not_answered(setting: Setting) -> None:
    challenge = {"type": "http-01", "url": setting.ca.url("challenge"), "status": "pending", "token": "t"}
    identifier = {"type": "permanent-identifier", "value": IDENTIFIER}
    document = {"status": "pending", "identifier": identifier, "challenges": [challenge]}
    setting.ca.answers["authz"] = setting.ca.json(200, document)
    await refused(setting, "unsupportedIdentifier", 502)
    assert "challenge" not in [path for path, _ in setting.ca.seen]


async def test_the_verdict_on_the_challenge_is_told_with_its_code(setting: Setting) -> None:
    error = {"type": f"{URN}badAttestationStatement", "detail": "no\x1b[2J", "code": "attest.extra_data"}
    document = {"type": "device-attest-01", "url": setting.ca.url("challenge"), "status": "invalid", "error": error}
    setting.ca.answers["challenge"] = setting.ca.json(200, document)
    problem = await refused(setting, "badAttestationStatement", 403)
    assert (problem.code, problem.detail) == ("attest.extra_data", "no?[2J")


async def test_an_order_that_becomes_invalid(setting: Setting) -> None:
    order = {"status": "invalid", "identifiers": [], "authorizations": [], "finalize": setting.ca.url("finalize")}
    setting.ca.answers["order"] = setting.ca.json(
        200, order | {"error": {"type": f"{URN}malformed", "detail": "expired"}}
    )
    await refused(setting, "malformed", 403)


@pytest.mark.parametrize("status", ["pending", "processing", "made-up"])
async def test_an_order_that_stays_what_it_is(setting: Setting, status: str) -> None:
    order = {"status": status, "identifiers": [], "authorizations": [], "finalize": setting.ca.url("finalize")}
    setting.ca.answers["order"] = setting.ca.json(200, order)
    await refused(setting, "serverInternal", 503)


async def test_a_valid_order_without_a_certificate(setting: Setting) -> None:
    order = {"status": "valid", "identifiers": [], "authorizations": [], "finalize": setting.ca.url("finalize")}
    setting.ca.answers["order"] = setting.ca.json(200, order)
    await refused(setting, "serverInternal", 502)


async def test_a_certificate_that_cannot_be_read(setting: Setting) -> None:
    setting.ca.answers["certificate"] = lambda: (200, {}, b"junk")
    await refused(setting, "serverInternal", 502)


async def test_when_to_come_again_is_kept(setting: Setting) -> None:
    setting.ca.answers["new-order"] = setting.ca.json(503, {"type": f"{URN}serverInternal"}, **{"retry-after": "17"})
    problem = await refused(setting, "serverInternal", 503)
    assert problem.retry_after == 17


async def test_a_ca_that_does_not_answer(setting: Setting) -> None:
    def gone() -> Reply:
        raise ConnectionError

    setting.ca.answers["new-order"] = gone
    await refused(setting, "serverInternal", 503)


async def test_a_ca_under_another_root_is_not_believed(setting: Setting) -> None:
    setting.context = ssl.create_default_context()
    await refused(setting, "serverInternal", 503)

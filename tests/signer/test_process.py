"""The signer as a process: its settings, how it starts, what it says, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import typer
from pydantic import ValidationError
from support.enrolment import EK_ROOT
from support.loopback import WEB, Seen, answer, call, read_request, serving, write_trust
from tpm2_pytss import ESAPI, TPM2_CAP, TPM2_HC
from typer.testing import CliRunner

from countersign.attest import SoftwareDevice
from countersign.signer.main import command, serve
from countersign.signer.settings import SignerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.swtpm import Simulator

SECONDS = 30
REFUSAL = {"code": "attest.device_unknown", "detail": "no Device has this endorsement key"}


def free_port() -> int:
    """A port with a free one after it: the proxy's, and that of health."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@dataclass
class Refusing:
    """An authority that knows nobody."""

    seen: list[Seen]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(await read_request(scope, receive))
        fields = [(b"content-type", b"application/problem+json")]
        await answer(send, 403, fields, json.dumps(REFUSAL).encode())


@pytest.fixture
async def authority() -> AsyncIterator[tuple[str, list[Seen]]]:
    seen: list[Seen] = []
    async with serving(Refusing(seen), "127.0.0.1") as port:
        yield f"https://127.0.0.1:{port}", seen


def environment(directory: Path, authority: str, tcti: str, port: int) -> dict[str, str]:
    """What injection gives the container, and no more."""
    (directory / "token").write_text("token-of-the-pod")
    return {
        "PATH": os.environ["PATH"],
        "TCTI": tcti,
        "COUNTERSIGN_SIGNER_TRUST_DIR": str(write_trust(directory / "trust", authority=authority)),
        "COUNTERSIGN_SIGNER_TOKEN_FILE": str(directory / "token"),
        "COUNTERSIGN_SIGNER_PORT": str(port),
        "COUNTERSIGN_SIGNER_HEALTH_HOST": "127.0.0.1",
    }


@dataclass
class Process:
    """``countersign signer``, running."""

    process: asyncio.subprocess.Process

    async def event(self, name: str) -> dict[str, Any]:
        """Return the next line of the log that is called ``name``."""
        assert self.process.stderr is not None
        async with asyncio.timeout(SECONDS):
            async for line in self.process.stderr:
                entry: dict[str, Any] = json.loads(line)
                assert "Traceback" not in line.decode()
                if entry["event"] == name:
                    return entry
        raise AssertionError(f"the process ended without {name}")

    async def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit status and what else was in the log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(SECONDS):
            rest = await self.process.stderr.read()
            status = await self.process.wait()
        return status, [json.loads(line) for line in rest.splitlines()]


@contextlib.asynccontextmanager
async def started(env: dict[str, str]) -> AsyncIterator[Process]:
    program = Path(sys.executable).with_name("countersign")
    process = await asyncio.create_subprocess_exec(program, "signer", env=env, stderr=asyncio.subprocess.PIPE)
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def transient_handles(tcti: str) -> list[int]:
    context = ESAPI(tcti)
    try:
        _more, found = context.get_capability(TPM2_CAP.HANDLES, TPM2_HC.TRANSIENT_FIRST, 64)
        return [int(handle) for handle in found.data.handles]
    finally:
        context.close()


@pytest.mark.tpm
async def test_it_starts_says_why_it_is_not_ready_and_stops_clean(
    tmp_path: Path, authority: tuple[str, list[Seen]], simulator: Simulator
) -> None:
    url, seen = authority
    port = free_port()
    async with started(environment(tmp_path, url, simulator.tcti, port)) as signer:
        failed = await signer.event("enrol.failed")
        assert failed["code"] == "attest.device_unknown"
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"http://127.0.0.1:{port + 1}/readyz")
            assert ready.status_code == 503
            assert ready.json() == {"ready": False, "renewal": "attest.device_unknown", **REFUSAL}
            assert (await client.get(f"http://127.0.0.1:{port + 1}/healthz")).status_code == 200
            refused = await client.post(
                f"http://127.0.0.1:{port}/stripe", json=call(), headers={"mcp-protocol-version": "2025-11-25"}
            )
            assert refused.json()["error"]["data"]["code"] == "attest.device_unknown"
        signer.process.send_signal(signal.SIGTERM)
        status, rest = await signer.ended()
    assert status == 0
    assert not [entry for entry in rest if entry["level"] in {"error", "critical"}]
    assert [one.target for one in seen] == ["/attest"]
    assert set(json.loads(seen[0].body)["params"]) == {"public", "createData", "createAttestation", "createSignature"}
    assert transient_handles(simulator.tcti) == []


@pytest.mark.tpm
async def test_a_port_that_is_taken_ends_it_and_leaves_no_handle(
    tmp_path: Path, authority: tuple[str, list[Seen]], simulator: Simulator
) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        async with started(environment(tmp_path, authority[0], simulator.tcti, port)) as signer:
            status, rest = await signer.ended()
    assert status != 0
    assert any("address already in use" in entry["event"] for entry in rest)
    assert transient_handles(simulator.tcti) == []


async def test_without_a_tpm_it_ends_and_says_so(tmp_path: Path, authority: tuple[str, list[Seen]]) -> None:
    tcti = f"swtpm:path={tmp_path / 'no-such-socket'}"
    async with started(environment(tmp_path, authority[0], tcti, free_port())) as signer:
        stopped = await signer.event("stopped")
        status, _ = await signer.ended()
    assert (status, stopped["code"], stopped["level"]) == (1, "attest.unavailable", "error")


def settings(directory: Path, authority: str, port: int) -> SignerSettings:
    (directory / "token").write_text("token-of-the-pod")
    return SignerSettings(
        trust_dir=write_trust(directory / "trust", authority=authority),
        token_file=directory / "token",
        port=port,
        health_host="127.0.0.1",
    )


async def asked(port: int, path: str) -> httpx.Response:
    """Ask the health port, as soon as somebody listens there."""
    transport = httpx.AsyncHTTPTransport()
    async with httpx.AsyncClient(transport=transport) as client, asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(httpx.ConnectError):
                return await client.get(f"http://127.0.0.1:{port + 1}{path}")


async def test_a_call_under_way_is_answered_before_it_stops(tmp_path: Path, authority: tuple[str, list[Seen]]) -> None:
    port, stop = free_port(), asyncio.Event()
    device = SoftwareDevice.make(EK_ROOT)
    running = asyncio.create_task(serve(settings(tmp_path, authority[0], port), device, stop))
    assert (await asked(port, "/healthz")).status_code == 200
    body = json.dumps(call()).encode()
    head = f"POST /stripe HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    head += f"MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    async with asyncio.timeout(SECONDS):
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # the proxy waits for the body
        stop.set()
        writer.write(body)
        said = await reader.read()
        await running
    writer.close()
    assert said.startswith(b"HTTP/1.1 200 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["data"]["code"].startswith("attest.")


async def test_a_head_that_is_too_long_is_refused(tmp_path: Path, authority: tuple[str, list[Seen]]) -> None:
    port, stop = free_port(), asyncio.Event()
    running = asyncio.create_task(serve(settings(tmp_path, authority[0], port), SoftwareDevice.make(EK_ROOT), stop))
    await asked(port, "/healthz")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /stripe HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 40_000)
    async with asyncio.timeout(SECONDS):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert (await asked(port, "/healthz")).status_code == 200
        stop.set()
        await running


async def test_it_waits_for_its_trust_files_and_says_so(tmp_path: Path) -> None:
    port, stop = free_port(), asyncio.Event()
    given = settings(tmp_path, "https://authority.example.com", port)
    (given.trust_dir / "ca.crt").unlink()
    running = asyncio.create_task(serve(given, SoftwareDevice.make(EK_ROOT), stop))
    said = (await asked(port, "/readyz")).json()
    assert (said["ready"], said["code"]) == (False, "attest.unavailable")
    stop.set()
    async with asyncio.timeout(SECONDS):
        await running


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TCTI", "swtpm:path=/x"), ("COUNTERSIGN_SIGNER_PORT", "7090")):
        monkeypatch.setenv(name, value)
    given = SignerSettings()
    assert (given.tcti, given.port, given.body_bytes) == ("swtpm:path=/x", 7090, 262_144)
    monkeypatch.setenv("COUNTERSIGN_SIGNER_TCTI", "device:/dev/tpmrm1")
    assert SignerSettings().tcti == "device:/dev/tpmrm1"


@pytest.mark.parametrize(
    ("name", "value"), [("port", 80), ("port", 65535), ("body_bytes", 2_000_000), ("log_level", "loud"), ("other", 1)]
)
def test_settings_that_cannot_be_meant_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        SignerSettings(**{name: value})


@pytest.mark.parametrize("arguments", [[], ["--log-level", "loud"]])
def test_the_command_refuses_them_in_words(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    if not arguments:
        monkeypatch.setenv("COUNTERSIGN_SIGNER_PORT", "tcp://10.0.0.1:443")  # what a Service of that name would set
    app = typer.Typer()
    app.command()(command)
    got = CliRunner().invoke(app, arguments)
    assert got.exit_code == 2
    assert "Traceback" not in got.output
    assert WEB.pem.decode() not in got.output

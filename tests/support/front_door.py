"""The front door on three real ports, and a client that says whatever it likes to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING, Any

from support.world import World

from countersign_webhook.main import Ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from countersign.devcluster.pki import LocalCA
    from countersign_webhook.serving import Port

SERVING = "127.0.0.1"


def write_pair(directory: Path, ca: LocalCA) -> None:
    pair = ca.issue("countersign-webhook", names=[SERVING])
    (directory / "tls.key").write_bytes(pair.key)
    (directory / "tls.crt").write_bytes(pair.certificate)


@contextlib.asynccontextmanager
async def listening(directory: Path, **more: object) -> AsyncIterator[tuple[World, Ports]]:
    world = await World.make(directory, **more)
    ports = Ports(world.context)
    await ports.start()
    try:
        yield world, ports
    finally:
        await ports.aclose()
        await world.context.aclose()


def client_tls(ca: LocalCA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.pem.decode())


async def talk(port: Port, data: bytes, tls: ssl.SSLContext | None) -> bytes:
    """Send bytes; return everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection(SERVING, port.number, ssl=tls)
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def request(method: str, target: str, *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """The bytes of a request that is the last one of its connection."""
    lines = [f"{method} {target} HTTP/{version}", "host: x", "connection: close", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def document_of(answer: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document


def code_of(answer: bytes) -> str:
    code: str = document_of(answer)["code"]
    return code


async def assert_healthy(world: World, ports: Ports) -> None:
    assert status_of(await talk(ports.health, request("GET", "/healthz"), None)) == 200
    assert (await world.call()).status_code == 200

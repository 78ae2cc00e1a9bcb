"""A request leaves in one piece, whatever pieces it is written in, and an answer that came early is still read."""

from __future__ import annotations

from typing import Any

import httpcore
import pytest

from countersign.signer.gather import Gathering

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Wire(httpcore.AsyncNetworkStream):
    """The other side: remembers each piece, and answers when asked; a broken one takes nothing."""

    def __init__(self, *, broken: bool) -> None:
        self.pieces: list[bytes] = []
        self.answer, self.broken, self.closed = ANSWER, broken, False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        del timeout
        piece, self.answer = self.answer[:max_bytes], self.answer[max_bytes:]
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        del timeout
        if self.broken:
            raise httpcore.WriteError
        self.pieces.append(buffer)

    async def aclose(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> Any:
        return True if info == "is_readable" and not self.answer else None


class Network(httpcore.AsyncNetworkBackend):
    def __init__(self, *, broken: bool = False) -> None:
        self.wire = Wire(broken=broken)

    async def connect_tcp(self, *_args: Any, **_more: Any) -> httpcore.AsyncNetworkStream:
        return self.wire


@pytest.mark.parametrize(("size", "pieces"), [(0, 1), (1, 1), (200_000, 1)])
async def test_head_and_body_leave_together(size: int, pieces: int) -> None:
    network = Network()
    async with httpcore.AsyncConnectionPool(network_backend=Gathering(network)) as http:
        answer = await http.request("POST", "http://tools/mcp", content=b"x" * size)

    sent = b"".join(network.wire.pieces)
    assert answer.content == b"ok"
    assert len(network.wire.pieces) == pieces
    assert sent.startswith(b"POST /mcp HTTP/1.1\r\n")
    assert sent.endswith(b"\r\n\r\n" + b"x" * size)
    assert network.wire.closed


async def test_an_answer_before_the_end_of_the_request_is_read() -> None:
    network = Network(broken=True)
    async with httpcore.AsyncConnectionPool(network_backend=Gathering(network)) as http:
        answer = await http.request("POST", "http://tools/mcp", content=b"x")

    assert answer.status == 200

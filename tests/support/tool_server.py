"""A tool server as a process of its own: ``python -m support.tool_server PORT``, the verifier set by its environment."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from countersign.verifier import CountersignVerifier


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every call that gets here with what it asked for."""
    if scope["type"] != "http":
        return
    event = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": event["body"]})


if __name__ == "__main__":
    uvicorn.run(CountersignVerifier(app), host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", log_level="warning")

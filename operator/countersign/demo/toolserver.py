"""The quickstart's tool server, as run by somebody who keeps everything that arrives: the thief of the story.

``python -m countersign.demo.toolserver APP.py HOST:PORT CAPTURES``: loads ``app`` from the file and serves it; each request
is also appended to CAPTURES as one JSON line, before the verifier sees it.
"""

from __future__ import annotations

import base64
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import uvicorn


class Captures:
    """ASGI layer that writes down each request: method, target, header fields and body."""

    def __init__(self, app: Any, path: Path) -> None:
        """Wrap ``app`` and append to ``path``."""
        self._app = app
        self._path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the whole body, write the request down, and hand it on unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._write(scope, body)
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return pending.pop() if pending else await receive()

        await self._app(scope, again, send)

    def _write(self, scope: Any, body: bytes) -> None:
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        captured = {
            "method": scope["method"],
            "target": target,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": base64.b64encode(body).decode(),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(captured) + "\n")


def main(program: str, address: str, captures: str) -> None:
    """Serve until told to stop."""
    spec = spec_from_file_location("quickstart", program)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import does: dataclasses look themselves up there
    spec.loader.exec_module(module)
    host, _, port = address.rpartition(":")
    uvicorn.run(
        Captures(module.app, Path(captures)), host=host, port=int(port), log_level="warning", server_header=False
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])

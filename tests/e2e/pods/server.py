"""A tool server in a pod: two MCP tools behind the verifier, on nothing but what our image has."""

from __future__ import annotations

import json
from typing import Any

from countersign.verifier import CountersignVerifier


async def tools(scope: Any, receive: Any, send: Any) -> None:
    """Answer a call that the verifier let through with the arguments it had."""
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{event['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    request = json.loads(body)
    done = json.dumps({"did": request["params"].get("name"), "with": request["params"].get("arguments")})
    result = {"content": [{"type": "text", "text": done}], "isError": False, "resultType": "complete"}
    answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app = CountersignVerifier(tools)

"""A tool server in a pod: two MCP tools behind the verifier, on nothing but what our image has.

Each call that ran is a line of JSON in ``/tmp/ran.jsonl``, written before it is answered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from countersign.verifier import STATE, CountersignVerifier

_RAN = Path("/tmp/ran.jsonl")


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
    done = {"did": request["params"].get("name"), "with": request["params"].get("arguments")}
    decision = scope["state"][STATE].txn
    with _RAN.open("a") as ran:  # noqa: ASYNC230 - a line, and nothing else waits
        ran.write(json.dumps({"decision": decision, **done}) + "\n")
    content = [{"type": "text", "text": json.dumps(done)}]
    result = {"content": content, "isError": False, "resultType": "complete", "_meta": {"decision": decision}}
    answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app = CountersignVerifier(tools)

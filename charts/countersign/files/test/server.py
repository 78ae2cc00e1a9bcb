"""`helm test`: one MCP tool behind the verifier."""

import json

from countersign.verifier import CountersignVerifier


async def tool(scope, receive, send):
    """Answer a call that the verifier let through."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body", False):
            break
    result = {"content": [{"type": "text", "text": "countersigned"}], "isError": False}
    answer = json.dumps({"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": result}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app = CountersignVerifier(tool)

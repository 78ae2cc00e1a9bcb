"""A step of CI: one tool call, with nothing but the URL that injection gave the pod; exit status 0 if it was allowed.

``step.py TOOL ARGUMENTS``: prints ``{"status", "result" or "refused"}``.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

_VERSION = "2025-11-25"


def main(tool: str, arguments: str) -> int:
    """Call ``tool`` at the server ``tools``."""
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": json.loads(arguments)},
    }
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": _VERSION,
    }
    url = f"{os.environ['COUNTERSIGN_URL']}/tools"
    request = urllib.request.Request(url, json.dumps(call).encode(), headers)  # noqa: S310 - loopback, by injection
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            status, body = answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        status, body = refused.code, json.loads(refused.read())
    said = {"status": status, **({"refused": body["error"]} if "error" in body else {"result": body.get("result")})}
    print(json.dumps(said))  # noqa: T201 - its answer
    return 0 if "result" in body else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

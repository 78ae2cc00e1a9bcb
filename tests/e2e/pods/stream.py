"""An agent in a pod that never stops calling: allowed and hostile calls in turn, each outcome a line of JSON.

``stream.py FOLDER SERVER``: appends to ``FOLDER/calls.jsonl``; SERVER is the tool server's own address, for calls that go
past the signer. While ``FOLDER/hold`` exists nothing is called, and ``FOLDER/held`` says so.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_PAUSE = 0.05
_PATIENCE = 40.0
_MUCH = 51


def _calls(number: int) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """Return the calls of one turn: what it is for us, the tool, the arguments. The first two are allowed."""
    name = f"{os.environ['HOSTNAME']}-{number}"
    return (
        ("read", "read", {"name": name}),
        ("pay", "pay", {"amount": number % (_MUCH - 1) + 1}),
        ("pay-much", "pay", {"amount": _MUCH + number}),
        ("unknown", "no-such-tool", {"name": name}),
        ("past", "read", {"name": name}),
    )


def _ask(url: str, tool: str, arguments: dict[str, Any]) -> tuple[str, str, str]:
    """Call; return how it was answered, with which code, and the decision's id."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(call).encode(), {**headers, "mcp-protocol-version": "2025-11-25"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            body = json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        body = json.loads(refused.read())
        if "jsonrpc" not in body:
            return "refused", body["code"], ""
    except (OSError, ValueError) as error:
        return "failed", type(error).__name__, ""
    if "result" in body:
        return "allowed", "", body["result"]["_meta"]["decision"]
    about = body["error"].get("data") or {}
    return "refused", about.get("code", f"http.{body['error']['code']}"), about.get("decision") or ""


def main(folder: Path, server: str) -> None:
    """Call for ever."""
    signer = f"{os.environ['COUNTERSIGN_URL']}/tools"
    boot, number = secrets.token_hex(4), 0
    with (folder / "calls.jsonl").open("a") as file:
        while True:
            number += 1
            for kind, tool, arguments in _calls(number):
                while (folder / "hold").exists():
                    (folder / "held").touch()
                    time.sleep(_PAUSE)
                (folder / "held").unlink(missing_ok=True)
                began = time.time()
                answer, code, decision = _ask(server if kind == "past" else signer, tool, arguments)
                line = {"boot": boot, "kind": kind, "tool": tool, "arguments": arguments, "answer": answer}
                line |= {"code": code, "decision": decision, "began": began, "ended": time.time()}
                file.write(json.dumps(line) + "\n")
                file.flush()
                time.sleep(_PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

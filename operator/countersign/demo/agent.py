"""An agent: an unmodified MCP client that knows one URL and holds no credential. Runs as a process of its own.

``python -m countersign.demo.agent URL NOTES``: one JSON command a line on standard input, one JSON answer a line on
standard output. Every answer is also written to the file NOTES, as an agent keeps what it learns. Commands:
``{"call": NAME, "arguments": {…}}`` and ``{"list": true}``. The end of input ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mcp import Client, MCPError


async def _answer(client: Client, command: dict[str, Any]) -> dict[str, Any]:
    try:
        if "list" in command:
            listed = await client.list_tools()
            return {"tools": [tool.name for tool in listed.tools]}
        result = await client.call_tool(command["call"], command.get("arguments", {}))
    except MCPError as refused:
        return {"refused": {"code": refused.code, "message": refused.message, "data": refused.data}}
    text = [getattr(part, "text", "") for part in result.content]
    return {"result": result.structured_content or " ".join(text), "is_error": result.is_error}


async def main(url: str, notes: Path) -> None:
    """Connect to ``url`` and answer commands until the input ends."""
    async with Client(url) as client:
        print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - standard output is this program's answer
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = json.dumps(await _answer(client, json.loads(line)))
            with notes.open("a", encoding="utf-8") as file:
                file.write(answer + "\n")
            print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

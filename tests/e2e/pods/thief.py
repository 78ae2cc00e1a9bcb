"""A thief at the tool server: sends each request that was captured there again, at once; each answer is a line of JSON.

``thief.py FOLDER HOST:PORT``: reads ``FOLDER/captures`` (``countersign.demo.toolserver``), appends to ``FOLDER/thefts.jsonl``.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

_PAUSE = 0.05


def _again(captured: dict[str, Any], host: str, port: int) -> tuple[int, str]:
    """Send one captured request byte for byte; return status and code, 0 for no answer."""
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.putrequest(captured["method"], captured["target"], skip_host=True, skip_accept_encoding=True)
        for name, value in captured["headers"]:
            connection.putheader(name, value)
        connection.endheaders(base64.b64decode(captured["body"]))
        answer = connection.getresponse()
        return answer.status, str(json.loads(answer.read()).get("code", ""))
    except (OSError, ValueError, HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()


def main(folder: Path, host: str, port: int) -> None:
    """Steal for ever; what was sent by this program is not sent a third time."""
    seen: set[str] = set()
    (folder / "captures").touch()
    with (folder / "captures").open("rb") as captures, (folder / "thefts.jsonl").open("a") as thefts:
        while True:
            place = captures.tell()
            line = captures.readline()
            if not line.endswith(b"\n"):
                captures.seek(place)  # not written to its end yet
                time.sleep(_PAUSE)
                continue
            captured = json.loads(line)
            signature = dict(captured["headers"]).get("signature", "")
            if not signature or signature in seen:
                continue
            seen.add(signature)
            status, code = _again(captured, host, port)
            thefts.write(json.dumps({"status": status, "code": code}) + "\n")
            thefts.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].partition(":")[0], int(sys.argv[2].rpartition(":")[2]))

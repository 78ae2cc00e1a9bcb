"""A thief in a pod: sends a request that was seen at the tool server again, byte for byte; prints status and code.

``replay.py HOST:PORT`` with the captured request (one JSON line of ``countersign.demo.toolserver``) on standard input.
"""

from __future__ import annotations

import base64
import json
import sys
from http.client import HTTPConnection

captured = json.loads(sys.stdin.read())
host, _, port = sys.argv[1].rpartition(":")
connection = HTTPConnection(host, int(port), timeout=10)
connection.putrequest(captured["method"], captured["target"], skip_host=True, skip_accept_encoding=True)
for name, value in captured["headers"]:
    connection.putheader(name, value)
connection.endheaders(base64.b64decode(captured["body"]))
answer = connection.getresponse()
body = json.loads(answer.read())
print(json.dumps([answer.status, body.get("code")]))  # noqa: T201 - its answer

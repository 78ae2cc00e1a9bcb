"""`helm test`: one call, as an agent makes it. Exit status 0: the tool ran. 3: refused, and again would not help. 1: not injected."""

import json
import os
import sys
import time
import urllib.request

url = os.environ.get("COUNTERSIGN_URL")
if url is None:
    print("this pod has no signer: the webhook did not know the AgentIdentity yet")
    sys.exit(1)
call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "test", "arguments": {}}}
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
headers["mcp-protocol-version"] = "2025-11-25"
for _ in range(20):
    try:
        request = urllib.request.Request(f"{url}/test", json.dumps(call).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.loads(answer.read())
        break
    except OSError as error:  # the signer's list of servers, or the tool server beside it, is some seconds old
        said = {"error": str(error)}
        time.sleep(1)
print(json.dumps(said))
sys.exit(0 if "result" in said else 3)

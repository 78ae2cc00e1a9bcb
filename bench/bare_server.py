"""The quickstart's tool server without its verifier: the same tools, the same way to serve them, and nobody who asks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "quickstart"))

from server import tools

app = tools.http_app(path="/mcp", stateless_http=True, json_response=True)

"""A front door of its own process, on one core, over objects in memory: what decisions.py loads.

``decider.py DIRECTORY POLICIES CORE``: reads ``crew.json``, ``tls.crt`` and ``tls.key`` of DIRECTORY, serves the calls port by
the webhook's own server, and writes ``ready.json``: its port, and how long the rules took to compile. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import deciding
import uvloop
from inside import policy

from countersign import kube
from countersign.devcluster import write_private
from countersign_webhook.app import CallsApp
from countersign_webhook.files import TlsFiles
from countersign_webhook.serving import Port


async def _main(directory: Path, policies: int) -> None:
    known = json.loads((directory / "crew.json").read_bytes())
    context, source = await deciding.context_of(directory, known, policies)
    times = []
    for maximum in (5000, 5001):  # the second time one of them changed
        source.put(kube.TOOL_POLICIES, policy(None, maximum))
        began = time.perf_counter()
        await context.book.settle()
        _ = context.book.rules.digest, context.book.servers
        times.append(time.perf_counter() - began)
    port = Port(
        CallsApp(context), host="127.0.0.1", port=0, tls=TlsFiles(directory / "tls.crt", directory / "tls.key").context
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await port.start()
    ready = {"port": port.number, "compiled": times[0], "compiled_again": times[1]}
    write_private(directory / "ready.json", json.dumps(ready).encode())
    await stop.wait()
    await port.aclose()
    await context.aclose()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(Path(sys.argv[1]), int(sys.argv[2])))

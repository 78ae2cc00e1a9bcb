"""A front door of its own process, on one core or several, over objects in memory: what decisions.py and workers.py load.

``decider.py DIRECTORY POLICIES CORES [STORE]``: reads ``crew.json``, ``tls.crt`` and ``tls.key`` of DIRECTORY, serves the calls
port by the webhook's own server, and writes ``ready.json``: its port, and how long the rules took to compile. With STORE, a
folder, it shares the Redis at its socket ``s`` and the nonces' key ``nonce.key``. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import deciding
import uvloop
from inside import policy

from countersign import kube
from countersign.devcluster import write_private
from countersign.replaystore import RedisCommands
from countersign.wire import Nonces, SharedReplayCache
from countersign_webhook.app import CallsApp
from countersign_webhook.files import TlsFiles
from countersign_webhook.replay import read_nonce_key
from countersign_webhook.serving import Port
from countersign_webhook.settings import Replay


async def _main(directory: Path, policies: int, store: Path | None) -> None:
    known = json.loads((directory / "crew.json").read_bytes())
    context, source = await deciding.context_of(directory, known, policies)
    if store is not None:
        shared = Replay(url=f"unix://{store / 's'}", nonce_key=store / "nonce.key")
        commands = RedisCommands(shared)
        nonces = Nonces(read_nonce_key(shared.nonce_key))
        context = replace(
            context, nonces=nonces, replay=SharedReplayCache(commands, context.clock), _closing=(commands,)
        )
    times = []
    for maximum in (5001, 5000):  # the second time one of them changed
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
    os.sched_setaffinity(0, {int(core) for core in sys.argv[3].split(",")})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4]) if sys.argv[4:] else None))

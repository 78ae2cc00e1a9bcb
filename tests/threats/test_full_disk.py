"""E1 on the real process: when the disk takes no more, no call is allowed, and each one that was is on it."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from support.soak.kills import Callers, Door, recorded
from webhook.test_plane import Agent

from countersign.audit import verify_log

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

FILE_BYTES = 100_000
ROUNDS = 400


async def test_e1_a_full_disk_under_the_real_process_denies_and_what_was_allowed_is_on_it(
    crds: Plane, namespace: str, tmp_path: Path
) -> None:
    door = Door(crds, tmp_path, None)
    settings = yaml.safe_load(door.config.read_text())
    settings["audit"]["segment_bytes"] = 1 << 30
    door.config.write_text(yaml.safe_dump({**settings, "log_level": "critical"}))
    agent = Agent(door.begin("prlimit", f"--fsize={FILE_BYTES}", "--"), namespace)
    try:
        agent.make()
        callers = Callers(door, agent)
        await callers.until_allowed()
        codes = await _call_until_refused(callers)
        assert codes[-3:] == ["audit.unavailable"] * 3
        assert {decision for _message, decision in callers.accepted} <= recorded(tmp_path / "audit")
        assert len(callers.accepted) > 10
        assert door.running is not None
        assert door.running.health("/readyz") == 503
    finally:
        door.kill()
    # What is written of the last line is named by the next log, which begins where there is room.
    door.begin()
    door.kill()
    assert verify_log([tmp_path / "audit"]).ok


async def _call_until_refused(callers: Callers) -> list[str]:
    """Call until the log takes no more, and then a few times again; return the codes."""
    tls = ssl.create_default_context(cadata=callers.door.ca.pem.decode())
    codes: list[str] = []
    async with httpx.AsyncClient(verify=tls, timeout=10) as client:
        while codes.count("audit.unavailable") < 3:
            assert len(codes) < ROUNDS, codes[-5:]
            message = await callers.message(await callers.nonce(client), hopeless=False)
            code, document, _nonce = await callers.send(client, message)
            codes.append(code)
            if code == "ok":
                callers.accepted.append((message, document["decision"]))
            await asyncio.sleep(0)
    return codes

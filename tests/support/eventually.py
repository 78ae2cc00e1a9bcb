"""Wait for a condition, never for a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Return as soon as ``condition()`` is true; fail with ``what`` when ``seconds`` have passed."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for is another process's
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"after {seconds:g} s still not: {what}") from None


def until(condition: Callable[[], bool], what: str, seconds: float = 90.0) -> float:
    """Wait for ``condition`` without a loop of events; return how many seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"after {seconds:g} s still not: {what}"
        time.sleep(0.1)
    return time.monotonic() - began

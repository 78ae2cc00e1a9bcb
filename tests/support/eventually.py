"""Wait for a condition, never for a time."""

from __future__ import annotations

import asyncio
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

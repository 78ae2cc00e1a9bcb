"""Going through the files, one question at a time, in a process of its own: decisions do not wait for it."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.audit import Question

__all__ = ["Search"]

_SECONDS: Final = 20.0
_PROGRAM: Final = (sys.executable, "-m", "countersign.audit.reading")


class Search:
    """Searches the logs below ``directory``."""

    def __init__(self, directory: Path) -> None:
        """Search nothing yet."""
        self._directory = directory
        self._turn = asyncio.Semaphore(1)

    async def answer(self, question: Question) -> dict[str, Any]:
        """Return ``records``, by time, and whether there are ``more``.

        Raises
        ------
        Unavailable
            ``rate.limited`` while another question is answered, ``audit.unavailable`` if the files cannot be read in time.

        """
        if self._turn.locked():
            raise Unavailable("rate.limited", "another question is being answered", retry_after=2)
        async with self._turn:
            return await self._run(json.dumps(self._asked(question)).encode())

    def _asked(self, question: Question) -> dict[str, Any]:
        filters = {name: value for name, value in vars(question.filters).items() if value is not None}
        for name in ("since", "until"):
            if name in filters:
                filters[name] = filters[name].astimezone(UTC).isoformat()
        return {
            "directory": str(self._directory),
            "filters": filters,
            "namespace": question.namespace,
            "limit": question.limit,
        }

    async def _run(self, asked: bytes) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*_PROGRAM, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(_SECONDS):
                out, _complaint = await child.communicate(asked)
        except TimeoutError as error:
            raise Unavailable("audit.unavailable", "the log is long: ask for a shorter time (since, until)") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise Unavailable("audit.unavailable", "the log cannot be read")
        found: dict[str, Any] = json.loads(out)
        return found

"""Is a TPM simulator there, is it idle, begin it anew: swtpm, by the two sockets (commands, control) in its folder.

A simulator has no resource manager: what a client leaves in it, the next one finds. Each exchange is a connection of its
own, as short as can be, because a simulator serves one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Final

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["SOCKET", "answers", "begin_anew", "is_idle"]

SOCKET: Final = "tpm.sock"
"""In a slot's folder; the control channel is the same name with ``.ctrl``, as the TCTI wants it."""
_CONNECT_SECONDS: Final = 1.0
_SECONDS: Final = 5.0
_HEADER: Final = struct.Struct(">HII")
_NO_SESSIONS: Final = 0x8001
_GET_CAPABILITY: Final = 0x17A
_STARTUP: Final = 0x144
_HANDLES: Final = 1
_LOADED: Final = (0x80000000, 0x02000000)
"""First handles of transient objects and of loaded sessions."""
_COUNT_AT: Final = _HEADER.size + 5
_STARTED: Final = 0x100
"""Startup's answer where the simulator did it by itself."""
_CLEAR: Final = b"\0\0"
_INIT: Final = struct.pack(">II", 2, 0)
"""The control channel's PTM_INIT without flags: power off, power on."""
_DONE: Final = b"\0\0\0\0"
_LONGEST: Final = 4096


async def answers(folder: Path) -> bool:
    """Tell whether somebody listens; a simulator that is at work keeps us waiting, which is an answer too."""
    try:
        async with _connection(folder / SOCKET):
            return True
    except Unavailable:
        return False


async def is_idle(folder: Path) -> bool:
    """Tell whether the simulator holds nothing of a client: what it holds is in use, or was left by a dead one.

    :raises Unavailable: ``attest.unavailable``.
    """
    for first in _LOADED:
        answer = await _command(folder, _GET_CAPABILITY, struct.pack(">III", _HANDLES, first, 1))
        if int.from_bytes(answer[_COUNT_AT : _COUNT_AT + 4]) != 0:
            return False
    return True


async def begin_anew(folder: Path) -> None:
    """Restart the TPM inside, so that a new pod finds nothing that the one before left loaded.

    :raises Unavailable: ``attest.unavailable``; then nobody may get the slot.
    """
    async with _connection(folder / f"{SOCKET}.ctrl") as (reader, writer):
        writer.write(_INIT)
        await writer.drain()
        if await reader.readexactly(len(_DONE)) != _DONE:
            raise Unavailable("attest.unavailable", f"the simulator of {folder.name} does not begin anew")
    await _command(folder, _STARTUP, _CLEAR, also=_STARTED)


async def _command(folder: Path, code: int, body: bytes, *, also: int = 0) -> bytes:
    """Return the whole answer to a command without sessions; ``also`` is a result beside success that will do."""
    async with _connection(folder / SOCKET) as (reader, writer):
        writer.write(_HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), code) + body)
        await writer.drain()
        header = await reader.readexactly(_HEADER.size)
        _tag, size, result = _HEADER.unpack(header)
        if result not in (0, also) or not _HEADER.size <= size <= _LONGEST:
            raise Unavailable("attest.unavailable", f"the simulator of {folder.name} answers {result:#x}")
        return header + await reader.readexactly(size - _HEADER.size)


@contextlib.asynccontextmanager
async def _connection(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect, and let the body have some seconds.

    :raises Unavailable: ``attest.unavailable`` for whatever goes wrong with the sockets, in the body too.
    """
    writer = None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
        async with asyncio.timeout(_SECONDS):
            yield reader, writer
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unavailable(
            "attest.unavailable", f"the simulator of {path.parent.name} does not answer ({type(error).__name__})"
        ) from error
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

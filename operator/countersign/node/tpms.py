"""Which TPMs does this node have, and what does a container get for one? The port, and its two adapters.

A slot is what kubelet counts and hands out. A chip has as many as may share it: the kernel's resource manager keeps their
objects apart. A simulator is one slot, because nothing keeps two clients of it apart.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from countersign.errors import Unavailable
from countersign.node.messages import Allocation, DeviceSpec, Mount
from countersign.node.simulator import SOCKET, answers, begin_anew, is_idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

__all__ = ["Chip", "Simulators", "Tpms"]

_IN_CONTAINER: Final = "/run/countersign/tpm"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")


class Tpms(Protocol):
    """What the node has. A name is a slot's id, or that of a TPM; a simulator's two are the same."""

    @property
    def kind(self) -> str:
        """``hardware`` or ``simulator``."""

    async def look(self) -> dict[str, bool]:
        """Return the slots there are now, by id, and whether each can be handed out."""

    async def allocate(self, slot: str) -> Allocation:
        """Return what a new container gets for its slot.

        :raises Unavailable: ``attest.unavailable``, the TPM behind it does not work.
        """

    async def names(self) -> list[str]:
        """Return the TPMs that have a Device of their own."""

    def to_enrol(self, name: str) -> AbstractAsyncContextManager[str]:
        """Have a TPM to oneself, or beside others where that is safe; yields its TCTI string.

        :raises Unavailable: ``attest.unavailable``, somebody uses it, or it is gone.
        """


class Chip:
    """One TPM with the kernel's resource manager in front of it."""

    kind = "hardware"

    def __init__(self, device: Path, slots: int) -> None:
        """Share ``device`` among ``slots`` pods."""
        self._device = device
        self._slots = [f"{device.name}-{number}" for number in range(slots)]
        self._tcti = f"device:{device}"

    async def look(self) -> dict[str, bool]:
        """Return every slot; all of them work, or none."""
        return dict.fromkeys(self._slots, self._there())

    async def allocate(self, slot: str) -> Allocation:
        """Return the device file."""
        if not self._there():
            raise Unavailable("attest.unavailable", f"{self._device}, of which {slot} is a part, is not there")
        return Allocation(envs=_environment(self._tcti), devices=(DeviceSpec(str(self._device), "rw"),))

    async def names(self) -> list[str]:
        """Return the one TPM."""
        return [self._device.name]

    @asynccontextmanager
    async def to_enrol(self, name: str) -> AsyncIterator[str]:
        """Yield its TCTI: beside others is safe here."""
        del name
        yield self._tcti

    def _there(self) -> bool:
        try:
            return stat.S_ISCHR(self._device.stat().st_mode)
        except OSError:
            return False


class Simulators:
    """A folder of slots, each a folder with a simulator's sockets in it, at the same path here and on the node."""

    kind = "simulator"

    def __init__(self, folder: Path) -> None:
        """Look below ``folder``; whoever runs the simulators makes and removes slots there."""
        self._folder = folder
        self._handed_out: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self) -> dict[str, bool]:
        """Return the slots, and whether somebody listens at each."""
        names = await self.names()
        healthy = await asyncio.gather(*(answers(self._folder / name) for name in names))
        return dict(zip(names, healthy, strict=True))

    async def allocate(self, slot: str) -> Allocation:
        """Begin the slot anew and return its folder: the folder, because a restarted simulator makes new sockets."""
        async with self._locks[slot]:
            self._handed_out.add(slot)
            await begin_anew(self._folder / slot)
        tcti = f"swtpm:path={_IN_CONTAINER}/{SOCKET}"
        return Allocation(envs=_environment(tcti), mounts=(Mount(_IN_CONTAINER, str(self._folder / slot)),))

    async def names(self) -> list[str]:
        """Return the slots: directories of a plain name that hold the socket. A link leads who knows where."""
        try:
            found = sorted(self._folder.iterdir())
        except OSError:
            return []
        return [each.name for each in found if _NAME.fullmatch(each.name) and _is_slot(each)]

    @asynccontextmanager
    async def to_enrol(self, name: str) -> AsyncIterator[str]:
        """Yield the TCTI of a slot that nobody has used so far.

        Who opens a simulator takes away what its other client holds, so one that was handed out is left alone for good, and
        one that holds anything too: a pod from before this process started may be at it.
        """
        async with self._locks[name]:
            if name in self._handed_out or not await is_idle(self._folder / name):
                raise Unavailable("attest.unavailable", f"the TPM of slot {name} is in use", retry_after=60)
            yield f"swtpm:path={self._folder / name / SOCKET}"


def _is_slot(folder: Path) -> bool:
    try:
        return not folder.is_symlink() and folder.is_dir() and stat.S_ISSOCK((folder / SOCKET).lstat().st_mode)
    except OSError:
        return False


def _environment(tcti: str) -> dict[str, str]:
    return {"TCTI": tcti, "TPM2TOOLS_TCTI": tcti}

"""One replica works, the others wait: leadership is a Lease, and its time is measured here.

Another's Lease has run out when it has not *changed* for its duration by our own monotonic clock, so clocks that differ
between machines do not matter. A leader that could not renew until the deadline, which is earlier, stops its work first.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.clock import Clock, SystemClock
from countersign.kube.errors import Conflict, KubeError, NotFound
from countersign.kube.resources import LEASES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from countersign.kube.client import Kube

__all__ = ["Leader", "run_as_leader"]

_RELEASES: Final = 3
_LOG: Final = structlog.get_logger(__name__)


@dataclass
class Leader:
    """A candidate for the Lease ``namespace/name``.

    ``life`` is the Lease's duration, ``deadline`` how long a leader works without a renewal that succeeded, ``every`` the
    time between two attempts; all in seconds, each well below the one before. What the work still does after its
    cancellation must fit into ``life - deadline``. ``owner`` is the owner reference of the Lease: it goes when that goes.
    """

    kube: Kube
    namespace: str
    name: str
    life: float = 15.0
    deadline: float = 10.0
    every: float = 2.0
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{secrets.token_hex(4)}")
    clock: Clock = field(default_factory=SystemClock)
    owner: dict[str, Any] | None = None
    leading: bool = field(default=False, init=False)
    _lease: dict[str, Any] = field(default_factory=dict, init=False)
    _seen: tuple[Any, float] = field(default=(None, 0.0), init=False)
    _renewed: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Refuse times with which two could lead at once."""
        if not 0 < self.every < self.deadline < self.life:
            raise ValueError("a Lease needs every < deadline < life")

    def require(self) -> None:
        """Raise KubeError unless the Lease is surely ours: a process that was stopped for a while writes nothing more.

        By our own clock: from a renewal on nobody else takes the Lease for ``life``, and ``deadline`` is shorter.
        """
        if not self.leading or self._left() <= 0:
            raise KubeError(f"{self.identity} does not lead {self.name} any more, so it writes nothing")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait to lead, then run ``work()``; when leadership is lost, cancel it, await it, and wait again.

        Returns when ``work`` returns; raises what it raises. Either way, and when cancelled itself, the work has ended and
        the Lease is given back.
        """
        while True:
            while not await self._attempt():  # noqa: ASYNC110 - the Lease is another process's to change
                await asyncio.sleep(self.every * random.uniform(0.8, 1.2))  # noqa: S311 - only spread
            _LOG.info("lease.leading", lease=self.name, identity=self.identity)
            if await self._lead(work):
                return
            _LOG.warning("lease.lost", lease=self.name, identity=self.identity)

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run ``work`` while the Lease is ours; return whether it ended by itself."""

        async def working() -> None:
            await work()

        self.leading = True
        task = asyncio.create_task(working(), name=f"leader of {self.name}")
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=max(0.0, min(self.every, self._left())))
                if not task.done() and not await self._renew():
                    return False
            task.result()
            return True
        finally:
            self.leading = False
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is not None:
                _LOG.warning("lease.work", lease=self.name, error=type(task.exception()).__name__)
            await self._release()

    async def _renew(self) -> bool:
        """Try to renew once; return whether we lead on: it worked, or the deadline is ahead and nobody else was seen."""
        if self._left() <= 0:
            return False
        if await self._attempt(self._left()):
            return True
        return self._holder() == self.identity and self._left() > 0

    def _left(self) -> float:
        """Return the seconds until a leader that does not get through has to stop."""
        return self._renewed + self.deadline - self.clock.monotonic()

    def _holder(self) -> str:
        return (self._lease.get("spec") or {}).get("holderIdentity") or ""

    async def _attempt(self, left: float | None = None) -> bool:
        """Take or renew the Lease if that is allowed; return whether it was done. Nobody's answer is a no.

        One attempt has half the deadline at most, so that a connection that hangs is not the last.
        """
        limit = max(self.every, self.deadline / 2)
        try:
            async with asyncio.timeout(limit if left is None else min(limit, left)):
                return await self._take()
        except Conflict:
            # Somebody wrote between our two requests. Whoever it was, the Lease as we know it is over.
            self._lease = {}
        except (KubeError, TimeoutError) as error:
            _LOG.warning("lease.unanswered", lease=self.name, error=str(error) or type(error).__name__)
        return False

    async def _take(self) -> bool:
        began = self.clock.monotonic()
        try:
            # Read anew each time: a lost answer to a renewal that succeeded must not look like another's Lease.
            self._lease = await self.kube.get(LEASES, self.name, self.namespace)
        except NotFound:
            meta = self._owned({"name": self.name, "namespace": self.namespace})
            fresh = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta}
            self._lease = await self.kube.create(LEASES, {**fresh, "spec": self._spec({})})
        else:
            if not self._may_take():
                return False
            meta, spec = self._owned(self._lease["metadata"]), self._spec(self._lease.get("spec") or {})
            self._lease = await self.kube.replace(LEASES, {**self._lease, "metadata": meta, "spec": spec})
        self._renewed = began
        return True

    def _may_take(self) -> bool:
        """Tell whether the Lease is ours, nobody's, or has not changed for its duration."""
        spec, now = self._lease.get("spec") or {}, self.clock.monotonic()
        version = self._lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = version, now
        holder = spec.get("holderIdentity")
        return (
            not holder or holder == self.identity or now - self._seen[1] > spec.get("leaseDurationSeconds", self.life)
        )

    def _owned(self, meta: dict[str, Any]) -> dict[str, Any]:
        return meta if self.owner is None else {**meta, "ownerReferences": [self.owner]}

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = _micro(self.clock.now())
        ours = old.get("holderIdentity") == self.identity
        changes = int(old.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.life),
            "acquireTime": old.get("acquireTime") or now if ours else now,
            "renewTime": now,
            "leaseTransitions": changes if ours or not old else changes + 1,
        }

    async def _release(self) -> None:
        """Give the Lease back, if it is still ours."""
        self._lease = {}
        with suppress(KubeError, TimeoutError):
            async with asyncio.timeout(self.every * _RELEASES):
                for _ in range(_RELEASES):
                    # Read, not remembered: a renewal that was cut off may have been written all the same, or be yet.
                    lease = await self.kube.get(LEASES, self.name, self.namespace)
                    spec = lease.get("spec") or {}
                    if spec.get("holderIdentity") != self.identity:
                        return
                    spec = {**spec, "holderIdentity": "", "renewTime": _micro(self.clock.now())}
                    with suppress(Conflict):
                        await self.kube.replace(LEASES, {**lease, "spec": spec})
                        return


async def run_as_leader(
    kube: Kube,
    namespace: str,
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    life: float = 15.0,
    deadline: float = 10.0,
    every: float = 2.0,
) -> None:
    """Run ``work()`` whenever this process holds the Lease ``namespace/name``; see :meth:`Leader.run`."""
    await Leader(kube, namespace, name, life, deadline, every).run(work)


def _micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""Events for people (crds.md 7): ``events.k8s.io/v1``, at most one write per object, reason and minute, with a count.

An Event is a courtesy: the audit log has what matters. So nothing here raises, and a burst costs one write.
"""

from __future__ import annotations

import secrets
import socket
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.clock import Clock, SystemClock
from countersign.kube.errors import Conflict, KubeError, NotFound
from countersign.kube.resources import EVENTS

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.kube.client import Kube

__all__ = ["EventRecorder"]

_LOG: Final = structlog.get_logger(__name__)
_EVERY: Final = 60.0
_KEPT: Final = 4096
_NOTE: Final = 1024
_WORD: Final = 128
_CLUSTER_SCOPED: Final = "default"


@dataclass
class _Series:
    """One (object, reason): the Event that was written, with what count, and what happened since."""

    written: float
    note: str
    name: str
    namespace: str
    count: int = 1
    told: int = 0
    last: datetime | None = None


class EventRecorder:
    """Writes Events as ``component``, which becomes ``reportingController``."""

    def __init__(self, kube: Kube, component: str, *, clock: Clock | None = None) -> None:
        """Start with nothing written; what a former process wrote is left alone."""
        self._kube = kube
        self._component = component
        self._clock = clock or SystemClock()
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()

    async def emit(
        self,
        regarding: dict[str, Any],
        type: str,  # noqa: A002 - the field's name
        reason: str,
        note: str,
        *,
        once: str | None = None,
    ) -> None:
        """Say that ``reason`` happened to the object ``regarding``; ``type`` is ``Normal`` or ``Warning``.

        ``note`` is a sentence without arguments, tokens or keys, cut to 1,024 characters. Within a minute of the last one
        of this object and reason it is only counted, and the count is written with the next, or by :meth:`flush`. ``once``
        names what happened: the same is written once, whichever replica or restarted process says it again. Never raises
        :class:`KubeError`: what cannot be written is logged and dropped.
        """
        meta = regarding["metadata"]
        key = (str(meta.get("uid") or f"{meta.get('namespace')}/{meta['name']}"), reason)
        now = self._clock.monotonic()
        found = self._series.get(key)
        if found is not None:
            found.count, found.last = found.count + 1, self._clock.now()
            if now - found.written < _EVERY:
                return
            found.written = now
        else:
            # Taken before the first write, so that a burst that comes while it is under way is counted and not written.
            found = self._series[key] = _Series(now, "", "", "")
            while len(self._series) > _KEPT:
                self._series.popitem(last=False)
        self._series.move_to_end(key)
        try:
            await self._write(found, regarding, type, reason, note[:_NOTE], once)
        except KubeError as error:
            _LOG.warning("event.lost", reason=reason, regarding=meta["name"], error=str(error))

    async def flush(self) -> None:
        """Write the counts of a minute ago and older that no later emission brought along: a burst that is over."""
        now = self._clock.monotonic()
        for found in list(self._series.values()):
            if found.name and found.count > found.told and now - found.written >= _EVERY:
                found.written = now
                try:
                    await self._count(found)
                except NotFound:
                    found.told = found.count  # forgotten with its Event
                except KubeError as error:
                    _LOG.warning("event.lost", name=found.name, error=str(error))

    async def _count(self, found: _Series) -> None:
        """Write the count of a series on its Event. Raises NotFound if the API server has forgotten that."""
        count, last = found.count, found.last or self._clock.now()
        patch = {"series": {"count": count, "lastObservedTime": _micro(last)}}
        await self._kube.patch(EVENTS, found.name, patch, found.namespace)
        found.told = count

    async def _write(
        self,
        found: _Series,
        regarding: dict[str, Any],
        type: str,  # noqa: A002 - the field's name
        reason: str,
        note: str,
        once: str | None,
    ) -> None:
        """Go on with the series if it says the same, else write a new Event that carries the count on."""
        if found.name and found.note == note:
            try:
                await self._count(found)
            except NotFound:
                # The API server forgets Events after an hour: then it is a new one.
                found.count = 1
            else:
                return
        body = self._event(regarding, type, reason, note, found.count)
        if once is not None:
            told = "\0".join((self._component, str(body["regarding"].get("uid")), reason, note, once))
            body["metadata"]["name"] = f"{regarding['metadata']['name'][:200]}.{sha256(told.encode()).hexdigest()[:16]}"
        found.name, found.namespace, found.note = body["metadata"]["name"], body["metadata"]["namespace"], note
        count = found.count
        try:
            await self._kube.create(EVENTS, body)
        except Conflict:
            if once is None:
                raise
        found.told = count

    def _event(self, regarding: dict[str, Any], type: str, reason: str, note: str, count: int) -> dict[str, Any]:  # noqa: A002 - the field's name
        meta, now = regarding["metadata"], _micro(self._clock.now())
        about = {
            "apiVersion": regarding.get("apiVersion"),
            "kind": regarding.get("kind"),
            "name": meta["name"],
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
        }
        event: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{meta['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": meta.get("namespace") or _CLUSTER_SCOPED,
            },
            "eventTime": now,
            "type": type,
            "reason": reason[:_WORD],
            "action": reason[:_WORD],
            "note": note,
            "reportingController": self._component,
            "reportingInstance": f"{self._component}-{socket.gethostname()}"[:_WORD],
            "regarding": {name: value for name, value in about.items() if value},
        }
        if count > 1:
            event["series"] = {"count": count, "lastObservedTime": now}
        return event


def _micro(moment: datetime) -> str:
    """Return a MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

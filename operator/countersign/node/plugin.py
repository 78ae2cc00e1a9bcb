"""The gRPC service that kubelet calls (device plugin API v1beta1): which slots there are, and what a container gets.

The messages are bytes here; ``messages`` reads and writes them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from countersign.errors import Unavailable
from countersign.node.messages import (
    DEVICE_PLUGIN,
    allocate_response,
    device_list,
    plugin_options,
    read_allocate_request,
)
from countersign.node.protobuf import MalformedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from countersign.node.board import Board
    from countersign.node.messages import Allocation
    from countersign.node.metrics import NodeMetrics
    from countersign.node.tpms import Tpms

__all__ = ["DevicePlugin"]

_log = structlog.get_logger("countersign.node")


class DevicePlugin:
    """One life of the service, from a registration to kubelet's or our end."""

    def __init__(self, tpms: Tpms, board: Board, metrics: NodeMetrics) -> None:
        """Keep the parts; :meth:`handler` is what a gRPC server wants."""
        self._tpms = tpms
        self._board = board
        self._metrics = metrics
        self._ended = asyncio.Event()

    def handler(self) -> Any:
        """Return the service. The two calls that our options rule out are not there: gRPC answers UNIMPLEMENTED."""
        return grpc.method_handlers_generic_handler(
            DEVICE_PLUGIN,
            {
                "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(self._options),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list_and_watch),
                "Allocate": grpc.unary_unary_rpc_method_handler(self._allocate),
            },
        )

    def end(self) -> None:
        """End the streams: kubelet then takes the slots for unhealthy, and what runs stays as it is."""
        self._ended.set()

    async def _options(self, _request: bytes, _context: Any) -> bytes:
        return plugin_options()

    async def _list_and_watch(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """Send the slots, and again whenever they change."""
        sights = self._board.sights()
        ended = asyncio.ensure_future(self._ended.wait())
        seen: asyncio.Future[dict[str, bool]] | None = None
        try:
            while not self._ended.is_set():
                seen = asyncio.ensure_future(anext(sights))
                await asyncio.wait({seen, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not seen.done():
                    return
                yield device_list(seen.result())
        finally:
            ended.cancel()
            if seen is not None:
                seen.cancel()

    async def _allocate(self, request: bytes, context: Any) -> bytes:
        """Give each container its one slot, or none of them anything."""
        try:
            wanted = read_allocate_request(request)
            given = [await self._one(slots) for slots in wanted]
        except MalformedError as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unavailable as error:
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, error.detail)
        self._metrics.allocations.labels("given").inc(len(given))
        _log.info("allocated", slots=[slots[0] for slots in wanted])
        return allocate_response(given)

    async def _one(self, slots: list[str]) -> Allocation:
        if len(slots) != 1:
            raise MalformedError(f"a container gets one TPM, not {len(slots)}")
        if slots[0] not in self._board.slots:
            raise MalformedError("there is no such slot")
        return await self._tpms.allocate(slots[0])

    async def _refuse(self, context: Any, status: Any, detail: str) -> None:
        self._metrics.allocations.labels("refused").inc()
        _log.warning("not allocated", status=status.name, detail=detail)
        await context.abort(status, detail)

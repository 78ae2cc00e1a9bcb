"""kubelet, as a device plugin sees it: a real gRPC server in the plugin directory, which calls back whoever registers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from countersign.node.messages import DEVICE_PLUGIN
from countersign.node.protobuf import message, string, strings, submessages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(frozen=True)
class Container:
    """What a container would get."""

    envs: dict[str, str]
    mounts: list[tuple[str, str]]
    devices: list[tuple[str, str, str]]


class Plugin:
    """A plugin that registered, called as kubelet calls it."""

    def __init__(self, directory: Path, request: bytes) -> None:
        self.request = request
        (self.version,), (self.endpoint,), (self.resource,) = (strings(request, number) for number in (1, 2, 3))
        self._channel = grpc.aio.insecure_channel(
            f"unix://{directory / self.endpoint}", options=(("grpc.use_local_subchannel_pool", 1),)
        )

    async def aclose(self) -> None:
        await self._channel.close()

    async def call(self, method: str, request: bytes = b"") -> bytes:
        answer: bytes = await self._channel.unary_unary(f"/{DEVICE_PLUGIN}/{method}")(request, timeout=20)
        return answer

    async def allocate(self, *containers: list[str]) -> list[Container]:
        """Ask as for a pod: the ids of each container."""
        request = b"".join(message(1, b"".join(string(1, name) for name in names)) for names in containers)
        answer = await self.call("Allocate", request)
        return [_container(each) for each in submessages(answer, 1)]

    async def lists(self) -> AsyncIterator[dict[str, str]]:
        """Yield what ListAndWatch sends: health by id. Ends when the plugin ends it."""
        stream = self._channel.unary_stream(f"/{DEVICE_PLUGIN}/ListAndWatch")(b"")
        try:
            async for answer in stream:
                yield {strings(each, 1)[0]: strings(each, 2)[0] for each in submessages(answer, 1)}
        finally:
            stream.cancel()


class Kubelet:
    """Starts as kubelet does: every socket that it finds is removed, and plugins have to come again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.refuse = False
        self._registered: asyncio.Queue[Plugin] = asyncio.Queue()
        self._plugins: list[Plugin] = []
        self._server: Any = None

    async def start(self) -> None:
        for path in self.directory.iterdir():
            path.unlink()
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handlers = {"Register": grpc.unary_unary_rpc_method_handler(self._register)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.Registration", handlers),))
        self._server.add_insecure_port(f"unix://{self.directory / 'kubelet.sock'}")
        await self._server.start()

    async def stop(self) -> None:
        for plugin in self._plugins:
            await plugin.aclose()
        self._plugins.clear()
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def plugin(self) -> Plugin:
        """Return the next plugin that registers."""
        async with asyncio.timeout(20):
            return await self._registered.get()

    async def _register(self, request: bytes, context: Any) -> bytes:
        if self.refuse:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not today")
        plugin = Plugin(self.directory, request)
        self._plugins.append(plugin)
        await self._registered.put(plugin)
        return b""


def _container(data: bytes) -> Container:
    envs = {strings(each, 1)[0]: strings(each, 2)[0] for each in submessages(data, 1)}
    mounts = [(strings(each, 1)[0], strings(each, 2)[0]) for each in submessages(data, 2)]
    devices = [(strings(each, 1)[0], strings(each, 2)[0], strings(each, 3)[0]) for each in submessages(data, 3)]
    return Container(envs, mounts, devices)

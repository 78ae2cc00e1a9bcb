"""The options that every command has, and the connection that follows from them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from countersign.console.output import NO_ANSWER, Form, fail
from countersign.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign.kube import Kube

__all__ = ["SYSTEM", "Config", "Context", "Namespace", "Output", "System", "Where", "run"]

SYSTEM: Final = "countersign-system"
Result = TypeVar("Result")

Config = Annotated[
    str | None, typer.Option("--kubeconfig", help="Kubeconfig; else $KUBECONFIG, else ~/.kube/config.", metavar="FILE")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.", metavar="NAME")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; else the context's.")]
Output = Annotated[Form, typer.Option("--output", "-o", help="table, wide, json or yaml.")]
System = Annotated[str, typer.Option("--system-namespace", help="Namespace in which Countersign is installed.")]


@dataclass(frozen=True)
class Where:
    """Which cluster, and which namespace if one was asked for."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None = None

    @property
    def files(self) -> str:
        """The kubeconfigs, with colons between."""
        found = self.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        return ":".join(str(Path(one).expanduser()) for one in found.split(":") if one)


def run(where: Where, work: Callable[[Kube, str], Awaitable[Result]]) -> Result:
    """Connect, and return what ``work`` finds with the connection and the namespace; an API server's no ends the command."""

    async def connected() -> Result:
        from countersign.kube import Kube  # noqa: PLC0415 - --help needs no client

        kube, default = await Kube.connect_person(where.files, where.context)
        try:
            return await work(kube, where.namespace or default)
        finally:
            await kube.aclose()

    try:
        return asyncio.run(connected())
    except KubeError as error:
        raise fail(str(error), NO_ANSWER) from error

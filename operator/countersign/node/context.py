"""Everything that one node process holds, opened once and closed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from countersign.clock import Clock, SystemClock
from countersign.kube import Kube
from countersign.node.board import Board
from countersign.node.kubelet import Registration
from countersign.node.metrics import NodeMetrics
from countersign.node.plugin import DevicePlugin
from countersign.node.proposing import Proposing
from countersign.node.tpms import Chip, Simulators, Tpms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign.attest import AttestationDevice
    from countersign.node.settings import NodeSettings

__all__ = ["ProcessContext"]


@dataclass(frozen=True)
class ProcessContext:
    """The parts of a running node process."""

    settings: NodeSettings
    kube: Kube
    metrics: NodeMetrics
    board: Board
    registration: Registration
    proposing: Proposing

    @classmethod
    async def from_settings(cls, settings: NodeSettings) -> Self:
        """Connect to the API server; nothing is sent yet. Raises KubeError."""
        from countersign.attest.tpm import TpmDevice  # noqa: PLC0415 - the TPM libraries only where one is opened

        return cls.of(settings, kube=await Kube.connect(settings.kubeconfig), open_tpm=TpmDevice.open)

    @classmethod
    def of(
        cls,
        settings: NodeSettings,
        *,
        kube: Kube,
        open_tpm: Callable[[str], Awaitable[AttestationDevice]],
        clock: Clock | None = None,
    ) -> Self:
        """Put the parts together."""
        folder = settings.socket_dir
        tpms: Tpms = Chip(settings.device, settings.slots) if folder is None else Simulators(folder)
        metrics = NodeMetrics()
        board = Board(tpms, metrics)
        registration = Registration(
            settings.plugin_dir,
            lambda: DevicePlugin(tpms, board, metrics),
            metrics,
            look_seconds=settings.look.total_seconds(),
        )
        proposing = Proposing(
            tpms,
            open_tpm,
            kube,
            trust_dir=settings.trust_dir,
            token_file=settings.token_file,
            facts_seconds=settings.facts.total_seconds(),
            clock=clock or SystemClock(),
            metrics=metrics,
        )
        return cls(settings, kube, metrics, board, registration, proposing)

    async def aclose(self) -> None:
        """Close the connection."""
        await self.kube.aclose()

    def faults(self) -> list[str]:
        """Return what keeps kubelet from handing out a TPM of this node; empty means ready."""
        found = []
        if not self.registration.registered:
            found.append("kubelet does not know this plugin")
        if not self.board.works:
            found.append("no TPM of this node works")
        return found

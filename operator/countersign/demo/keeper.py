"""What goes on in the background while scenes play: Secrets mounted anew when they change, pods' tokens renewed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Keeper"]


class Keeper:
    """A thread that does each of ``chores`` every ``every`` seconds; a chore that fails is written down and tried again."""

    def __init__(self, chores: Sequence[Callable[[], object]], log: Path, every: float = 2.0) -> None:
        """Prepare; ``with`` starts and ends the thread."""
        self._chores = chores
        self._log = log
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and return when it has ended. Safe to call twice, and before :meth:`start`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for chore in self._chores:
                try:
                    chore()
                except Exception as error:  # noqa: BLE001 - a kubelet goes on, whatever the API server says
                    with self._log.open("a", encoding="utf-8") as file:
                        file.write(f"{chore.__qualname__}: {error}\n")

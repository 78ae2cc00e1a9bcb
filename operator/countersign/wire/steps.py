"""How is a numbered check written down? As data, so that a test can leave one out and show what only it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Step"]

_Exam = TypeVar("_Exam")


@dataclass(frozen=True)
class Step(Generic[_Exam]):
    """One check: its number in the page's list, the codes it refuses with, and the function that raises them.

    Several steps may share a number: the page numbers groups, the vectors fail single codes.
    """

    number: int
    codes: tuple[str, ...]
    check: Callable[[_Exam], Awaitable[None] | None]

    async def run(self, exam: _Exam) -> None:
        """Check ``exam``; raises one of ``codes``, or ``parse.*`` and their like where the step parses."""
        waiting = self.check(exam)
        if waiting is not None:
            await waiting

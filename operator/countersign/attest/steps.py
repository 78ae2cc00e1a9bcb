"""How is a numbered check written down? As data, so that a test can leave one out and show what only it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Step", "run"]

_Exam = TypeVar("_Exam")


@dataclass(frozen=True)
class Step(Generic[_Exam]):
    """One check: its number in its sequence, the code it refuses with, and the function that raises it."""

    number: int
    code: str
    check: Callable[[_Exam], None]

    @property
    def name(self) -> str:
        """The check's name: the last part of its code, or the function's own name where several share a code."""
        return self.check.__name__.strip("_")


def run(steps: Iterable[Step[_Exam]], exam: _Exam) -> None:
    """Run ``steps`` in order; the first that raises ends it."""
    for step in steps:
        step.check(exam)

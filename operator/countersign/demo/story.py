"""A scene: what is done, what is expected, and what was seen. The story is a table of them, told in order."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from countersign.demo.machine import Machine

__all__ = ["Result", "Scene", "Surprise", "expect", "tell"]


class Surprise(Exception):
    """A scene saw something else than it should have; the text is what it saw."""


@dataclass(frozen=True)
class Scene:
    """``act`` does it and returns what was observed, or raises; after a surprise in a ``vital`` one nothing can follow."""

    name: str
    expected: str
    act: Callable[[Machine], str]
    vital: bool = False


@dataclass(frozen=True)
class Result:
    """How a scene went; ``observed`` has the reason code where something was refused. ``seconds`` it took."""

    name: str
    expected: str
    observed: str
    passed: bool
    seconds: float
    vital: bool = False

    @property
    def document(self) -> dict[str, object]:
        """The scene as ``-o json`` prints it."""
        return {"name": self.name, "expected": self.expected, "observed": self.observed, "passed": self.passed}


def expect(holds: object, observed: str) -> None:
    """Raise :class:`Surprise` with ``observed`` unless ``holds``."""
    if not holds:
        raise Surprise(observed)


def tell(machine: Machine, scenes: Sequence[Scene], begins: Callable[[Scene], None]) -> Iterator[Result]:
    """Play ``scenes`` in order and yield each result; ``begins`` is told before each. Never raises for a scene's sake."""
    lost = ""
    for scene in scenes:
        if lost:
            yield Result(scene.name, scene.expected, f"not played: {lost}", passed=False, seconds=0, vital=scene.vital)
            continue
        begins(scene)
        began = time.monotonic()
        try:
            observed, passed = scene.act(machine), True
        except Surprise as surprise:
            observed, passed = str(surprise), False
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a scene is what it observed
            observed, passed = f"{type(error).__name__}: {error}", False
        if not passed and scene.vital:
            lost = f"'{scene.name}' failed"
        yield Result(scene.name, scene.expected, observed, passed, time.monotonic() - began, vital=scene.vital)

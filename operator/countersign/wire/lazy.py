"""What is worked out when it is first needed, and then kept: on the path of every decision, so without a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy"]

_T = TypeVar("_T")


class lazy(Generic[_T]):  # noqa: N801 - it is used as a decorator
    """``functools.cached_property`` as it is from Python 3.12 on; before, it takes a lock at each first use."""

    def __init__(self, read: Callable[[Any], _T]) -> None:
        """Keep what ``read`` returns in the object itself, under the same name."""
        self._read = read
        self._name = read.__name__
        self.__doc__ = read.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> _T:
        """Work it out; afterwards the object's own attribute is found first."""
        value = owner.__dict__[self._name] = self._read(owner)
        return value

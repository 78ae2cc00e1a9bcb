"""Read log files line by line, forwards and backwards: a log may be far larger than memory, and so may a line that nobody wrote."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Told = Callable[[int], None]

__all__ = ["LINE_MAX", "Line", "read_back", "read_lines", "whole_size"]

LINE_MAX: Final = 32 << 20
"""No record is longer: a body has at most 1 MiB, and what a ToolServer has recorded of it is named by at most 16 pointers."""
_PIECE: Final = 1 << 20
_BLOCK: Final = 64 << 10


@dataclass(frozen=True)
class Line:
    """A line without its LF; ``data`` is None where it is longer than any record, ``torn`` where the file ends without an LF."""

    data: bytes | None
    digest: str
    size: int
    torn: bool = False


class _Pieces:
    """A line that comes in pieces."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._kept: list[bytes] = []
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.size += len(piece)
        if self.size > self._longest:
            self._kept.clear()
        else:
            self._kept.append(piece)

    def line(self, *, torn: bool = False) -> Line:
        data = None if self.size > self._longest else b"".join(self._kept)
        return Line(data, "sha256:" + self._hash.hexdigest(), self.size, torn)


def read_lines(
    files: Iterable[Path], *, start: int = 0, told: Told | None = None, longest: int = LINE_MAX
) -> Iterator[Line]:
    """Yield the lines of a log's files in order, from byte ``start`` of the first; an unfinished one last, and marked.

    ``told`` is given the number of bytes of each piece that was read. Raises OSError.
    """
    pieces = _Pieces(longest)
    for path in files:
        with path.open("rb") as file:
            file.seek(start)
            start = 0
            while piece := file.readline(_PIECE):
                if told is not None:
                    told(len(piece))
                pieces.add(piece.removesuffix(b"\n"))
                if piece.endswith(b"\n"):
                    yield pieces.line()
                    pieces = _Pieces(longest)
    if pieces.size:
        yield pieces.line(torn=True)


def read_back(path: Path, size: int, *, longest: int = LINE_MAX) -> Iterator[bytes]:
    """Yield the complete lines among the first ``size`` bytes of a file, the last one first. Raises OSError.

    A line that is longer than any record is left out.
    """
    with path.open("rb") as file:
        end, rest, length, unfinished = size, [b""], 0, True
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            first, *others = file.read(end - begin).split(b"\n")
            end = begin
            if others:
                length += len(others[-1])
                if length <= longest and not unfinished:  # what follows the last LF is no line yet
                    yield others[-1] + b"".join(reversed(rest))
                yield from reversed(others[:-1])
                rest, length, unfinished = [], 0, False
            rest.append(first)
            length += len(first)
            if length > longest:
                rest.clear()
        if length <= longest and not unfinished:
            yield b"".join(reversed(rest))


def whole_size(path: Path, size: int) -> int:
    """Return how many of the first ``size`` bytes of a file are complete lines. Raises OSError."""
    with path.open("rb") as file:
        while size > 0:
            begin = max(0, size - _BLOCK)
            file.seek(begin)
            found = file.read(size - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            size = begin
    return 0

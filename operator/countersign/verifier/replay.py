"""Where a tool server remembers which call tokens were used: in this process, or with the others of its audience (wire.md 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from countersign.wire import CALL_TOKEN_AHEAD, MemoryReplayCache, SharedReplayCache

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.clock import Clock
    from countersign.verifier.settings import VerifierSettings
    from countersign.wire import ReplayCache

__all__ = ["replay_of"]


@dataclass(frozen=True)
class _Address:
    """What ``replaystore.Address`` wants."""

    url: str
    username: str | None
    password: Path | None
    ca: Path | None


def replay_of(settings: VerifierSettings, clock: Clock) -> ReplayCache:
    """Return the store that the settings name, else one for a process that is alone with its audience.

    Nothing is connected yet. Raises ValueError where the package for a shared store is not installed, OSError where its
    password cannot be read.
    """
    if settings.replay_url is None:
        # A call token may be from up to skew ahead of this clock: what was used before a restart must be older (A7).
        return MemoryReplayCache(epoch=int(clock.now().timestamp()) + settings.skew_seconds)
    try:
        from countersign.replaystore import RedisCommands  # noqa: PLC0415 - most tool servers have no need of the package
    except ModuleNotFoundError as error:
        raise ValueError("replay_url needs the extra countersign[verifier-redis]") from error
    address = _Address(
        settings.replay_url, settings.replay_username, settings.replay_password_file, settings.replay_ca_file
    )
    return SharedReplayCache(RedisCommands(address), clock, ahead=CALL_TOKEN_AHEAD)

"""A pod that has ended is there until somebody deletes it, and nothing in it runs any more. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["has_ended"]

_ENDED: Final = ("Succeeded", "Failed")


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Tell whether every container of a pod has ended for good: a Job's pod that is done, or one that was evicted.

    kubelet never starts one of it again, so whoever speaks for it does not run in it.
    """
    return (pod.get("status") or {}).get("phase") in _ENDED

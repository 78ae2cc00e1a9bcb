"""``make e2e`` and ``make e2e-down``: bring up the cluster with Countersign installed, or take it away. Root only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from support import fleet, image, install, real_cluster

from countersign.devcluster import find_or_build, find_or_build_node, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster


def up(say: Callable[[str], None]) -> RealCluster:
    """Return the cluster with this tree's Countersign installed and every TPM approved."""
    cluster = real_cluster.up(say)
    install.install(cluster, say)
    fleet.approve(cluster, say)
    return cluster


def _say(line: str) -> None:
    print(f"==> {line}", file=sys.stderr, flush=True)


def main(verb: str) -> int:
    """Do ``up``, ``down``, or ``prepare`` what ``up`` needs; 1 where this machine cannot. ``able`` only tells whether it can."""
    if verb == "able":
        if reason := real_cluster.cannot():
            _say(f"no real nodes here, and their tests are skipped: {reason}")
        return 1 if reason else 0
    if verb == "down":
        with state.single(real_cluster.RUN):
            real_cluster.down()
        _say("the cluster is gone")
        return 0
    if reason := real_cluster.why_not():
        print(f"make e2e: {reason}", file=sys.stderr)
        return 1
    with state.single(real_cluster.RUN):
        if verb == "prepare":
            find_or_build(_say)
            find_or_build_node(_say)
            image.build(_say)
        else:
            up(_say)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

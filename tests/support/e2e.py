"""``make e2e`` and ``make e2e-down``: bring up the cluster with Countersign installed, or take it away. Root only."""

from __future__ import annotations

import sys

from support import fleet, install, real_cluster

from countersign.devcluster import state


def _say(line: str) -> None:
    print(f"==> {line}", file=sys.stderr, flush=True)


def main(verb: str) -> int:
    """Do ``up`` or ``down``; 1 where this machine cannot."""
    if verb == "down":
        with state.single(real_cluster.RUN):
            real_cluster.down()
        _say("the cluster is gone")
        return 0
    if reason := real_cluster.why_not():
        print(f"make e2e: {reason}", file=sys.stderr)
        return 1
    with state.single(real_cluster.RUN):
        cluster = real_cluster.up(_say)
        install.install(cluster, _say)
        fleet.approve(cluster, _say)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

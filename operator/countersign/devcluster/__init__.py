"""A real Kubernetes control plane and TPM simulators on this machine, for the demo and the tests.

Callers: ``countersign dev`` for a person, :mod:`countersign.demo`, and the tests' ``plane`` fixture; all three run the same
code. The programs are found or built from Go modules that are pinned by hash; no container registry is asked.

This room never runs in production, never touches a cluster it did not start, and leaves no process behind: children die
with their parent unless they were asked to outlive it, and those are recorded and stopped by ``countersign dev down``.
"""

from countersign.devcluster import state
from countersign.devcluster.binaries import (
    OPA,
    Binaries,
    NodeBinaries,
    cache_directory,
    find,
    find_or_build,
    find_or_build_node,
    find_or_build_opa,
)
from countersign.devcluster.full import FullPlane
from countersign.devcluster.packages import missing_packages
from countersign.devcluster.pki import LocalCA, Pair, write_private
from countersign.devcluster.plane import Plane, PlaneError, free_ports
from countersign.devcluster.process import Child, Recorded, start, start_time
from countersign.devcluster.tpm import EkAuthority, Tpm

__all__ = [
    "OPA",
    "Binaries",
    "Child",
    "EkAuthority",
    "FullPlane",
    "LocalCA",
    "NodeBinaries",
    "Pair",
    "Plane",
    "PlaneError",
    "Recorded",
    "Tpm",
    "cache_directory",
    "find",
    "find_or_build",
    "find_or_build_node",
    "find_or_build_opa",
    "free_ports",
    "missing_packages",
    "start",
    "start_time",
    "state",
    "write_private",
]

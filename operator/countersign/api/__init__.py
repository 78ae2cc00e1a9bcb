"""What people write, and what they see: the kinds of ``countersign.dev/v1alpha1``.

The models are the source; ``countersign crds`` writes the CustomResourceDefinitions and the chart's copy from them. Whoever
reads an object of a kind may parse it with its model (unknown fields are ignored); policy, webhook and authority read plain
dicts, as the API server stores them, because there a field that a replica does not know must stay visible.

This room never talks to a cluster, and a rule that is here is enforced by the API server alone: with the CRDs and nothing
else (crds.md 2 and 3). What needs other objects or a parser is admission's (crds.md 4). A kind without working behaviour
is not here yet.
"""

from typing import Final

from countersign.api.device import Device
from countersign.api.identity import AgentIdentity
from countersign.api.instance import AgentInstance
from countersign.api.issuer import IdentityIssuer
from countersign.api.kind import GROUP, VERSION, Column, Kind, Names
from countersign.api.policy import ClusterToolPolicy, ToolPolicy
from countersign.api.pool import DevicePool
from countersign.api.server import ToolServer

__all__ = [
    "GROUP",
    "KINDS",
    "VERSION",
    "AgentIdentity",
    "AgentInstance",
    "ClusterToolPolicy",
    "Column",
    "Device",
    "DevicePool",
    "IdentityIssuer",
    "Kind",
    "Names",
    "ToolPolicy",
    "ToolServer",
]

KINDS: Final[tuple[type[Kind], ...]] = (
    IdentityIssuer,
    DevicePool,
    Device,
    AgentIdentity,
    AgentInstance,
    ToolServer,
    ToolPolicy,
    ClusterToolPolicy,
)
"""Every kind that is shipped, in the order in which a person would apply them."""

"""The process ``countersign node``: hands this node's TPM to signers, and proposes it to the inventory.

Callers: kubelet, over a socket in its device-plugin directory; nobody imports this room but its own command. It advertises
``countersign.dev/tpm`` (a chip that pods share, or one simulator a slot), keeps itself registered, and enrols each TPM for
a Device that people approve. It starts no simulator, holds no agent's key, and decides nothing: what it says of its node
are facts of source ``node``, which root on the node could have made up.

=============  =========================================================================================
``protobuf``   the wire format of proto3, as far as kubelet's messages need it
``messages``   those messages (device plugin API v1beta1)
``tpms``       which slots there are: the port :class:`Tpms`, a chip or a folder of simulators
``simulator``  a simulator's sockets: is it there, is it idle, begin anew
``board``      the slots and their health as they were seen last, and who waits for news
``plugin``     the gRPC service that kubelet calls
``kubelet``    registers, sees kubelet restart, registers again
``proposing``  leg E1 for the node's Devices, and their facts
=============  =========================================================================================
"""

from countersign.node.settings import NodeSettings

__all__ = ["NodeSettings"]

"""The process ``countersign operator``: says in status and Events what is true of our kinds, and keeps the others supplied.

It watches with kopf (``watch``), remembers in one ``View``, lets keys wait in a queue (``keys``), plans in pure functions
(``identities``, ``pools``, ``servers``, ``policies``, ``instances``), and writes in one coroutine (``reconcile``) while it
holds the Lease ``countersign-operator``. It makes and rotates the serving certificates, the token keys and the ConfigMap
``countersign-trust`` (``serving``, ``tokenkeys``, ``material``). ``main`` is the entry point; nobody imports this room.

It never decides a tool call and never sees an agent's key; it puts no finalizer and no annotation on anybody's object; it
writes no status of IdentityIssuer and Device, and of an AgentInstance only Ready and Revoked. A dangling reference is
reported, never guessed.
"""

from countersign.controller.settings import OperatorSettings, load

__all__ = ["OperatorSettings", "load"]

"""The front door: the process ``countersign webhook``.

=============  ============================================================================================
``admission``  for the API server: inject pods (crds.md 4.1), validate our kinds (crds.md 4)
``decide``     for signers: leg T of wire.md (``/token``, ``/nonce``, ``/catalogue``)
``keys``       the token keys and the JWKS for everyone
``serving``    three ports, TLS files that rotate, limits on what a stranger may send
=============  ============================================================================================

Callers: the API server, signers and verifiers, over TLS. Nothing imports this package; it may import everything below.
It never writes during admission, never makes a token but from an allowing decision whose audit record is durable, and
answers no when it does not know: stale caches, a lost audit log, a late decision and a bug are refusals.
"""

from countersign_webhook.settings import WebhookSettings
from countersign_webhook.source import MemorySource, PolicySource

__all__ = ["MemorySource", "PolicySource", "WebhookSettings"]

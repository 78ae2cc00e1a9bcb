"""``GET /audit/decisions``: a person reads this process's audit log, as far as the cluster lets that person (wire.md 9.1).

``readers`` finds out who asks and asks the API server what they may see; ``search`` goes through the files, in a process of
its own; ``endpoint`` is the edge. This room writes nothing and decides nothing about calls.
"""

from countersign_webhook.reading.endpoint import ReadingEndpoint
from countersign_webhook.reading.readers import Accounts, Readers

__all__ = ["Accounts", "Readers", "ReadingEndpoint"]

"""What the API server asks: inject pods (crds.md 4.1) and validate our kinds (the rows W of crds.md 4).

Caller: the API server, on a port of its own. It answers from the review and the watch cache alone, writes nothing, and
so is safe in a dry run. A question that it cannot read or answer is refused with a message.
"""

from countersign_webhook.admission.routes import admission_app

__all__ = ["admission_app"]

"""Whom does the signer believe? What every process believes that enrols; this room's name for it."""

from __future__ import annotations

from countersign.attest.trust import Trust, client_context, read_trust, tls_fault

__all__ = ["Trust", "client_context", "read_trust", "tls_fault"]

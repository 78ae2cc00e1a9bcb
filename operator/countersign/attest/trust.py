"""Whom does a process that enrols believe? The mounted ConfigMap ``countersign-trust``, read anew whenever it is needed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from countersign.clock import COMPARE_CLOCKS
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Trust", "client_context", "read_trust", "tls_fault"]

_OTHER_TIME: Final = {9: "is not valid yet", 10: "has ended"}
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


@dataclass(frozen=True)
class Trust:
    """The two URLs that a signer is given (a node uses the first), and the CA (PEM) of their serving certificates."""

    authority_url: str
    webhook_url: str
    ca: str


def read_trust(directory: Path) -> Trust:
    """Read the three files of the mounted ConfigMap.

    Raises:
        Unavailable: ``attest.unavailable``, if one is missing: kubelet or the operator has not got there yet.
    """
    try:
        authority, webhook, ca = (
            (directory / name).read_text(encoding="utf-8").strip() for name in ("authorityURL", "webhookURL", "ca.crt")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            "attest.unavailable", f"the trust ConfigMap is not readable: {type(error).__name__}"
        ) from error
    if not (_is_base(authority) and _is_base(webhook) and ca):
        raise Unavailable("attest.unavailable", "the trust ConfigMap needs two https URLs and ca.crt")
    return Trust(authority.rstrip("/"), webhook.rstrip("/"), ca)


def _is_base(url: str) -> bool:
    """Tell an https URL that other paths are appended to: a host, and no user, query or fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and not (parts.query or parts.fragment or "@" in url)


def tls_fault(error: BaseException) -> str:
    """Return what to add to the words about a connection that failed: TLS refuses a certificate of another time."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError) and seen.verify_code in _OTHER_TIME:
            return f"; its certificate {_OTHER_TIME[seen.verify_code]} by this clock: {COMPARE_CLOCKS}"
        seen = seen.__cause__ or seen.__context__
    return ""


def client_context(ca: str | None, *, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a client context, host names checked, that trusts ``ca`` (PEM) alone, or the system's roots for None.

    Raises:
        Unavailable: ``attest.unavailable`` for a bundle that cannot be read.
    """
    try:
        context = ssl.create_default_context(cadata=ca) if ca is not None else ssl.create_default_context()
    except (ssl.SSLError, ValueError) as error:
        raise Unavailable("attest.unavailable", "a CA bundle cannot be read") from error
    context.minimum_version = minimum
    return context

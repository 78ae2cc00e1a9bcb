"""Roots that people write into our objects: they parse, are CAs, and have not expired (crds.md 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["bundle_fault"]


def bundle_fault(pem: str, now: datetime) -> str | None:
    """Return what is wrong with a PEM bundle at ``now``, with subject and date, or None."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return "is not a list of PEM certificates"
    for certificate in certificates:
        if (fault := _fault(certificate, now)) is not None:
            return fault
    return None


def _fault(certificate: x509.Certificate, now: datetime) -> str | None:
    try:
        subject = certificate.subject.rfc4514_string() or "(no subject)"
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return f"{subject} is not a CA"
    except ValueError:
        return "has a certificate that cannot be read"
    if not constraints.ca:
        return f"{subject} is not a CA"
    if certificate.not_valid_after_utc <= now:
        return f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return None

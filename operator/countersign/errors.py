"""The four ways a thing can fail, and the one registry of reason codes.

Codes are dotted and stable: ``wire.md`` section 10 lists those of a tool call, ``enrolment.md`` sections 2 and 3 those
of an enrolment. They are never renamed and never reused. Anything raised that is none of these classes is a bug, and
each edge (problem+json, AdmissionReview, kopf, ACME, exit status) turns it into a refusal.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CODES", "CountersignError", "Denied", "Invalid", "Unavailable", "title"]

_FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "parse": (
        "size",
        "bom",
        "utf8",
        "syntax",
        "trailing",
        "type",
        "duplicate",
        "surrogate",
        "nul",
        "number_length",
        "number_range",
        "number_precision",
        "negative_zero",
        "depth",
        "members",
        "encoding",
        "duplicate_header",
    ),
    "mcp": (
        "http_method",
        "batch",
        "envelope",
        "version",
        "header_missing",
        "header_mismatch",
        "method_unknown",
        "params",
    ),
    "http": ("path", "query", "body", "collision", "ambiguous"),
    "request": ("parameter", "grant", "subject_type", "resource", "details", "mapping", "origin"),
    "proof": (
        "missing",
        "ambiguous",
        "label",
        "parameters",
        "format",
        "tag",
        "encoding",
        "components",
        "window",
        "future",
        "expired",
        "audience",
        "nonce",
        "signature",
        "replayed",
    ),
    "digest": ("missing", "unexpected", "format", "mismatch"),
    "nonce": ("invalid", "expired"),
    "replay": ("store_reset", "unavailable"),
    "cert": ("missing", "format", "chain", "expired", "usage", "name", "key"),
    "session": ("format", "signature", "issuer", "audience", "future", "life", "expired", "key", "nonce"),
    "instance": ("unknown", "mismatch", "revoked", "ended", "ambiguous"),
    "device": ("not_approved",),
    "task": (
        "required",
        "not_bound",
        "mismatch",
        "suspended",
        "ended",
        "expired",
        "budget_exhausted",
        "tool_not_included",
    ),
    "tool": ("server_unknown", "server_not_exposed", "unknown", "arguments_invalid", "definition_changed"),
    "environment": ("assurance_too_low", "key_tier_too_low", "attestation_stale"),
    "policy": ("allowed", "default_deny", "denied", "undecided"),
    "approval": ("required", "pending", "slow_down", "denied"),
    "token": (
        "missing",
        "scheme",
        "format",
        "alg",
        "type",
        "header",
        "kid",
        "signature",
        "claims",
        "issuer",
        "audience",
        "future",
        "life",
        "expired",
        "confirmation",
        "actor",
        "details",
        "facts",
    ),
    "call": ("protocol", "method", "tool", "args", "undecided"),
    "dpop": (
        "missing",
        "format",
        "type",
        "alg",
        "key",
        "signature",
        "claims",
        "htm",
        "htu",
        "iat",
        "ath",
        "key_mismatch",
        "nonce_required",
        "nonce_invalid",
        "replayed",
    ),
    "pep": ("unknown", "not_allowed"),
    "audit": ("open", "head", "unavailable", "question", "reader", "not_allowed"),
    "decide": ("failed", "unavailable"),
    "rate": ("limited",),
    "attest": (
        # enrolment.md section 2, in the order of its checks
        "request",
        "token_missing",
        "token_invalid",
        "token_unbound",
        "pod_gone",
        "pod_mismatch",
        "identity_none",
        "identity_overlap",
        "issuer_not_ready",
        "not_injected",
        "ek_key",
        "ek_certificate",
        "ek_mismatch",
        "ek_profile",
        "ek_expired",
        "ek_untrusted",
        "pool_ambiguous",
        "device_unknown",
        "device_pending",
        "device_denied",
        "node_mismatch",
        "user_mismatch",
        "pool_not_admitted",
        "assurance_too_low",
        "model_denied",
        "ak_format",
        "ak_strength",
        "ak_attributes",
        "ak_proof",
        "ak_reused",
        "key_proof",
        "key_attributes",
        "key_reused",
        "secret_invalid",
        "pending_full",
        # section 3
        "payload",
        "cbor",
        "fmt",
        "version",
        "algorithm",
        "chain",
        "ak_profile",
        "identifier_missing",
        "identifier_mismatch",
        "identifier_ambiguous",
        "public_area",
        "key_strength",
        "cert_info",
        "name",
        "signature_format",
        "signature",
        "extra_data",
        "csr_format",
        "csr_signature",
        "csr_key",
        "csr_names",
        "instance_unknown",
        "instance_inactive",
        # section 4, and availability
        "quote_missing",
        "quote_signature",
        "quote_nonce",
        "pcr_mismatch",
        "counters",
        "unavailable",
        "failed",
    ),
}

CODES: Final[frozenset[str]] = frozenset(f"{family}.{name}" for family, names in _FAMILIES.items() for name in names)
"""Every reason code there is."""


def title(code: str) -> str:
    """Return the short text people see beside ``code``: the code's own words, for example ``Policy: default deny``."""
    family, _, name = code.partition(".")
    return f"{family.capitalize()}: {name.replace('_', ' ')}"


class CountersignError(Exception):
    """What every expected failure has: a code of the registry and a detail that never repeats secret input."""

    def __init__(self, code: str, detail: str = "") -> None:
        """Keep ``code`` and ``detail``; an unregistered code is a bug here, not at the edge."""
        if code not in CODES:
            msg = f"unregistered reason code {code!r}"
            raise ValueError(msg)
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Denied(CountersignError):
    """The request was understood and the answer is no."""


class Invalid(CountersignError):
    """The request could not be understood: ``parse.*``, ``mcp.*``, ``http.*``, ``request.*`` and their like."""


class Unavailable(CountersignError):
    """No answer can be given now; also a no. ``retry_after`` is in whole seconds."""

    def __init__(self, code: str, detail: str = "", *, retry_after: int = 1) -> None:
        """Keep when to try again."""
        super().__init__(code, detail)
        self.retry_after = retry_after

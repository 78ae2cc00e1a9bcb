"""One translation: a refusal of ours as the ACME problem of the resource that was asked (enrolment.md section 3)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from countersign.acme import AcmeProblem
from countersign.errors import CountersignError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["translated"]

_UNAUTHORIZED: Final = frozenset(
    {
        "attest.instance_unknown",
        "attest.instance_inactive",
        "attest.device_unknown",
        "attest.device_pending",
        "attest.device_denied",
    }
)


@contextmanager
def translated(resource: Literal["newOrder", "challenge", "finalize", "revokeCert"]) -> Iterator[None]:
    """Turn ``Denied`` and ``Invalid`` into :class:`AcmeProblem` with the same code; an outage stays an outage."""
    try:
        yield
    except Unavailable:
        raise
    except CountersignError as error:
        raise AcmeProblem(_type(resource, error.code), error.detail, error.code) from error


def _type(resource: str, code: str) -> str:
    if resource == "newOrder":
        return "rejectedIdentifier"
    if code in _UNAUTHORIZED:
        return "unauthorized"
    if resource == "finalize" and code.startswith("attest.csr_"):
        return "badCSR"
    return "badAttestationStatement"

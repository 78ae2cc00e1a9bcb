"""Whom a refused or a new attestation concerns: the objects on which people find an Event (crds.md 7)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from countersign.attest import verify_ek
from countersign.authority.exam import from_base64
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.authority.exam import Exam

__all__ = ["notices"]

_MISPLACED: Final = ("attest.node_mismatch", "attest.user_mismatch", "attest.pool_not_admitted")
"""Of a node's own enrolment: its TPM is in the inventory as somebody else's."""
_EVIDENCE: Final = ("attest.ak_", "attest.key_")


def notices(exam: Exam, refusal: Denied) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each object that ``refusal`` is news for, with the reason of its Warning."""
    if not exam.authenticated:
        return
    for instance in exam.cluster.instances_of_pod(exam.review.pod_uid or ""):
        yield instance, "AttestationFailed"
    if refusal.code == "attest.pool_ambiguous":
        yield from ((pool, "AmbiguousPool") for pool in _vouching(exam))
    elif refusal.code == "attest.device_unknown":
        yield from ((device, "DuplicateEK") for device in exam.devices)
    elif refusal.code == "attest.model_denied":
        yield from ((device, "ModelDenied") for device in exam.devices)
    elif exam.of_node and refusal.code in _MISPLACED:
        yield from ((device, "EvidenceRejected") for device in exam.devices)
    elif refusal.code.startswith(_EVIDENCE) and exam.devices:
        yield exam.device, "EvidenceRejected"


def _vouching(exam: Exam) -> Iterator[dict[str, Any]]:
    """Yield the pools that each vouch for the endorsement key by themselves."""
    request = exam.attest_request
    ek, certificates = from_base64(request.ek), [from_base64(der) for der in request.ek_certs]
    for name, roots in exam.cluster.roots().items():
        with suppress(Denied):
            verify_ek(ek, certificates, {name: roots}, exam.now)
            pool = exam.cluster.pool(name)
            if pool is not None:
                yield pool

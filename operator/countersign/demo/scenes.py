"""The story, as a table."""

from __future__ import annotations

from typing import Final

from countersign.demo import calls, ending, opening, theft
from countersign.demo.story import Scene

__all__ = ["LAST", "SCENES"]

SCENES: Final = (
    Scene(
        "control plane up, kinds established",
        "a real API server, our kinds, operator, authority and webhook ready",
        opening.established,
        vital=True,
    ),
    Scene("quickstart applied", "every object Ready or Accepted", opening.applied, vital=True),
    Scene("a policy with a typo", "refused by the API server, which names the field", opening.typo),
    Scene(
        "agent pod injected",
        "the signer is added; applied twice changes nothing; a pod outside is untouched",
        opening.injected,
        vital=True,
    ),
    Scene(
        "signer attests and enrols",
        "instances Ready with assurance, device and expiry",
        opening.enrolled,
        vital=True,
    ),
    Scene("allowed call by an unmodified MCP client", "the tool's result", calls.allowed),
    Scene("tools/list", "only what policy could allow", calls.listed),
    Scene("a tool that no rule names", "denied: policy.default_deny", calls.not_named),
    Scene("a denied argument", "denied, with code and reason", calls.denied_argument),
    Scene(
        "what the agent's process holds",
        "no credential in environment, open and written files, memory and answers",
        calls.no_credential,
    ),
    Scene("a page in the pod's browser", "403 request.origin", calls.browser),
    Scene("captured token, no key", "401 proof.missing", theft.token_without_key),
    Scene("captured token, key of another approved TPM", "401 proof.signature", theft.other_tpm),
    Scene("captured request sent again at once", "401 proof.replayed", theft.replayed),
    Scene(
        "captured request, one byte changed",
        "401 digest.mismatch; with the digest repaired 401 proof.signature",
        theft.body_changed,
    ),
    Scene("unknown TPM with the pod's own token", "not enrolled: attest.device_unknown", ending.unknown_tpm),
    Scene(
        "approved TPM of the other node with the stolen pod token",
        "not enrolled: attest.node_mismatch; the pod's instance stays",
        ending.stolen_token,
    ),
    Scene(
        "decision point killed",
        "calls fail closed; after restart they work, audit chain unbroken, replay still refused",
        ending.decision_point_killed,
    ),
    Scene("a Deny applied with kubectl", "policy.denied within 2 s", ending.deny_applied),
    Scene(
        "pod deleted, certificate still valid",
        "instance.ended or instance.unknown within 2 s",
        ending.pod_deleted,
    ),
    Scene("device set to Denied", "device.not_approved within 2 s", ending.device_denied),
    Scene("audit log", "chains verify; one edited byte is found", ending.audit),
)

LAST: Final = Scene("nothing left running", "no process of this run", ending.nothing_left)
"""Not played with ``--keep``, and played whatever went wrong before."""

"""The process ``countersign authority``: attestation CA (EK to AK certificate) and ACME CA (AK certificate to identity).

Callers: the signers, over TLS; nobody imports this room but its own command. It never signs what was not linted first,
never believes a name in a CSR, never decides a tool call, and is the only writer of IdentityIssuer status, Device status
(but facts) and AgentInstance status (but what is the operator's).

=================  =====================================================================================
``attestation``    ``POST /attest`` and ``POST /secret``: enrolment.md section 2, two named sequences of checks
``checks``         those two sequences, check by check
``proposals``      the same two for a node that proposes its Device
``acme_desk``      the ACME server's resources: enrolment.md section 3
``order_checks``   what it checks beyond RFC 8555: three named sequences
``orders``         the life of an order: a table, and a status that is derived
``issue``          build, lint, sign once, check: AK certificates and identity certificates
``ca``             the CA keys, in Secrets; ``rotation`` which of them signs; ``custody`` what was last read
``cluster``        what the checks ask the cluster
``instances``      AgentInstance and Device: made and described
``recorder``       the audit record, the metric and the log line of each answer; ``notices`` the Events of a refusal
``reconcile``      status of issuers, devices and instances as time passes
``store``          what outlives the process
=================  =====================================================================================
"""

from countersign.authority.settings import AuthoritySettings

__all__ = ["AuthoritySettings"]

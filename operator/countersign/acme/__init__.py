"""RFC 8555 and device-attest-01 on the wire: messages, JWS, problems, and the client.

Callers: the authority, which answers these messages, and the signer, which sends them. This room never decides whether an
identifier may have a certificate, never looks into an attestation statement and never holds a key of the TPM: the caller
of :class:`AcmeClient` hands in two functions that make the statement and the CSR.

Reading is strict: base64url without padding, JSON without duplicate names, flattened JWS only, algorithms from a fixed
list. Every question about a JWS is one function that raises :class:`AcmeProblem`.
"""

from countersign.acme.client import AcmeClient
from countersign.acme.encoding import from_base64url, to_base64url
from countersign.acme.jwk import PublicKey, jwk_of, key_from_jwk, thumbprint
from countersign.acme.jws import (
    Jws,
    check_algorithm,
    check_jwk_only,
    check_kid_only,
    check_url,
    parse_jws,
    sign,
    verify,
)
from countersign.acme.messages import (
    Account,
    Authorization,
    Challenge,
    ChallengeResponse,
    Directory,
    Finalize,
    Identifier,
    NewAccount,
    NewOrder,
    Order,
    RevokeCertificate,
    key_authorization,
    permanent_identifier,
    read_payload,
)
from countersign.acme.problems import URN, AcmeProblem

__all__ = [
    "URN",
    "Account",
    "AcmeClient",
    "AcmeProblem",
    "Authorization",
    "Challenge",
    "ChallengeResponse",
    "Directory",
    "Finalize",
    "Identifier",
    "Jws",
    "NewAccount",
    "NewOrder",
    "Order",
    "PublicKey",
    "RevokeCertificate",
    "check_algorithm",
    "check_jwk_only",
    "check_kid_only",
    "check_url",
    "from_base64url",
    "jwk_of",
    "key_authorization",
    "key_from_jwk",
    "parse_jws",
    "permanent_identifier",
    "read_payload",
    "sign",
    "thumbprint",
    "to_base64url",
    "verify",
]

"""TPM evidence: is this key in a TPM that the platform believes, and is that TPM here.

The authority calls the verifiers: :func:`verify_ek`, :func:`verify_ak` and :func:`verify_key_proof` on leg E1,
:func:`verify_statement` and :func:`verify_csr` on leg E2 (enrolment.md 2 and 3); each runs a numbered sequence of named
checks, raises ``Denied`` with the code of the first that fails, and returns a value made nowhere else. The signer calls
the port :class:`AttestationDevice`, whose two implementations are ``attest.tpm`` (the only file that speaks to a TPM,
imported by its own name because it needs the TPM libraries) and ``attest.software`` (its twin). ``attest.client`` is leg
E1 from the device's side, for the signer and the node.

This room reads bytes that strangers send: every parser is strict to the last byte, bounded, and refuses by a code. It
never decides who may enrol, never issues, and never signs a digest that a caller supplies.
"""

from countersign.attest.ak import AK_STEPS, KEY_STEPS, VerifiedAk, key_qualifier, verify_ak, verify_key_proof
from countersign.attest.certificates import PermanentIdentifier, TpmFacts
from countersign.attest.credential import make_credential
from countersign.attest.csr import CSR_STEPS, verify_csr
from countersign.attest.device import Ak, AttestationDevice, AttestingKey, Certified, Endorsement
from countersign.attest.ek import EK_STEPS, VerifiedEk, verify_ek
from countersign.attest.evidence import TpmsAttest, TpmsCreationData, TpmtSignature
from countersign.attest.public import PublicKey, TpmtPublic
from countersign.attest.software import SoftwareDevice
from countersign.attest.statement import attestation_object, build_statement
from countersign.attest.steps import Step
from countersign.attest.verify import STATEMENT_STEPS, Evidence, verify_statement

__all__ = [
    "AK_STEPS",
    "CSR_STEPS",
    "EK_STEPS",
    "KEY_STEPS",
    "STATEMENT_STEPS",
    "Ak",
    "AttestationDevice",
    "AttestingKey",
    "Certified",
    "Endorsement",
    "Evidence",
    "PermanentIdentifier",
    "PublicKey",
    "SoftwareDevice",
    "Step",
    "TpmFacts",
    "TpmsAttest",
    "TpmsCreationData",
    "TpmtPublic",
    "TpmtSignature",
    "VerifiedAk",
    "VerifiedEk",
    "attestation_object",
    "build_statement",
    "key_qualifier",
    "make_credential",
    "verify_ak",
    "verify_csr",
    "verify_ek",
    "verify_key_proof",
    "verify_statement",
]

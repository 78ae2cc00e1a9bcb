"""make_credential against tpm2-pytss' own, and by activation (the contract tests do that in the twin and in swtpm)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import tpm2_pytss
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss.utils import make_credential as reference

from countersign.attest import SoftwareDevice, make_credential
from countersign.attest.credential import open_credential
from countersign.errors import Denied

NAME = b"\x00\x0b" + hashlib.sha256(b"an attestation key").digest()
SECRET = bytes(range(32))
TEMPLATES = {"RSA2048": "rsa2048:aes128cfb", "P256": "ecc256:aes128cfb", "P384": "ecc384:aes256cfb"}


@pytest.fixture(params=["RSA2048", "P256", "P384"])
def ek(request: Any) -> Any:
    return request.param, SoftwareDevice.make(kind=request.param).endorsement_key


def test_what_it_makes_opens_with_that_key(ek: Any) -> None:
    assert open_credential(ek[1], NAME, *make_credential(ek[1].public_key(), NAME, SECRET)) == SECRET


@pytest.mark.tpm
def test_what_tpm2_pytss_makes_opens_the_same_way(ek: Any) -> None:
    kind, key = ek
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    algorithm = tpm2_pytss.TPM2_ALG.SHA384 if kind == "P384" else tpm2_pytss.TPM2_ALG.SHA256
    bits = 256 if kind == "P384" else 128
    mode = tpm2_pytss.TPMU_SYM_MODE(aes=tpm2_pytss.TPM2_ALG.CFB)
    symmetric = tpm2_pytss.TPMT_SYM_DEF_OBJECT(
        algorithm=tpm2_pytss.TPM2_ALG.AES, keyBits=tpm2_pytss.TPMU_SYM_KEY_BITS(aes=bits), mode=mode
    )
    public = tpm2_pytss.TPM2B_PUBLIC.from_pem(pem, nameAlg=algorithm, symmetric=symmetric)

    blob, seed = reference(public, SECRET, tpm2_pytss.TPM2B_NAME(NAME))

    assert open_credential(key, NAME, blob.marshal(), seed.marshal()) == SECRET


def test_it_is_never_the_same_twice(ek: Any) -> None:
    first, second = (make_credential(ek[1].public_key(), NAME, SECRET) for _ in range(2))

    assert first[0] != second[0]
    assert first[1] != second[1]


def test_another_name_does_not_open_it(ek: Any) -> None:
    made = make_credential(ek[1].public_key(), NAME, SECRET)

    with pytest.raises(Denied):
        open_credential(ek[1], NAME[:-1] + b"x", *made)


def test_one_changed_byte_does_not_open_it(ek: Any) -> None:
    credential, secret = make_credential(ek[1].public_key(), NAME, SECRET)

    for at in range(len(credential)):
        changed = credential[:at] + bytes([credential[at] ^ 1]) + credential[at + 1 :]
        with pytest.raises(Denied):
            open_credential(ek[1], NAME, changed, secret)

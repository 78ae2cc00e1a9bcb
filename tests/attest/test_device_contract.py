"""One contract, two devices: the software twin and a real TPM's code in swtpm."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.attestation import IDENTIFIER, KEY_AUTHORIZATION, NOW, Lab, make_ca
from tpm2_pytss import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_HC, TPM2_SE, TPMT_SYM_DEF

from countersign.attest import (
    SoftwareDevice,
    build_statement,
    key_qualifier,
    make_credential,
    verify_ak,
    verify_ek,
    verify_key_proof,
    verify_statement,
)
from countersign.attest.algorithms import Attribute
from countersign.attest.tpm import TpmDevice, _find_ek
from countersign.errors import Denied, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.swtpm import Simulator

    from countersign.attest import AttestationDevice

SECRET = bytes(range(32))


def verify_es256(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))


class Contract:
    """What every device does."""

    @pytest.fixture
    async def device(self) -> AttestationDevice:
        raise NotImplementedError

    @pytest.fixture
    def roots(self) -> Any:
        raise NotImplementedError

    async def test_its_endorsement_key_verifies_under_its_maker(self, device: AttestationDevice, roots: Any) -> None:
        first = (await device.endorsements())[0]

        verified = verify_ek(first.spki, first.certificates, {"pool": roots}, datetime.now(UTC))

        assert verified.pool == "pool"
        assert verified.sha256 == f"sha256:{hashlib.sha256(first.spki).hexdigest()}"

    @pytest.mark.parametrize("kind", ["P256", "RSA2048"])
    async def test_its_attestation_key_verifies_and_activates(self, device: AttestationDevice, kind: Any) -> None:
        ak = await device.create_ak(kind)
        verified = verify_ak(ak.public, ak.creation_data, ak.attest, ak.signature)
        ek = load_der_public_key((await device.endorsements())[0].spki)

        assert await device.activate(*make_credential(ek, verified.name, SECRET)) == SECRET

    async def test_a_credential_for_another_attestation_key_does_not_open(self, device: AttestationDevice) -> None:
        before = await device.create_ak("P256")
        await device.create_ak("P256")
        name = verify_ak(before.public, before.creation_data, before.attest, before.signature).name
        ek = load_der_public_key((await device.endorsements())[0].spki)

        with pytest.raises(Denied) as caught:
            await device.activate(*make_credential(ek, name, SECRET))

        assert caught.value.code == "attest.request"

    async def test_a_credential_for_another_device_does_not_open(self, device: AttestationDevice) -> None:
        ak = await device.create_ak("P256")
        name = verify_ak(ak.public, ak.creation_data, ak.attest, ak.signature).name
        mine = load_der_public_key((await device.endorsements())[0].spki)
        kind = "P256" if isinstance(mine, ec.EllipticCurvePublicKey) else "RSA2048"
        other = SoftwareDevice.make(kind=kind).endorsement_key.public_key()

        with pytest.raises(Denied) as caught:
            await device.activate(*make_credential(other, name, SECRET))

        assert caught.value.code == "attest.request"

    @pytest.mark.parametrize("junk", [b"", b"\x00", b"\x00\x04abcd", b"\xff\xff" + bytes(10), bytes(400)])
    async def test_junk_does_not_open(self, device: AttestationDevice, junk: bytes) -> None:
        await device.create_ak("P256")

        with pytest.raises(Denied):
            await device.activate(junk, junk)

    @pytest.mark.parametrize("kind", ["P256", "RSA2048"])
    async def test_it_certifies_its_key_for_secret_and_for_acme(self, device: AttestationDevice, kind: Any) -> None:
        made = await device.create_ak(kind)
        ak = verify_ak(made.public, made.creation_data, made.attest, made.signature)
        key = await device.create_key()
        proof = await device.certify(key_qualifier(SECRET))
        again = await device.certify(hashlib.sha256(KEY_AUTHORIZATION.encode()).digest())
        lab = Lab.make()
        leaf = lab.but(ak_key=type("K", (), {"public_key": lambda _self: ak.public_key})()).certificate()
        statement = build_statement([leaf], again.attest, again.public, again.signature, -7)

        assert verify_key_proof(ak, proof.public, proof.attest, proof.signature, SECRET) == key.public_key
        evidence = verify_statement(
            statement, key_authorization=KEY_AUTHORIZATION, identifier=IDENTIFIER, ak_roots=[lab.root], now=NOW
        )
        assert evidence.public_key == key.public_key

    async def test_a_new_attestation_key_is_another_one(self, device: AttestationDevice) -> None:
        first, second = await device.create_ak("P256"), await device.create_ak("P256")

        assert first.public != second.public

    async def test_its_key_signs_es256(self, device: AttestationDevice) -> None:
        key = await device.create_key()

        for data in (b'"@method": POST', b"0\x82", b"eyJhbGciOiJFUzI1NiJ9"):
            signature = await key.sign(data)
            assert len(signature) == 64
            verify_es256(key.public_key, signature, data)

    @pytest.mark.parametrize("data", [b"", b"\x00", b"x", b"{}", hashlib.sha256(b"a digest").digest()])
    async def test_a8_its_key_signs_nothing_but_the_three_forms(self, device: AttestationDevice, data: bytes) -> None:
        key = await device.create_key()

        with pytest.raises(Denied) as caught:
            await key.sign(data)

        assert caught.value.code == "proof.format"

    async def test_certify_without_keys_is_refused(self, device: AttestationDevice) -> None:
        with pytest.raises(Denied):
            await device.certify(SECRET)

    async def test_its_key_is_named_by_its_rfc_7638_thumbprint(self, device: AttestationDevice) -> None:
        key = await device.create_key()

        assert len(key.jkt) == 43
        assert key.jkt == (await _same(key)).jkt


async def _same(key: Any) -> Any:
    return key


class TestTwin(Contract):
    """The twin, with each kind of endorsement key."""

    @pytest.fixture
    def issuer(self) -> Any:
        return make_ca("Twin EK CA", days=3650)

    @pytest.fixture(params=["RSA2048", "P256", "P384"])
    async def device(self, request: Any, issuer: Any) -> AsyncIterator[AttestationDevice]:
        device = SoftwareDevice.make(issuer, kind=request.param)
        yield device
        await device.aclose()

    @pytest.fixture
    def roots(self, issuer: Any) -> Any:
        return [issuer[0]]


@pytest.mark.tpm
class TestTpm(Contract):
    """swtpm, activating with its RSA-2048 and with its P-384 endorsement key."""

    @pytest.fixture(params=["RSA2048", "P384"])
    async def device(self, request: Any, simulator: Simulator) -> AsyncIterator[AttestationDevice]:
        device = await TpmDevice.open(simulator.tcti)
        await device.endorsements()
        if request.param == "P384":
            device._eks.reverse()
        yield device
        await device.aclose()

    @pytest.fixture
    def roots(self, simulator: Simulator) -> Any:
        return simulator.roots

    async def test_endorsements_come_rsa_first(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        kinds = [type(load_der_public_key(one.spki)).__name__ for one in await device.endorsements()]
        await device.aclose()

        assert kinds == ["RSAPublicKey", "ECPublicKey"]

    async def test_an_endorsement_key_made_from_its_template_activates(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        persistent = (await device.endorsements())[0]
        from_template = await device.run(_from_template)
        device._eks = [from_template]
        ak = await device.create_ak("P256")
        name = verify_ak(ak.public, ak.creation_data, ak.attest, ak.signature).name
        credential = make_credential(load_der_public_key(persistent.spki), name, SECRET)
        opened = await device.activate(*credential)
        await device.aclose()

        assert from_template.endorsement == persistent
        assert opened == SECRET

    async def test_what_a_dead_client_left_is_flushed_at_start(self, simulator: Simulator) -> None:
        for _ in range(4):
            dead = await TpmDevice.open(simulator.tcti)
            await dead.create_ak("P256")
            await dead.create_key()
            await dead.run(_leave_sessions)
            dead._ak = dead._key_handle = None  # so that closing flushes nothing
            await dead.aclose()

        device = await TpmDevice.open(simulator.tcti)
        ak = await device.create_ak("P256")
        key = await device.create_key()
        left = await device.run(_handles)
        await device.aclose()

        assert verify_ak(ak.public, ak.creation_data, ak.attest, ak.signature)
        assert key.jkt
        assert left == 2

    async def test_nothing_is_left_after_use(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        for _ in range(5):
            await device.create_ak("P256")
            await device.create_key()
            await device.certify(SECRET)
        await device.aclose()
        looker = await TpmDevice.open(simulator.tcti)
        left = await looker.run(_handles)
        await looker.aclose()

        assert left == 0

    async def test_its_keys_never_leave_it_and_do_not_lock_it(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        ak = await device.create_ak("P256")
        await device.create_key()
        certified = await device.certify(SECRET)
        await device.aclose()
        wanted = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.NO_DA

        attributes = [int.from_bytes(public[4:8]) for public in (ak.public, certified.public)]

        assert [value & wanted for value in attributes] == [wanted, wanted]

    async def test_e3_the_one_too_many_is_refused_not_queued(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        key = await device.create_key()

        answers = await asyncio.gather(*(key.sign(b'"x') for _ in range(40)), return_exceptions=True)
        await device.aclose()

        refused = [answer for answer in answers if isinstance(answer, Unavailable)]
        assert [one.code for one in refused] == ["rate.limited"] * 8
        assert all(len(answer) == 64 for answer in answers if isinstance(answer, bytes))

    async def test_many_signatures_all_verify(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        key = await device.create_key()

        signatures = [await key.sign(b'"x') for _ in range(200)]
        await device.aclose()

        for signature in signatures:
            verify_es256(key.public_key, signature, b'"x')

    async def test_a_replaced_key_signs_no_more(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        old = await device.create_key()
        await device.create_key()

        with pytest.raises(Denied):
            await old.sign(b'"x')
        await device.aclose()

    async def test_a_closed_device_and_an_absent_one_are_unavailable(self, simulator: Simulator) -> None:
        device = await TpmDevice.open(simulator.tcti)
        await device.aclose()
        await device.aclose()

        with pytest.raises(Unavailable):
            await device.create_key()
        with pytest.raises(Unavailable):
            await TpmDevice.open("swtpm:path=/nonexistent/sock")
        with pytest.raises(Unavailable):
            await TpmDevice.open("no-such-tcti:")


def _handles(context: Any) -> int:
    _more, capability = context.get_capability(TPM2_CAP.HANDLES, TPM2_HC.TRANSIENT_FIRST, 64)
    data = capability.data
    handles = data.handles
    return len(list(handles))


def _leave_sessions(context: Any) -> None:
    symmetric = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
    context.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, symmetric, TPM2_ALG.SHA256)


def _from_template(context: Any) -> Any:
    return _find_ek(context, "EK-RSA2048", 0x8101FFF0, 0x01C00002)

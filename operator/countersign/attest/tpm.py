"""How does a TPM 2.0 attest? The adapter over tpm2-pytss, and the only file that imports it.

* One thread owns the ESAPI context: it is not re-entrant, and two threads break each other's calls. What waits for it is
  bounded; the one too many is refused, since a queue in front of a serial device only adds age to proofs.
* A TPM without a resource manager has three slots for transient objects and three for sessions, and keeps what a
  dead client left: both are flushed at the start, and everything made here is flushed in ``finally``.
* A member of a union that tpm2-pytss returns must not outlive its parent (the memory is freed): signatures are read
  from ``bytes(signature)``, which is a copy in DER, and structures from ``marshal()``.
* Keys have an empty authorization and ``noDA``: a wrong guess by anyone cannot lock the TPM.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.attest.algorithms import Attribute, digest
from countersign.attest.device import Ak, AkKind, Certified, Endorsement, check_signable, jkt_of
from countersign.attest.public import TpmtPublic
from countersign.errors import Denied, Unavailable

os.environ.setdefault("TSS2_LOG", "all+NONE")  # before the library is loaded: it prints expected misses to stderr

import tpm2_pytss as tss
from tpm2_pytss.utils import NoSuchIndex, NVReadEK, create_ek_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TpmDevice", "TpmKey"]

_T = TypeVar("_T")

_MAX_WAITING: Final = 32
_MAX_QUALIFYING: Final = 32
_SHA256: Final = 0x000B
_LAYER: Final = 16
_DER_HEADER: Final = 4
_DER_LONG: Final = 0x82
_EKS: Final = (("EK-RSA2048", 0x81010001, 0x01C00002), ("EK-ECC256", 0x81010002, 0x01C0000A))
"""Low range of the TCG's EK credential profile: template, customary persistent handle, NV index of the certificate."""
_HIGH_EKS: Final = (("EK-HIGH-ECC384", 0x81010016, 0x01C00016),)
"""High range, which swtpm uses for its ECC key."""

_ATTRIBUTES: Final = (
    tss.TPMA_OBJECT.FIXEDTPM
    | tss.TPMA_OBJECT.FIXEDPARENT
    | tss.TPMA_OBJECT.SENSITIVEDATAORIGIN
    | tss.TPMA_OBJECT.USERWITHAUTH
    | tss.TPMA_OBJECT.NODA
)
_PARENT: Final = ("ecc256:null:aes128cfb", _ATTRIBUTES | tss.TPMA_OBJECT.RESTRICTED | tss.TPMA_OBJECT.DECRYPT)
_AKS: Final = {
    "P256": ("ecc256:ecdsa-sha256:null", _ATTRIBUTES | tss.TPMA_OBJECT.RESTRICTED | tss.TPMA_OBJECT.SIGN_ENCRYPT),
    "RSA2048": ("rsa2048:rsassa-sha256:null", _ATTRIBUTES | tss.TPMA_OBJECT.RESTRICTED | tss.TPMA_OBJECT.SIGN_ENCRYPT),
}
_KEY: Final = ("ecc256:null:null", _ATTRIBUTES | tss.TPMA_OBJECT.SIGN_ENCRYPT)


@dataclass(frozen=True)
class _Ek:
    """An endorsement key: a persistent handle, or the template to make it from when it is needed."""

    handle: int | None
    template: Any
    with_auth: bool
    """True: its empty authorization opens it (high range). False: only its policy does (low range)."""
    endorsement: Endorsement


class TpmKey:
    """The instance key in the TPM."""

    def __init__(self, device: TpmDevice, handle: Any, public_key: ec.EllipticCurvePublicKey) -> None:
        """Name the loaded key; :meth:`TpmDevice.create_key` makes these."""
        self._device = device
        self._handle = handle
        self._public_key = public_key
        self._jkt = jkt_of(public_key)

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    @property
    def jkt(self) -> str:
        """RFC 7638 thumbprint."""
        return self._jkt

    async def sign(self, data: bytes) -> bytes:
        """Return ES256 over ``data``, r || s; see :meth:`AttestingKey.sign`."""
        check_signable(data)
        return await self._device.run(self._sign, data)

    def _sign(self, context: Any, data: bytes) -> bytes:
        if self._device.key is not self:
            raise Denied("proof.format", "this instance key was replaced")
        r, s = decode_dss_signature(_sign_der(context, self._handle, data))
        return r.to_bytes(32) + s.to_bytes(32)


class TpmDevice:
    """A TPM behind a TCTI string, for example ``device:/dev/tpmrm0`` or ``swtpm:path=/run/tpm/sock``."""

    def __init__(self, context: Any, thread: ThreadPoolExecutor) -> None:
        """Take over an open context and the thread that opened it; :meth:`open` makes both."""
        self._context = context
        self._thread = thread
        self._waiting = 0
        self._closed = False
        self._eks: list[_Ek] | None = None
        self._ak: Any = None
        self._key_handle: Any = None
        self._key_public = b""
        self.key: TpmKey | None = None

    @classmethod
    async def open(cls, tcti: str) -> Self:
        """Open the TPM and flush what others left in it.

        Raises:
            Unavailable: ``attest.unavailable``, when there is no TPM or it fails.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="tpm")
        loop = asyncio.get_running_loop()
        try:
            context = await loop.run_in_executor(thread, _open, tcti)
        except tss.TSS2_Exception as error:
            thread.shutdown(wait=False)
            raise Unavailable("attest.unavailable", f"the TPM does not open: {error}") from error
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(context, thread)

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run ``work(context, *arguments)`` on the owner thread.

        Raises:
            Unavailable: ``rate.limited`` when 32 wait already, ``attest.unavailable`` when the TPM fails or is closed.
        """
        if self._closed:
            raise Unavailable("attest.unavailable", "the TPM is closed")
        if self._waiting >= _MAX_WAITING:
            raise Unavailable("rate.limited", f"{self._waiting} calls wait for the TPM")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._context, *arguments)
        except tss.TSS2_Exception as error:
            raise Unavailable("attest.unavailable", f"the TPM failed: {error}") from error
        finally:
            self._waiting -= 1

    async def endorsements(self) -> list[Endorsement]:
        """Return the endorsement keys that have a certificate, RSA-2048 first; if none has one, the RSA key alone."""
        return [ek.endorsement for ek in await self.run(self._endorsement_keys)]

    async def create_ak(self, kind: AkKind) -> Ak:
        """Make a fresh attestation key in the endorsement hierarchy and certify its creation by itself.

        The endorsement hierarchy, because in the owner's the TPM hides its reset counters and firmware version.
        """
        return await self.run(self._create_ak, kind)

    async def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Do TPM2_ActivateCredential with the AK and the first endorsement key."""
        return await self.run(self._activate, credential, secret)

    async def create_key(self) -> TpmKey:
        """Make the instance key."""
        return await self.run(self._create_key)

    async def certify(self, qualifying: bytes) -> Certified:
        """Certify the instance key with the AK."""
        if len(qualifying) > _MAX_QUALIFYING:
            raise Denied("attest.request", f"qualifying data of {len(qualifying)} bytes")
        return await self.run(self._certify, qualifying)

    async def aclose(self) -> None:
        """Flush every handle, close the context, and end the thread."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close, self._context)
        self._thread.shutdown(wait=True)

    def _endorsement_keys(self, context: Any) -> list[_Ek]:
        if self._eks is None:
            found = [ek for row in (*_EKS, *_HIGH_EKS) if (ek := _find_ek(context, *row)) is not None]
            self._eks = [ek for ek in found if ek.endorsement.certificates] or found[:1]
        if not self._eks:
            raise Unavailable("attest.unavailable", "the TPM has no endorsement key")
        return self._eks

    def _create_ak(self, context: Any, kind: AkKind) -> Ak:
        self._flush_ak(context)
        with _parent(context) as parent:
            private, public, creation, creation_hash, ticket = context.create(parent, None, _template(*_AKS[kind]))
            self._ak = context.load(parent, private, public)
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
        attest, signature = context.certify_creation(self._ak, self._ak, b"", creation_hash, scheme, ticket)
        return Ak(public.publicArea.marshal(), creation.creationData.marshal(), bytes(attest), signature.marshal())

    def _create_key(self, context: Any) -> TpmKey:
        self._flush_key(context)
        with _parent(context) as parent:
            private, public, *_ = context.create(parent, None, _template(*_KEY))
            self._key_handle = context.load(parent, private, public)
        self._key_public = public.publicArea.marshal()
        key = TpmtPublic.parse(self._key_public).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Unavailable("attest.unavailable", "the TPM made another key than it was asked for")
        _self_test(context, self._key_handle, key)
        self.key = TpmKey(self, self._key_handle, key)
        return self.key

    def _certify(self, context: Any, qualifying: bytes) -> Certified:
        if self._ak is None or self._key_handle is None:
            raise Denied("attest.request", "no attestation key or no instance key yet")
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
        attest, signature = context.certify(self._key_handle, self._ak, qualifying, scheme)
        return Certified(self._key_public, bytes(attest), signature.marshal())

    def _activate(self, context: Any, credential: bytes, secret: bytes) -> bytes:
        if self._ak is None:
            raise Denied("attest.request", "no attestation key yet")
        try:
            blob, read = tss.TPM2B_ID_OBJECT.unmarshal(credential)
            seed, seed_read = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
        except tss.TSS2_Exception as error:
            raise Denied("attest.request", "no credential that can be read") from error
        if (read, seed_read) != (len(credential), len(secret)):
            raise Denied("attest.request", "bytes after the credential")
        with _usable_ek(context, self._endorsement_keys(context)[0]) as (ek, session):
            try:
                opened = context.activate_credential(self._ak, ek, blob, seed, tss.ESYS_TR.PASSWORD, session)
            except tss.TSS2_Exception as error:
                if error.rc >> _LAYER:
                    raise  # not the TPM's own answer
                raise Denied("attest.request", "made for another TPM or another attestation key") from error
        return bytes(opened)

    def _flush_ak(self, context: Any) -> None:
        handle, self._ak = self._ak, None
        if handle is not None:
            context.flush_context(handle)

    def _flush_key(self, context: Any) -> None:
        handle, self._key_handle, self.key = self._key_handle, None, None
        if handle is not None:
            context.flush_context(handle)

    def _close(self, context: Any) -> None:
        try:
            self._flush_ak(context)
            self._flush_key(context)
        except tss.TSS2_Exception:
            pass  # the TPM went first: nothing of ours is left in it
        finally:
            context.close()


def _open(tcti: str) -> Any:
    context = tss.ESAPI(tcti)
    try:
        for first in (tss.TPM2_HC.TRANSIENT_FIRST, tss.TPM2_HC.LOADED_SESSION_FIRST):
            _more, capability = context.get_capability(tss.TPM2_CAP.HANDLES, first, 64)
            data = capability.data
            handles = data.handles
            for handle in list(handles):
                context.flush_context(context.tr_from_tpmpublic(int(handle)))
    except BaseException:
        context.close()
        raise
    return context


def _find_ek(context: Any, name: str, persistent: int, index: int) -> _Ek | None:
    """Return the endorsement key of one template; None where the TPM has none of the kind."""
    certificates = _nv_certificates(context, index)
    persisted = _read_persistent(context, persistent)
    if persisted is not None:
        return _Ek(persistent, None, _with_auth(persisted), Endorsement(_spki(persisted), certificates))
    try:
        _certificate, template = create_ek_template(name, NVReadEK(context))
    except (ValueError, NoSuchIndex):
        return None  # a high-range key without its certificate
    handle, public, *_ = context.create_primary(None, template, tss.ESYS_TR.ENDORSEMENT)
    context.flush_context(handle)
    return _Ek(None, template, _with_auth(public), Endorsement(_spki(public), certificates))


def _read_persistent(context: Any, persistent: int) -> Any:
    try:
        handle = context.tr_from_tpmpublic(persistent)
    except tss.TSS2_Exception as error:
        if error.rc >> _LAYER:
            raise
        return None  # nothing persistent there: it is made from its template
    try:
        public, *_ = context.read_public(handle)
    finally:
        context.tr_close(handle)
    return public


def _with_auth(public: Any) -> bool:
    return TpmtPublic.parse(public.publicArea.marshal()).has(Attribute.USER_WITH_AUTH)


def _nv_certificates(context: Any, index: int) -> list[bytes]:
    try:
        stored = NVReadEK(context)(index)
    except NoSuchIndex:
        return []
    if len(stored) < _DER_HEADER or stored[0] != 0x30 or stored[1] != _DER_LONG:  # noqa: PLR2004 - a DER SEQUENCE
        return []
    return [stored[: _DER_HEADER + int.from_bytes(stored[2:_DER_HEADER])]]  # the index may be longer than its content


def _spki(public: Any) -> bytes:
    key = TpmtPublic.parse(public.publicArea.marshal()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sign_der(context: Any, handle: Any, data: bytes) -> bytes:
    signature = context.sign(handle, digest(_SHA256, data), _es256())
    return bytes(signature)


def _self_test(context: Any, handle: Any, key: ec.EllipticCurvePublicKey) -> None:
    """Refuse a TPM whose signatures do not verify, before anything relies on one.

    The data begins with none of the three first bytes that an instance key's signatures have meaning with.
    """
    data = b"\x00countersign self test"
    try:
        key.verify(_sign_der(context, handle, data), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Unavailable("attest.unavailable", "the TPM's signature does not verify") from error


def _es256() -> Any:
    details = tss.TPMU_SIG_SCHEME(ecdsa=tss.TPMS_SCHEME_HASH(hashAlg=tss.TPM2_ALG.SHA256))
    return tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.ECDSA, details=details)


def _template(algorithm: str, attributes: int) -> Any:
    return tss.TPM2B_PUBLIC.parse(algorithm, objectAttributes=attributes)


@contextmanager
def _parent(context: Any) -> Iterator[Any]:
    """Yield a storage key of the endorsement hierarchy: made anew from the seed, the same each time."""
    handle, *_ = context.create_primary(None, _template(*_PARENT), tss.ESYS_TR.ENDORSEMENT)
    try:
        yield handle
    finally:
        context.flush_context(handle)


@contextmanager
def _usable_ek(context: Any, ek: _Ek) -> Iterator[tuple[Any, Any]]:
    """Yield the endorsement key's handle and the session that authorizes its use."""
    with ExitStack() as stack:
        if ek.handle is None:
            handle, *_ = context.create_primary(None, ek.template, tss.ESYS_TR.ENDORSEMENT)
            stack.callback(context.flush_context, handle)
        else:
            handle = context.tr_from_tpmpublic(ek.handle)
            stack.callback(context.tr_close, handle)
        session = tss.ESYS_TR.PASSWORD if ek.with_auth else stack.enter_context(_endorsement_session(context))
        yield handle, session


@contextmanager
def _endorsement_session(context: Any) -> Iterator[Any]:
    """Yield a policy session that satisfies PolicySecret of the endorsement hierarchy, as an EK demands."""
    symmetric = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
    session = context.start_auth_session(
        tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.POLICY, symmetric, tss.TPM2_ALG.SHA256
    )
    try:
        context.policy_secret(tss.ESYS_TR.ENDORSEMENT, session)
        yield session
    finally:
        context.flush_context(session)

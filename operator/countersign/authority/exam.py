"""One enrolment request on its way through the checks: what it brought, and what the checks have found so far."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from countersign.errors import Invalid, Unavailable
from countersign.wire import parse_json

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.attest import VerifiedAk, VerifiedEk
    from countersign.authority.cluster import Cluster
    from countersign.authority.limits import Askers
    from countersign.authority.store import OrderStore
    from countersign.authority.tables import SecretRecord
    from countersign.authority.trust import EkFacts
    from countersign.kube import TokenReview
    from countersign.kube.injection import InjectionSettings

__all__ = ["MAX_BODY", "AttestRequest", "Exam", "SecretRequest", "from_base64", "got", "read_request"]

MAX_BODY: Final = 65536
_MAX_CERTIFICATES: Final = 8
_NODE: Final = "countersign-node"
_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, strict=True)


class AkParameters(_Body):
    """The AK and its proof of creation, four times standard base64."""

    public: str
    create_data: str
    create_attestation: str
    create_signature: str


class AttestRequest(_Body):
    """Body of ``POST /attest`` as the step CLI sends it (step-interop.md); ``tpmInfo`` is not believed, so not read."""

    ek: str
    ek_certs: list[str] = Field(default=[], max_length=_MAX_CERTIFICATES)
    params: AkParameters


class KeyProof(_Body):
    """The instance key and its certification by the AK, three times standard base64."""

    public: str
    attest: str
    signature: str


class SecretRequest(_Body):
    """Body of ``POST /secret``; a node's has no ``key``, and who else leaves it out is refused for that."""

    secret: str
    key: KeyProof | None = None


@dataclass
class Exam:
    """The state of one request; each check reads what those before it found."""

    cluster: Cluster
    store: OrderStore
    injection: InjectionSettings
    own_namespace: str
    now: datetime
    body: bytes
    bearer: str | None
    askers: Askers
    _request: AttestRequest | SecretRequest | None = None
    _review: TokenReview | None = None
    _pod: dict[str, Any] | None = None
    identities: list[dict[str, Any]] = field(default_factory=list)
    _issuer: dict[str, Any] | None = None
    verified_ek: VerifiedEk | None = None
    _ek: EkFacts | None = None
    devices: list[dict[str, Any]] = field(default_factory=list)
    _ak: VerifiedAk | None = None
    _pending: SecretRecord | None = None
    _key: ec.EllipticCurvePublicKey | None = None

    @property
    def attest_request(self) -> AttestRequest:
        """The body of ``/attest``."""
        return _is(self._request, AttestRequest)

    @property
    def secret_request(self) -> SecretRequest:
        """The body of ``/secret``."""
        return _is(self._request, SecretRequest)

    @property
    def review(self) -> TokenReview:
        """What the API server said about the token."""
        return got(self._review)

    @property
    def pod(self) -> dict[str, Any]:
        """The pod as it is now."""
        return got(self._pod)

    @property
    def authenticated(self) -> bool:
        """Whether the API server knows the asker, so that check 3 is reached: from then on an answer is recorded."""
        return self._review is not None and self._review.authenticated

    @property
    def of_node(self) -> bool:
        """Whether ``countersign node`` asks, for a Device and no identity: the ServiceAccount of that name in our namespace."""
        review = self._review
        return (
            review is not None
            and review.authenticated
            and (review.namespace, review.service_account) == (self.own_namespace, _NODE)
        )

    @property
    def pod_uid(self) -> str:
        """The uid that the token is bound to."""
        return got(self.review.pod_uid)

    @property
    def identity(self) -> dict[str, Any]:
        """The AgentIdentity that selects the pod."""
        return got(self.identities[0] if self.identities else None)

    @property
    def issuer(self) -> dict[str, Any]:
        """The identity's IdentityIssuer."""
        return got(self._issuer)

    @property
    def known_issuer(self) -> dict[str, Any] | None:
        """The identity's IdentityIssuer, or None where no check came so far."""
        return self._issuer

    @property
    def known_key(self) -> ec.EllipticCurvePublicKey | None:
        """The instance key, or None where it was not proven."""
        return self._key

    @property
    def ek(self) -> EkFacts:
        """What is known of the endorsement key."""
        return got(self._ek)

    @property
    def device(self) -> dict[str, Any]:
        """The Device with that endorsement key."""
        return got(self.devices[0] if self.devices else None)

    @property
    def pool(self) -> dict[str, Any] | None:
        """The Device's pool, or None if it is gone; of a TPM that no Device names yet the pool that vouches for it."""
        return self.cluster.pool(self.device["spec"]["poolRef"]["name"] if self.devices else self.ek.pool)

    @property
    def ak(self) -> VerifiedAk:
        """The AK whose creation was proven."""
        return got(self._ak)

    @property
    def ak_name(self) -> bytes:
        """Its Name, also where only the pending secret knows it."""
        return self._pending.ak_name if self._pending is not None else self.ak.name

    @property
    def pending(self) -> SecretRecord:
        """What was kept when the credential was handed out."""
        return got(self._pending)

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """The instance key that was proven."""
        return got(self._key)

    def learn(self, **found: Any) -> None:
        """Keep what a check found, under the property's name."""
        for name, value in found.items():
            setattr(self, f"_{name}", value)


def read_request(model: type[_M], body: bytes) -> _M:
    """Read a body: strict JSON (wire.md 2.1), then its members; unknown ones are ignored.

    :raises Invalid: ``parse.*`` or ``attest.request``, naming the member but never its value.
    """
    try:
        return model.model_validate(parse_json(body, max_bytes=MAX_BODY))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise Invalid("attest.request", f"member {where} is missing or of another type") from error


def from_base64(text: str) -> bytes:
    """Return the bytes of standard base64 with padding.

    :raises Invalid: ``attest.request``.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("attest.request", "a member is not standard base64 with padding") from error
    if base64.b64encode(data).decode() != text:
        raise Invalid("attest.request", "a member is not canonical base64")
    return data


def got(value: _T | None) -> _T:
    """Refuse to go on without what an earlier check must have found."""
    if value is None:
        raise Unavailable("attest.failed", "a check that finds what this one needs was left out")
    return value


def _is(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise Unavailable("attest.failed", "a check that reads the body was left out")
    return value

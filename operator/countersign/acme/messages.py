"""The bodies of RFC 8555 section 7 and of device-attest-01, as pydantic models; unknown members are ignored (section 6)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from countersign.acme.encoding import read_json
from countersign.acme.problems import AcmeProblem

__all__ = [
    "Account",
    "Authorization",
    "Challenge",
    "ChallengeResponse",
    "Directory",
    "Finalize",
    "Identifier",
    "NewAccount",
    "NewOrder",
    "Order",
    "RevokeCertificate",
    "key_authorization",
    "permanent_identifier",
    "read_payload",
]

_IDENTIFIER: Final = re.compile(r"[^/]+(/([01]\.([0-9]|[12][0-9]|3[0-9])|2\.(0|[1-9][0-9]*))(\.(0|[1-9][0-9]*))*)?\Z")
_ZERO_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)


class _Message(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        strict=True,
    )

    def document(self) -> dict[str, Any]:
        """Return the JSON form; what is None is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Directory(_Message):
    """Section 7.1.1; ``newAuthz`` and ``keyChange`` are not offered."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None = None
    meta: dict[str, Any] | None = None


class NewAccount(_Message):
    """Payload of newAccount (7.3)."""

    contact: list[str] = Field(default=[], max_length=10)
    only_return_existing: bool = False
    terms_of_service_agreed: bool = False


class Account(_Message):
    """An account (7.1.2)."""

    status: str
    orders: str | None = None


class Identifier(_Message):
    """What a certificate is asked for."""

    type: str = Field(max_length=64)
    value: str = Field(max_length=512)


class NewOrder(_Message):
    """Payload of newOrder (7.4). The step CLI sends the zero time for an absent one."""

    identifiers: list[Identifier] = Field(min_length=1, max_length=100)
    not_before: datetime | None = Field(default=None, strict=False)
    not_after: datetime | None = Field(default=None, strict=False)

    def names_times(self) -> bool:
        """Whether the client asked for a validity of its own."""
        return any(time is not None and time != _ZERO_TIME for time in (self.not_before, self.not_after))


class Order(_Message):
    """An order (7.1.3)."""

    status: str
    expires: str | None = None
    identifiers: list[Identifier] = []
    authorizations: list[str] = []
    finalize: str
    certificate: str | None = None
    error: dict[str, Any] | None = None


class Challenge(_Message):
    """A challenge (8); ``token`` is present for device-attest-01."""

    type: str
    url: str
    status: str
    token: str = ""
    validated: str | None = None
    error: dict[str, Any] | None = None


class Authorization(_Message):
    """An authorization (7.1.4)."""

    status: str
    identifier: Identifier
    expires: str | None = None
    challenges: list[Challenge]


class ChallengeResponse(_Message):
    """What answers device-attest-01 (draft section 5)."""

    att_obj: str


class Finalize(_Message):
    """Payload of finalize (7.4): the CSR as base64url DER."""

    csr: str = Field(max_length=32768)


class RevokeCertificate(_Message):
    """Payload of revokeCert (7.6)."""

    certificate: str = Field(max_length=32768)
    reason: int | None = None


_M = TypeVar("_M", bound=_Message)


def read_payload(model: type[_M], payload: bytes) -> _M:
    """Read ``payload`` as ``model``.

    :raises AcmeProblem: ``malformed``, naming the member but never its value.
    """
    try:
        return model.model_validate(read_json(payload))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise AcmeProblem("malformed", f"member {where or '(all)'} is missing or of another type") from error


def key_authorization(token: str, account_thumbprint: str) -> str:
    """Return the key authorization (section 8.1)."""
    return f"{token}.{account_thumbprint}"


def permanent_identifier(identifier: Identifier) -> str:
    """Return the value of a permanent-identifier that follows the grammar of the draft (section 3).

    :raises AcmeProblem: ``unsupportedIdentifier`` for another type, ``malformed`` for another value,
        ``rejectedIdentifier`` for control characters, which the grammar allows and we do not.
    """
    if identifier.type != "permanent-identifier":
        raise AcmeProblem("unsupportedIdentifier", "only permanent-identifier is offered")
    if not _IDENTIFIER.match(identifier.value):
        raise AcmeProblem("malformed", "the value is not ident [ '/' OID ]")
    if not identifier.value.isprintable():
        raise AcmeProblem("rejectedIdentifier", "the value holds characters that do not print")
    return identifier.value

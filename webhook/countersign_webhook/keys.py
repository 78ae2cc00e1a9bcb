"""Token keys and their public half: which key signs now, and what the JWKS shows (wire.md 5)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field

from countersign.clock import COMPARE_CLOCKS
from countersign.errors import Unavailable
from countersign.wire import jwk_of, thumbprint
from countersign_webhook.files import Mark, mark

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KeyFile", "TokenKey", "TokenKeys"]

_KEPT_SECONDS: Final = 600
_MAX_BYTES: Final = 1 << 20


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kid: str
    private_key: str = Field(alias="privateKey", repr=False)
    created_at: int = Field(alias="createdAt")
    use_from: int = Field(alias="useFrom")
    use_until: int = Field(alias="useUntil")


class KeyFile(BaseModel):
    """``keys.json`` as the operator writes it into the Secret ``countersign-token-keys``; times in seconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[_Key, ...] = Field(min_length=1, max_length=64)


@dataclass(frozen=True)
class TokenKey:
    """One issuer key and the time in which it signs: from ``use_from`` until before ``use_until``."""

    kid: str
    private_key: EllipticCurvePrivateKey
    use_from: int
    use_until: int


class TokenKeys:
    """The keys of one mounted directory, read again when the file changes."""

    def __init__(self, directory: Path) -> None:
        """Read ``keys.json``; a directory without a good one leaves this without keys, so not ready."""
        self._path = directory / "keys.json"
        self._mark: Mark | None = None
        self._keys: tuple[TokenKey, ...] = ()
        self._latest: tuple[int, TokenKey] | None = None

    def refresh(self) -> bool:
        """Read the file if it changed. Raises OSError or ValueError and keeps what was read before."""
        found = mark([self._path])
        if found == self._mark:
            return False
        self._keys, self._latest = _parse(self._path.read_bytes()), None
        self._mark = found
        return True

    def signing(self, now: int) -> TokenKey:
        """Return the youngest key whose time has come and not passed.

        Raises
        ------
        Unavailable
            ``decide.unavailable`` if there is none.

        """
        if self._latest is not None and self._latest[0] == now:
            return self._latest[1]
        usable = [key for key in self._keys if key.use_from <= now < key.use_until]
        if not usable:
            other = f" now, by this clock; {COMPARE_CLOCKS}" if self._keys else ""
            raise Unavailable("decide.unavailable", f"no token key is usable{other}")
        key = max(usable, key=lambda key: (key.use_from, key.kid))
        self._latest = (now, key)
        return key

    def jwks(self, now: int) -> dict[str, Any]:
        """Return the public keys: those to come, those in use, and those used less than ten minutes ago."""
        shown = [key for key in self._keys if now < key.use_until + _KEPT_SECONDS]
        return {
            "keys": [
                {**jwk_of(key.private_key.public_key()), "kid": key.kid, "alg": "ES256", "use": "sig"} for key in shown
            ]
        }


def _parse(data: bytes) -> tuple[TokenKey, ...]:
    """Read the whole file or none of it; what is wrong is said without repeating what was read."""
    if len(data) > _MAX_BYTES:
        msg = "keys.json is too large"
        raise ValueError(msg)
    try:
        file = KeyFile.model_validate(json.loads(data))
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        msg = "keys.json has another form"
        raise ValueError(msg) from error
    keys = tuple(_load(entry) for entry in file.keys)
    if len({key.kid for key in keys}) != len(keys):
        msg = "keys.json names a key twice"
        raise ValueError(msg)
    return keys


def _load(entry: _Key) -> TokenKey:
    try:
        key = load_pem_private_key(entry.private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = "keys.json has a key that cannot be read"
        raise ValueError(msg) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        msg = "a token key is P-256"
        raise ValueError(msg)  # noqa: TRY004 - the content is wrong, not the type of an argument
    if thumbprint(key.public_key()) != entry.kid:
        msg = "a token key's kid is its thumbprint"
        raise ValueError(msg)
    return TokenKey(entry.kid, key, entry.use_from, entry.use_until)

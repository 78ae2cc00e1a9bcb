"""What a verifier believes: its own configuration, and nothing that a request says (wire.md 5, 6 and 11; D19)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from countersign.wire import ASSURANCES, KEY_TIERS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VerifierSettings"]

_PREFIX: Final = "COUNTERSIGN_VERIFIER_"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_STORE: Final = re.compile(r"rediss?://[A-Za-z0-9.:\[\]-]+(?:/[0-9]{1,2})?|unix:///[^?#\s]+")
_MAX_BODY: Final = 1 << 20
_MAX_SKEW: Final = 30
_MAX_WINDOW: Final = 60


@dataclass(frozen=True)
class VerifierSettings:
    """One tool server's settings. Durations are in seconds.

    ``issuer`` is the webhook's URL and ``audience`` this server's, both byte for byte. The issuer's keys come from
    ``jwks_url`` or ``jwks_file``, exactly one; ``ca_file`` has the roots for that URL where they are not the system's.
    ``replay_url`` is a Valkey or Redis (``redis://``, ``rediss://`` or ``unix:///``) that all processes of this audience share;
    without it, what was used is remembered in this process, which must then be the only one. It holds no secret: a password
    is in ``replay_password_file``; ``replay_ca_file`` has the roots of a ``rediss`` server where they are not the system's.
    ``path`` is the endpoint's path as the signer sends it, if it is to be held to one. The floors (``min_…``,
    ``max_attestation_age_seconds``) come on top of what policy demanded.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    ca_file: Path | None = None
    replay_url: str | None = None
    replay_username: str | None = None
    replay_password_file: Path | None = None
    replay_ca_file: Path | None = None
    path: str | None = None
    body_bytes: int = 256 * 1024
    body_seconds: int = 30
    skew_seconds: int = 5
    proof_seconds: int = 60
    min_key_tier: str = KEY_TIERS[0]
    min_assurance: str = ASSURANCES[0]
    max_attestation_age_seconds: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; raises ValueError."""
        for fault in self._faults():
            raise ValueError(fault)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> VerifierSettings:
        """Read ``COUNTERSIGN_VERIFIER_…`` (``ISSUER``, ``AUDIENCE``, ``JWKS_URL``, ``CA_FILE`` and so on).

        Raises ValueError for a name that is not known, a value that cannot be read, and what is missing.
        """
        environment = os.environ if environment is None else environment
        kinds = {field.name: str(field.type) for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in environment.items():
            if not name.startswith(_PREFIX):
                continue
            field = name.removeprefix(_PREFIX).lower()
            if field not in kinds:
                raise ValueError(f"{name} is no setting of the verifier")
            values[field] = _read(name, text, kinds[field])
        for field in ("issuer", "audience"):
            if field not in values:
                raise ValueError(f"{_PREFIX}{field.upper()} is not set")
        return cls(**values)

    def _faults(self) -> list[str]:
        faults = []
        if not _is_issuer(self.issuer):
            faults.append("issuer is an https URL without path and trailing slash")
        if not urlsplit(self.audience).netloc:
            faults.append("audience is the URL by which the ToolServer is known")
        if (self.jwks_url is None) == (self.jwks_file is None):
            faults.append("exactly one of jwks_url and jwks_file is needed")
        if self.jwks_url is not None and not _is_safe(self.jwks_url):
            faults.append("jwks_url is https, or on loopback")
        faults += self._replay_faults()
        if self.path is not None and not self.path.startswith("/"):
            faults.append("path begins with a slash")
        if not 0 < self.body_bytes <= _MAX_BODY or self.body_seconds <= 0:
            faults.append("body_bytes is 1 to 1048576, body_seconds positive")
        if not 0 <= self.skew_seconds <= _MAX_SKEW or not 0 < self.proof_seconds <= _MAX_WINDOW:
            faults.append("skew_seconds is 0 to 30, proof_seconds 1 to 60")
        if self.min_key_tier not in KEY_TIERS or self.min_assurance not in ASSURANCES:
            faults.append(f"min_key_tier is of {', '.join(KEY_TIERS)}, min_assurance of {', '.join(ASSURANCES)}")
        if self.max_attestation_age_seconds is not None and self.max_attestation_age_seconds <= 0:
            faults.append("max_attestation_age_seconds is positive")
        return faults

    def _replay_faults(self) -> list[str]:
        if self.replay_url is None:
            given = (self.replay_username, self.replay_password_file, self.replay_ca_file)
            return (
                ["replay_username, replay_password_file and replay_ca_file are for a replay_url"] if any(given) else []
            )
        faults = []
        if not _STORE.fullmatch(self.replay_url):
            faults.append("replay_url is redis://HOST:PORT/DB, rediss://… or unix:///PATH, without user and password")
        if self.replay_ca_file is not None and not self.replay_url.startswith("rediss:"):
            faults.append("replay_ca_file is for a rediss:// address")
        return faults


def _read(name: str, text: str, kind: str) -> Any:
    if kind.startswith("Path"):
        return Path(text)
    if not kind.startswith("int"):
        return text
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{name} is a whole number")
    return int(text)


def _is_issuer(issuer: str) -> bool:
    parts = urlsplit(issuer)
    return _is_safe(issuer) and issuer == f"{parts.scheme}://{parts.netloc}"


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )

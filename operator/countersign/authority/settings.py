"""The authority's settings: one file and the environment (``COUNTERSIGN_AUTHORITY_…``, nested by ``__``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

__all__ = ["AuthoritySettings", "load"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Block):
    """Where the signers connect; TLS 1.3 with the certificate that the operator makes."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
    port: int = Field(default=8443, ge=0, le=65535)
    tls_cert: Path
    tls_key: Path
    ca_bundle: Path | None = None


class Health(_Block):
    """Where ``/healthz``, ``/readyz`` and ``/metrics`` are served, in clear."""

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet and the scraper come from outside the pod
    port: int = Field(default=8080, ge=0, le=65535)


class Audit(_Block):
    """Where the authority's own audit log is written."""

    directory: Path = Path("/var/lib/countersign/audit")


class Injection(_Block):
    """What the webhook injects, to tell an injected pod from another.

    ``former_images`` are the signers of pods that still run since before an upgrade; without them an upgrade would shut
    those agents out at their next renewal.
    """

    image: str = Field(min_length=1)
    version: str = Field(min_length=1)
    former_images: tuple[str, ...] = ()


class Limits(_Block):
    """Bounds on what one request may be, and on how many may come: a second, and at once.

    An enrolment is about a dozen requests of one address, two of them (four with another kind of AK) of its pod.
    """

    head_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=10.0, gt=0)
    max_staleness_seconds: float = Field(default=30.0, gt=0)
    address_rate: float = Field(default=50, gt=0)
    address_burst: int = Field(default=500, ge=1)
    pod_rate: float = Field(default=0.5, gt=0)
    pod_burst: int = Field(default=20, ge=1)
    node_rate: float = Field(default=20, gt=0)
    node_burst: int = Field(default=500, ge=1)


class Overlap(_Block):
    """How long a CA is published before it signs; how long it is believed after it, follows from what it signed.

    Shorter than ten minutes is for trials: other replicas look once a minute.
    """

    ahead_seconds: float = Field(default=600, ge=1, le=86400)


class AuthoritySettings(BaseSettings):
    """Everything that can be set; unknown keys are refused."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERSIGN_AUTHORITY_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kubeconfig: Path | None = None
    namespace: str = "countersign-system"
    cluster: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
    url: str
    listen: Listen
    health: Health = Health()
    database_url: str = "sqlite+aiosqlite:////var/lib/countersign/authority.db"
    token_audience: str = "countersign.dev"  # noqa: S105 - an audience, not a token
    audit: Audit = Audit()
    injection: Injection
    limits: Limits = Limits()
    overlap: Overlap = Overlap()
    log_level: str = "info"

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        """Want https and no trailing slash: ACME compares addresses byte for byte."""
        parsed = HttpUrl(value)
        if parsed.scheme != "https" or value.endswith("/") or parsed.query or parsed.fragment:
            msg = "an https URL without trailing slash, query and fragment"
            raise ValueError(msg)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings


def load(config: Path | None) -> AuthoritySettings:
    """Read the settings of ``config`` and the environment."""
    from_file: dict[str, Any] = {}
    if config is not None:
        from_file = dict(YamlConfigSettingsSource(AuthoritySettings, yaml_file=config)())
    return AuthoritySettings(**from_file)

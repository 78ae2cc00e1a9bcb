"""What can be set: one file and the environment (``COUNTERSIGN_WEBHOOK_…``, nested by ``__``), read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

__all__ = ["AudienceGrant", "Tls", "WebhookSettings", "load"]

_ANY = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
_MAX_CALL_BODY = 1 << 20


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Block):
    """A port with TLS; the two files may change at any time."""

    host: str = _ANY
    port: int = Field(ge=0, le=65535)
    tls_cert: Path
    tls_key: Path


class Admission(Tls):
    """Where the API server asks. With ``client_ca`` the handshake wants a client certificate under these roots."""

    port: int = Field(default=9443, ge=0, le=65535)
    client_ca: Path | None = None


class Calls(Tls):
    """Where signers, verifiers and PEPs ask. Under ``client_ca`` a client certificate is believed, and none is demanded."""

    port: int = Field(default=8443, ge=0, le=65535)
    client_ca: Path | None = None


class Health(_Block):
    """``/healthz``, ``/readyz`` and ``/metrics``, in clear: they tell nothing that is secret."""

    host: str = _ANY
    port: int = Field(default=8080, ge=0, le=65535)


class Audit(_Block):
    """Where the audit log lies: one log for each start of the process, in files of at most ``segment_bytes``."""

    directory: Path = Path("/var/lib/countersign/audit")
    segment_bytes: int = Field(default=64 << 20, ge=4096)


class AudienceGrant(_Block):
    """Audiences that begin with ``prefix`` may be claimed by ToolServers of ``namespaces`` (crds.md 3.7)."""

    prefix: str = Field(min_length=1, max_length=2048)
    namespaces: tuple[str, ...] = Field(min_length=1)


class Injection(_Block):
    """The sidecar that is injected, by which the authority knows it again: its settings have the same block.

    ``former_images`` is read so that one block fits both, and not used: new pods get this release's signer alone.
    """

    image: str = Field(min_length=1)
    version: str = Field(min_length=1)
    former_images: tuple[str, ...] = ()


class Limits(_Block):
    """Bounds of wire.md 11 on what may be sent, and how often."""

    body_bytes: int = Field(default=256 * 1024, ge=1024, le=_MAX_CALL_BODY)
    body_seconds: float = Field(default=10, gt=0, le=60)
    skew_seconds: int = Field(default=5, ge=0, le=30)
    proof_seconds: int = Field(default=60, ge=1, le=60)
    instance_rate: float = Field(default=50, gt=0)
    instance_burst: int = Field(default=100, ge=1)
    address_rate: float = Field(default=200, gt=0)
    address_burst: int = Field(default=400, ge=1)
    pep_rate: float = Field(default=200, gt=0)
    pep_burst: int = Field(default=400, ge=64)
    connections: int = Field(default=4096, ge=1)


class Replay(_Block):
    """A replay store that all replicas share, and K of their nonces: the one without the other is refused (wire.md 3.3.3).

    ``url`` holds no secret: ``password`` is a file. ``ca`` are the roots of a ``rediss`` server.
    """

    url: str = Field(pattern=r"^(rediss?://[A-Za-z0-9.:\[\]-]+(/[0-9]{1,2})?|unix:///[^?#\s]+)$")
    nonce_key: Path
    username: str | None = None
    password: Path | None = None
    ca: Path | None = None

    @model_validator(mode="after")
    def _roots_need_tls(self) -> Self:
        if self.ca is not None and not self.url.startswith("rediss:"):
            msg = "ca is for a rediss:// address"
            raise ValueError(msg)
        return self


class Pep(_Block):
    """Who may ask for decisions on calls of others, about the ToolServers ``servers`` (``namespace/name``; wire.md 8).

    Known by a projected token of ``service_account`` (``namespace/name``) with the issuer as audience, or by ``certificate``, a
    URI or DNS name in a client certificate under ``calls.client_ca``.
    """

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
    servers: tuple[str, ...] = Field(min_length=1)
    service_account: str | None = Field(default=None, pattern=r"^[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}$")
    certificate: str | None = Field(default=None, min_length=1, max_length=2048)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.service_account is None) == (self.certificate is None):
            msg = "a PEP has either a service_account or a certificate"
            raise ValueError(msg)
        return self


class Token(_Block):
    """Call tokens."""

    life_seconds: int = Field(default=30, ge=5, le=60)


class Decide(_Block):
    """When no answer is better than an answer on old facts, or a late one."""

    max_staleness_seconds: float = Field(default=30, gt=0)
    timeout_seconds: float = Field(default=1, gt=0, le=10)


class WebhookSettings(BaseSettings):
    """Everything that can be set; unknown keys are refused. ``issuer`` is also the base URL that signers are given.

    ``token_audience`` is that of the injected ServiceAccount token; the authority's setting of this name is the same.
    """

    model_config = SettingsConfigDict(
        env_prefix="COUNTERSIGN_WEBHOOK_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kubeconfig: Path | None = None
    namespace: str = "countersign-system"
    cluster: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
    issuer: str
    token_audience: str = Field(default="countersign.dev", min_length=1)
    admission: Admission
    calls: Calls
    health: Health = Health()
    token_keys: Path
    audit: Audit = Audit()
    audiences: tuple[AudienceGrant, ...] = ()
    injection: Injection
    limits: Limits = Limits()
    replay: Replay | None = None
    peps: tuple[Pep, ...] = ()
    token: Token = Token()
    decide: Decide = Decide()
    drain_seconds: float = Field(default=0, ge=0, le=60)
    """How long a process that was told to stop says that it is not ready, and still answers: so that others are asked."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the same ports; limits of rates are of each. More than one need a replay store that they share."""
    log_level: str = "info"

    @property
    def grants(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Who may claim which audience, as ``policy`` takes it."""
        return tuple((one.prefix, one.namespaces) for one in self.audiences)

    @model_validator(mode="after")
    def _workers_share_a_store(self) -> Self:
        if self.workers > 1 and self.replay is None:
            msg = "several workers need a replay store that they share: set replay (wire.md 3.3.3), or workers to 1"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _peps_are_told_apart(self) -> Self:
        for name in ("name", "service_account", "certificate"):
            given = [value for pep in self.peps if (value := getattr(pep, name)) is not None]
            if len(set(given)) != len(given):
                msg = f"two peps have the same {name}"
                raise ValueError(msg)
        if self.calls.client_ca is None and any(pep.certificate for pep in self.peps):
            msg = "a PEP with a certificate needs calls.client_ca"
            raise ValueError(msg)
        return self

    @field_validator("issuer")
    @classmethod
    def _origin(cls, value: str) -> str:
        """Want what wire.md 1.4 says: https, no path, no trailing slash; it is compared byte for byte."""
        parsed = urlsplit(value)
        if parsed.scheme != "https" or not parsed.hostname or value != f"https://{parsed.netloc}" or "@" in value:
            msg = f"an https URL without path and trailing slash, not {value!r}"
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


def load(config: Path | None) -> WebhookSettings:
    """Read the settings of the file ``config`` and the environment.

    Raises
    ------
    pydantic.ValidationError
        If something is missing, unknown or out of bounds.
    OSError
        If the file cannot be read.

    """
    from_file: dict[str, Any] = {}
    if config is not None:
        with config.open("rb"):  # pydantic-settings takes a missing file for an empty one
            from_file = dict(YamlConfigSettingsSource(WebhookSettings, yaml_file=config)())
    return WebhookSettings(**from_file)

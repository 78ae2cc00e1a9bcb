"""The operator's settings: one file and the environment (``COUNTERSIGN_OPERATOR_…``, nested by ``__``), read once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from countersign.kube import rotation
from countersign.kube.injection import InjectionSettings

__all__ = ["AudienceGrant", "OperatorSettings", "load"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Health(_Block):
    """``/healthz``, ``/readyz`` and ``/metrics``, in clear: they tell nothing that is secret."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
    port: int = Field(default=8080, ge=0, le=65535)


class AudienceGrant(_Block):
    """Audiences that begin with ``prefix`` may be claimed by ToolServers of ``namespaces`` (crds.md 3.7)."""

    prefix: str = Field(min_length=1, max_length=2048)
    namespaces: tuple[str, ...] = Field(min_length=1)


class Injection(_Block):
    """The signer of this release, as the webhook injects it; pods with another ``version`` are not measured by it."""

    image: str = Field(min_length=1)
    version: str = Field(min_length=1)


class Certificates(_Block):
    """Who makes the serving certificates, and the two Secrets that hold them.

    ``SelfManaged``: we do. ``CertManager`` and ``ExistingSecret``: others do, and the Secrets are read, never written;
    with ``CertManager`` the webhooks' ``caBundle`` is its cainjector's.
    """

    source: Literal["SelfManaged", "CertManager", "ExistingSecret"] = "SelfManaged"
    webhook_secret: str = Field(default="countersign-webhook-tls", min_length=1)
    authority_secret: str = Field(default="countersign-authority-tls", min_length=1)


class Lease(_Block):
    """Who leads: for how long a lease holds, and after which failing time the leader stops by itself.

    A leader that died is followed after its lease and one more try: within 15 seconds.
    """

    seconds: int = Field(default=10, ge=2, le=300)
    deadline_seconds: float = Field(default=7, gt=0)
    retry_seconds: float = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Lease:
        """Want the leader to stop before its lease ends, and to try more than once before that."""
        if not self.retry_seconds < self.deadline_seconds < self.seconds:
            msg = "retry_seconds < deadline_seconds < seconds"
            raise ValueError(msg)
        return self


class Overlap(_Block):
    """How long a serving CA or a token key is published before it signs, and is believed after it last did.

    Shorter than ten minutes is for trials: mounted files follow within two, verifiers read a JWKS again after five.
    """

    ahead_seconds: float = Field(default=600, ge=1, le=86400)
    kept_seconds: float = Field(default=600, ge=1, le=86400)

    @property
    def times(self) -> rotation.Overlap:
        """Return it as ``kube.rotation`` takes it."""
        return rotation.Overlap(timedelta(seconds=self.ahead_seconds), timedelta(seconds=self.kept_seconds))


class OperatorSettings(BaseSettings):
    """Everything that can be set; unknown keys are refused.

    ``webhook_url`` (also the issuer of call tokens) and ``authority_url`` are what signers are told; ``…_names`` are the
    DNS names and addresses of the two serving certificates (none: those of the chart's Services). ``audiences`` is the
    platform's list of crds.md 3.7; without it only audiences of Services and of the issuer are judged here. Without
    ``injection`` a pod's signer is not asked for its image here: admission and the authority do.
    """

    model_config = SettingsConfigDict(
        env_prefix="COUNTERSIGN_OPERATOR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kubeconfig: Path | None = None
    namespace: str = "countersign-system"
    cluster: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
    webhook_url: str
    authority_url: str
    webhook_names: tuple[str, ...] = ()
    authority_names: tuple[str, ...] = ()
    audiences: tuple[AudienceGrant, ...] | None = None
    token_audience: str = Field(default="countersign.dev", min_length=1)
    certificates: Certificates = Certificates()
    injection: Injection | None = None
    nodes: bool = False
    """Whether ``countersign node`` runs in our namespace, so that it has to be told there whom to believe."""
    health: Health = Health()
    lease: Lease = Lease()
    overlap: Overlap = Overlap()
    log_level: str = "info"

    @property
    def grants(self) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
        """Who may claim which audience, as ``policy`` takes it; None if that was not told."""
        return None if self.audiences is None else tuple((one.prefix, one.namespaces) for one in self.audiences)

    @property
    def signer(self) -> InjectionSettings:
        """What injection makes, as ``kube.injection`` takes it; without ``injection`` an image and version of no pod."""
        image, version = ("", "") if self.injection is None else (self.injection.image, self.injection.version)
        return InjectionSettings(image=image, version=version, token_audience=self.token_audience)

    def names(self, process: str) -> tuple[str, ...]:
        """Return the names in the serving certificate of ``webhook`` or ``authority``."""
        given = self.webhook_names if process == "webhook" else self.authority_names
        service = f"countersign-{process}.{self.namespace}.svc"
        return given or (service, f"{service}.cluster.local")

    @field_validator("webhook_url", "authority_url")
    @classmethod
    def _base(cls, value: str) -> str:
        """Want https and no trailing slash: both are compared byte for byte."""
        parsed = urlsplit(value)
        if parsed.scheme != "https" or not parsed.hostname or value.endswith("/") or parsed.query or parsed.fragment:
            msg = f"an https URL without trailing slash, query and fragment, not {value!r}"
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


def load(config: Path | None) -> OperatorSettings:
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
            from_file = dict(YamlConfigSettingsSource(OperatorSettings, yaml_file=config)())
    return OperatorSettings(**from_file)

"""The node's settings: one file and the environment (``COUNTERSIGN_NODE_…``, nested by ``__``)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

__all__ = ["NodeSettings", "load"]


class Health(BaseModel):
    """Where ``/healthz``, ``/readyz`` and ``/metrics`` are served, in clear."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet and the scraper come from outside the pod
    port: int = Field(default=8080, ge=0, le=65535)


class NodeSettings(BaseSettings):
    """Everything that can be set; unknown keys are refused."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERSIGN_NODE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kubeconfig: Path | None = None
    plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    socket_dir: Path | None = None
    """Folders of simulators, at the same path on the node; without it the chip is handed out."""
    device: Path = Path("/dev/tpmrm0")
    slots: int = Field(default=64, ge=1, le=1024)
    """How many pods may share the chip."""
    trust_dir: Path = Path("/var/run/countersign/trust")
    token_file: Path = Path("/var/run/countersign/token/token")
    look: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    """How often kubelet's directory and the slots are looked at."""
    facts: timedelta = Field(default=timedelta(minutes=10), ge=timedelta(seconds=10))
    """How often the facts are told anew."""
    health: Health = Health()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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


def load(config: Path | None, **more: Any) -> NodeSettings:
    """Read the settings of the file ``config`` and the environment; ``more`` wins over the file.

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
            from_file = dict(YamlConfigSettingsSource(NodeSettings, yaml_file=config)())
    return NodeSettings(**{**from_file, **more})

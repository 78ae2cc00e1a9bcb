"""What is a signer told? By its environment and its mounts alone (enrolment.md section 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["SignerSettings"]


class SignerSettings(BaseSettings):
    """Environment variables ``COUNTERSIGN_SIGNER_*``, and ``TCTI`` as the device plugin sets it."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERSIGN_SIGNER_", frozen=True, extra="forbid", populate_by_name=True
    )

    tcti: Annotated[
        str,
        Field(
            validation_alias=AliasChoices("COUNTERSIGN_SIGNER_TCTI", "TCTI"),
            description="where the TPM is: device:/dev/tpmrm0, swtpm:path=…",
        ),
    ] = "device:/dev/tpmrm0"
    trust_dir: Annotated[Path, Field(description="the mounted ConfigMap countersign-trust")] = Path(
        "/var/run/countersign/trust"
    )
    token_file: Annotated[Path, Field(description="the projected ServiceAccount token, read anew at each use")] = Path(
        "/var/run/countersign/token/token"
    )
    port: Annotated[int, Field(ge=1024, le=65534, description="loopback port; health and metrics on the next one")] = (
        7080
    )
    health_host: Annotated[str, Field(description="address that health and metrics listen on")] = "0.0.0.0"  # noqa: S104 - kubelet probes from outside the pod's loopback; that port serves nothing else
    body_bytes: Annotated[int, Field(ge=1024, le=1_048_576, description="largest call body")] = 262_144
    log_level: Literal["debug", "info", "warning", "error"] = "info"

"""DevicePool: which TPMs are believed, and how much (crds.md 3.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Assurance, Count, Pem, Status
from countersign.api.shape import Mark, Rule, Shape, immutable

__all__ = ["DevicePool", "DevicePoolSpec", "DevicePoolStatus"]

TcgId = Annotated[str, Field(max_length=19, pattern=r"^id:[0-9A-Fa-f]{1,16}$")]
Register = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]


class PcrValues(Shape):
    """Accepted values of one register of the TPM."""

    index: Annotated[int, Field(ge=0, le=23)]
    """Number of the register."""
    sha256: Annotated[tuple[Register, ...], Field(min_length=1, max_length=64)]
    """Accepted values in the SHA-256 bank, as hexadecimal."""


class Attestation(Shape):
    """What the evidence of a device must show."""

    max_age_seconds: Annotated[int, Field(ge=60, le=604800)] = 28800
    """Older evidence is no evidence: the device is no longer Attested."""
    pcrs: Annotated[tuple[PcrValues, ...], Field(min_length=1, max_length=24), Mark.map("index")] | None = None
    """Boot state. Left out: recorded, not judged."""


class DeniedModel(Shape):
    """TPMs that are not believed although their chain verifies. Ids of the TCG, compared as hexadecimal numbers."""

    manufacturer: TcgId
    """Manufacturer's id, such as id:49465800."""
    model: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Model, as the endorsement certificate spells it; left out: all."""
    firmware_before: TcgId | None = None
    """Only firmware older than this; left out: all."""


class DevicePoolSpec(Shape):
    """What a TPM of this pool proves."""

    cel = (
        *immutable("assurance"),
        Rule(
            "(self.assurance != 'Software') == has(self.ekRoots)",
            "ekRoots is required unless assurance is Software, and forbidden then",
        ),
        Rule(
            "self.assurance != 'Software' || self.enrollment == 'Refuse'",
            "a Software pool cannot take enrolment requests",
        ),
        Rule(
            "self.assurance != 'Software' || !has(self.attestation.pcrs)",
            "a Software pool has no registers: leave out attestation.pcrs",
        ),
    )

    assurance: Assurance
    """What a TPM of this pool proves. Immutable: raising it would promote every device at once."""
    ek_roots: Pem | None = None
    """Roots of the certificates of the endorsement keys."""
    enrollment: Literal["Refuse", "Request"] = "Refuse"
    """An unknown TPM whose chain verifies: turn it away, or make a Device in state Pending."""
    attestation: Attestation = Attestation()
    """What the evidence of a device must show."""
    devices_per_node: Annotated[int, Field(ge=1, le=256)] = 1
    """Approved devices that one node may have: 1 for a chip, the number of slots for virtual TPMs."""
    denied_models: Annotated[tuple[DeniedModel, ...], Field(min_length=1, max_length=64)] | None = None
    """TPMs whose new and running sessions are refused."""


class DeviceCounts(Shape):
    """How many devices point at the pool."""

    total: Count | None = None
    """All of them."""
    approved: Count | None = None
    """Those in state Approved."""
    attested: Count | None = None
    """Those whose condition Attested is True."""


class DevicePoolStatus(Status):
    """What Countersign observed of the pool. Condition: Ready."""

    devices: DeviceCounts | None = None
    """How many devices point at the pool."""


class DevicePool(Kind):
    """Which TPMs are believed, and how much.

    Written by the platform team. Roots, assurance and boot state hold for all devices of the pool.
    """

    names = Names("devicepools", "cspool", "Cluster")
    columns = (
        Column("Assurance", ".spec.assurance"),
        Column("Enrollment", ".spec.enrollment"),
        Column("Devices", ".status.devices.total", "integer"),
        Column("Attested", ".status.devices.attested", "integer"),
        condition("Ready", "Ready"),
        AGE,
    )

    spec: DevicePoolSpec
    """What is wanted."""
    status: DevicePoolStatus | None = None
    """What is observed."""

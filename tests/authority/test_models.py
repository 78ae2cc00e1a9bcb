"""``deniedModels`` (crds.md 3.2): ids compare as hexadecimal, and whoever asks, authority or front door, gets the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from countersign.authority import trust
from countersign_webhook.decide import device

MAKER, MODEL, FIRMWARE = "id:49465800", "SLB9670", "id:00070055"
Tpm = tuple[str, str, str]


@pytest.mark.parametrize(
    ("denied", "tpm", "expected"),
    [
        ({"manufacturer": "id:49465800"}, (MAKER, MODEL, FIRMWARE), True),
        ({"manufacturer": "id:0049465800"}, (MAKER, MODEL, FIRMWARE), True),
        ({"manufacturer": "id:4946580A"}, ("id:4946580a", MODEL, FIRMWARE), True),
        ({"manufacturer": "id:53544D20"}, (MAKER, MODEL, FIRMWARE), False),
        ({"manufacturer": MAKER}, ("Infineon", MODEL, FIRMWARE), False),
        ({"manufacturer": MAKER, "model": MODEL}, (MAKER, MODEL, FIRMWARE), True),
        ({"manufacturer": MAKER, "model": "slb9670"}, (MAKER, MODEL, FIRMWARE), False),
        ({"manufacturer": MAKER, "model": "id:0A"}, (MAKER, "id:0000000a", FIRMWARE), True),
        ({"manufacturer": MAKER, "model": "id:0A"}, (MAKER, "id:0B", FIRMWARE), False),
        ({"manufacturer": MAKER, "model": "id:0A"}, (MAKER, "0A", FIRMWARE), False),
        ({"manufacturer": MAKER, "firmwareBefore": "id:70056"}, (MAKER, MODEL, FIRMWARE), True),
        ({"manufacturer": MAKER, "firmwareBefore": "id:70055"}, (MAKER, MODEL, FIRMWARE), False),
        ({"manufacturer": MAKER, "firmwareBefore": "id:70055"}, (MAKER, MODEL, "7.85"), True),
    ],
    ids=str,
)
def test_both_ends_deny_the_same_models(denied: dict[str, str], tpm: Tpm, expected: bool) -> None:  # noqa: FBT001 - a row
    pool: dict[str, Any] = {"spec": {"deniedModels": [denied]}}
    status = dict(zip(("manufacturer", "model", "firmware"), tpm, strict=True))

    assert trust.model_denied(pool, *tpm) is expected
    assert device.model_denied(pool, status) is expected

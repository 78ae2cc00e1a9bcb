"""Ready, and why not: what kubelet asks on the port after the proxy's (wire.md section 4)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.naps import Naps

from countersign.errors import Denied, Unavailable
from countersign.signer.health import Health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.loopback import Rig


@asynccontextmanager
async def watched(rig: Rig) -> AsyncIterator[tuple[httpx.AsyncClient, Naps]]:
    naps = Naps(rig.clock)
    health = Health(rig.keyring, rig.front_door, rig.metrics, sleep=naps)
    task = asyncio.create_task(health.watch())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(health), base_url="http://10.0.0.1:7081") as client:
        yield client, naps
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ready(client: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    got = await client.get("/readyz")
    return got.status_code, got.json()


async def test_ready_means_that_a_signed_request_was_answered(rig: Rig) -> None:
    async with watched(rig) as (client, naps):
        assert (await ready(client))[1]["code"] == "decide.unavailable"
        await naps.next()
        assert await ready(client) == (200, {"ready": True, "code": None, "detail": None, "renewal": None})
    assert len(rig.front.asked("/catalogue")) == 1


async def test_a_refusal_of_the_front_door_is_why_not(rig: Rig) -> None:
    rig.front.refuse("/catalogue", "instance.revoked", 403, error_description="by Ann")
    async with watched(rig) as (client, naps):
        await naps.next()
        assert await ready(client) == (
            503,
            {"ready": False, "code": "instance.revoked", "detail": "by Ann", "renewal": None},
        )
        await naps.after()
        assert (await ready(client))[0] == 200


async def test_an_enrolment_that_fails_is_why_not(rig: Rig) -> None:
    rig.keyring.missing = Unavailable("attest.device_pending", "the device waits for a person")
    async with watched(rig) as (client, naps):
        await naps.next()
        status, said = await ready(client)
    assert (status, said["code"], said["detail"]) == (503, "attest.device_pending", "the device waits for a person")


async def test_a_new_instance_that_the_front_door_does_not_know_yet_is_asked_about_for_ten_seconds(rig: Rig) -> None:
    for _ in range(8):
        rig.front.refuse("/catalogue", "instance.unknown", 403)
    async with watched(rig) as (client, naps):
        await naps.next()
        assert (await ready(client))[0] == 200
    assert sum(rig.naps) == pytest.approx(2)


async def test_a_new_certificate_is_proved_again(rig: Rig) -> None:
    async with watched(rig) as (client, naps):
        await naps.next()
        rig.keyring.renewals = 2
        assert (await ready(client))[0] == 503
        await naps.after()
        assert (await ready(client))[0] == 200
    assert len(rig.front.asked("/catalogue")) == 2


async def test_a_renewal_that_fails_is_told_while_the_signer_is_ready(rig: Rig) -> None:
    async with watched(rig) as (client, naps):
        await naps.next()
        rig.keyring.problem = Denied("attest.device_denied")
        assert await ready(client) == (
            200,
            {"ready": True, "code": None, "detail": None, "renewal": "attest.device_denied"},
        )


async def test_metrics_say_ready_expiry_and_calls(rig: Rig) -> None:
    async with watched(rig) as (client, naps):
        await naps.next()
        text = (await client.get("/metrics")).text
    assert "countersign_signer_ready 1.0" in text
    name = "countersign_signer_certificate_expiry_timestamp_seconds"
    assert rig.metrics.registry.get_sample_value(name) == rig.keyring.identity.not_after.timestamp()


async def test_that_port_serves_nothing_else(rig: Rig) -> None:
    async with watched(rig) as (client, _naps):
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.head("/healthz")).content == b""
        assert (await client.get("/stripe")).status_code == 404
        assert (await client.post("/readyz")).status_code == 405

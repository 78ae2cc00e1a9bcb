"""What anybody may ask on the calls port, and what is not there."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.world import ISSUER, START, World, form, write_keys

from countersign import kube
from countersign.wire import thumbprint

if TYPE_CHECKING:
    from pathlib import Path


async def get(world: World, target: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(world.app, client=("192.0.2.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        return await client.request(method, target)


async def test_nonces_are_made_for_a_key_and_not_kept_by_anyone_between(world: World) -> None:
    answer = await get(world, f"/nonce?jkt={world.key.jkt}&count=16")

    nonces = answer.json()["nonces"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 60
    assert len(set(nonces)) == 16
    assert (await world.send(await world.signed(body=form(), nonce=nonces[3]))).status_code == 200


async def test_one_nonce_is_the_default(world: World) -> None:
    assert len((await get(world, f"/nonce?jkt={world.key.jkt}")).json()["nonces"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?count=1",
        "?jkt=short",
        f"?jkt={'a' * 43}&count=0",
        f"?jkt={'a' * 43}&count=17",
        f"?jkt={'a' * 43}&count=1&count=1",
        f"?jkt={'a' * 43}&jkt={'b' * 43}",
        f"?jkt={'a' * 43}&more=1",
        f"?jkt={'a' * 43}&",
        f"?jkt={'a' * 42}%61",
        f"?jkt={'a' * 43}&count=01",
        f"?jkt={'a' * 43}&count=-1",
        f"?jkt={'a' * 43};count=1",
    ],
)
async def test_a_nonce_query_that_is_wrong(world: World, query: str) -> None:
    answer = await get(world, f"/nonce{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "request.parameter")


async def test_a9_nonces_are_rate_limited_by_address(tmp_path: Path) -> None:
    world = await World.make(tmp_path, limits={"address_rate": 1, "address_burst": 1})
    target = f"/nonce?jkt={world.key.jkt}"
    assert (await get(world, target)).status_code == 200

    answer = await get(world, target)

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "rate.limited", "1")
    await world.context.aclose()


async def test_the_key_set_has_the_members_that_the_page_names_and_nothing_private(world: World) -> None:
    answer = await get(world, "/.well-known/jwks.json")

    [key] = answer.json()["keys"]
    assert answer.headers["cache-control"] == "max-age=300"
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert key["kid"] == thumbprint(world.token_key.public_key())


async def test_the_metadata_names_the_endpoints(world: World) -> None:
    body = (await get(world, "/.well-known/oauth-authorization-server")).json()

    assert body["issuer"] == ISSUER
    assert body["token_endpoint"] == f"{ISSUER}/token"
    assert body["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert body["authorization_details_types_supported"] == ["countersign_call"]
    assert body["dpop_signing_alg_values_supported"] == ["ES256"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/access/v1/search/subject", 404),
        ("POST", "/access/v1/evaluation/", 404),
        ("GET", "/authz/billing/stripe/mcp", 404),
        ("POST", "/refusals", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/token/", 404),
        ("GET", "//token", 404),
        ("POST", "/nonce", 405),
        ("POST", "/.well-known/jwks.json", 405),
    ],
)
async def test_what_is_not_built_is_not_there(world: World, method: str, target: str, status: int) -> None:
    answer = await get(world, target, method)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


# Keys


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


async def test_a_key_is_published_before_its_time_and_after_it(world: World) -> None:
    old, new = a_key(), a_key()
    day = timedelta(days=1)
    write_keys(world.directory / "keys", (old, START - day, START + day), (new, START + day, START + 2 * day))
    assert world.context.keys.refresh()
    kids = [thumbprint(key.public_key()) for key in (old, new)]

    assert world.context.keys.signing(int(START.timestamp())).kid == kids[0]
    assert [key["kid"] for key in world.context.keys.jwks(int(START.timestamp()))["keys"]] == kids
    tomorrow = int((START + day).timestamp())
    assert world.context.keys.signing(tomorrow).kid == kids[1]
    assert [key["kid"] for key in world.context.keys.jwks(tomorrow + 599)["keys"]] == kids
    assert [key["kid"] for key in world.context.keys.jwks(tomorrow + 600)["keys"]] == kids[1:]


async def test_of_two_usable_keys_the_younger_signs(world: World) -> None:
    old, new = a_key(), a_key()
    day = timedelta(days=1)
    write_keys(world.directory / "keys", (new, START, START + day), (old, START - day, START + day))
    world.context.keys.refresh()

    assert world.context.keys.signing(int(START.timestamp())).kid == thumbprint(new.public_key())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys":[]}',
        b'{"keys":[{"kid":"x"}]}',
        b'{"keys":[{"kid":"x","privateKey":"no","createdAt":0,"useFrom":0,"useUntil":9}]}',
    ],
)
async def test_a_key_file_that_is_wrong_leaves_the_old_keys(world: World, content: bytes) -> None:
    (world.directory / "keys" / "keys.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"keys\.json"):
        world.context.keys.refresh()

    assert (await world.call()).status_code == 200


async def test_a_key_under_a_foreign_name_is_refused(world: World) -> None:
    path = world.directory / "keys" / "keys.json"
    path.write_text(path.read_text().replace(thumbprint(world.token_key.public_key()), "a" * 43))

    with pytest.raises(ValueError, match="thumbprint"):
        world.context.keys.refresh()


# The catalogue


async def test_the_catalogue_shows_what_is_exposed_to_the_agent(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "page": {"type": "object", "properties": {"a/b": {"type": "integer", "x-mcp-header": "Limit"}}},
        },
    }
    server = world.server(endpoint="http://stripe.billing.svc:8080/mcp", caBundle=world.ca.pem)
    server["spec"]["tools"] = [
        {"name": "get_charge", "access": "ReadOnly", "inputSchema": schema, "definitionDigest": f"sha256:{'bb' * 32}"}
    ]
    world.source.put(kube.TOOL_SERVERS, server)
    hidden = world.server("ledger", "payments", audience="https://tools.payments.svc/ledger")
    world.source.put(kube.TOOL_SERVERS, hidden)

    answer = await world.send(await world.signed("GET", "/catalogue"))

    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "countersign-nonce" in answer.headers
    assert answer.json() == {
        "servers": [
            {
                "name": "stripe",
                "namespace": "billing",
                "audience": "https://tools.billing.svc/stripe",
                "endpoint": "http://stripe.billing.svc:8080/mcp",
                "protocol": "MCP",
                "enforcement": "Verifier",
                "ca_bundle": world.ca.pem,
                "tools": [
                    {
                        "name": "get_charge",
                        "definition": f"sha256:{'bb' * 32}",
                        "header_arguments": {"/region": "Region", "/page/a~1b": "Limit"},
                    }
                ],
            }
        ]
    }


async def test_the_catalogue_is_for_living_instances_only(world: World) -> None:
    world.source.put(kube.AGENT_INSTANCES, world.instance(state="Revoked"))

    answer = await world.send(await world.signed("GET", "/catalogue"))

    assert (answer.status_code, answer.json()["code"]) == (403, "instance.revoked")
    [record] = await world.records()
    assert (record["status_code"], record["api"]["operation"]) == ("instance.revoked", "catalogue")


async def test_the_catalogue_wants_a_signature(world: World) -> None:
    answer = await get(world, "/catalogue")

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")


async def test_the_catalogue_takes_no_body(world: World) -> None:
    answer = await world.send(await world.signed("GET", "/catalogue", b"x", content_type="text/plain"))

    assert (answer.status_code, answer.json()["code"]) == (400, "request.parameter")

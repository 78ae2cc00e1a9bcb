"""The admission port, asked as the API server asks."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.world import AUDIENCE, DOMAIN, ISSUER, START, Ca, World, thing

from countersign import kube
from countersign_webhook.admission import admission_app

if TYPE_CHECKING:
    from pathlib import Path


def review(
    obj: dict[str, Any], operation: str = "CREATE", old: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    group, _, version = obj.get("apiVersion", "v1").rpartition("/")
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": obj["kind"]},
        "operation": operation,
        "namespace": obj["metadata"].get("namespace", ""),
        "userInfo": {"username": "bent@example.com"},
        "object": obj,
        "oldObject": old,
        "dryRun": False,
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


async def post(world: World, path: str, body: bytes, content_type: str = "application/json") -> httpx.Response:
    transport = httpx.ASGITransport(admission_app(world.context))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://countersign-webhook.countersign-system.svc"
    ) as client:
        return await client.post(path, content=body, headers={"content-type": content_type})


async def ask(world: World, path: str, question: dict[str, Any]) -> dict[str, Any]:
    answer = await post(world, path, json.dumps(question).encode())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = body["response"]
    assert response["uid"] == question["request"]["uid"]
    return response


async def validate(world: World, obj: dict[str, Any], operation: str = "CREATE", **more: Any) -> dict[str, Any]:
    return await ask(world, "/validate", review(obj, operation, **more))


def assert_refused(response: dict[str, Any], message: str) -> None:
    assert response["allowed"] is False
    assert message in response["status"]["message"], response


# Injection


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "refund-", "namespace": "billing", "labels": {"app": "refund-agent"}},
        "spec": {
            "serviceAccountName": "refund-agent",
            "containers": [{"name": "agent", "image": "agent@sha256:aa"}],
            **spec,
        },
    }


def opt_in(world: World) -> None:
    labels = {"countersign.dev/injection": "enabled", "kubernetes.io/metadata.name": "billing"}
    world.source.put(kube.NAMESPACES, {"metadata": {"name": "billing", "uid": "uid-ns", "labels": labels}})


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    assert response["patchType"] == "JSONPatch"
    patch: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"]))
    return patch


async def test_a_pod_of_an_agent_gets_a_signer(world: World) -> None:
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod()))

    assert response["allowed"] is True
    text = json.dumps(patch_of(response))
    assert "countersign-signer" in text
    assert "countersign:test" in text
    assert "warnings" not in response


async def test_a_dry_run_gets_the_same_patch(world: World) -> None:
    opt_in(world)

    real = await ask(world, "/mutate-pods", review(pod()))
    tried = await ask(world, "/mutate-pods", review(pod(), dryRun=True))

    assert patch_of(real) == patch_of(tried)


@pytest.mark.parametrize("change", [{"serviceAccountName": "other"}])
async def test_a_pod_of_nobodys_agent_is_left_alone(world: World, change: dict[str, Any]) -> None:
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod(**change)))

    assert response == {"uid": response["uid"], "allowed": True}


async def test_a_pod_of_a_namespace_that_did_not_opt_in_is_left_alone(world: World) -> None:
    response = await ask(world, "/mutate-pods", review(pod()))

    assert response == {"uid": response["uid"], "allowed": True}


async def test_no_pod_of_countersigns_own_namespace_is_an_agent(tmp_path: Path) -> None:
    world = await World.make(tmp_path, namespace="billing")
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod()))

    assert response == {"uid": response["uid"], "allowed": True}
    await world.context.aclose()


async def test_the_injected_token_is_for_the_audience_that_the_authority_reviews(tmp_path: Path) -> None:
    world = await World.make(tmp_path, token_audience="countersign.example.com")
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod()))

    assert '"audience": "countersign.example.com"' in json.dumps(patch_of(response))
    await world.context.aclose()


async def test_a_pod_that_two_identities_select_gets_neither_and_a_warning(world: World) -> None:
    opt_in(world)
    second = world.identity()
    second["metadata"] = {**second["metadata"], "name": "second", "uid": "uid-second"}
    world.source.put(kube.AGENT_IDENTITIES, second)

    response = await ask(world, "/mutate-pods", review(pod()))

    assert response["allowed"] is True
    assert "patch" not in response
    assert "refund-agent, second" in response["warnings"][0]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"shareProcessNamespace": True}, "shareProcessNamespace is set"),
        ({"containers": [{"name": "countersign-signer", "image": "x"}]}, "a container is called countersign-signer"),
    ],
)
async def test_a_pod_that_cannot_be_injected_is_left_alone_with_a_warning(
    world: World, spec: dict[str, Any], why: str
) -> None:
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod(**spec)))

    assert (response["allowed"], "patch" in response) == (True, False)
    (warning,) = response["warnings"]
    assert warning.startswith(f"this pod gets no signer and no identity (NotInjected): {why}")


@pytest.mark.parametrize(("port", "warned"), [(7080, True), (7081, True), (7082, False)])
async def test_a_container_that_listens_where_the_signer_does_draws_a_warning(
    world: World,
    port: int,
    warned: bool,  # noqa: FBT001 - a table
) -> None:
    opt_in(world)

    response = await ask(
        world,
        "/mutate-pods",
        review(pod(containers=[{"name": "agent", "image": "a", "ports": [{"containerPort": port}]}])),
    )

    assert patch_of(response)
    said = f"container agent names port {port}, which is the signer's; set signer.port of AgentIdentity refund-agent"
    assert response.get("warnings", []) == ([said] if warned else [])


async def test_a_new_pod_gets_this_releases_signer_whatever_ran_before(tmp_path: Path) -> None:
    injection = {"image": "countersign:new", "version": "2", "former_images": ["countersign:old"]}
    world = await World.make(tmp_path, injection=injection)
    opt_in(world)
    signed = pod(initContainers=[{"name": "countersign-signer", "image": "countersign:old", "restartPolicy": "Always"}])

    response = await ask(world, "/mutate-pods", review(signed))

    assert "countersign:new" in json.dumps(patch_of(response))
    assert "countersign:old" not in json.dumps(patch_of(response))
    await world.context.aclose()


async def test_an_api_token_in_the_agents_reach_draws_a_warning(world: World) -> None:
    opt_in(world)
    mounting = pod(
        volumes=[{"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        containers=[
            {"name": "agent", "image": "a", "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/x"}]}
        ],
    )

    response = await ask(world, "/mutate-pods", review(mounting))

    assert "automountServiceAccountToken" in response["warnings"][0]
    assert patch_of(response)


async def test_a_namespace_that_is_not_known_refuses_rather_than_leave_out(world: World) -> None:
    world.source.drop(kube.NAMESPACES, "billing")

    response = await ask(world, "/mutate-pods", review(pod()))

    assert_refused(response, "has not been seen yet")
    assert response["status"]["code"] == 503


async def test_d12_stale_caches_refuse_admission_too(world: World) -> None:
    world.source.stale_kinds = ["agentidentities"]

    for path in ("/mutate-pods", "/validate"):
        response = await ask(world, path, review(pod()))
        assert_refused(response, "not current")


async def test_a_pod_so_strange_that_it_breaks_us_is_refused(world: World) -> None:
    opt_in(world)

    response = await ask(world, "/mutate-pods", review(pod(containers="none", volumes=[7])))

    assert response["allowed"] is False
    assert "Traceback" not in response["status"]["message"]


# What is no review


@pytest.mark.parametrize("path", ["/mutate-pods", "/validate"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"x","kind":[],"operation":"CREATE"}}',
    ],
)
async def test_what_is_no_review_is_a_typed_error(world: World, path: str, body: bytes) -> None:
    answer = await post(world, path, body)

    assert (answer.status_code, answer.json()["kind"]) == (400, "Status")


async def test_another_media_type_is_refused(world: World) -> None:
    assert (await post(world, "/validate", b"{}", "text/plain")).status_code == 415


async def test_an_oversize_review_is_refused(world: World) -> None:
    assert (await post(world, "/validate", b" " * (8 * 1024 * 1024 + 1))).status_code == 413


# Device


async def test_a_device_of_its_own_is_welcome(world: World) -> None:
    new = thing(
        "Device",
        "worker-2",
        {
            "poolRef": {"name": "racks"},
            "ek": {"publicKeySHA256": f"sha256:{'44' * 32}"},
            "binding": {"type": "Node", "node": {"name": "worker-2"}},
            "state": "Approved",
        },
    )

    assert (await validate(world, new))["allowed"] is True


async def test_b13_an_ek_belongs_to_one_device(world: World) -> None:
    twin = world.device(state="Pending")
    twin["metadata"]["name"] = "worker-9"

    assert_refused(await validate(world, twin), "EK already belongs to Device worker-1")


async def test_a_device_may_be_updated_beside_itself(world: World) -> None:
    assert (await validate(world, world.device(owner="me"), "UPDATE", old=world.device()))["allowed"] is True


async def test_an_update_that_leaves_the_spec_alone_is_not_judged_again(world: World) -> None:
    twin = world.device()
    twin["metadata"]["name"] = "worker-9"

    assert (await validate(world, twin, "UPDATE", old=twin))["allowed"] is True


async def test_b13_a_node_has_as_many_approved_devices_as_its_pool_says(world: World) -> None:
    second = world.device(ek={"publicKeySHA256": f"sha256:{'44' * 32}"})
    second["metadata"]["name"] = "worker-9"

    assert_refused(await validate(world, second), "already has 1 approved of 1 devices of pool racks: worker-1")
    pool = thing("DevicePool", "racks", {"assurance": "Virtual", "devicesPerNode": 2})
    world.source.put(kube.DEVICE_POOLS, pool)
    assert (await validate(world, second))["allowed"] is True


async def test_a_device_that_waits_takes_no_place_on_its_node(world: World) -> None:
    second = world.device(ek={"publicKeySHA256": f"sha256:{'44' * 32}"}, state="Pending")
    second["metadata"]["name"] = "worker-9"

    assert (await validate(world, second))["allowed"] is True


async def test_only_a_software_device_has_no_ek(world: World) -> None:
    bare = thing("Device", "laptop", {"poolRef": {"name": "racks"}, "binding": {"type": "Node", "node": {"name": "x"}}})
    assert_refused(await validate(world, bare), "spec.ek is required")
    world.source.put(kube.DEVICE_POOLS, thing("DevicePool", "racks", {"assurance": "Software"}))

    assert (await validate(world, bare))["allowed"] is True


# IdentityIssuer, DevicePool, PEM


@pytest.mark.parametrize("kind", ["ToolPolicy", "ClusterToolPolicy"])
async def test_an_expression_that_compiles_is_welcome_and_another_is_refused_with_its_place(
    world: World, kind: str
) -> None:
    def policy(*texts: str) -> dict[str, Any]:
        rules = [{"name": f"r{at}", "effect": "Deny", "when": text} for at, text in enumerate(texts)]
        return thing(kind, "new", {"rules": [{"name": "plain", "effect": "Deny"}, *rules]})

    assert (await validate(world, policy("args.amount > 5")))["allowed"] is True
    bad = policy("args.amount > 5", "true &&\n user.nmae == 'x'")
    assert_refused(await validate(world, bad), "spec.rules[r1].when: 2:6: undeclared reference to 'user.nmae'")
    assert_refused(await validate(world, policy("args.amount")), "spec.rules[r0].when: the result is DYN, not bool")
    assert_refused(await validate(world, bad, "UPDATE", oldObject=policy("true")), "spec.rules[r1].when")
    assert (await validate(world, bad, "UPDATE", oldObject=bad))["allowed"] is True


async def test_a_trust_domain_belongs_to_one_issuer(world: World) -> None:
    second = thing("IdentityIssuer", "second", {"trustDomain": DOMAIN, "type": "Embedded"})

    assert_refused(await validate(world, second), "trust domain already belongs to default")


def pool(pem: str) -> dict[str, Any]:
    return thing("DevicePool", "new", {"assurance": "Hardware", "ekRoots": pem})


async def test_roots_that_are_good_are_welcome(world: World) -> None:
    assert (await validate(world, pool(world.ca.pem + Ca("Second").pem)))["allowed"] is True


async def test_roots_that_do_not_parse_are_refused(world: World) -> None:
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    assert_refused(await validate(world, pool(bad)), "spec.ekRoots")


async def test_a_root_that_is_no_ca_is_refused_by_name(world: World) -> None:
    leaf = world.ca.leaf(world.key.public_key).public_bytes(serialization.Encoding.PEM).decode()

    assert_refused(await validate(world, pool(leaf)), "is not a CA")


async def test_a_root_that_has_expired_is_refused_with_its_date(world: World) -> None:
    world.clock.advance(timedelta(days=2))

    assert_refused(await validate(world, pool(world.ca.pem)), "CN=Test Identity CA expired on 2026-11-25")


async def test_a_root_without_basic_constraints_is_refused(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "bare")])
    bare = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )

    pem = bare.public_bytes(serialization.Encoding.PEM).decode()

    assert_refused(await validate(world, pool(pem)), "CN=bare is not a CA")


# ToolServer


def server(world: World, **spec: Any) -> dict[str, Any]:
    return world.server("second", **{"audience": "https://second.billing.svc/mcp", **spec})


async def test_a_tool_server_of_its_own_is_welcome(world: World) -> None:
    assert (await validate(world, server(world)))["allowed"] is True


async def test_an_audience_belongs_to_one_server(world: World) -> None:
    assert_refused(
        await validate(world, server(world, audience=AUDIENCE)), "audience already belongs to billing/stripe"
    )


@pytest.mark.parametrize(
    "audience", ["https://tools.payments.svc/x", "https://tools.example.com/x", f"{ISSUER}/x", ISSUER]
)
async def test_d9_an_audience_of_somebody_else_cannot_be_claimed(world: World, audience: str) -> None:
    assert_refused(await validate(world, server(world, audience=audience)), "may not claim audience")


async def test_the_platform_gives_audiences_to_namespaces(tmp_path: Path) -> None:
    grants = [{"prefix": "https://tools.example.com/", "namespaces": ["billing"]}]
    world = await World.make(tmp_path, audiences=grants)

    assert (await validate(world, server(world, audience="https://tools.example.com/x")))["allowed"] is True
    await world.context.aclose()


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "objekt"}, "inputSchema/type"),
        ({"type": "object", "properties": {"a": {"type": "string", "minLength": -1}}}, "/properties/a/minLength"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.com/s.json"}}}, "/properties/a/$ref"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, "$schema"),
    ],
)
async def test_a_schema_that_we_do_not_evaluate_is_refused_with_path_and_keyword(
    world: World, schema: dict[str, Any], where: str
) -> None:
    tools = [{"name": "t", "access": "ReadOnly", "inputSchema": schema}]

    response = await validate(world, server(world, tools=tools))

    assert_refused(response, "spec.tools[t].inputSchema")
    assert where in response["status"]["message"]


async def test_a_ca_bundle_of_a_server_is_looked_at(world: World) -> None:
    assert_refused(await validate(world, server(world, caBundle="no")), "spec.caBundle")


# AgentInstance


async def test_only_the_authority_makes_instances(world: World) -> None:
    instance = world.instance()
    assert_refused(await validate(world, instance), "AgentInstance objects are made by Countersign")

    maker = {"username": "system:serviceaccount:countersign-system:countersign-authority"}

    assert (await validate(world, instance, userInfo=maker))["allowed"] is True


async def test_a_person_may_revoke_an_instance_and_change_nothing_else(world: World) -> None:
    old = world.instance()

    revoked = await validate(world, world.instance(state="Revoked", stateReason="lost"), "UPDATE", old=old)
    moved = await validate(world, world.instance(deviceRef={"name": "other", "uid": "x"}), "UPDATE", old=old)

    assert revoked["allowed"] is True
    assert_refused(moved, "only state and stateReason may change, not deviceRef")


async def test_revoked_is_final(world: World) -> None:
    response = await validate(world, world.instance(), "UPDATE", old=world.instance(state="Revoked"))

    assert_refused(response, "Revoked is final")


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
async def test_other_operations_are_not_ours(world: World, operation: str) -> None:
    assert (await validate(world, world.instance(), operation))["allowed"] is True


async def test_an_object_so_strange_that_it_breaks_us_is_refused(world: World) -> None:
    response = await validate(world, {**server(world), "spec": {"audience": 7, "tools": 7}})

    assert response["allowed"] is False

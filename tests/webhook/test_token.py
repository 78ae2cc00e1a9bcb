"""``POST /token``: what is allowed, what is not, and what the answer, the token and the record then say."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.world import AUDIENCE, DOMAIN, ISSUER, SPIFFE_ID, Ca, SoftwareKey, allow, details, form, policy, thing

from countersign import kube
from countersign.wire import digest_of, thumbprint

if TYPE_CHECKING:
    import httpx
    from support.world import World


def claims_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    return json.loads(header), json.loads(claims)


def assert_refused(answer: httpx.Response, status: int, code: str, error: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"], body["error"]) == (status, code, error)
    assert answer.headers["content-type"] == "application/json"
    return body


# What is allowed


async def test_an_allowed_call_gets_a_token_that_names_exactly_it(world: World) -> None:
    answer = await world.call("get_charge", {"charge": "ch_1"})

    body = answer.json()
    assert answer.status_code == 200, body
    assert answer.headers["cache-control"] == "no-store"
    header, claims = claims_of(body["access_token"])
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(world.token_key.public_key())}
    now = int(world.clock.now().timestamp())
    args = digest_of(b'{"charge":"ch_1"}')
    assert {name: claims[name] for name in ("iss", "sub", "aud", "client_id", "iat", "exp", "txn")} == {
        "iss": ISSUER,
        "sub": SPIFFE_ID,
        "aud": AUDIENCE,
        "client_id": SPIFFE_ID,
        "iat": now,
        "exp": now + 30,
        "txn": body["decision"],
    }
    assert claims["cnf"]["jkt"] == world.key.jkt
    assert claims["act"] == {"sub": SPIFFE_ID}
    assert claims["authorization_details"] == body["authorization_details"]
    assert body["authorization_details"] == [
        {"type": "countersign_call", "protocol": "MCP", "method": "tools/call", "tool": "get_charge", "args": args}
    ]
    assert claims["countersign"]["instance"] == "billing/refund-agent-7f9c4"
    assert (claims["countersign"]["key_tier"], claims["countersign"]["assurance"]) == ("TPM", "Hardware")
    assert claims["countersign"]["policy"] == world.context.book.rules.digest
    assert (body["token_type"], body["expires_in"]) == ("Countersign", 30)
    assert "tools" not in body


async def test_an_allowed_call_is_on_record_before_its_answer(world: World) -> None:
    answer = await world.call("get_charge", {"charge": "ch_secret"})

    [record] = await world.records()
    ours = record["unmapped"]["countersign"]
    assert record["metadata"]["uid"] == answer.json()["decision"]
    assert (record["status_code"], record["status_id"], record["action_id"]) == ("policy.allowed", 1, 1)
    assert record["actor"] == {"app_name": SPIFFE_ID, "app_uid": "billing/refund-agent-7f9c4"}
    assert record["api"] == {"operation": "tools/call", "service": {"name": AUDIENCE}}
    assert record["activity_id"] == 2
    assert record["src_endpoint"] == {"ip": "192.0.2.7"}
    assert record["device"] == {"uid": "uid-device-worker-1", "name": "worker-1"}
    assert ours["args"] == digest_of(b'{"charge":"ch_secret"}')
    assert ours["rule"] == "allow-get-charge-list-charges"
    assert ours["jti"] == claims_of(answer.json()["access_token"])[1]["jti"]
    assert "ch_secret" not in json.dumps(record)


async def test_each_answer_brings_a_nonce_that_works(world: World) -> None:
    first = await world.call()
    nonce = first.headers["countersign-nonce"]

    again = await world.send(await world.signed(body=form(), nonce=nonce))

    assert again.status_code == 200


async def test_arguments_that_the_owner_lists_are_recorded_in_clear(world: World) -> None:
    server = world.server()
    server["spec"]["tools"][0]["recordArguments"] = ["/charge", "/absent"]
    world.source.put(kube.TOOL_SERVERS, server)

    await world.call("get_charge", {"charge": "ch_1"})

    [record] = await world.records()
    assert record["unmapped"]["countersign"]["recorded_arguments"] == {"/charge": "ch_1"}


async def test_tools_list_names_only_what_policy_could_allow(world: World) -> None:
    answer = await world.call("", {}, method="tools/list")

    assert answer.status_code == 200
    assert answer.json()["tools"] == ["get_charge", "list_charges"]


@pytest.mark.parametrize("method", ["initialize", "notifications/initialized", "ping", "server/discover"])
async def test_a_base_method_needs_no_rule_about_it(world: World, method: str) -> None:
    assert (await world.call("", {}, method=method)).status_code == 200


# What policy and the cluster say no to


async def test_a_tool_that_no_rule_names_is_denied(world: World) -> None:
    answer = await world.call("create_refund")

    body = assert_refused(answer, 403, "policy.default_deny", "access_denied")
    [record] = await world.records()
    assert (record["status_code"], record["status_id"]) == ("policy.default_deny", 2)
    assert record["metadata"]["uid"] == body["decision"]


async def test_a_deny_rule_bites_at_the_next_call(world: World) -> None:
    assert (await world.call()).status_code == 200
    rule = {"name": "stop", "effect": "Deny", "reason": "not today", "tools": [{"server": {"name": "stripe"}}]}
    world.source.put(kube.TOOL_POLICIES, policy(rule, name="stop"))

    body = assert_refused(await world.call(), 403, "policy.denied", "access_denied")

    assert body["error_description"] == "not today"


async def test_without_any_policy_nothing_is_allowed(world: World) -> None:
    world.source.drop(kube.TOOL_POLICIES, "refunds", "billing")

    assert_refused(await world.call(), 403, "policy.default_deny", "access_denied")


async def test_a_rule_with_an_unknown_field_never_helps(world: World) -> None:
    world.source.put(kube.TOOL_POLICIES, policy(allow(argumentz=[])))

    assert_refused(await world.call(), 403, "policy.default_deny", "access_denied")


@pytest.mark.parametrize("effect", ["Deny", "RequireApproval"])
async def test_a_condition_without_an_answer_refuses(world: World, effect: str) -> None:
    rule = {"name": "cel", "effect": effect, "tools": [{"server": {"name": "stripe"}}], "when": "args.amount > 5"}
    world.source.put(kube.TOOL_POLICIES, policy(rule, name="cel"))

    assert_refused(await world.call(), 403, "policy.undecided", "access_denied")


async def test_a_condition_sees_what_the_cluster_says_of_the_caller(world: World) -> None:
    said = (
        "call.server == 'billing/stripe' && call.audience == '" + AUDIENCE + "' && call.tool == 'get_charge'"
        " && call.access == 'ReadOnly' && agent.namespace == 'billing' && agent.name == 'refund-agent'"
        " && !user.present && !task.present && device.attestationAge >= duration('0s')"
        " && device.assurance == 'Hardware' && key.tier == 'TPM' && instance.source == 'Pod'"
        " && instance.imageDigests.all(d, d.startsWith('sha256:')) && cluster.name == 'prod-eu' && size(args) == 0"
    )
    facts = [
        {"name": "disk-encryption", "value": "on", "source": "mdm", "observedTime": "2020-01-01T00:00:00Z"},
        {"name": "patched", "value": "yes", "source": "node", "observedTime": "2020-01-01T00:00:00Z"},
    ]
    device = world.source.get(kube.DEVICES, "worker-1")
    assert device is not None
    world.source.put(kube.DEVICES, {**device, "status": {**device["status"], "facts": facts}})
    posture = "device.facts == {'disk-encryption': 'on'}"
    pod = {"name": "refund-1", "uid": "uid-pod-1", "nodeName": "worker-1.example.com"}
    images = {"imageDigests": [f"sha256:{'aa' * 32}"]}
    world.source.put(kube.AGENT_INSTANCES, world.instance(pod={**pod, **images}))

    for when in (said, posture):
        world.source.put(kube.TOOL_POLICIES, policy(allow("get_charge", when=when)))
        assert (await world.call()).status_code == 200, when
    for absent in ("user.name != 'x'", "task.calls == 0", "task.purpose != 'x'"):
        world.source.put(kube.TOOL_POLICIES, policy(allow("get_charge", when=absent)))
        assert_refused(await world.call(), 403, "policy.default_deny", "access_denied")


async def test_a_rule_that_asks_refuses_while_nobody_can_be_asked(world: World) -> None:
    ask = allow(
        "get_charge", name="ask", effect="RequireApproval", reason="Ask Carla.", approval={"groups": ["finance"]}
    )
    world.source.put(kube.TOOL_POLICIES, policy(allow("get_charge"), ask))

    body = assert_refused(await world.call(), 403, "approval.required", "access_denied")

    assert body["error_description"] == "Ask Carla."
    [record] = await world.records()
    assert (record["status_code"], record["status_id"]) == ("approval.required", 2)
    assert record["unmapped"]["countersign"]["rule"] == "ask"


async def test_an_unregistered_tool_is_unknown(world: World) -> None:
    assert_refused(await world.call("drop_table"), 403, "tool.unknown", "access_denied")


async def test_arguments_outside_the_schema_are_refused(world: World) -> None:
    assert_refused(await world.call("get_charge", {"sneaky": 1}), 403, "tool.arguments_invalid", "access_denied")


async def test_an_unknown_audience_is_refused(world: World) -> None:
    answer = await world.send(await world.signed(body=form(resource="https://tools.billing.svc/other")))

    assert_refused(answer, 403, "tool.server_unknown", "access_denied")


async def test_d9_a_server_is_found_by_its_audience_and_by_no_other_name(world: World) -> None:
    answer = await world.send(await world.signed(body=form(resource="billing/stripe")))

    assert_refused(answer, 403, "tool.server_unknown", "access_denied")


async def test_an_audience_that_is_not_the_namespaces_own_is_unknown(world: World) -> None:
    foreign = "https://tools.example.com/stripe"
    world.source.put(kube.TOOL_SERVERS, world.server(audience=foreign))

    answer = await world.send(await world.signed(body=form(resource=foreign)))

    assert_refused(answer, 403, "tool.server_unknown", "access_denied")


async def test_a_server_of_another_namespace_is_not_exposed_by_default(world: World) -> None:
    audience = "https://tools.payments.svc/ledger"
    world.source.put(kube.TOOL_SERVERS, world.server("ledger", "payments", audience=audience))

    answer = await world.send(await world.signed(body=form(resource=audience)))

    assert_refused(answer, 403, "tool.server_not_exposed", "access_denied")


async def test_a_pinned_definition_counts_as_changed(world: World) -> None:
    server = world.server()
    server["spec"]["tools"][0]["definitionDigest"] = f"sha256:{'bb' * 32}"
    world.source.put(kube.TOOL_SERVERS, server)

    assert_refused(await world.call(), 403, "tool.definition_changed", "access_denied")


async def test_a_base_method_needs_a_rule_that_names_the_server(world: World) -> None:
    world.source.drop(kube.TOOL_POLICIES, "refunds", "billing")

    assert_refused(await world.call("", {}, method="ping"), 403, "tool.server_not_exposed", "access_denied")


async def test_d5_a_method_that_is_not_mapped_is_refused(world: World) -> None:
    assert_refused(await world.call("", {}, method="tasks/update"), 400, "mcp.method_unknown", "invalid_request")


async def test_plain_http_is_not_served_yet(world: World) -> None:
    answer = await world.call("", {"body": None, "path": "/", "query": {}}, method="GET", protocol="HTTP")

    assert_refused(answer, 400, "request.details", "invalid_authorization_details")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"minAssurance": "Hardware"}, "environment.assurance_too_low"),
        ({"maxAttestationAgeSeconds": 60}, "environment.attestation_stale"),
    ],
)
async def test_the_servers_floors_hold(world: World, change: dict[str, Any], code: str) -> None:
    world.source.put(kube.DEVICE_POOLS, thing("DevicePool", "racks", {"assurance": "Virtual"}))
    world.source.put(kube.AGENT_IDENTITIES, world.identity(minAssurance="Virtual"))
    world.source.put(kube.TOOL_SERVERS, world.server(requires=change))

    answer = await world.call()

    error = "use_fresh_attestation" if code == "environment.attestation_stale" else "access_denied"
    assert_refused(answer, 403, code, error)


async def test_a5_a_software_device_cannot_reach_a_tier_of_the_tpm(world: World) -> None:
    world.source.put(kube.DEVICE_POOLS, thing("DevicePool", "racks", {"assurance": "Software"}))
    world.source.put(kube.AGENT_IDENTITIES, world.identity(minAssurance="Software", minKeyTier="TPM"))
    world.source.put(kube.TOOL_SERVERS, world.server(requires={"minAssurance": "Software"}))

    assert_refused(await world.call(), 403, "environment.key_tier_too_low", "access_denied")


async def test_b7_evidence_older_than_the_pool_allows_is_no_evidence(world: World) -> None:
    pool = thing("DevicePool", "racks", {"assurance": "Hardware", "attestation": {"maxAgeSeconds": 60}})
    world.source.put(kube.DEVICE_POOLS, pool)

    answer = await world.call()

    assert_refused(answer, 403, "environment.attestation_stale", "use_fresh_attestation")


async def test_b7_a_device_that_never_attested_makes_no_call(world: World) -> None:
    device = world.device()
    del device["status"]["attestationTime"]
    world.source.put(kube.DEVICES, device)

    assert_refused(await world.call(), 403, "environment.attestation_stale", "use_fresh_attestation")


async def test_a_deny_comes_with_its_own_code_when_evidence_is_fresh_enough(world: World) -> None:
    world.source.put(kube.TOOL_SERVERS, world.server(requires={"maxAttestationAgeSeconds": 28800}))

    assert_refused(await world.call("create_refund"), 403, "policy.default_deny", "access_denied")


# What the request says of itself beside its signature


async def test_d9_a_server_is_not_what_host_and_forwarding_fields_say(world: World) -> None:
    spoofed = {"x-forwarded-host": "evil.example", "x-forwarded-for": "203.0.113.9", "forwarded": "host=evil.example"}
    message = await world.signed(body=form(), more=tuple(spoofed.items()))
    headers = tuple((name, "evil.example" if name == "host" else value) for name, value in message.headers)

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    _, claims = claims_of(answer.json()["access_token"])
    assert (claims["iss"], claims["aud"]) == (ISSUER, AUDIENCE)
    [record] = await world.records()
    assert record["src_endpoint"] == {"ip": "192.0.2.7"}


async def test_a11_an_earlier_token_is_no_subject_and_no_credential(world: World) -> None:
    token = (await world.call()).json()["access_token"]

    as_subject = await world.send(await world.signed(body=form(subject_token=token)))
    as_credential = await world.send(await world.signed(body=form(), more=(("authorization", f"Countersign {token}"),)))

    assert_refused(as_subject, 403, "task.mismatch", "access_denied")
    assert_refused(as_credential, 400, "proof.ambiguous", "invalid_client")


async def test_e2_an_argument_is_nowhere_but_in_the_request(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    canary = "canary-3f1a0c5b"
    for tool, arguments in (
        ("get_charge", {"charge": canary}),
        ("create_refund", {"charge": canary}),
        ("get_charge", {canary: 1}),
        (canary, {}),
    ):
        answer = await world.call(tool, arguments)
        assert canary not in answer.text
    for malformed in (f'[{{"{canary}":', f'[{{"{canary}":1,"{canary}":2}}]', details(**{canary: "1"})):
        assert canary not in (await world.send(await world.signed(body=form(malformed)))).text

    records = await world.records()
    assert len(records) == 7
    assert canary not in json.dumps([one for one in records if one.get("resources", [{}])[0].get("name") != canary])
    assert canary not in world.context.metrics.text().decode()
    assert canary not in "".join(capfd.readouterr())


# Tasks


async def test_an_agent_that_needs_a_task_gets_nothing_without_one(world: World) -> None:
    world.source.put(kube.AGENT_IDENTITIES, world.identity(tasks="Required"))

    assert_refused(await world.call(), 403, "task.required", "access_denied")


async def test_an_agent_that_needs_a_task_is_told_so_also_when_it_names_one(world: World) -> None:
    world.source.put(kube.AGENT_IDENTITIES, world.identity(tasks="Required"))

    answer = await world.send(await world.signed(body=form(subject_token="0f4f3f5c-1111-4222-8333-444455556666")))

    assert_refused(answer, 403, "task.required", "access_denied")


async def test_d17_naming_a_task_that_is_not_bound_is_refused(world: World) -> None:
    answer = await world.send(await world.signed(body=form(subject_token="0f4f3f5c-1111-4222-8333-444455556666")))

    assert_refused(answer, 403, "task.mismatch", "access_denied")


# Who asks: the instance and its device, looked up at each call


async def test_a1_a_key_that_no_instance_has_is_unknown(world: World) -> None:
    answer = await world.send(await world.signed(body=form(), key=SoftwareKey()))

    assert_refused(answer, 403, "instance.unknown", "access_denied")
    [record] = await world.records()
    assert record["status_code"] == "instance.unknown"


async def test_two_instances_with_one_key_are_none(world: World) -> None:
    twin = world.instance()
    twin["metadata"] = {**twin["metadata"], "name": "refund-agent-clone", "uid": "uid-clone"}
    world.source.put(kube.AGENT_INSTANCES, twin)

    assert_refused(await world.call(), 403, "instance.unknown", "access_denied")


async def test_a_deleted_instance_is_unknown_at_once(world: World) -> None:
    assert (await world.call()).status_code == 200
    world.source.drop(kube.AGENT_INSTANCES, "refund-agent-7f9c4", "billing")

    assert_refused(await world.call(), 403, "instance.unknown", "access_denied")


async def test_an_instance_being_deleted_is_unknown(world: World) -> None:
    instance = world.instance()
    instance["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    world.source.put(kube.AGENT_INSTANCES, instance)

    assert_refused(await world.call(), 403, "instance.unknown", "access_denied")


async def test_d14_a_revoked_instance_is_refused_at_once(world: World) -> None:
    assert (await world.call()).status_code == 200
    world.source.put(kube.AGENT_INSTANCES, world.instance(state="Revoked"))

    assert_refused(await world.call(), 403, "instance.revoked", "access_denied")


async def test_an_instance_whose_agent_is_gone_is_revoked(world: World) -> None:
    world.source.drop(kube.AGENT_IDENTITIES, "refund-agent", "billing")

    assert_refused(await world.call(), 403, "instance.revoked", "access_denied")


async def test_an_agent_made_anew_under_the_same_name_is_another(world: World) -> None:
    anew = world.identity()
    anew["metadata"]["uid"] = "uid-anew"
    world.source.put(kube.AGENT_IDENTITIES, anew)

    assert_refused(await world.call(), 403, "instance.revoked", "access_denied")


async def test_c12_an_instance_ends_with_its_pod(world: World) -> None:
    world.source.drop(kube.PODS, "refund-1", "billing")

    assert_refused(await world.call(), 403, "instance.ended", "access_denied")


@pytest.mark.parametrize("meta", [{"uid": "uid-other"}, {"deletionTimestamp": "2026-11-24T12:00:00Z"}])
async def test_c12_a_pod_that_goes_or_is_another_ends_the_instance(world: World, meta: dict[str, str]) -> None:
    metadata = {"name": "refund-1", "namespace": "billing", "uid": "uid-pod-1", **meta}
    world.source.put(kube.PODS, {"metadata": metadata, "spec": {}})

    assert_refused(await world.call(), 403, "instance.ended", "access_denied")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_c12_an_instance_ends_with_the_job_of_its_pod(world: World, phase: str) -> None:
    metadata = {"name": "refund-1", "namespace": "billing", "uid": "uid-pod-1"}
    world.source.put(kube.PODS, {"metadata": metadata, "spec": {}, "status": {"phase": phase}})

    assert_refused(await world.call(), 403, "instance.ended", "access_denied")


async def test_an_instance_that_is_not_a_pods_is_not_served_yet(world: World) -> None:
    world.source.put(kube.AGENT_INSTANCES, world.instance(type="Run", run={"username": "bent@example.com"}))

    assert_refused(await world.call(), 403, "instance.unknown", "access_denied")


@pytest.mark.parametrize("state", ["Denied", "Pending"])
async def test_a_device_that_is_not_approved_is_refused(world: World, state: str) -> None:
    world.source.put(kube.DEVICES, world.device(state=state))

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_a_device_made_anew_under_the_same_name_is_another(world: World) -> None:
    anew = world.device()
    anew["metadata"]["uid"] = "uid-anew"
    world.source.put(kube.DEVICES, anew)

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_a_device_without_its_pool_is_refused(world: World) -> None:
    world.source.drop(kube.DEVICE_POOLS, "racks")

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_a_device_of_a_pool_that_the_agent_does_not_admit_is_refused(world: World) -> None:
    world.source.put(kube.AGENT_IDENTITIES, world.identity(devicePoolRefs=[{"name": "laptops"}]))

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


@pytest.mark.parametrize(
    "denied",
    [
        {"manufacturer": "id:49465800"},
        {"manufacturer": "id:49465800", "model": "SLB9670"},
        {"manufacturer": "id:049465800", "firmwareBefore": "id:00070056"},
    ],
)
async def test_b12_a_denied_model_stops_running_sessions(world: World, denied: dict[str, str]) -> None:
    pool = thing("DevicePool", "racks", {"assurance": "Hardware", "deniedModels": [denied]})
    world.source.put(kube.DEVICE_POOLS, pool)

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_b12_firmware_that_is_new_enough_goes_on(world: World) -> None:
    denied = {"manufacturer": "id:49465800", "firmwareBefore": "id:00070055"}
    pool = thing("DevicePool", "racks", {"assurance": "Hardware", "deniedModels": [denied]})
    world.source.put(kube.DEVICE_POOLS, pool)

    assert (await world.call()).status_code == 200


async def test_b13_two_devices_with_one_ek_are_both_refused(world: World) -> None:
    twin = world.device(state="Pending")
    twin["metadata"] = {**twin["metadata"], "name": "worker-2", "uid": "uid-worker-2"}
    world.source.put(kube.DEVICES, twin)

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_more_devices_on_a_node_than_the_pool_allows_are_all_refused(world: World) -> None:
    twin = world.device(ek={"publicKeySHA256": f"sha256:{'4f' * 32}"})
    twin["metadata"] = {**twin["metadata"], "name": "worker-2", "uid": "uid-worker-2"}
    world.source.put(kube.DEVICES, twin)

    assert_refused(await world.call(), 403, "device.not_approved", "access_denied")


async def test_c11_a_certificate_with_another_agents_name_is_a_mismatch(world: World) -> None:
    chain = [world.ca.leaf(world.key.public_key, f"spiffe://{DOMAIN}/ns/payments/sa/refund-agent")]

    answer = await world.send(await world.signed(body=form(), chain=chain))

    assert_refused(answer, 403, "instance.mismatch", "access_denied")


async def test_an_issuer_that_the_agent_does_not_name_is_a_mismatch(world: World) -> None:
    world.source.put(kube.AGENT_IDENTITIES, world.identity(issuerRef={"name": "other"}))

    assert_refused(await world.call(), 403, "instance.mismatch", "access_denied")


async def test_an_issuer_that_is_not_exposed_to_the_namespace_is_a_mismatch(world: World) -> None:
    spec = {
        "trustDomain": DOMAIN,
        "type": "Embedded",
        "exposeTo": {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "payments"}}},
    }
    world.source.put(kube.IDENTITY_ISSUERS, thing("IdentityIssuer", "default", spec, trustBundle=world.ca.pem))

    assert_refused(await world.call(), 403, "instance.mismatch", "access_denied")


async def test_of_two_issuers_of_a_trust_domain_the_younger_is_not_believed(world: World) -> None:
    usurper = Ca("Usurper")
    younger = thing("IdentityIssuer", "usurper", {"trustDomain": DOMAIN, "type": "Embedded"}, trustBundle=usurper.pem)
    younger["metadata"]["creationTimestamp"] = "2026-11-24T11:00:00Z"
    world.source.put(kube.IDENTITY_ISSUERS, younger)

    answer = await world.send(await world.signed(body=form(), chain=[usurper.leaf(world.key.public_key)]))

    assert_refused(answer, 400, "cert.chain", "invalid_client")


async def test_an_agent_of_the_younger_issuer_of_a_trust_domain_has_no_name(world: World) -> None:
    younger = thing("IdentityIssuer", "usurper", {"trustDomain": DOMAIN, "type": "Embedded"}, trustBundle=world.ca.pem)
    younger["metadata"]["creationTimestamp"] = "2026-11-24T11:00:00Z"
    world.source.put(kube.IDENTITY_ISSUERS, younger)
    world.source.put(kube.AGENT_IDENTITIES, world.identity(issuerRef={"name": "usurper"}))

    assert_refused(await world.call(), 403, "instance.mismatch", "access_denied")


async def test_an_issuer_without_a_trust_bundle_vouches_for_nobody(world: World) -> None:
    world.source.put(kube.IDENTITY_ISSUERS, thing("IdentityIssuer", "default", {"trustDomain": DOMAIN}))

    assert_refused(await world.call(), 400, "cert.chain", "invalid_client")


@pytest.mark.parametrize(
    ("resource", "change", "code"),
    [
        ("PODS", None, "instance.ended"),
        ("DEVICES", "device", "device.not_approved"),
        ("AGENT_INSTANCES", "instance", "instance.revoked"),
    ],
)
async def test_d14_a_refused_holder_is_on_record_by_name(
    world: World, resource: str, change: str | None, code: str
) -> None:
    if change is None:
        world.source.drop(getattr(kube, resource), "refund-1", "billing")
    else:
        states = {"device": "Denied", "instance": "Revoked"}
        world.source.put(getattr(kube, resource), getattr(world, change)(state=states[change]))

    assert_refused(await world.call(), 403, code, "access_denied")

    [record] = await world.records()
    assert record["status_code"] == code
    assert record["actor"] == {"app_name": SPIFFE_ID, "app_uid": "billing/refund-agent-7f9c4"}
    assert record["device"]["name"] == "worker-1"
    ours = record["unmapped"]["countersign"]
    assert ours["jkt"] == world.key.jkt
    assert "args" not in ours  # the body was not looked at


async def test_d14_what_was_allowed_a_moment_ago_is_refused_by_the_very_next_call(world: World) -> None:
    kept = [await world.signed(body=form()) for _ in range(3)]
    assert (await world.send(kept[0])).status_code == 200

    world.source.put(kube.DEVICES, world.device(state="Denied"))

    assert_refused(await world.send(kept[1]), 403, "device.not_approved", "access_denied")
    assert_refused(await world.send(kept[1]), 400, "proof.replayed", "invalid_client")
    world.source.put(kube.DEVICES, world.device())
    assert_refused(await world.send(kept[1]), 400, "proof.replayed", "invalid_client")
    assert (await world.send(kept[2])).status_code == 200


# The proof: families of wire.md 3.4, each with its status and error


async def test_a4_a_certificate_without_its_key_is_worth_nothing(world: World) -> None:
    thief = SoftwareKey()
    message = await world.signed(
        body=form(), key=thief, chain=[world.ca.leaf(world.key.public_key)], nonce=world.nonce()
    )

    answer = await world.send(message)

    assert_refused(answer, 400, "proof.signature", "invalid_client")
    assert await world.records() == []


async def test_a_stranger_is_told_a_nonce_from_step_9_on_and_leaves_no_record(world: World) -> None:
    message = await world.signed(body=form(), chain=[Ca("Stranger").leaf(world.key.public_key)])

    answer = await world.send(message)

    assert_refused(answer, 400, "cert.chain", "invalid_client")
    assert "countersign-nonce" in answer.headers
    world.clock.advance(31)
    answer = await world.send(message)
    assert_refused(answer, 400, "proof.expired", "invalid_client")
    assert "countersign-nonce" not in answer.headers
    assert await world.records() == []


async def test_a6_the_same_request_is_refused_the_second_time(world: World) -> None:
    message = await world.signed(body=form())
    assert (await world.send(message)).status_code == 200

    answer = await world.send(message)

    assert_refused(answer, 400, "proof.replayed", "invalid_client")
    assert "countersign-nonce" in answer.headers


async def test_a6_a_nonce_is_used_once_also_in_another_request(world: World) -> None:
    nonce = world.nonce()
    assert (await world.send(await world.signed(body=form(), nonce=nonce))).status_code == 200

    answer = await world.send(await world.signed(body=form(details("list_charges")), nonce=nonce))

    assert_refused(answer, 400, "proof.replayed", "invalid_client")


async def test_a7_a_restart_voids_every_nonce(world: World) -> None:
    message = await world.signed(body=form())
    again = await type(world).make(world.directory)
    again.ca, again.key = world.ca, world.key
    again.populate()

    answer = await again.send(message)

    assert_refused(answer, 400, "nonce.invalid", "use_nonce")
    assert "countersign-nonce" in answer.headers
    await again.context.aclose()


async def test_a8_an_old_nonce_is_refused_and_a_good_one_comes_with_the_answer(world: World) -> None:
    nonce = world.nonce()
    world.clock.advance(61)

    answer = await world.send(await world.signed(body=form(), nonce=nonce))

    assert_refused(answer, 400, "nonce.expired", "use_nonce")
    assert "countersign-nonce" in answer.headers


async def test_a9_a_nonce_of_another_key_is_refused(world: World) -> None:
    answer = await world.send(await world.signed(body=form(), nonce=world.nonce(SoftwareKey())))

    assert_refused(answer, 400, "nonce.invalid", "use_nonce")


async def test_d7_a_changed_body_is_refused(world: World) -> None:
    message = await world.signed(body=form())
    changed = message.body.replace(b"get_charge", b"Get_charge")

    answer = await world.send(type(message)(message.method, message.target, message.headers, changed))

    assert_refused(answer, 400, "digest.mismatch", "invalid_client")


async def test_a_request_without_a_certificate_is_refused(world: World) -> None:
    message = await world.signed(body=form())
    headers = tuple(field for field in message.headers if field[0] != "countersign-chain")

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    assert_refused(answer, 400, "cert.missing", "invalid_client")


async def test_a_session_statement_is_refused_until_the_tier_is_built(world: World) -> None:
    answer = await world.send(await world.signed(body=form(), more=(("countersign-session", "eyJ"),)))

    assert_refused(answer, 400, "session.format", "invalid_client")
    assert "countersign-nonce" in answer.headers
    assert await world.records() == []


async def test_d8_two_credential_forms_are_ambiguous(world: World) -> None:
    message = await world.signed(body=form())
    headers = (*message.headers, ("dpop", "eyJ"))

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    assert_refused(answer, 400, "proof.ambiguous", "invalid_client")


async def test_a10_a_signature_outside_its_window_is_refused(world: World) -> None:
    message = await world.signed(body=form())
    world.clock.advance(31)

    assert_refused(await world.send(message), 400, "proof.expired", "invalid_client")

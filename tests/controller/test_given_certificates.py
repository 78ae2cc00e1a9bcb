"""Serving certificates that others make: looked at as a client would, used, told to signers, and never written."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from controller.test_reconcile import SETTINGS, Operator, changes, hooks
from support import cluster
from support.cluster import NOW, obj
from support.rights import SYSTEM, grant, token_of

from countersign import kube
from countersign.clock import SystemClock
from countersign.controller.material import Material
from countersign.controller.metrics import OperatorMetrics
from countersign.controller.serving import Members, Unusable, bundle_of, ca_members, require_usable, serving_members
from countersign.controller.settings import OperatorSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from countersign.devcluster import Plane

NAMES = ("countersign-webhook.countersign-system.svc", "127.0.0.1")
WEBHOOK, AUTHORITY = "their-webhook", "their-authority"


def made(*names: str, ca: Members | None = None) -> Members:
    return serving_members({}, ca or ca_members({}, NOW), names or NAMES, NOW)


def without(members: Members, name: str) -> Members:
    return {key: value for key, value in members.items() if key != name}


def below(*, root_told: bool) -> Members:
    """A certificate under an intermediate: the chain is served, and clients are told the root or the intermediate."""
    upper = ca_members({}, NOW)
    lower = ca_members({}, NOW)
    given = {**lower, "ca.crt": upper["ca.crt"]}
    members = serving_members({}, given, NAMES, NOW)
    return members if root_told else {**members, "ca.crt": lower["tls.crt"]}


@pytest.mark.parametrize("members", [made(), made(*NAMES, "more.example.com"), below(root_told=False)])
def test_what_clients_would_believe_is_taken(members: Members) -> None:
    require_usable(members, NAMES, NOW)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda found: without(found, "tls.crt"), "missing"),
        (lambda found: without(found, "tls.key"), "missing"),
        (lambda found: {**found, "tls.crt": b"no certificate"}, "missing"),
        (lambda found: {**found, "tls.key": made()["tls.key"]}, "do not fit together"),
        (lambda found: without(found, "ca.crt"), "ca.crt is missing"),
        (lambda found: {**found, "ca.crt": b"nothing"}, "ca.crt is missing"),
        (lambda found: {**found, "ca.crt": ca_members({}, NOW)["ca.crt"]}, "not under ca.crt"),
        (lambda _found: below(root_told=True), "not under ca.crt"),
        (lambda _found: made(NAMES[0]), "not for 127.0.0.1"),
    ],
    ids=[
        "no crt",
        "no key",
        "no pem",
        "other key",
        "no ca",
        "ca no pem",
        "other ca",
        "chain with a gap",
        "other names",
    ],
)
def test_what_a_client_would_refuse_is_refused(change: Callable[[Members], Members], why: str) -> None:
    with pytest.raises(Unusable, match=why) as caught:
        require_usable(change(made()), NAMES, NOW)
    assert "-----" not in str(caught.value)


@pytest.mark.parametrize("when", [NOW - timedelta(days=1), NOW + timedelta(days=61)], ids=["early", "late"])
def test_one_that_is_not_valid_now_is_refused(when: Any) -> None:
    with pytest.raises(Unusable, match="valid from"):
        require_usable(made(), NAMES, when)


def secret(name: str, members: Members) -> dict[str, Any]:
    data = {key: base64.b64encode(value).decode() for key, value in members.items()}
    return obj(kube.SECRETS, name, None, "countersign-system", data=data)


def operator(source: str, *objects: dict[str, Any]) -> Operator:
    given = {"source": source, "webhook_secret": WEBHOOK, "authority_secret": AUTHORITY}
    names = {"webhook_names": NAMES, "authority_names": ("countersign-authority.countersign-system.svc",)}
    return Operator.make(*objects, cluster.namespace(), certificates=given, **names)


PAIR = {WEBHOOK: made(), AUTHORITY: made("countersign-authority.countersign-system.svc")}
SECRETS = [secret(name, members) for name, members in PAIR.items()]
HOOKS = [hooks(kube.MUTATING_WEBHOOKS), hooks(kube.VALIDATING_WEBHOOKS)]


async def test_given_secrets_are_told_to_signers_and_to_the_api_server() -> None:
    one = operator("ExistingSecret", *SECRETS, *HOOKS)
    await one.material.refresh()
    await one.look(cluster.namespace())

    written = [call[1:] for call in changes(one) if call[1] == "Secret"]
    assert written == [("Secret", "countersign-token-keys"), ("Secret", "countersign-nonce-key")]
    for hook in HOOKS:
        bundles = {each["clientConfig"]["caBundle"] for each in one.stored(hook)["webhooks"]}
        assert bundles == {base64.b64encode(bundle_of(PAIR[WEBHOOK])).decode()}
    trust = one.kube.objects[("configmaps", cluster.namespace()["metadata"]["name"], "countersign-trust")]
    assert trust["data"]["ca.crt"].encode() == PAIR[WEBHOOK]["ca.crt"] + PAIR[AUTHORITY]["ca.crt"]


async def test_with_cert_manager_the_bundle_of_the_webhooks_is_left_to_it() -> None:
    one = operator("CertManager", *SECRETS, *HOOKS)
    await one.material.refresh()

    assert one.material.ready
    assert not [call for call in changes(one) if "WebhookConfiguration" in call[1]]
    assert not any(each["clientConfig"].get("caBundle") for each in one.stored(HOOKS[0])["webhooks"])


@pytest.mark.parametrize("source", ["ExistingSecret", "CertManager"])
async def test_until_they_are_there_nothing_is_made_in_their_place(source: str) -> None:
    one = operator(source, SECRETS[0])
    with pytest.raises(kube.NotFound):
        await one.material.refresh()
    assert (one.material.ready, one.material.fault) == (False, f"Secret {AUTHORITY} does not exist")
    assert ("secrets", "countersign-system", "countersign-ca") not in one.kube.objects

    one.kube.put(SECRETS[1])
    await one.material.refresh()
    assert (one.material.ready, one.material.fault) == (True, "")


async def test_one_that_is_no_good_is_named_and_what_signers_were_told_stays() -> None:
    one = operator("ExistingSecret", *SECRETS)
    await one.material.refresh()
    one.kube.put(secret(WEBHOOK, without(PAIR[WEBHOOK], "ca.crt")))

    with pytest.raises(Unusable):
        await one.material.refresh()
    assert one.material.fault == f"Secret {WEBHOOK}: ca.crt is missing: nobody would know whom to believe"
    assert one.material.ready


def expiry(one: Operator, what: str) -> float | None:
    name = "countersign_operator_certificate_expiry_timestamp_seconds"
    return one.metrics.registry.get_sample_value(name, {"secret": f"countersign-{what}"})


async def test_the_ends_of_certificates_and_keys_are_exported_until_another_leads() -> None:
    one = Operator.make()
    await one.material.refresh()
    day, now = 86400, NOW.timestamp()
    assert {what: round(((expiry(one, what) or 0) - now) / day) for what in ("ca", "webhook-tls", "authority-tls")} == {
        "ca": 365,
        "webhook-tls": 60,
        "authority-tls": 60,
    }
    keys = "countersign_operator_token_key_expiry_timestamp_seconds"
    assert one.metrics.registry.get_sample_value(keys) == int(now) + 30 * day

    one.metrics.forget()
    assert expiry(one, "ca") is None


@pytest.fixture(params=["ExistingSecret", "CertManager"])
async def real(request: pytest.FixtureRequest, crds: Plane, tmp_path: Path) -> AsyncIterator[tuple[str, kube.Kube]]:
    """A connection of the operator's ServiceAccount, with the rights that the chart gives it for this source."""
    given = [f"certificates.existingSecret.{each}={each}" for each in ("webhook", "authority")]
    grant(
        crds, "operator", f"certificates.source={request.param}", *(given if request.param == "ExistingSecret" else [])
    )
    token = token_of(crds, "operator", tmp_path / "token")
    connected = await kube.Kube.connect(crds.kubeconfig(tmp_path / "kubeconfig", token))
    yield request.param, connected
    await connected.aclose()
    grant(crds, "operator")
    crds.kubectl("delete", "secret", "-n", SYSTEM, WEBHOOK, AUTHORITY, "--ignore-not-found")


@pytest.mark.plane
async def test_on_a_real_api_server_they_are_read_with_the_charts_rights(
    real: tuple[str, kube.Kube], crds: Plane
) -> None:
    source, connected = real
    given = {"source": source, "webhook_secret": WEBHOOK, "authority_secret": AUTHORITY}
    names = {"webhook_names": NAMES, "authority_names": NAMES}
    settings = OperatorSettings(**SETTINGS | {"certificates": given, "namespace": SYSTEM} | names)
    clock = SystemClock()
    material = Material(connected, settings, clock, OperatorMetrics())
    with pytest.raises(kube.NotFound):
        await material.refresh()

    now = clock.now()
    ca = ca_members({}, now)
    for name in (WEBHOOK, AUTHORITY):
        found = secret(name, serving_members({}, ca, NAMES, now))
        meta = {"name": name, "namespace": SYSTEM}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": meta,
            "data": found["data"],
        }
        crds.kubectl("create", "-f", "-", data=json.dumps(body))
    await material.refresh()
    assert (material.ready, material.fault) == (True, "")
    kept = crds.get("secret", WEBHOOK, "-n", SYSTEM)
    assert "labels" not in kept["metadata"]
    assert "annotations" not in kept["metadata"]

"""The reconciler and the material on an API server in memory: what is written, once, and by whom it may be undone."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support import cluster
from support.cluster import NOW, MemoryKube, account, device, identity, instance, issuer, obj, pod, pool, server

from countersign import kube
from countersign.clock import FakeClock
from countersign.controller import OperatorSettings
from countersign.controller.keys import key_of
from countersign.controller.material import Material
from countersign.controller.metrics import OperatorMetrics
from countersign.controller.reconcile import Reconciler, differs
from countersign.controller.servers import Audiences
from countersign.controller.view import View
from countersign.signer.trust import client_context, read_trust

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "cluster": "demo",
    "webhook_url": "https://127.0.0.1:8443",
    "authority_url": "https://127.0.0.1:9443",
    "webhook_names": ["127.0.0.1", "localhost"],
}


class Events:
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, str]] = []

    async def emit(
        self,
        regarding: dict[str, Any],
        type: str,  # noqa: A002 - the field's name
        reason: str,
        note: str,
        *,
        once: str | None = None,
    ) -> None:
        assert note
        assert once is None or once
        self.written.append((regarding["metadata"]["name"], type, reason))


@dataclass
class Operator:
    """An operator without watches: a test moves its view."""

    kube: MemoryKube
    view: View
    clock: FakeClock
    events: Events
    material: Material
    reconciler: Reconciler
    metrics: OperatorMetrics

    @classmethod
    def make(cls, *objects: dict[str, Any], **settings: Any) -> Operator:
        api, view, clock, events, metrics = MemoryKube(*objects), View(), FakeClock(NOW), Events(), OperatorMetrics()
        material = Material(api, OperatorSettings(**SETTINGS | settings), clock, metrics)  # type: ignore[arg-type]
        audiences = Audiences("https://127.0.0.1:8443", None)
        reconciler = Reconciler(api, view, material, events, audiences, clock, metrics)  # type: ignore[arg-type]
        operator = cls(api, view, clock, events, material, reconciler, metrics)
        operator.watch()
        return operator

    def watch(self) -> None:
        for found in self.kube.objects.values():
            self.view.put(cluster.RESOURCES[found["kind"]], found)

    async def look(self, found: dict[str, Any]) -> None:
        await self.reconciler.look(key_of(cluster.RESOURCES[found["kind"]], found))

    def stored(self, found: dict[str, Any]) -> dict[str, Any]:
        meta = found["metadata"]
        resource = cluster.RESOURCES[found["kind"]]
        return self.kube.objects[(resource.plural, meta.get("namespace") or "", meta["name"])]

    async def until_written(self, found: dict[str, Any]) -> None:
        while "status" not in self.stored(found):
            await self.kube.changed.wait()
            self.kube.changed.clear()

    def secret(self, name: str) -> dict[str, bytes]:
        found = self.kube.objects[("secrets", "countersign-system", name)]
        return {key: base64.b64decode(value) for key, value in found["data"].items()}


ALL = [cluster.namespace(), issuer(), account(), identity(), device(), pool(), pod(), instance(), server()]


def changes(operator: Operator) -> list[tuple[str, str, str]]:
    return [call for call in operator.kube.calls if call[0] != "get"]


async def test_a_status_is_written_once() -> None:
    operator = Operator.make(*ALL)

    for _ in range(3):
        await operator.look(pool())

    assert changes(operator) == [("status", "DevicePool", "racks")]
    assert operator.stored(pool())["status"]["devices"]["total"] == 1


async def test_an_instance_gets_two_conditions_beside_those_of_the_authority() -> None:
    operator = Operator.make(*ALL)

    for _ in range(2):
        await operator.look(instance())

    status = operator.stored(instance())["status"]
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [
        ("Attested", "True"),
        ("Ready", "True"),
        ("Revoked", "False"),
    ]
    assert status["certificate"] == {"notAfter": "2026-11-24T13:00:00Z"}
    assert changes(operator) == [("status", "AgentInstance", "refund-agent-7f9c4")]


async def test_an_instance_that_it_calls_ready_is_counted_though_the_watch_brings_no_news() -> None:
    operator = Operator.make(*ALL)
    await operator.look(identity())
    assert operator.stored(identity())["status"]["readyInstances"] == 0

    for _ in range(3):
        await operator.look(instance())
    async with asyncio.timeout(10):
        key = await operator.reconciler.queue.take()

    assert key == key_of(kube.AGENT_IDENTITIES, identity())
    assert len(operator.reconciler.queue) == 0, "once, and the instance itself not again"
    await operator.look(identity())
    assert operator.stored(identity())["status"]["readyInstances"] == 1


async def test_a_denied_device_revokes_its_instance_for_good() -> None:
    operator = Operator.make(*ALL)
    operator.kube.put(device(state="Denied"))
    operator.watch()

    await operator.look(instance())

    found = operator.stored(instance())
    assert found["spec"]["state"] == "Revoked"
    assert found["spec"]["stateReason"] == "DeviceDenied: Device worker-1 is Denied"
    assert {one["type"]: one["reason"] for one in found["status"]["conditions"]}["Revoked"] == "DeviceDenied"
    assert operator.events.written == [("refund-agent-7f9c4", "Warning", "Revoked")]


async def test_a_watch_that_lags_revokes_nothing() -> None:
    operator = Operator.make(*ALL)
    operator.view.drop(kube.AGENT_IDENTITIES, operator.stored(identity()))

    await operator.look(instance())

    assert operator.stored(instance())["spec"]["state"] == "Active"


async def test_a_watch_that_lags_deletes_nothing() -> None:
    operator = Operator.make(*ALL)
    operator.view.drop(kube.PODS, operator.stored(pod()))

    await operator.look(instance())

    assert operator.stored(instance())["spec"]["state"] == "Active"


async def test_a_leftover_is_deleted_and_a_second_look_finds_nothing() -> None:
    operator = Operator.make(*ALL)
    operator.kube.remove(pod())
    operator.view.drop(kube.PODS, {**pod(), "metadata": {**pod()["metadata"], "resourceVersion": "1"}})

    await operator.look(instance())

    assert ("delete", "AgentInstance", "refund-agent-7f9c4") in operator.kube.calls
    with pytest.raises(kube.NotFound):
        await operator.look(instance())


async def test_somebody_faster_is_not_overwritten() -> None:
    operator = Operator.make(*ALL)
    operator.kube.put(pool(assurance="Hardware"))

    with pytest.raises(kube.Conflict):
        await operator.look(pool())


async def test_a_failed_key_comes_again_and_the_others_do_not_wait() -> None:
    operator = Operator.make(*ALL)
    operator.kube.put(pool(assurance="Software", enrollment="Refuse"))
    reconciler = operator.reconciler
    work = asyncio.create_task(reconciler.run())
    try:
        async with asyncio.timeout(5):
            await operator.until_written(server())
            assert "status" not in operator.stored(pool())
            operator.watch()
            await operator.until_written(pool())
    finally:
        work.cancel()
        await asyncio.wait({work})


async def test_an_object_that_nobody_thought_of_stops_nothing() -> None:
    operator = Operator.make(*ALL, obj(kube.DEVICE_POOLS, "aaa"))
    work = asyncio.create_task(operator.reconciler.run())
    try:
        async with asyncio.timeout(5):
            await operator.until_written(server())
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.wait({work})


async def test_the_secrets_are_made_once() -> None:
    operator = Operator.make()

    for _ in range(2):
        await operator.material.refresh()

    assert changes(operator) == [
        ("create", "Secret", "countersign-token-keys"),
        ("create", "Secret", "countersign-nonce-key"),
        ("create", "Secret", "countersign-ca"),
        ("create", "Secret", "countersign-webhook-tls"),
        ("create", "Secret", "countersign-authority-tls"),
    ]
    assert len(operator.secret("countersign-nonce-key")["key"]) == 32
    assert set(operator.secret("countersign-webhook-tls")) == {"tls.crt", "tls.key", "ca.crt"}
    assert operator.kube.objects[("secrets", "countersign-system", "countersign-webhook-tls")]["type"] == (
        "kubernetes.io/tls"
    )
    assert len(json.loads(operator.secret("countersign-token-keys")["keys.json"])["keys"]) == 1


async def test_what_is_due_is_rotated() -> None:
    operator = Operator.make()
    await operator.material.refresh()
    before = operator.secret("countersign-webhook-tls")
    operator.clock.advance(timedelta(days=41))

    await operator.material.refresh()

    assert operator.secret("countersign-webhook-tls")["tls.crt"] != before["tls.crt"]
    assert operator.secret("countersign-webhook-tls")["ca.crt"] == before["ca.crt"]
    assert len(json.loads(operator.secret("countersign-token-keys")["keys.json"])["keys"]) == 1


async def test_a_given_secret_is_used_and_never_touched() -> None:
    given = obj(
        kube.SECRETS,
        "countersign-webhook-tls",
        None,
        "countersign-system",
        data={key: base64.b64encode(key.encode()).decode() for key in ("tls.crt", "tls.key", "ca.crt")},
    )
    operator = Operator.make(given, cluster.namespace())
    await operator.material.refresh()
    await operator.look(cluster.namespace())

    assert operator.secret("countersign-webhook-tls")["tls.crt"] == b"tls.crt"
    assert not [call for call in changes(operator) if call[2] == "countersign-webhook-tls"]


async def test_token_keys_that_cannot_be_read_are_made_anew() -> None:
    operator = Operator.make()
    await operator.material.refresh()
    secret = operator.kube.objects[("secrets", "countersign-system", "countersign-token-keys")]
    operator.kube.put({**secret, "data": {"keys.json": base64.b64encode(b"{").decode()}})

    await operator.material.refresh()

    assert len(json.loads(operator.secret("countersign-token-keys")["keys.json"])["keys"]) == 1


def hooks(resource: kube.Resource) -> dict[str, Any]:
    webhooks = [{"name": name, "clientConfig": {"url": "https://x"}} for name in ("one", "two")]
    return obj(resource, "countersign", webhooks=webhooks)


async def test_the_api_server_is_told_whom_to_believe() -> None:
    operator = Operator.make(hooks(kube.MUTATING_WEBHOOKS), hooks(kube.VALIDATING_WEBHOOKS))

    for _ in range(2):
        await operator.material.refresh()

    told = base64.b64encode(operator.secret("countersign-webhook-tls")["ca.crt"]).decode()
    for resource in (kube.MUTATING_WEBHOOKS, kube.VALIDATING_WEBHOOKS):
        for webhook in operator.stored(hooks(resource))["webhooks"]:
            assert webhook["clientConfig"] == {"url": "https://x", "caBundle": told}
    assert len([call for call in operator.kube.calls if call[0] == "patch"]) == 2


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        (cluster.namespace(), True),
        (cluster.namespace(labels={}), False),
        (cluster.namespace(labels={"countersign.dev/injection": "disabled"}), False),
        (cluster.namespace("kube-system"), False),
        (cluster.namespace("countersign-system"), False),
        (cluster.namespace(deletionTimestamp="2026-11-24T11:00:00Z"), False),
    ],
)
async def test_signers_of_opted_in_namespaces_are_told_whom_to_believe(
    namespace: dict[str, Any],
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    operator = Operator.make(namespace)
    await operator.look(namespace)
    assert not [one for one in operator.kube.objects if one[0] == "configmaps"]

    await operator.material.refresh()
    await operator.look(namespace)

    found = operator.kube.objects.get(("configmaps", namespace["metadata"]["name"], "countersign-trust"))
    assert (found is not None) is expected
    if found is not None:
        assert found["data"] == {
            "ca.crt": operator.secret("countersign-webhook-tls")["ca.crt"].decode(),
            "authorityURL": "https://127.0.0.1:9443",
            "webhookURL": "https://127.0.0.1:8443",
        }


@pytest.mark.parametrize("nodes", [True, False])
async def test_where_nodes_run_they_are_told_whom_to_believe(nodes: bool) -> None:  # noqa: FBT001 - a table
    own, agents = cluster.namespace("countersign-system", labels={}), cluster.namespace(labels={})
    operator = Operator.make(own, agents, nodes=nodes)
    await operator.material.refresh()
    await operator.look(own)
    await operator.look(agents)
    told = [one for one in operator.kube.objects if one[0] == "configmaps"]
    assert told == ([("configmaps", "countersign-system", "countersign-trust")] if nodes else [])


async def test_the_signer_reads_what_it_is_told(tmp_path: Path) -> None:
    operator = Operator.make(cluster.namespace())
    await operator.material.refresh()
    await operator.look(cluster.namespace())
    for name, text in operator.kube.objects[("configmaps", "billing", "countersign-trust")]["data"].items():
        (tmp_path / name).write_text(text)

    trust = read_trust(tmp_path)

    assert (trust.authority_url, trust.webhook_url) == ("https://127.0.0.1:9443", "https://127.0.0.1:8443")
    assert len(client_context(trust.ca).get_ca_certs()) == 1


async def test_a_trust_configmap_is_put_right_after_a_minute_and_not_written_in_between() -> None:
    operator = Operator.make(cluster.namespace())
    await operator.material.refresh()
    for seconds in (0, 30, 31):
        operator.clock.advance(seconds)
        await operator.look(cluster.namespace())

    assert [call[0] for call in changes(operator) if call[1] == "ConfigMap"] == ["apply", "apply"]


@pytest.mark.parametrize(
    ("present", "wanted", "shared", "expected"),
    [
        (None, {"a": 1}, False, True),
        ({"a": 1}, {"a": 1}, False, False),
        ({"a": 1, "b": 2}, {"a": 1}, False, True),
        ({"a": 1, "b": 2}, {"a": 1}, True, False),
        ({"conditions": [1, 2]}, {"conditions": [2]}, True, False),
        ({"conditions": [1, 2]}, {"conditions": [2]}, False, True),
        ({"conditions": [1]}, {"conditions": [2]}, True, True),
    ],
)
def test_a_status_differs_in_what_is_ours(present: Any, wanted: Any, shared: Any, expected: Any) -> None:
    assert differs({"status": present}, wanted, shared=shared) is expected

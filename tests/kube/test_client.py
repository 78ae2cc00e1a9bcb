"""Reading and writing on the real API server, and what its refusals sound like here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from countersign.clock import FakeClock
from countersign.kube import (
    CONFIG_MAPS,
    DEVICES,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    Conflict,
    Kube,
    KubeError,
    NotFound,
)
from countersign.kube.connection import connect

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane


def config_map(namespace: str, name: str = "c", **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


async def test_create_read_replace_and_delete(kube: Kube, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(namespace, a="1"))
    assert (await kube.get(CONFIG_MAPS, "c", namespace)) == made

    with pytest.raises(Conflict, match=r"create configmaps .*/c: in conflict"):
        await kube.create(CONFIG_MAPS, config_map(namespace))
    newer = await kube.replace(CONFIG_MAPS, {**made, "data": {"a": "2"}})
    with pytest.raises(Conflict, match="read the object again"):
        await kube.replace(CONFIG_MAPS, {**made, "data": {"a": "3"}})
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAPS, "c", namespace, uid="another")

    await kube.delete(CONFIG_MAPS, "c", namespace, uid=newer["metadata"]["uid"])
    with pytest.raises(NotFound, match="not found"):
        await kube.get(CONFIG_MAPS, "c", namespace)


async def test_a_list_of_several_pages_is_one_list(plane: Plane, namespace: str) -> None:
    kube = Kube(await connect(plane.admin_kubeconfig), page=2)
    try:
        for number in range(5):
            await kube.create(CONFIG_MAPS, config_map(namespace, f"c{number}"))

        found = await kube.list(CONFIG_MAPS, namespace, fields="metadata.name!=kube-root-ca.crt")

        assert [one["metadata"]["name"] for one in found] == [f"c{number}" for number in range(5)]
        assert {(one["apiVersion"], one["kind"]) for one in found} == {("v1", "ConfigMap")}
        assert await kube.list(CONFIG_MAPS, namespace, labels="no=such") == []
    finally:
        await kube.aclose()


async def test_patches_of_both_kinds(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, a="1", b="1"))

    merged = await kube.patch(CONFIG_MAPS, "c", {"data": {"a": "2", "b": None}}, namespace)
    tested = await kube.patch(CONFIG_MAPS, "c", [{"op": "add", "path": "/data/c", "value": "3"}], namespace)

    assert merged["data"] == {"a": "2"}
    assert tested["data"] == {"a": "2", "c": "3"}


async def test_apply_gives_up_what_it_no_longer_says_and_leaves_others_fields(kube: Kube, namespace: str) -> None:
    await kube.apply(CONFIG_MAPS, config_map(namespace, a="1", b="1"), "one")
    await kube.apply(CONFIG_MAPS, config_map(namespace, c="1"), "two")
    found = await kube.apply(CONFIG_MAPS, config_map(namespace, a="2"), "one")
    assert found["data"] == {"a": "2", "c": "1"}

    with pytest.raises(Conflict, match='conflict with "one"'):
        await kube.apply(CONFIG_MAPS, config_map(namespace, a="3"), "two", force=False)
    stale = config_map(namespace, a="4")
    stale["metadata"]["resourceVersion"] = "1"
    with pytest.raises(Conflict):
        await kube.apply(CONFIG_MAPS, stale, "one")


async def test_a_status_is_applied_apart_and_by_condition_type(crds: Plane, kube: Kube, namespace: str) -> None:
    del crds
    name = f"d-{namespace}"
    spec = {"poolRef": {"name": "p"}, "binding": {"type": "Node", "node": {"name": name}}}
    head = {"apiVersion": DEVICES.api_version, "kind": "Device", "metadata": {"name": name}}
    await kube.create(DEVICES, {**head, "spec": spec})

    def condition(kind: str) -> dict[str, Any]:
        said = {"type": kind, "status": "True", "reason": "R", "message": "", "observedGeneration": 1}
        return {**said, "lastTransitionTime": "2026-11-24T12:00:00Z"}

    await kube.apply_status(DEVICES, {**head, "status": {"conditions": [condition("Attested")]}}, "one")
    found = await kube.apply_status(DEVICES, {**head, "status": {"conditions": [condition("Conflicted")]}}, "two")

    assert {one["type"] for one in found["status"]["conditions"]} == {"Attested", "Conflicted"}
    with pytest.raises(NotFound):
        await kube.apply_status(DEVICES, {**head, "metadata": {"name": "nobody"}, "status": {}}, "one")
    with pytest.raises(KubeError, match="misspelt"):
        await kube.apply_status(DEVICES, {**head, "status": {"misspelt": 1}}, "one")


async def test_a_watch_tells_changes_and_ends(kube: Kube, namespace: str) -> None:
    _, version = await kube.list_version(CONFIG_MAPS)
    await kube.create(CONFIG_MAPS, config_map(namespace))

    events = [event async for event in kube.watch(CONFIG_MAPS, version, 1)]

    assert ("ADDED", "c") in [(one["type"], one["object"]["metadata"]["name"]) for one in events]


async def test_a_refusal_never_repeats_a_secret(kube: Kube, namespace: str) -> None:
    meta = {"name": "s", "namespace": namespace}
    bad = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"key": "hunter2!"}}
    with pytest.raises(KubeError) as refused:
        await kube.create(SECRETS, bad)
    assert "hunter2" not in str(refused.value)
    assert "create secrets" in str(refused.value)


async def test_a_token_file_is_read_again_when_it_rotates(plane: Plane, namespace: str, tmp_path: Path) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=20s")
    file = tmp_path / "token"
    file.write_text("not.a.token")
    kube = await Kube.connect(plane.kubeconfig(tmp_path / "kubeconfig", file))
    try:
        with pytest.raises(KubeError, match="does not accept this process's credentials") as refused:
            await kube.get(NAMESPACES, namespace)
        assert refused.value.status == 401
        assert "not.a.token" not in str(refused.value)

        token = plane.kubectl("create", "token", "default", "-n", namespace).strip()
        file.write_text(f"{token}\n")
        with pytest.raises(KubeError, match=r"not permitted; grant it .*cannot list resource") as refused:
            await kube.list(PODS, namespace)
        assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
        assert token not in str(refused.value)

        file.unlink()
        with pytest.raises(KubeError, match=r"token file .* cannot be read"):
            await kube.list(PODS, namespace)
    finally:
        await kube.aclose()


async def test_in_a_pod_its_own_account_logs_in(
    plane: Plane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=20s")
    (tmp_path / "ca.crt").write_bytes(plane.ca.pem)
    (tmp_path / "token").write_text(plane.kubectl("create", "token", "default", "-n", namespace))
    host, _, port = plane.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    kube = Kube(await connect(None, account=tmp_path))
    try:
        with pytest.raises(KubeError, match=f"system:serviceaccount:{namespace}:default"):
            await kube.list(PODS, namespace)
    finally:
        await kube.aclose()


async def test_without_a_kubeconfig_only_the_own_pod_will_do() -> None:
    with pytest.raises(KubeError, match="name a kubeconfig"):
        await Kube.connect(None)


@pytest.mark.parametrize(
    "text", ["", "{}", "contexts: 1", ":", "current-context: a\ncontexts: [{name: a, context: {}}]"]
)
async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(KubeError, match=r"kubeconfig .* cannot be used"):
        await Kube.connect(file)


class Ahead(FakeClock):
    """Ten minutes ahead of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=10)


async def test_each_answer_says_how_far_our_clock_is_off(plane: Plane, namespace: str) -> None:
    kube = Kube(await connect(plane.admin_kubeconfig), clock=Ahead(datetime.now(UTC)))
    try:
        assert kube.clock_skew is None
        with pytest.raises(NotFound):
            await kube.get(CONFIG_MAPS, "none", namespace)
        assert kube.clock_skew is not None
        assert 590 < kube.clock_skew < 660
    finally:
        await kube.aclose()


async def test_a_fence_forbids_every_write_but_that_of_a_lease_and_no_read(kube: Kube, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(namespace))

    def fence() -> None:
        raise KubeError("leads no more")

    kube.fence = fence
    writes = [
        lambda: kube.create(CONFIG_MAPS, config_map(namespace, "d")),
        lambda: kube.replace(CONFIG_MAPS, made),
        lambda: kube.patch(CONFIG_MAPS, "c", {"data": {"a": "2"}}, namespace),
        lambda: kube.apply(CONFIG_MAPS, config_map(namespace), "m"),
        lambda: kube.delete(CONFIG_MAPS, "c", namespace),
    ]
    for write in writes:
        with pytest.raises(KubeError, match="leads no more"):
            await write()
    assert await kube.get(CONFIG_MAPS, "c", namespace) == made
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": namespace}}
    await kube.create(LEASES, {**lease, "spec": {}})

"""A crowd on a real control plane: nodes that kwok plays, agents' pods through admission, and their AgentInstances as data.

The operator, the webhook and the authority are real processes, logged in with the chart's ServiceAccounts. What enrolment
would write is written here with the authority's own rights.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countersign import kube
from countersign.authority.instances import MANAGER, instance_name, instance_object
from countersign.controller.plan import is_true
from countersign.demo.machine import Machine
from countersign.demo.processes import leftovers
from countersign.devcluster import LocalCA, find_or_build
from countersign.devcluster.binaries import find_or_build_kwok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

__all__ = ["Crowd", "machine_with_kwok", "surely", "together"]

NODES = 100
NAMESPACES = 10
AGENTS = 4
"""Agents of each namespace."""
_AT_ONCE = 24
_OUTSTANDING = 100
_TRIES = 6
_FAKE = {"kwok.x-k8s.io/node": "fake"}


@contextlib.contextmanager
def machine_with_kwok(told: Callable[[str], None]) -> Iterator[Machine]:
    """Bring up control plane, our processes and kwok; end all of it. To be called on the main thread."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-", ignore_cleanup_errors=True) as place:
        machine = Machine(Path(place) / "run", find_or_build(told), told)
        program = find_or_build_kwok(told)
        try:
            machine.start_plane()
            machine.install_chart()
            machine.start_processes()
            machine.keeper.stop()  # its kubectl every two seconds would be measured too
            flags = ["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]
            flags += [
                "--node-lease-duration-seconds=40",
                "--enable-crds=",
                f"--kubeconfig={machine.plane.admin_kubeconfig}",
            ]
            stages = Path(__file__).with_name("kwok.yaml")
            machine.processes.start("kwok", [program, *flags, f"--config={stages}"], {"HOME": place})
            yield machine
        finally:
            machine.stop()
            for pid in leftovers(machine.processes.mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


async def together(works: Iterable[Awaitable[Any]], at_once: int = _AT_ONCE) -> list[Any]:
    """Do everything, so many at a time; return what it gave."""
    room = asyncio.Semaphore(at_once)

    async def one(work: Awaitable[Any]) -> Any:
        async with room:
            return await work

    return await asyncio.gather(*map(one, works))


async def surely(client: kube.Kube, resource: kube.Resource, body: dict[str, Any]) -> dict[str, Any]:
    """Create an object, again where a busy API server did not answer in time; or return what the first try made."""
    meta = body["metadata"]
    for _ in range(_TRIES):
        try:
            try:
                return await client.create(resource, body)
            except kube.Conflict:
                return await client.get(resource, meta["name"], meta["namespace"])
        except kube.KubeError:
            await asyncio.sleep(1)
    raise RuntimeError(f"{resource.kind} {meta['name']} could not be made")


@dataclass
class Crowd:
    """Who is there so far. ``admin`` makes pods, ``authority`` instances."""

    admin: kube.Kube
    authority: kube.Kube
    devices: list[dict[str, Any]] = field(default_factory=list)
    identities: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    instances: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, machine: Machine) -> AsyncIterator[Crowd]:
        """Connect, and make nodes, devices, namespaces and agents."""
        admin = await kube.Kube.connect(machine.plane.admin_kubeconfig)
        authority = await kube.Kube.connect(machine.layout.kubeconfig("countersign-authority"))
        crowd = cls(admin, authority)
        try:
            await crowd._settle()
            yield crowd
        finally:
            await admin.aclose()
            await authority.aclose()

    async def _settle(self) -> None:
        nodes = [{"metadata": {"name": f"node-{number}", "annotations": _FAKE}} for number in range(NODES)]
        await together(self.admin.create(kube.NODES, {"apiVersion": "v1", "kind": "Node", **one}) for one in nodes)
        await self._make(kube.IDENTITY_ISSUERS, "default", {"trustDomain": "agents.example.com", "type": "Embedded"})
        await self._make(
            kube.DEVICE_POOLS, "lab", {"assurance": "Virtual", "ekRoots": LocalCA("Bench EK CA").pem.decode()}
        )
        self.devices = await together(self._device(number) for number in range(NODES))
        labels = {"countersign.dev/injection": "enabled", "countersign.dev/tpm": "allowed"}
        for number in range(NAMESPACES):
            space = f"team-{number}"
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}
            await self.admin.create(kube.NAMESPACES, body)
            for place in range(AGENTS):
                name = f"agent-{place}"
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}
                await self.admin.create(kube.SERVICE_ACCOUNTS, account)
                spec = {"serviceAccountName": name, "minAssurance": "Virtual", "minKeyTier": "TPM", "tasks": "Optional"}
                self.identities.append(await self._make(kube.AGENT_IDENTITIES, name, spec, space))

    async def _device(self, number: int) -> dict[str, Any]:
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        spec = {
            "poolRef": {"name": "lab"},
            "ek": {"publicKeySHA256": f"sha256:{digest}"},
            "binding": {"type": "Node", "node": {"name": f"node-{number}"}},
            "state": "Approved",
        }
        made = await self._make(kube.DEVICES, f"node-{number}", spec)
        status = {"assurance": "Virtual", "attestationTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        await self._describe(kube.DEVICES, made, status)
        return made

    async def _make(
        self, resource: kube.Resource, name: str, spec: dict[str, Any], namespace: str | None = None
    ) -> dict[str, Any]:
        meta = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}
        return await self.admin.create(resource, body)

    async def pod(self) -> float:
        """Create the next pod through admission; return the seconds that the API server took."""
        number = len(self.pods)
        self.pods.append({})
        identity = self.identities[number % len(self.identities)]["metadata"]
        meta = {"name": f"pod-{number}", "namespace": identity["namespace"], "labels": {"app": identity["name"]}}
        container = {
            "name": "agent",
            "image": "registry.example.com/agent:1",
            "env": [{"name": "LOG", "value": "info"}],
        }
        spec = {
            "serviceAccountName": identity["name"],
            "nodeName": f"node-{number % NODES}",
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
        }
        began = time.perf_counter()
        made = await surely(self.admin, kube.PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        seconds = time.perf_counter() - began
        if not made["spec"].get("initContainers"):
            raise RuntimeError("a pod got no signer")
        self.pods[number] = {"metadata": made["metadata"], "spec": {"nodeName": spec["nodeName"], "containers": []}}
        return seconds

    async def at_a_rate(self, count: int, a_second: int) -> list[float]:
        """Create ``count`` pods, one every so often whether or not the last is there; return the seconds of each.

        A machine that is far too slow for that rate is not asked for more at once than some.
        """
        began, running = time.perf_counter(), []
        room = asyncio.Semaphore(_OUTSTANDING)
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / a_second - time.perf_counter()))
            await room.acquire()
            running.append(asyncio.create_task(self.pod()))
            running[-1].add_done_callback(lambda _done: room.release())
        return await asyncio.gather(*running)

    async def fill(self, pods: int, instances: int) -> None:
        """Create pods and instances until there are so many."""
        await together(self.pod() for _ in range(len(self.pods), pods))
        await together(self._instance(number) for number in range(self.instances, instances))
        self.instances = instances

    async def _instance(self, number: int) -> None:
        """Write what enrolment would have written for a pod."""
        pod, identity = self.pods[number], self.identities[number % len(self.identities)]
        device = self.devices[number % NODES]
        name = instance_name(identity["metadata"]["name"], pod["metadata"]["uid"], 0)
        made = await surely(self.authority, kube.AGENT_INSTANCES, instance_object(name, pod, identity, device))
        now = datetime.now(UTC)
        status = {
            "spiffeID": f"spiffe://agents.example.com/ns/{made['metadata']['namespace']}/sa/{identity['metadata']['name']}",
            "certificate": {
                "serialNumber": f"{number:040x}",
                "keyThumbprint": hashlib.sha256(b"key %d" % number).hexdigest()[:43],
                "notBefore": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                "notAfter": f"{now + timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}",
            },
        }
        await self._describe(kube.AGENT_INSTANCES, made, status)

    async def _describe(self, resource: kube.Resource, made: dict[str, Any], status: dict[str, Any]) -> None:
        """Write a status as the authority."""
        meta = {key: value for key, value in made["metadata"].items() if key in ("name", "namespace", "uid")}
        head = {"apiVersion": made["apiVersion"], "kind": made["kind"], "metadata": meta}
        for _ in range(_TRIES):
            with contextlib.suppress(kube.KubeError):
                await self.authority.apply_status(resource, {**head, "status": status}, MANAGER)
                return
            await asyncio.sleep(1)
        raise RuntimeError(f"{resource.kind} {meta['name']} got no status")

    async def ready(self) -> int:
        """Return how many instances the operator calls Ready."""
        found = await self.admin.list(kube.AGENT_INSTANCES)
        return sum(1 for one in found if is_true(one, "Ready"))

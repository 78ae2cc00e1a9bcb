"""kopf is asked to watch and to do nothing else."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.cluster import MemoryKube, device, pod

from countersign.controller import OperatorSettings
from countersign.controller.context import ProcessContext
from countersign.controller.keys import WATCHED
from countersign.controller.watch import connection_info, kopf_registry, kopf_settings
from countersign.demo.processes import console, ready_code, until
from countersign.devcluster import LocalCA, free_ports, start, write_private
from countersign.devcluster.kubeconfig import write_kubeconfig
from countersign.kube import DEVICES, PODS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from countersign.devcluster import Pair

SERVER = "https://127.0.0.1:1"


def kubeconfig(directory: Path, user: Pair | Path) -> Path:
    return write_kubeconfig(directory / "kubeconfig", server=SERVER, ca=LocalCA("x").pem, user=user)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[ProcessContext]:
    settings = OperatorSettings(
        kubeconfig=kubeconfig(tmp_path, write_private(tmp_path / "token", b"secret")),
        cluster="dev",
        webhook_url="https://w.example",
        authority_url="https://a.example",
    )
    context = await ProcessContext.from_settings(settings)
    yield context
    await context.aclose()


def test_there_are_event_handlers_and_no_others(tmp_path: Path) -> None:
    registry = kopf_registry(tmp_path)

    watched = {handler.id for handler in registry._watching.get_all_handlers()}
    assert watched == {f"see-{resource.plural}" for resource in WATCHED}
    for others in (registry._changing, registry._spawning, registry._webhooks, registry._indexing):
        assert others.get_all_handlers() == []


def test_kopf_writes_no_events_and_looks_for_no_peers() -> None:
    settings = kopf_settings()

    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.persistence.finalizer == "countersign.dev/never"


async def test_kopf_logs_in_with_the_token_that_the_file_has_now(tmp_path: Path) -> None:
    token = write_private(tmp_path / "token", b"first\n")
    file = kubeconfig(tmp_path, token)
    first = await connection_info(file)
    write_private(tmp_path / "token", b"second\n")

    second = await connection_info(file)

    assert (first.server, first.token, second.token) == (SERVER, "first", "second")
    assert second.ca_path is not None
    assert second.certificate_path is None


async def test_kopf_logs_in_with_a_client_certificate(tmp_path: Path) -> None:
    found = await connection_info(kubeconfig(tmp_path, LocalCA("y").issue("somebody")))

    assert found.token is None
    found.as_ssl_context()


async def test_the_memo_is_one_for_all_objects(context: ProcessContext) -> None:
    assert copy.copy(context) is context


def queued(context: ProcessContext) -> set[str]:
    return {f"{key.resource.kind} {key.name}" for key in context.reconciler.queue._keys}


def versioned(found: dict[str, Any], version: int) -> dict[str, Any]:
    return {**found, "metadata": {**found["metadata"], "resourceVersion": str(version)}}


async def test_an_event_lets_its_keys_wait_only_where_somebody_takes_them(context: ProcessContext) -> None:
    context.seen(PODS, None, versioned(pod(), 1))
    assert queued(context) == set()
    assert context.view.get(PODS, "refund-1", "billing") is not None

    context.leader.leading = True
    context.seen(PODS, "MODIFIED", versioned(pod(labels={"a": "b"}), 2))

    assert queued(context) == {"Pod refund-1"}


async def test_a_deletion_is_an_event_too(context: ProcessContext) -> None:
    context.leader.leading = True
    context.seen(DEVICES, None, versioned(device(), 1))

    context.seen(DEVICES, "DELETED", versioned(device(), 2))

    assert context.view.list(DEVICES) == []


async def test_it_is_not_ready_before_everything_was_listed(context: ProcessContext) -> None:
    assert context.faults() == ["first lists"]

    context.complete.set()
    assert context.faults() == []

    context.leader.leading = True
    assert context.faults() == ["serving certificates and token keys"]


async def test_what_a_broken_watch_missed_is_found_by_the_next_list(context: ProcessContext) -> None:
    api = MemoryKube(device(), pod())
    listing = replace(context, kube=api)  # type: ignore[arg-type]
    listing.leader.leading = True
    await listing._list(PODS)
    api.remove(pod())

    await listing._list(PODS)

    assert listing.view.get(PODS, "refund-1", "billing") is None


async def test_a_list_that_fails_is_why_it_is_not_ready(context: ProcessContext) -> None:
    await context._list(PODS)
    context.complete.set()

    [fault] = context.faults()
    assert fault.startswith("list of pods: ")
    assert "secret" not in fault

    await replace(context, kube=MemoryKube())._list(PODS)  # type: ignore[arg-type]
    assert context.faults() == []


def test_without_an_api_server_the_process_says_so_and_ends_when_told(tmp_path: Path) -> None:
    [port] = free_ports(1)
    settings = {
        "kubeconfig": str(kubeconfig(tmp_path, write_private(tmp_path / "token", b"secret"))),
        "cluster": "dev",
        "webhook_url": "https://w.example",
        "authority_url": "https://a.example",
        "health": {"host": "127.0.0.1", "port": port},
    }
    (tmp_path / "operator.yaml").write_text(json.dumps(settings))
    command = [console(), "operator", "--config", str(tmp_path / "operator.yaml")]
    child = start("operator", command, log=tmp_path / "log")
    try:
        assert until(lambda: ready_code(port)[0] == 503, 20) is not None, child.tail()
        child.process.terminate()
        assert child.process.wait(timeout=10) == 0
    finally:
        child.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert "secret" not in (tmp_path / "log").read_text()

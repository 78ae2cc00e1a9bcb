"""``kubectl countersign status``: read everything once, judge it, print it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from countersign.console.cluster import look
from countersign.console.health import Part, Seen, judge
from countersign.console.options import SYSTEM, Config, Context, Namespace, Output, System, Where, run
from countersign.console.output import NO_ANSWER, NOT_WELL, Form, document, line, table

if TYPE_CHECKING:
    from countersign.kube import Kube

__all__ = ["command"]


def command(
    *,
    namespace: Namespace = None,
    output: Output = Form.table,
    kubeconfig: Config = None,
    context: Context = None,
    system: System = SYSTEM,
) -> None:
    """Say whether Countersign is well: its processes, certificates, clock, issuers, devices, identities and policies.

    With --namespace, identities, instances, servers and policies of that namespace alone.

    Exit status: 0 all is well (a Device that waits for approval is); 1 something is not; 2 wrong use; 3 you may not see all of
    it, or the cluster does not answer.

    Examples:  kubectl countersign status   ·   kubectl countersign status -n billing -o json
    """
    where = Where(kubeconfig, context, namespace)
    parts = judge(run(where, lambda kube, _default: _read(kube, system, namespace)))
    states = {one.state for one in parts}
    if output in (Form.json, Form.yaml):
        document(output, {"well": states <= {"ok", "waiting"}, "parts": [asdict(one) for one in parts]})
    else:
        _print(parts, states)
    if "bad" in states:
        raise typer.Exit(NOT_WELL)
    raise typer.Exit(NO_ANSWER if "unknown" in states else 0)


def _print(parts: list[Part], states: set[str]) -> None:
    table(["PART", "STATE", "DETAIL"], [[one.part, one.state, one.detail] for one in parts])
    bad = [one.part for one in parts if one.state == "bad"]
    line()
    if bad:
        line(f"Not well: {', '.join(bad)}.")
    elif "unknown" in states:
        line("Nothing is wrong with what you may see.")
    else:
        line("All is well.")


async def _read(kube: Kube, system: str, namespace: str | None) -> Seen:
    from countersign import kube as api  # noqa: PLC0415 - --help needs no client

    version, server_now = await kube.server()
    now = datetime.now(UTC)
    wanted: dict[str, list[tuple[api.Resource, str | None]]] = {
        "crds": [(api.CRDS, None)],
        "workloads": [(api.DEPLOYMENTS, system), (api.STATEFUL_SETS, system), (api.DAEMON_SETS, system)],
        "pods": [(api.PODS, system)],
        "hooks": [(api.MUTATING_WEBHOOKS, None), (api.VALIDATING_WEBHOOKS, None)],
        "leases": [(api.LEASES, system)],
        "issuers": [(api.IDENTITY_ISSUERS, None)],
        "pools": [(api.DEVICE_POOLS, None)],
        "devices": [(api.DEVICES, None)],
        "identities": [(api.AGENT_IDENTITIES, namespace)],
        "instances": [(api.AGENT_INSTANCES, namespace)],
        "servers": [(api.TOOL_SERVERS, namespace)],
        "policies": [(api.TOOL_POLICIES, namespace), (api.CLUSTER_TOOL_POLICIES, None)],
    }
    found = dict(zip(wanted, await asyncio.gather(*(_all(kube, each) for each in wanted.values())), strict=True))
    scope = "" if namespace is None else f" of {namespace}"
    return Seen(version, now, server_now, system, scope=scope, **found)


async def _all(kube: Kube, each: list[tuple[Any, str | None]]) -> list[dict[str, Any]] | None:
    """Return the objects of several kinds together; None as soon as one of them may not be seen."""
    found = await asyncio.gather(*(look(kube, resource, namespace) for resource, namespace in each))
    return None if any(one is None for one in found) else [obj for one in found for obj in one or []]

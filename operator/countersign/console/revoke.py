"""``kubectl countersign revoke``: end an instance, a pod's instances or a whole Device, and wait until that is seen."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from countersign.console.cluster import condition, find, is_true, look
from countersign.console.options import Config, Context, Namespace, Output, Where, run
from countersign.console.output import NOT_WELL, USAGE, Form, complain, document, fail, line

if TYPE_CHECKING:
    from countersign.kube import Kube

__all__ = ["Target", "command", "find_target"]

_KINDS: Final = ("instance", "pod", "device")
_REASON_MAX: Final = 256
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Target:
    """What is revoked: a Device, or instances; ``instances`` are those that end by it, alive by now."""

    kind: str
    name: str
    device: dict[str, Any] | None
    instances: list[dict[str, Any]]


def command(
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|KIND/NAME", help="AgentInstance, Pod or Device; with instance/, pod/ or device/."),
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept on the instance.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    seconds: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until it is seen; 0: do not wait.")
    ] = 30,
    namespace: Namespace = None,
    output: Output = Form.table,
    kubeconfig: Config = None,
    context: Context = None,
) -> None:
    """Revoke for good: an instance is never Active again; a Device is set to Denied, and all its instances end.

    Calls stop within seconds. The command waits until the cluster shows each instance Revoked, or gone.

    Exit status: 0 revoked and seen; 1 not found, not wanted, or written and not seen in time; 2 wrong use; 3 the cluster does
    not answer or does not let you.

    Examples:  kubectl countersign revoke refund-agent-7f9c4 -n billing --reason "prompt injection, ticket 8123"   ·
    kubectl countersign revoke pod/refund-agent-5d8b9c7f6-x2x9p -n billing   ·   kubectl countersign revoke device/worker-1
    """
    if len(reason) > _REASON_MAX:
        raise fail(f"a reason has at most {_REASON_MAX} characters", USAGE)
    where = Where(kubeconfig, context, namespace)
    found = run(where, lambda kube, default: find_target(kube, what, default))
    if isinstance(found, str):
        raise fail(found, USAGE if "several" in found else NOT_WELL)
    names = [_ref(one) for one in found.instances]
    if not yes and not _confirmed(found, names):
        raise fail("nothing was revoked")
    unseen = run(where, lambda kube, _default: _revoke(kube, found, reason, seconds))
    if output in (Form.json, Form.yaml):
        document(output, {"kind": found.kind, "name": found.name, "instances": names, "seen": not unseen})
    else:
        for name in names:
            line(f"{name}: {'written, and not seen to be Revoked yet' if name in unseen else 'Revoked'}")
        if found.device is not None:
            line(f"device {found.name} is Denied")
    raise typer.Exit(NOT_WELL if unseen else 0)


async def find_target(kube: Kube, what: str, namespace: str) -> Target | str:
    """Return what a name means, or why it cannot be said: a name that several kinds have is nobody's to guess."""
    from countersign.kube import AGENT_INSTANCES, DEVICES, PODS  # noqa: PLC0415 - --help needs no client

    kind, slash, name = what.partition("/")
    if slash and kind not in _KINDS:
        return f"there are several kinds of names: {', '.join(f'{one}/NAME' for one in _KINDS)}"
    kinds, name = ((kind,), name) if slash else (_KINDS, what)
    targets: list[Target] = []
    if "instance" in kinds and (one := await find(kube, AGENT_INSTANCES, name, namespace)) is not None:
        targets.append(Target("instance", name, None, [one]))
    if "pod" in kinds and (pod := await find(kube, PODS, name, namespace)) is not None:
        every = await look(kube, AGENT_INSTANCES, namespace) or []
        mine = [one for one in every if (one["spec"].get("pod") or {}).get("uid") == pod["metadata"]["uid"]]
        if not mine:
            return f"pod {name} has no AgentInstance"
        targets.append(Target("pod", name, None, mine))
    if "device" in kinds and (device := await find(kube, DEVICES, name)) is not None:
        every = await look(kube, AGENT_INSTANCES) or []
        mine = [one for one in every if one["spec"]["deviceRef"]["uid"] == device["metadata"]["uid"]]
        targets.append(Target("device", name, device, mine))
    if len(targets) > 1:
        return f"{name} names several: {', '.join(f'{one.kind}/{name}' for one in targets)}"
    return targets[0] if targets else f"no {' or '.join(kinds)} {name} that you may see in namespace {namespace}"


def _confirmed(found: Target, names: list[str]) -> bool:
    what = f"Deny device {found.name}, and with it" if found.device is not None else "Revoke for good"
    return typer.confirm(f"{what} {', '.join(names) or 'no instance of now'}?", default=False)


async def _revoke(kube: Kube, found: Target, reason: str, seconds: float) -> list[str]:
    """Write, and wait; return which instances are not seen to have ended. Raises KubeError."""
    from countersign.kube import AGENT_INSTANCES, DEVICES  # noqa: PLC0415 - --help needs no client

    if found.device is not None:
        await kube.patch(DEVICES, found.name, _patch(found.device, "Denied", None))
    else:
        for one in found.instances:
            meta = one["metadata"]
            patch = _patch(one, "Revoked", reason or "no reason was given")
            await kube.patch(AGENT_INSTANCES, meta["name"], patch, meta["namespace"])
    end, waiting = time.monotonic() + seconds, list(found.instances)
    with Console(stderr=True).status("waiting until it is seen") as shown:
        while waiting and time.monotonic() < end:
            live = [
                await find(kube, AGENT_INSTANCES, one["metadata"]["name"], one["metadata"]["namespace"])
                for one in waiting
            ]
            waiting = [old for old, now in zip(waiting, live, strict=True) if now is not None and not _ended(old, now)]
            shown.update(f"waiting until it is seen: {len(waiting)} of {len(found.instances)} left")
            if waiting:
                await asyncio.sleep(_LOOK_SECONDS)
    if waiting and seconds:
        complain(f"after {seconds:g} s: {', '.join(_said(one) for one in waiting)}; see kubectl countersign status")
    return [_ref(one) for one in waiting] if seconds else []


def _ended(old: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether the cluster shows that an instance has ended: another of its name has begun, or it says so."""
    return now["metadata"]["uid"] != old["metadata"]["uid"] or is_true(now, "Revoked")


def _said(found: dict[str, Any]) -> str:
    return f"{_ref(found)} is {condition(found, 'Ready').get('reason', 'Unknown')}"


def _patch(found: dict[str, Any], state: str, reason: str | None) -> list[dict[str, Any]]:
    """Change the state of the very object that was looked at."""
    patch: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]}]
    patch.append({"op": "add", "path": "/spec/state", "value": state})
    if reason is not None:
        patch.append({"op": "add", "path": "/spec/stateReason", "value": reason})
    return patch


def _ref(found: dict[str, Any]) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"

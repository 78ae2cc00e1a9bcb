"""``kubectl countersign device``: who approves a TPM sees its endorsement key, and approves that key and no other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from countersign.console.cluster import condition, moment, part
from countersign.console.options import Config, Context, Output, Where, run
from countersign.console.output import NOT_WELL, USAGE, Form, age, complain, document, fail, line, pairs, table
from countersign.kube.errors import Conflict, KubeError

if TYPE_CHECKING:
    from countersign.kube import Kube

__all__ = ["changed", "command", "decide"]

command = typer.Typer(no_args_is_help=True, help="List the TPMs of the inventory, and approve or deny them.")

_INVALID: Final = 422
_SHOWN: Final = 19
_HEADS: Final = ["NAME", "POOL", "STATE", "ATTESTED", "NODE", "EK", "AGE"]
_HEADS_WIDE: Final = [*_HEADS, "ASSURANCE", "MODEL", "FIRMWARE", "INSTANCES", "OWNER", "CONFLICT"]

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of Devices.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Ek = Annotated[
    str | None,
    typer.Option(
        "--ek", help="The endorsement key's digest (sha256:…) that it must be, as the machine itself says it."
    ),
]


@command.command(
    name="list",
    epilog="Examples:  kubectl countersign device list --pending   ·   kubectl countersign device list -o wide",
)
def show(
    *,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that wait for a person.")] = False,
    output: Output = Form.table,
    kubeconfig: Config = None,
    context: Context = None,
) -> None:
    """List Devices: those that wait for approval first.

    Exit status: 0 listed; 2 wrong use; 3 the cluster does not answer or does not let you list Devices.
    """

    async def work(kube: Kube, _namespace: str) -> list[dict[str, Any]]:
        from countersign.kube import DEVICES  # noqa: PLC0415 - --help needs no client

        return await kube.list(DEVICES)

    found = sorted(run(Where(kubeconfig, context), work), key=lambda one: (_state(one) != "Pending", _name(one)))
    chosen = [one for one in found if not pending or _state(one) == "Pending"]
    if output in (Form.json, Form.yaml):
        document(output, chosen)
    elif chosen:
        now = datetime.now(UTC)
        wide = output is Form.wide
        table(_HEADS_WIDE if wide else _HEADS, [_row(one, now, wide=wide) for one in chosen])
    else:
        complain("No Devices found.")


@command.command(
    epilog=(
        "Examples:  kubectl countersign device approve worker-1   ·   "
        "kubectl countersign device approve worker-1 --ek sha256:3f1a… --yes"
    )
)
def approve(
    names: Names, *, ek: Ek = None, yes: Yes = False, kubeconfig: Config = None, context: Context = None
) -> None:
    """Approve Devices, after showing the endorsement key of each; it takes the verb approve on devices.

    Nothing is written if the key, the state or the object itself is no longer what was shown.

    Exit status: 0 all are approved; 1 one was not; 2 wrong use; 3 the cluster does not answer or does not let you.
    """
    _decide(Where(kubeconfig, context), names, "Approved", ek=ek, yes=yes)


@command.command(epilog="Example:  kubectl countersign device deny worker-1 --yes")
def deny(names: Names, *, ek: Ek = None, yes: Yes = False, kubeconfig: Config = None, context: Context = None) -> None:
    """Deny Devices: their instances are revoked and calls stop within seconds.

    Exit status: 0 all are denied; 1 one was not; 2 wrong use; 3 the cluster does not answer or does not let you.
    """
    _decide(Where(kubeconfig, context), names, "Denied", ek=ek, yes=yes)


def _decide(where: Where, names: list[str], state: str, *, ek: str | None, yes: bool) -> None:
    if ek is not None and len(names) != 1:
        raise fail("--ek is for one Device", USAGE)
    good = [_decide_one(where, name, state, ek=ek, yes=yes) for name in names]
    raise typer.Exit(0 if all(good) else NOT_WELL)


def _decide_one(where: Where, name: str, state: str, *, ek: str | None, yes: bool) -> bool:
    device = run(where, lambda kube, _namespace: _get(kube, name))
    if ek is not None and ek != _ek(device):
        complain(f"device {name}: its endorsement key is {_ek(device)}, not {ek}; nothing was written")
        return False
    if _state(device) == state:
        line(f"device {name} is {state} already")
        return True
    pairs(_described(device))
    if not yes and not typer.confirm(f"Set it to {state}?", default=False):
        complain(f"device {name} was left as it is")
        return False
    refusal = run(where, lambda kube, _namespace: decide(kube, device, state))
    if refusal is not None:
        complain(f"device {name}: {refusal}; nothing was written")
        return False
    line(f"device {name} is {state}")
    return True


async def decide(kube: Kube, device: dict[str, Any], state: str) -> str | None:
    """Set the state of the very Device that was shown; return why not, None if it was set. Raises KubeError.

    The API server compares object, key and state with what was shown in the same step in which it writes: an EK is immutable,
    but a Device can be deleted and made again under its name.
    """
    from countersign.kube import DEVICES  # noqa: PLC0415 - --help needs no client

    patch = [{"op": "test", "path": "/metadata/uid", "value": device["metadata"]["uid"]}]
    if _ek(device):
        patch.append({"op": "test", "path": "/spec/ek/publicKeySHA256", "value": _ek(device)})
    patch.append({"op": "test", "path": "/spec/state", "value": _state(device)})
    patch.append({"op": "replace", "path": "/spec/state", "value": state})
    try:
        await kube.patch(DEVICES, _name(device), patch)
    except Conflict:
        return "it was changed by somebody else at this moment; look again"
    except KubeError as error:
        live = await _get(kube, _name(device)) if error.status == _INVALID else None
        why = None if live is None else changed(device, live)
        if why is None:
            raise
        return why
    return None


def changed(shown: dict[str, Any], live: dict[str, Any]) -> str | None:
    """Return how a Device is another than the one that was shown, of what matters to who approves; None if it is not."""
    if _ek(live) != _ek(shown):
        return f"its endorsement key is {_ek(live)} now, and was {_ek(shown)}"
    if live["metadata"]["uid"] != shown["metadata"]["uid"]:
        return "it is another object of that name now"
    if _state(live) != _state(shown):
        return f"it is {_state(live)} now, and was {_state(shown)}"
    return None


async def _get(kube: Kube, name: str) -> dict[str, Any]:
    from countersign.kube import DEVICES  # noqa: PLC0415 - --help needs no client

    return await kube.get(DEVICES, name)


def _described(device: dict[str, Any]) -> list[tuple[str, str]]:
    status = device.get("status") or {}
    seen = [str(status[word]) for word in ("manufacturer", "model", "firmware") if status.get(word)]
    conflict = condition(device, "Conflicted")
    found = [
        ("device", _name(device)),
        ("endorsement key", _ek(device) or "none"),
        ("pool", str(part(device, "spec", "poolRef", "name") or "")),
        ("bound to", _bound(device)),
        ("TPM", " ".join(seen) or "not seen yet"),
        ("state", _state(device)),
    ]
    if conflict.get("status") == "True":
        found.append(("conflict", f"{conflict.get('reason')}: {conflict.get('message')}"))
    return found


def _row(device: dict[str, Any], now: datetime, *, wide: bool) -> list[str]:
    status, made = device.get("status") or {}, moment(device["metadata"].get("creationTimestamp"))
    ek = _ek(device)
    cells = [_name(device), str(part(device, "spec", "poolRef", "name") or ""), _state(device)]
    cells += [str(condition(device, "Attested").get("status") or ""), _bound(device)]
    cells += [ek if wide else ek[:_SHOWN], "" if made is None else age((now - made).total_seconds())]
    if wide:
        conflict = condition(device, "Conflicted")
        cells += [str(status.get(word) or "") for word in ("assurance", "model", "firmware", "instances")]
        cells += [str(device["spec"].get("owner") or "")]
        cells += [str(conflict.get("reason")) if conflict.get("status") == "True" else ""]
    return cells


def _bound(device: dict[str, Any]) -> str:
    users = part(device, "spec", "binding", "users")
    return str(part(device, "spec", "binding", "node", "name") or ", ".join(users or []))


def _ek(device: dict[str, Any]) -> str:
    return str(part(device, "spec", "ek", "publicKeySHA256") or "")


def _state(device: dict[str, Any]) -> str:
    return str(device["spec"].get("state") or "Pending")


def _name(device: dict[str, Any]) -> str:
    return str(device["metadata"]["name"])

"""``kubectl countersign why``: who a pod is, and why a call was denied."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from countersign.audit import Filters
from countersign.console.cluster import find, look, part
from countersign.console.diagnosis import Diagnosis, PodFacts, diagnose, hint
from countersign.console.options import SYSTEM, Config, Context, Namespace, Output, System, Where, run
from countersign.console.output import NOT_WELL, Form, document, fail, line, pairs
from countersign.policytools.reason import explanation, lines

if TYPE_CHECKING:
    from countersign.kube import Kube

__all__ = ["command"]

_DECISION: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def command(
    what: Annotated[str, typer.Argument(metavar="POD|DECISION", help="Name of a Pod, or id of a decision.")],
    *,
    namespace: Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Look for the decision in the records of every namespace.")
    ] = False,
    output: Output = Form.table,
    kubeconfig: Config = None,
    context: Context = None,
    system: System = SYSTEM,
) -> None:
    """Explain a pod (is it an agent, which, injected, on which device, what was refused), or a decision by its id.

    A decision is read from the audit log with your own rights, as `kubectl countersign audit` reads it.

    Exit status: 0 the pod is an agent that may call, or the decision was allow; 1 it is not, or nothing was found; 2 wrong use;
    3 the cluster does not answer or does not let you look.

    Examples:  kubectl countersign why refund-agent-5d8b9c7f6-x2x9p -n billing   ·
    kubectl countersign why 019f1c2e-7b1a-7c3d-9e4f-5a6b7c8d9e0f -n billing
    """
    where = Where(kubeconfig, context, namespace)
    if _DECISION.fullmatch(what):
        raise typer.Exit(_decision(where, system, what, output, everywhere=everywhere))
    found = run(where, lambda kube, default: _facts(kube, what.removeprefix("pod/"), default))
    if found is None:
        raise fail(f"no pod {what} that you may see in this namespace")
    answer = diagnose(found)
    if output in (Form.json, Form.yaml):
        document(output, _as_data(answer))
    else:
        _print(answer)
    raise typer.Exit(0 if answer.well else NOT_WELL)


def _decision(where: Where, system: str, decision: str, output: Form, *, everywhere: bool) -> int:
    from countersign.console.audit import records  # noqa: PLC0415 - a pod needs none of it

    found = records(where, system, Filters(decision=decision), 1, everywhere=everywhere).records
    if not found:
        raise fail(f"no record of decision {decision} in this namespace; it may be of another one (-n, -A)")
    told = explanation(found[0])
    step = "" if told["answer"] == "allow" else hint(str(told["code"]))
    if output in (Form.json, Form.yaml):
        document(output, told | ({"next": step} if step else {}))
    else:
        pairs([*lines(told), *([("next", step)] if step else [])])
    return 0 if told["answer"] == "allow" else NOT_WELL


async def _facts(kube: Kube, name: str, namespace: str) -> PodFacts | None:
    from countersign import kube as api  # noqa: PLC0415 - --help needs no client

    pod = await find(kube, api.PODS, name, namespace)
    if pod is None:
        return None
    space = await find(kube, api.NAMESPACES, namespace)
    return PodFacts(
        pod={"apiVersion": "v1", "kind": "Pod", **pod},
        labels=None if space is None else dict(part(space, "metadata", "labels") or {}),
        identities=await look(kube, api.AGENT_IDENTITIES, namespace),
        instances=await look(kube, api.AGENT_INSTANCES, namespace),
        devices=await look(kube, api.DEVICES),
        events=await look(kube, api.EVENTS, namespace),
        now=datetime.now(UTC),
    )


def _print(answer: Diagnosis) -> None:
    pairs(answer.lines)
    line()
    line("It is an agent and may call." if answer.well else "It may not call.")
    if answer.next:
        pairs(("next" if place == 0 else "", step) for place, step in enumerate(answer.next))


def _as_data(answer: Diagnosis) -> dict[str, Any]:
    said = [{"what": word.strip(), "text": text} for word, text in answer.lines]
    return {"well": answer.well, "found": said, "next": answer.next}

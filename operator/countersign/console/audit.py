"""``kubectl countersign audit``: records of calls, read with the person's own rights; below it what reads files."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from countersign.audit import MOST_RECORDS, Filters, Row, row_of
from countersign.audit.main import command as files
from countersign.audit.moment import moment
from countersign.console.options import SYSTEM, Config, Context, Namespace, Output, System, Where, run
from countersign.console.output import NO_ANSWER, NOT_WELL, USAGE, Form, complain, document, fail, table

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.console.asking import Answer
    from countersign.kube import Kube

__all__ = ["command", "records"]


command = typer.Typer(
    epilog=(
        "Examples:  kubectl countersign audit -n billing --answer deny --since 1h   ·   "
        "kubectl countersign audit -A --code policy. -o json   ·   countersign audit verify DIR"
    ),
)
# verify, query and tail read files and need no cluster.
command.registered_commands += files.registered_commands


class Effect(StrEnum):
    """What was answered."""

    allow = "allow"
    deny = "deny"


@command.callback(invoke_without_command=True)
def read(  # noqa: PLR0913 - each is an option that people type
    ctx: typer.Context,
    *,
    namespace: Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of every namespace; takes the right to audit every one.")
    ] = False,
    agent: Annotated[str | None, typer.Option(help="SPIFFE ID or its last part, or NAMESPACE/INSTANCE.")] = None,
    user: Annotated[str | None, typer.Option(help="User of the task.")] = None,
    tool: Annotated[str | None, typer.Option(help="Name of the tool.")] = None,
    device: Annotated[str | None, typer.Option(help="Name or UID of the Device.")] = None,
    decision: Annotated[str | None, typer.Option(help="Decision id, as the caller was shown it.")] = None,
    code: Annotated[str | None, typer.Option(help="Reason code, or a family with its dot, such as policy.")] = None,
    answer: Annotated[Effect | None, typer.Option(help="allow or deny.")] = None,
    since: Annotated[str, typer.Option(help="RFC 3339 time, or an age such as 30m, 2h, 7d.")] = "24h",
    until: Annotated[str | None, typer.Option(help="RFC 3339 time, or an age; that instant is not included.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_RECORDS, help="How many records, the newest.")] = 100,
    output: Output = Form.table,
    kubeconfig: Config = None,
    context: Context = None,
    system: System = SYSTEM,
) -> None:
    """Read the record of every decision: of a live cluster, or with a subcommand of files.

    Prints the newest records of calls by agents of a namespace, from every webhook, by time.

    It takes the verb audit on agentinstances.countersign.dev in that namespace (ClusterRole countersign-auditor) and the way to
    the webhook (countersign-audit-reader): docs/wire.md, section 9.1. The webhook asks the API server for both at each question.

    Exit status: 0 printed, also if nothing matches; 1 refused; 2 wrong use; 3 the cluster does not answer.
    """
    if ctx.invoked_subcommand is not None:
        return
    filters = Filters(
        agent=agent,
        user=user,
        tool=tool,
        device=device,
        decision=decision,
        code=code,
        answer=None if answer is None else answer.value,
        since=_time(since, "--since"),
        until=_time(until, "--until"),
    )
    found = records(Where(kubeconfig, context, namespace), system, filters, limit, everywhere=everywhere)
    for webhook in found.silent:
        complain(f"warning: no records from {webhook}")
    if output in (Form.json, Form.yaml):
        document(output, found.records)
    elif not found.records:
        complain("No records found.")
    else:
        _show([row_of(record) for record in found.records], wide=output is Form.wide)
        if found.more:
            complain(f"There are older ones: only the newest {limit} are shown (--limit, --since, --until).")
    raise typer.Exit(NO_ANSWER if found.silent else 0)


def records(where: Where, system: str, filters: Filters, limit: int, *, everywhere: bool) -> Answer:
    """Return the records, or end the command with what the webhooks said."""
    from countersign.console.asking import NoRecordsError, ask  # noqa: PLC0415 - --help needs no client

    async def work(kube: Kube, namespace: str) -> Answer:
        return await ask(kube, system, namespace, None if everywhere else namespace, filters, limit)

    try:
        return run(where, work)
    except NoRecordsError as error:
        raise fail(str(error), NOT_WELL) from error


def _show(rows: list[Row], *, wide: bool) -> None:
    heads = ["TIME", "ANSWER", "CODE", "AGENT", "TOOL"]
    if wide:
        heads += ["DEVICE", "USER", "DECISION", "INSTANCE", "SERVICE", "POLICY", "RULE", "TIER", "PEER"]
    # With two blanks between, a row with usual names has its place in 80 columns.
    table(heads, [_cells(row, wide=wide) for row in rows], gap=2)


def _cells(row: Row, *, wide: bool) -> list[str]:
    cells: list[Any] = [f"{row.time:%Y-%m-%dT%H:%M:%SZ}", row.answer, row.code]
    cells += [row.agent if wide else row.agent.rpartition("/")[2], row.tool]
    if wide:
        cells += [row.device, row.user, row.decision, row.instance, row.service, row.policy, row.rule]
        cells += [row.key_tier, row.peer]
    return cells


def _time(value: str | None, option: str) -> datetime | None:
    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise fail(f"{option} is {error}", USAGE) from error

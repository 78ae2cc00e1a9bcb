"""The command ``countersign audit``: verify logs, and search them."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from countersign.audit.kept import read_heads, read_jwks
from countersign.audit.moment import moment
from countersign.audit.query import Filters, query
from countersign.audit.shown import Output, Shown, reading
from countersign.audit.tail import Tail
from countersign.audit.verify import VerifyReport, verify_log

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.audit.heads import HeadKeys

__all__ = ["command"]

command = typer.Typer(no_args_is_help=True, help="Verify and search the record of every decision.")

_BROKEN: Final = 1
_USAGE: Final = 2
_TAIL_SECONDS: Final = 0.5


class Form(StrEnum):
    """How the result of a verification is printed."""

    text = "text"
    json = "json"


class Answer(StrEnum):
    """What was answered."""

    allow = "allow"
    deny = "deny"


Logs = Annotated[
    list[Path], typer.Argument(metavar="DIR|FILES", help="Directories of logs, or log files.", show_default=False)
]


@command.command(
    epilog=(
        "Examples:  countersign audit verify /var/lib/countersign/audit   ·   kubectl get configmaps -n countersign-system "
        "-l countersign.dev/audit=head -o json | countersign audit verify DIR --heads -"
    )
)
def verify(
    logs: Logs,
    *,
    heads: Annotated[
        str | None,
        typer.Option(help="File (or - for standard input) with signed heads: one JWS a line, or ConfigMaps as JSON."),
    ] = None,
    jwks: Annotated[
        list[Path] | None,
        typer.Option(
            help="JWKS of the issuer, as /.well-known/jwks.json answered when the heads were signed; repeatable."
        ),
    ] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="text or json.")] = Form.text,
) -> None:
    """Check that no record was edited, removed, added or moved, within each log and from log to log.

    Signed heads tell where a log stood: one inside or outside the logs whose lines are not there any more is a fault.

    Exit status: 0 the logs are whole, 1 the chain is broken, 2 wrong use or unreadable files.
    """
    kept, keys = _kept(heads, jwks or [])
    report = _verified(logs, kept, keys)
    if output is Form.json:
        typer.echo(json.dumps(_report(report), indent=1))
    else:
        _print(report)
    raise typer.Exit(0 if report.ok else _BROKEN)


def _kept(heads: str | None, jwks: list[Path]) -> tuple[list[str], HeadKeys | None]:
    """Read heads and keys; None for keys if none are given, so that no signature can be checked."""
    found: list[str] = []
    keys: HeadKeys = {}
    name = ""
    try:
        if heads is not None:
            name = heads
            found, keys = read_heads(typer.get_text_stream("stdin").read() if heads == "-" else Path(heads).read_text())
            if not found:
                raise _usage("there is no head in what --heads names")
        for path in jwks:
            name = str(path)
            keys |= read_jwks(path.read_text())
    except (OSError, ValueError) as error:
        raise _usage(f"cannot read {name}: {error}") from error
    return found, keys or None


def _verified(logs: list[Path], heads: list[str], keys: HeadKeys | None) -> VerifyReport:
    try:
        with reading(_there(logs)) as told:
            report = verify_log(logs, heads=heads, keys=keys, told=told)
    except OSError as error:
        raise _usage(f"cannot read {error.filename}: {error.strerror}") from error
    if not (report.logs or heads):
        raise _usage("there are no logs (*.jsonl)")
    return report


def _there(logs: list[Path]) -> list[Path]:
    for path in logs:
        if not path.exists():
            raise _usage(f"{path} does not exist")
    return logs


def _usage(text: str) -> typer.Exit:
    typer.echo(f"countersign audit: {text}", err=True)
    return typer.Exit(_USAGE)


def _report(report: VerifyReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "records": report.records,
        "logs": [
            {"log": log.log, "records": log.records, "head": log.head, "follows": log.follows} for log in report.logs
        ],
        "faults": [{"log": fault.log, "line": fault.line, "what": fault.what} for fault in report.faults],
        "notes": list(report.notes),
    }


def _print(report: VerifyReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for log in report.logs:
        follows = f", follows {log.follows}" if log.follows else ""
        console.print(f"{log.log}: {log.records} records, head {log.head}{follows}", markup=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False)
    for fault in report.faults:
        console.print(f"BROKEN: {fault}", style="red", markup=False)
    word = "whole" if report.ok else "BROKEN"
    console.print(f"{report.records} records in {len(report.logs)} logs: the chain is {word}", markup=False)


@command.command(
    name="query",
    epilog=(
        "Examples:  countersign audit query DIR --answer deny --since 1h   ·   "
        "countersign audit query DIR --code policy. --tool create_refund -o json"
    ),
)
def search(  # noqa: PLR0913 - each is an option that people type
    logs: Logs,
    *,
    agent: Annotated[str | None, typer.Option(help="SPIFFE ID or its last part, or NAMESPACE/INSTANCE.")] = None,
    user: Annotated[str | None, typer.Option(help="User of the task.")] = None,
    tool: Annotated[str | None, typer.Option(help="Name of the tool.")] = None,
    device: Annotated[str | None, typer.Option(help="Name or UID of the Device.")] = None,
    decision: Annotated[str | None, typer.Option(help="Decision id, as the caller was shown it.")] = None,
    code: Annotated[str | None, typer.Option(help="Reason code, or a family with its dot, such as policy.")] = None,
    answer: Annotated[Answer | None, typer.Option(help="allow or deny.")] = None,
    since: Annotated[str | None, typer.Option(help="RFC 3339 time, or an age such as 30m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339 time, or an age; that instant is not included.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, wide or json (one record a line).")] = (
        Output.table
    ),
) -> None:
    """Print the records that match every option given, by time. Verify the logs first if it matters."""
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
    try:
        with reading(_there(logs)) as told:
            Shown(output).add(query(logs, filters, told))
    except OSError as error:
        raise _usage(f"cannot read {error.filename}: {error.strerror}") from error


@command.command(
    epilog="Examples:  countersign audit tail DIR -f   ·   countersign audit tail DIR -n 100 --answer deny -o json"
)
def tail(
    logs: Logs,
    *,
    agent: Annotated[str | None, typer.Option(help="SPIFFE ID or its last part, or NAMESPACE/INSTANCE.")] = None,
    tool: Annotated[str | None, typer.Option(help="Name of the tool.")] = None,
    code: Annotated[str | None, typer.Option(help="Reason code, or a family with its dot, such as policy.")] = None,
    answer: Annotated[Answer | None, typer.Option(help="allow or deny.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the records there are.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records, until interrupted.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, wide or json (one record a line).")] = (
        Output.table
    ),
) -> None:
    """Print the newest records, and with --follow those that come."""
    filters = Filters(agent=agent, tool=tool, code=code, answer=None if answer is None else answer.value)
    following = Tail(_there(logs), filters)
    shown = Shown(output)
    try:
        shown.add(following.newest(lines))
        while follow:
            if not following.behind:
                time.sleep(_TAIL_SECONDS)
            shown.add(following.new())
    except OSError as error:
        raise _usage(f"cannot read {error.filename}: {error.strerror}") from error


def _time(value: str | None, option: str) -> datetime | None:
    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise _usage(f"{option} is {error}") from error

"""``countersign demo``: tell the story on this machine, print a line a scene, and leave nothing running, unless asked to."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from countersign.demo.kept import keep_running
from countersign.demo.layout import require_ports
from countersign.demo.machine import Machine
from countersign.demo.quickstart import AGENT_PORTS
from countersign.demo.scenes import LAST, SCENES
from countersign.demo.story import tell
from countersign.devcluster import find_or_build, missing_packages, state
from countersign.devcluster.packages import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.demo.story import Result, Scene

__all__ = ["NAME", "command"]

NAME: Final = "demo"
_SURPRISED: Final = 1
_CANNOT: Final = 2


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def command(
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print; progress goes to stderr.")
    ] = Output.TEXT,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running and say how to try it; stop it with: countersign dev down")
    ] = False,
) -> None:
    """Run the main job end to end on a real API server and TPM simulators, then attack it; every scene says what it saw.

    The exit status is 1 when a scene saw a surprise, 2 when the machine lacks something.

    Examples:  countersign demo   ·   countersign demo -o json | jq .scenes   ·   countersign demo --keep
    """
    progress = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        progress.print(Text(f"==> {line}", style="dim"), soft_wrap=True)

    if missing := missing_packages():
        typer.echo(f"Debian packages are missing. Run as root:\n  {install_command(missing)}", err=True)
        raise typer.Exit(_CANNOT)
    show = progress if output is Output.JSON else Console(highlight=False)
    with state.single(NAME):
        if (before := state.read(NAME)) is not None:
            say("stopping the demo that was kept running")
            state.stop(before)
        try:
            require_ports(AGENT_PORTS)
            machine = Machine(state.run_directory(NAME), find_or_build(say), say, keep=keep)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            typer.echo(f"countersign demo: {error}", err=True)
            raise typer.Exit(_CANNOT) from error
        results = _play(machine, show, keep=keep)
        failed = sum(not each.passed for each in results)
        if output is Output.JSON:
            typer.echo(json.dumps({"scenes": [each.document for each in results]}, indent=1, ensure_ascii=False))
        if failed:
            show.print(f"logs of every process: {machine.layout.directory / 'logs'}", soft_wrap=True)
        typer.echo(f"{len(results) - failed} passed, {failed} failed", err=output is Output.JSON)
    if failed:
        raise typer.Exit(_SURPRISED)


def _play(machine: Machine, show: Console, *, keep: bool) -> list[Result]:
    """Tell the story; whatever ends it, what runs is ended too, or recorded if it is kept."""
    count = len(SCENES) + (not keep)
    results: list[Result] = []

    def begins(scene: Scene) -> None:
        machine.say(f"{len(results) + 1}/{count} {scene.name}")
        if keep:
            machine.record(NAME)  # so that `countersign dev down` finds it even if this process is killed

    kept = False
    try:
        with _interruptible():
            for result in tell(machine, SCENES, begins):
                results.append(result)
                _show(show, result)
            if keep and all(each.passed or not each.vital for each in results):
                keep_running(machine, NAME, show)
                kept = True
    finally:
        if not kept:
            machine.stop()
            state.forget(NAME)
    if not keep:
        results.extend(tell(machine, [LAST], begins))
        _show(show, results[-1])
    return results


def _show(show: Console, result: Result) -> None:
    """Print one scene: verdict, name, what was expected, what was seen, how long it took."""
    line = Text("PASS " if result.passed else "FAIL ", style="bold green" if result.passed else "bold red")
    line.append(result.name, style="bold")
    line.append(f" · expected: {result.expected} · saw: ", style="default")
    several = "\n" in result.observed
    line.append("\n" + result.observed if several else result.observed, style="cyan")
    line.append(f" ({result.seconds:.1f} s)" if not several else f"\n({result.seconds:.1f} s)", style="dim")
    show.print(line, soft_wrap=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the story as Ctrl-C does: by an exception, so that everything is cleaned up."""

    def ended(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Find the commands by their entry points and import only the one that runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from importlib.metadata import entry_points

import typer

from countersign import __version__

__all__ = ["complete", "main"]

_GROUP = "countersign.commands"
_HELP = "Every tool call an agent makes is countersigned by the hardware it runs on."
_EXTRA = dict.fromkeys(("audit", "device", "revoke", "status", "why"), "console")
"""Extras that are not called as the command is."""
_NO_FILES = 4
"""What kubectl's completion is told: offer nothing but this."""
_EPILOG = "Examples:  countersign demo   ·   countersign dev up   ·   countersign audit verify DIR"


def _version(asked: bool) -> None:  # noqa: FBT001 - the signature that typer gives a callback
    if asked:
        typer.echo(f"countersign {__version__}")
        raise typer.Exit


def _root(
    *,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    del version


def _missing(name: str, reason: str) -> typer.Typer:
    """Return a command that says what to install: a process's extra is not everywhere."""
    app = typer.Typer(add_completion=False, help=f"Not installed here ({reason}).")

    @app.callback(invoke_without_command=True)
    def refuse() -> None:
        extra = _EXTRA.get(name, name)
        typer.echo(f"countersign {name}: {reason}; install the extra that brings it: countersign[{extra}]", err=True)
        raise typer.Exit(2)

    return app


def _console(wanted: str | None, *, as_plugin: bool) -> typer.Typer:
    """Build the console; with ``wanted``, a command's name, only that one is imported."""
    app = typer.Typer(
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=not as_plugin,  # kubectl completes its plugins by itself, see complete
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    points = {point.name: point for point in entry_points(group=_GROUP)}
    for name in [wanted] if wanted in points else sorted(points):
        try:
            command = points[name].load()
        except ImportError as error:
            command = _missing(name, str(error))
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> None:
    """Run the console; the exit status is the command's."""
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    as_plugin = sys.argv[0].endswith("kubectl-countersign")
    _console(wanted, as_plugin=as_plugin)(prog_name="kubectl countersign" if as_plugin else "countersign")


def complete() -> None:
    """Answer kubectl's completion: the words typed after ``kubectl countersign`` in, one suggestion a line out.

    kubectl looks for ``kubectl_complete-countersign`` and wants what cobra's completion wants, a directive in the last line.
    """
    words = sys.argv[1:] or [""]
    wanted = next((word for word in words[:-1] if not word.startswith("-")), None)
    if wanted is None and not words[-1].startswith("-"):
        for name in sorted(point.name for point in entry_points(group=_GROUP) if point.name.startswith(words[-1])):
            typer.echo(name)  # a name needs no import of what it names
        typer.echo(f":{_NO_FILES}")
        return
    # The shell's own way to ask: typer answers with one suggestion a line and ends.
    os.environ |= {
        "_COUNTERSIGN_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["countersign", *words]),
        "COMP_CWORD": str(len(words)),
    }
    with contextlib.suppress(SystemExit):
        _console(wanted, as_plugin=False)(prog_name="countersign")
    typer.echo(f":{_NO_FILES}")

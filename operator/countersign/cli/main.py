"""Find the commands by their entry points and import only the one that runs."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from countersign import __version__

if TYPE_CHECKING:
    import click

__all__ = ["main"]

_GROUP = "countersign.commands"


def _load(point: EntryPoint) -> Any:
    command = point.load()
    return typer.main.get_command(command) if isinstance(command, typer.Typer) else command


class _Commands(TyperGroup):
    """A group whose members are entry points: listing loads all, running loads one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the installed commands, in order."""
        del ctx
        return sorted(entry_points(group=_GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        """Load the command, or return None so that the caller says that there is none."""
        del ctx
        found = [point for point in entry_points(group=_GROUP) if point.name == cmd_name]
        if not found:
            return None
        try:
            command = _load(found[0])
        except ImportError as missing:
            return _missing(cmd_name, str(missing))
        command.name = cmd_name
        return command


def _missing(name: str, reason: str) -> Any:
    app = typer.Typer(add_completion=False, help=f"Not installed here: {reason}.")

    @app.command()
    def refuse() -> None:
        typer.echo(f"countersign {name}: {reason}; install the extra that brings it: countersign[{name}]", err=True)
        raise typer.Exit(2)

    return typer.main.get_command(app)


_app = typer.Typer(
    cls=_Commands,
    help="Every tool call an agent makes is countersigned by the hardware it runs on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:  countersign demo   ·   countersign dev up   ·   countersign audit verify DIR",
)


@_app.callback(invoke_without_command=True)
def _root(*, version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        typer.echo(f"countersign {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the console; the exit status is the command's."""
    _app(prog_name="kubectl countersign" if sys.argv[0].endswith("kubectl-countersign") else "countersign")

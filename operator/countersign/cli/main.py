"""Find the commands by their entry points and import only the one that runs."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from countersign import __version__

__all__ = ["main"]

_GROUP = "countersign.commands"
_HELP = "Every tool call an agent makes is countersigned by the hardware it runs on."
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
        typer.echo(f"countersign {name}: {reason}; install the extra that brings it: countersign[{name}]", err=True)
        raise typer.Exit(2)

    return app


def _console(wanted: str | None) -> typer.Typer:
    """Build the console; with ``wanted``, a command's name, only that one is imported."""
    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
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
    _console(wanted)(prog_name="kubectl countersign" if as_plugin else "countersign")

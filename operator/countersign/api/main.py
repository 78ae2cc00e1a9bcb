"""The command ``countersign crds``: write the CRDs from the models, or check that they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from countersign.api.generate import differences, write

__all__ = ["command"]

_DIFFERENT: Final = 1
_USAGE: Final = 2
_MARK: Final = "operator/countersign/api"


def command(
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 and name what differs.")] = False,
    root: Annotated[Path, typer.Option(metavar="DIR", help="The repository.", show_default="here")] = Path(),
) -> None:
    """Write crds/*.yaml and the chart's copy of them from the models in operator/countersign/api.

    Exit status: 0 the files are as they should be, 1 with --check if one is not, 2 wrong use.

    Examples:  countersign crds   ·   countersign crds --check   ·   countersign crds && kubectl apply -f crds/
    """
    if not (root / _MARK).is_dir():
        typer.echo(f"countersign crds: {root.resolve()} is not Countersign's repository: it has no {_MARK}", err=True)
        raise typer.Exit(_USAGE)
    if not check:
        for name in write(root):
            typer.echo(f"wrote {name}" if (root / name).exists() else f"removed {name}")
        return
    differ = differences(root)
    for name in differ:
        typer.echo(f"not as the models say: {name}", err=True)
    if differ:
        typer.echo("run `countersign crds` and look at the diff", err=True)
        raise typer.Exit(_DIFFERENT)

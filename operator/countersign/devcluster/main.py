"""``countersign dev``: a real Kubernetes API server on this machine, without root and without containers."""

from __future__ import annotations

import json
import subprocess
from enum import StrEnum
from typing import Annotated

import typer

from countersign.devcluster import state
from countersign.devcluster.binaries import NODE_PROGRAMS, PROGRAMS, find, find_or_build, find_or_build_node
from countersign.devcluster.packages import install_command, missing_packages
from countersign.devcluster.plane import Plane, PlaneError

__all__ = ["command"]

_NAME = "dev"

command = typer.Typer(
    no_args_is_help=True,
    help="A real etcd, kube-apiserver and kube-controller-manager on this machine: no root, no containers.",
    epilog="Examples:  countersign dev up   ·   export KUBECONFIG=$(countersign dev kubeconfig)   ·   countersign dev down",
)


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def _say(line: str) -> None:
    typer.echo(f"==> {line}", err=True)


def _fail(problem: object) -> typer.Exit:
    typer.echo(f"countersign dev: {problem}", err=True)
    return typer.Exit(1)


@command.command(epilog="Example:  countersign dev build")
def build(
    *,
    nodes: Annotated[
        bool, typer.Option("--e2e", help="Also the programs of real nodes (about 5 minutes more).")
    ] = False,
) -> None:
    """Find the programs of the control plane, or build them (about 8 minutes the first time), and check the packages."""
    try:
        find_or_build(_say)
        if nodes:
            find_or_build_node(_say)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise _fail(error) from error
    for program in PROGRAMS + (NODE_PROGRAMS if nodes else ()):
        typer.echo(f"{program.name:<24} {find(program)}")
    if missing := missing_packages():
        raise _fail(f"Debian packages are missing. Run as root:\n  {install_command(missing)}")


@command.command(epilog="Example:  countersign dev up")
def up() -> None:
    """Start the control plane; does nothing if it runs already. It stays until `countersign dev down`."""
    with state.single(_NAME):
        run = state.read(_NAME)
        if run is None or not all(each.alive for each in run.processes):
            if run is not None:
                state.stop(run)  # what a crash left
            run = _start()
    typer.echo(f"{run.url}\nexport KUBECONFIG={run.kubeconfig}")


def _start() -> state.Run:
    try:
        binaries = find_or_build(_say)
        _say("starting etcd, kube-apiserver and kube-controller-manager (about 10 s)")
        plane = Plane(binaries, state.run_directory(_NAME), webhook_hosts=["*"], outlive=True)
        plane.start(_say)
    except (PlaneError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise _fail(error) from error
    records = tuple(child.record for child in reversed(plane.children))
    run = state.Run(_NAME, plane.directory, plane.url, plane.admin_kubeconfig, records)
    state.write(run)
    return run


@command.command(epilog="Example:  countersign dev down")
def down() -> None:
    """Stop everything that was left running, a kept demo included, but for the nodes of `make e2e`. Safe to run again."""
    for run in state.runs():
        if run.name == state.NODES:
            typer.echo(f"left {run.name}: make e2e-down takes its nodes away")
            continue
        with state.single(run.name):
            state.stop(run)
        typer.echo(f"stopped {run.name}")


@command.command(epilog="Example:  countersign dev status -o json")
def status(
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
) -> None:
    """Say what runs; the exit status is 1 when nothing does."""
    found = [run.document for run in state.runs()]
    if output is Output.JSON:
        typer.echo(json.dumps({"runs": found}, indent=1))
    for run in found if output is Output.TEXT else []:
        typer.echo(f"{run['name']}: {run['url']}  {run['directory']}")
        for each in run["processes"]:
            typer.echo(f"  {each['name']:<26} pid {each['pid']:<8} {'running' if each['alive'] else 'gone'}")
    if not any(run["running"] for run in found):
        raise typer.Exit(1)


@command.command(epilog="Example:  export KUBECONFIG=$(countersign dev kubeconfig)")
def kubeconfig() -> None:
    """Print the path of the administrator's kubeconfig."""
    if (run := state.read(_NAME)) is None:
        raise _fail("nothing runs; start it with: countersign dev up")
    typer.echo(str(run.kubeconfig))

"""The plugin as kubectl finds it: its commands, their help, and the completion that kubectl asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from countersign.cli.main import _console

PROGRAMS = Path(sys.executable).parent
COMMANDS = ("status", "why", "device list", "device approve", "device deny", "revoke", "audit")


def run(program: str, *words: str) -> tuple[int, str]:
    done = subprocess.run([str(PROGRAMS / program), *words], capture_output=True, text=True, check=False, timeout=250)
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_examples_and_exit_statuses_and_calls_itself_as_people_do(command: str) -> None:
    name, *more = command.split()
    app = _console(name, as_plugin=True)

    said = CliRunner().invoke(app, [name, *more, "--help"], prog_name="kubectl countersign", env={"COLUMNS": "200"})

    assert said.exit_code == 0
    assert f"Usage: kubectl countersign {command}" in said.output
    assert "Exit status: 0" in said.output
    assert "Example" in said.output


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ([""], {"status", "why", "device", "revoke", "audit"}),
        (["device", "approve", "--y"], {"--yes"}),
    ],
)
def test_kubectl_completes_what_was_begun(words: list[str], some: set[str]) -> None:
    status, out = run("kubectl_complete-countersign", *words)

    *found, directive = out.splitlines()
    assert (status, directive) == (0, ":4")
    assert some <= set(found)
    assert all(one.startswith(words[-1]) for one in found)


def test_without_a_kubeconfig_there_is_no_answer(tmp_path: Path) -> None:
    assert run("kubectl-countersign", "status", "--kubeconfig", str(tmp_path / "none")) == (3, "")

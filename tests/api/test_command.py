"""``countersign crds`` as people and CI run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from countersign.api.main import command

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()
app.command("crds")(command)
DEVICES = "crds/countersign.dev_devices.yaml"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "operator/countersign/api").mkdir(parents=True)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_it_writes_then_finds_nothing_to_do(repository: Path) -> None:
    code, said = run("--root", str(repository))
    assert code == 0
    assert f"wrote {DEVICES}" in said
    assert run("--root", str(repository)) == (0, "")
    assert run("--check", "--root", str(repository)) == (0, "")


def test_check_names_what_differs_and_writes_nothing(repository: Path) -> None:
    run("--root", str(repository))
    (repository / DEVICES).write_text("{}", encoding="utf-8")
    code, said = run("--check", "--root", str(repository))
    assert code == 1
    assert said == f"not as the models say: {DEVICES}\nrun `countersign crds` and look at the diff\n"
    assert (repository / DEVICES).read_text("utf-8") == "{}"


def test_what_no_kind_asks_for_is_removed(repository: Path) -> None:
    run("--root", str(repository))
    (repository / "crds/countersign.dev_sessions.yaml").write_text("{}", encoding="utf-8")
    assert run("--root", str(repository)) == (0, "removed crds/countersign.dev_sessions.yaml\n")


def test_another_directory_is_left_alone(tmp_path: Path) -> None:
    code, said = run("--root", str(tmp_path))
    assert code == 2
    assert "is not Countersign's repository" in said
    assert list(tmp_path.iterdir()) == []


def test_help_shows_examples() -> None:
    code, said = run("--help")
    assert code == 0
    assert "countersign crds --check" in said

"""The settings file: as the demo writes it, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import ValidationError
from typer import Typer
from typer.testing import CliRunner

from countersign.controller import load
from countersign.controller.main import command
from countersign.demo.layout import Layout, Ports

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {"cluster": "demo", "webhook_url": "https://w.example", "authority_url": "https://a.example:1"}


def write(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "operator.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_what_the_demo_writes_is_read(tmp_path: Path) -> None:
    files = Layout(tmp_path, Ports.free()).write_settings([], tmp_path / "ca.crt", {})

    settings = load(files["operator"])

    assert settings.names("webhook") == ("127.0.0.1", "localhost")
    assert settings.grants is None
    assert settings.kubeconfig == tmp_path / "accounts" / "countersign-operator.kubeconfig"


def test_the_names_of_the_services_are_the_default(tmp_path: Path) -> None:
    settings = load(write(tmp_path, {**GOOD, "namespace": "cs"}))

    assert settings.names("authority") == ("countersign-authority.cs.svc", "countersign-authority.cs.svc.cluster.local")


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_OPERATOR_CLUSTER", "other")

    assert load(write(tmp_path, GOOD)).cluster == "other"


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"cluster": "UPPER"},
        {"webhook_url": "http://w.example"},
        {"webhook_url": "https://w.example/"},
        {"authority_url": "https://a.example?x=1"},
        {"health": {"port": 70000}},
        {"health": {"unknown": 1}},
        {"lease": {"seconds": 5, "deadline_seconds": 5}},
        {"audiences": [{"prefix": "https://x", "namespaces": []}]},
    ],
)
def test_what_is_wrong_or_unknown_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        load(write(tmp_path, {**GOOD, **change}))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load(tmp_path / "nowhere.yaml")


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    app = Typer()
    app.command()(command)

    ended = CliRunner().invoke(app, ["--config", str(write(tmp_path, {**GOOD, "unknown": 1}))])

    assert ended.exit_code == 2
    assert "unknown" in ended.output
    assert "Traceback" not in ended.output

"""The command and its settings: what is said at the start, and by which exit status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from countersign.authority.main import command
from countersign.authority.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {
    "cluster": "prod-eu",
    "url": "https://authority.example.com:8443",
    "listen": {"tls_cert": "/tls/tls.crt", "tls_key": "/tls/tls.key"},
    "injection": {"image": "countersign:1", "version": "0.1.0"},
}


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command sets logging up for its process, which here is everybody's."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def written(directory: Path, **changes: object) -> Path:
    path = directory / "authority.yaml"
    wanted = {name: value for name, value in (GOOD | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(wanted))
    return path


def test_a_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_AUTHORITY_CLUSTER", "other")
    monkeypatch.setenv("COUNTERSIGN_AUTHORITY_LISTEN__PORT", "9443")
    settings = load(written(tmp_path))
    assert (settings.cluster, settings.listen.port) == ("other", 9443)
    assert settings.token_audience == "countersign.dev"


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"listen": {"tls_cert": "/a", "tls_key": "/b", "prot": 1}},
        {"cluster": None},
        {"cluster": "A"},
        {"cluster": "a/b"},
        {"cluster": ""},
        {"url": "http://authority.example.com"},
        {"url": "https://authority.example.com/"},
        {"url": "https://authority.example.com?x"},
        {"listen": {"tls_cert": "/a"}},
        {"injection": None},
        {"step_clients": []},
    ],
    ids=str,
)
def test_what_is_unknown_missing_or_wrong_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        load(written(tmp_path, **changes))
    result = CliRunner().invoke(command, ["--config", str(written(tmp_path, **changes))])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_help_names_the_settings() -> None:
    result = CliRunner().invoke(command, ["-h"])
    assert result.exit_code == 0
    for name in ("kubeconfig", "tls_cert", "database_url", "audit"):
        assert name in result.output


def test_without_a_cluster_it_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = written(tmp_path, kubeconfig=str(tmp_path / "missing"))
    result = CliRunner().invoke(command, ["--config", str(config)])
    assert result.exit_code == 1
    assert result.output.startswith("countersign authority: attest.unavailable")
    assert "Traceback" not in result.output


def kubeconfig(directory: Path) -> str:
    """A kubeconfig of a cluster that does not answer."""
    path = directory / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"audit": {"directory": "/proc/nowhere"}}, "audit.unavailable"),
        ({"database_url": "sqlite+aiosqlite:////proc/nowhere/authority.db"}, "the database cannot be opened"),
        ({"database_url": "nothing://"}, "database_url names no database"),
        ({}, "the attestation CA"),
    ],
    ids=["audit", "database", "driver", "cluster"],
)
def test_what_it_cannot_live_without_ends_it_with_a_sentence(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (tmp_path / "audit").mkdir()
    parts = {
        "kubeconfig": kubeconfig(tmp_path),
        "database_url": f"sqlite+aiosqlite:///{tmp_path}/authority.db",
        "audit": {"directory": str(tmp_path / "audit")},
    }
    result = CliRunner().invoke(command, ["--config", str(written(tmp_path, **parts | changes))])
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output

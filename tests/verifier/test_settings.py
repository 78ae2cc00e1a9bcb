"""What may be configured, and what cannot be meant."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countersign.clock import SystemClock
from countersign.verifier import VerifierSettings
from countersign.verifier.replay import replay_of
from countersign.wire import MemoryReplayCache, SharedReplayCache

GOOD = {
    "COUNTERSIGN_VERIFIER_ISSUER": "https://countersign.example.com",
    "COUNTERSIGN_VERIFIER_AUDIENCE": "https://tools.example.com/stripe",
    "COUNTERSIGN_VERIFIER_JWKS_URL": "https://countersign.example.com/.well-known/jwks.json",
}


def test_the_environment_that_the_demo_gives() -> None:
    environment = {**GOOD, "COUNTERSIGN_VERIFIER_CA_FILE": "/etc/ca.crt", "PATH": "/bin"}

    settings = VerifierSettings.from_environment(environment)

    assert settings.ca_file == Path("/etc/ca.crt")
    assert (settings.body_bytes, settings.skew_seconds, settings.proof_seconds) == (262_144, 5, 60)


def test_a_file_and_floors() -> None:
    environment = {name: value for name, value in GOOD.items() if not name.endswith("JWKS_URL")}
    environment |= {
        "COUNTERSIGN_VERIFIER_JWKS_FILE": "/etc/jwks.json",
        "COUNTERSIGN_VERIFIER_MIN_KEY_TIER": "TPM",
        "COUNTERSIGN_VERIFIER_MAX_ATTESTATION_AGE_SECONDS": "600",
    }

    settings = VerifierSettings.from_environment(environment)

    assert settings.jwks_file == Path("/etc/jwks.json")
    assert (settings.min_key_tier, settings.max_attestation_age_seconds) == ("TPM", 600)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ISSUER", "https://countersign.example.com/"),
        ("ISSUER", "http://countersign.example.com"),
        ("ISSUER", "countersign.example.com"),
        ("AUDIENCE", "stripe"),
        ("JWKS_URL", "http://countersign.example.com/jwks"),
        ("JWKS_URL", "file:///etc/jwks"),
        ("JWKS_FILE", "/etc/jwks.json"),
        ("PATH", "mcp"),
        ("BODY_BYTES", "0"),
        ("BODY_BYTES", "2000000"),
        ("BODY_BYTES", "1e3"),
        ("SKEW_SECONDS", "31"),
        ("SKEW_SECONDS", "-1"),
        ("PROOF_SECONDS", "61"),
        ("MIN_KEY_TIER", "tpm"),
        ("MIN_ASSURANCE", "High"),
        ("MAX_ATTESTATION_AGE_SECONDS", "0"),
        ("ISSUSER", "x"),
        ("REPLAY_URL", "redis://user:secret@store:6379"),
        ("REPLAY_URL", "http://store:6379"),
        ("REPLAY_URL", "redis://store:6379/0?ssl_cert_reqs=none"),
        ("REPLAY_URL", ""),
        ("REPLAY_PASSWORD_FILE", "/etc/password"),
        ("REPLAY_USERNAME", "tools"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        VerifierSettings.from_environment({**GOOD, f"COUNTERSIGN_VERIFIER_{name}": value})


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_is_needed_and_missing_is_refused(name: str) -> None:
    environment: dict[str, Any] = {key: value for key, value in GOOD.items() if key != name}

    with pytest.raises(ValueError, match=r"not set|exactly one"):
        VerifierSettings.from_environment(environment)


@pytest.mark.parametrize("url", ["redis://store:6379", "rediss://store.tools.svc:6379/1", "unix:///run/store/s"])
def test_a_store_that_processes_share(url: str) -> None:
    found = VerifierSettings.from_environment({**GOOD, "COUNTERSIGN_VERIFIER_REPLAY_URL": url})
    assert found.replay_url == url
    assert isinstance(replay_of(found, SystemClock()), SharedReplayCache)
    assert isinstance(replay_of(replace(found, replay_url=None), SystemClock()), MemoryReplayCache)


def test_roots_of_a_store_are_for_a_connection_that_has_a_certificate() -> None:
    more = {"COUNTERSIGN_VERIFIER_REPLAY_URL": "redis://store", "COUNTERSIGN_VERIFIER_REPLAY_CA_FILE": "/etc/ca.crt"}
    with pytest.raises(ValueError, match="rediss"):
        VerifierSettings.from_environment({**GOOD, **more})


def test_a_password_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    more = {"REPLAY_URL": "redis://store", "REPLAY_PASSWORD_FILE": str(tmp_path / "none")}
    found = VerifierSettings.from_environment({**GOOD, **{f"COUNTERSIGN_VERIFIER_{k}": v for k, v in more.items()}})
    with pytest.raises(OSError, match="none"):
        replay_of(found, SystemClock())


def test_without_the_package_a_shared_store_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('redis')")
    program = (
        "from countersign.clock import SystemClock\n"
        "from countersign.verifier.replay import replay_of\n"
        "from countersign.verifier import VerifierSettings\n"
        "replay_of(VerifierSettings.from_environment(), SystemClock())"
    )
    environment = {**GOOD, "COUNTERSIGN_VERIFIER_REPLAY_URL": "redis://store", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "replay_url needs the extra countersign[verifier-redis]" in done.stderr


def test_a_loopback_url_may_be_plain() -> None:
    VerifierSettings(
        issuer="http://127.0.0.1:8443", audience="http://127.0.0.1:9/mcp", jwks_url="http://localhost:8443/jwks"
    )

"""What may be configured, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from countersign.verifier import VerifierSettings

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


def test_a_loopback_url_may_be_plain() -> None:
    VerifierSettings(
        issuer="http://127.0.0.1:8443", audience="http://127.0.0.1:9/mcp", jwks_url="http://localhost:8443/jwks"
    )

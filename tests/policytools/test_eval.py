"""`countersign policy eval`: a described call against manifests and against a live cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from countersign.policytools.main import command

if TYPE_CHECKING:
    from countersign.devcluster import Plane

RUN = CliRunner()
FILES = Path(__file__).parents[1] / "data" / "policytools" / "manifests"
READ = ("--agent", "billing/refund-agent", "--server", "billing/stripe", "--tool", "get_charge")
REFUND = (*READ[:-1], "create_refund")
BENT = ("--user", "bent@example.com", "--group", "support")


def ask(*words: str | Path, code: int = 0) -> dict[str, Any]:
    result = RUN.invoke(command, ["eval", "-o", "json", *map(str, words)])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def refused(*words: str | Path) -> str:
    result = RUN.invoke(command, ["eval", *map(str, words)])
    assert result.exit_code == 2, result.output
    return result.output


def test_an_allowed_call_names_its_rule() -> None:
    found = ask("-f", FILES, *READ)
    assert (found["effect"], found["code"], found["rule"]) == ("Allow", "policy.allowed", "read")
    assert {rule["rule"]: rule["value"] for rule in found["rules"]} == {
        "read": "true",
        "small": "false",
        "large": "false",
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((*REFUND, "--args", '{"amount":4000}', *BENT), "policy.allowed"),
        ((*REFUND, "--args", '{"amount":4000}'), "policy.default_deny"),
        ((*REFUND, "--args", '{"amount":5001}', *BENT), "approval.required"),
        ((*REFUND, "--args", "{}", *BENT), "policy.undecided"),
        ((*REFUND, "--args", '{"to":"me"}'), "tool.arguments_invalid"),
        ((*READ, "--tier", "DPoP"), "environment.key_tier_too_low"),
        ((*READ, "--assurance", "Virtual"), "environment.assurance_too_low"),
        ((*READ[:-1], "drop"), "tool.unknown"),
        ((*READ[:3], "billing/gone", *READ[4:]), "tool.server_unknown"),
        ((*READ[:3], "https://tools.example.com/stripe", *READ[4:]), "policy.allowed"),
    ],
)
def test_each_thing_that_is_said_of_the_call_counts(words: tuple[str, ...], code: str) -> None:
    found = ask("-f", FILES, *words, code=0 if code == "policy.allowed" else 1)
    assert found["code"] == code


def test_every_fact_that_can_be_said_is_seen(tmp_path: Path) -> None:
    rule = {
        "name": "all",
        "effect": "Deny",
        "reason": "Seen.",
        "when": "device.facts['disk'] == 'on' && device.pool == 'racks' && instance.source == 'Run' && cluster.name == 'c'"
        " && device.attestationAge == duration('90s') && task.purpose == 'p' && user.name == 'u' && 'g' in user.groups"
        " && now == timestamp('2026-11-24T12:00:00Z') && key.tier == 'TPMSession' && device.assurance == 'Hardware'",
    }
    (tmp_path / "deny.yaml").write_text(yaml.safe_dump({**policy("deny"), "spec": {"rules": [rule]}}))
    facts = ("--fact", "disk=on", "--pool", "racks", "--source", "Run", "--cluster", "c", "--attested", "90")
    who = ("--user", "u", "--group", "g", "--purpose", "p", "--tier", "TPMSession", "--assurance", "Hardware")
    said = ("-f", FILES, "-f", tmp_path, *READ, *facts, *who, "--now", "2026-11-24T12:00:00Z")
    found = ask(*said, code=1)
    assert (found["code"], found["reason"]) == ("policy.denied", "Seen.")


def policy(name: str, namespace: str = "billing") -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": "ToolPolicy", "metadata": meta}


def test_the_table_says_why() -> None:
    result = RUN.invoke(command, ["eval", "-f", str(FILES), *REFUND, "--args", '{"amount":5001}'])
    assert result.exit_code == 1
    said = result.output.splitlines()
    assert said[:4] == ["RequireApproval  approval.required", "policy: ToolPolicy billing/refunds", "rule: large", "reason: Ask."]  # fmt: skip
    assert "subjects false, when false" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "gone", *READ), "no such file"),
        (("-f", FILES, *READ, "--args", "{"), "--args: parse.syntax"),
        (("-f", FILES, *READ, "--args", '{"a":1,"a":1}'), "--args: parse.duplicate"),
        (("-f", FILES, *READ, "--tier", "Gold"), "--tier Gold: one of Software"),
        (("-f", FILES, *READ, "--assurance", "Gold"), "--assurance Gold"),
        (("-f", FILES, *READ, "--source", "Moon"), "--source Moon"),
        (("-f", FILES, *READ, "--now", "noon"), "--now"),
        (("-f", FILES, *READ, "--fact", "disk"), "--fact disk"),
        (("-f", FILES, *READ, "--group", "support"), "give --user too"),
        (("-f", FILES, *READ, "--instance", "gone"), "there is no AgentInstance billing/gone"),
        (("-f", FILES, "--agent", "billing/other", *READ[2:]), "there is no AgentIdentity billing/other"),
        (("-f", FILES, "--agent", "other", *READ[2:]), "NAMESPACE/NAME is wanted"),
        (("--kubeconfig", "/no/such/file", *READ), "cannot be used"),
    ],
)
def test_wrong_use_is_named(words: tuple[str | Path, ...], said: str) -> None:
    assert said in refused(*words)


def test_without_files_and_without_a_cluster_it_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "name one by --kubeconfig, or manifests by -f" in refused(*READ)


def test_a_pinned_definition_is_refused_as_the_webhook_does(tmp_path: Path) -> None:
    found = next(one for one in yaml.safe_load_all((FILES / "billing.yaml").read_text()) if one["kind"] == "ToolServer")
    found["spec"]["tools"][0]["definitionDigest"] = "sha256:" + "b" * 64
    (tmp_path / "pinned.yaml").write_text(yaml.safe_dump(found))
    assert ask("-f", FILES, "-f", tmp_path, *READ, code=1)["code"] == "tool.definition_changed"


def test_an_instance_brings_its_device_and_its_images(tmp_path: Path) -> None:
    facts = [{"name": "disk", "value": "on", "source": "mdm", "observedTime": "2026-11-24T11:00:00Z"}]
    device = {
        **policy("worker-1"),
        "kind": "Device",
        "spec": {"poolRef": {"name": "racks"}},
        "status": {"assurance": "Hardware", "attestationTime": "2026-11-24T11:30:00Z", "facts": facts},
    }
    device["metadata"].pop("namespace")
    pod = {"imageDigests": ["sha256:" + "a" * 64]}
    instance = {**policy("one"), "kind": "AgentInstance", "spec": {"deviceRef": {"name": "worker-1"}, "pod": pod}}
    seen = (
        "device.name == 'worker-1' && device.pool == 'racks' && device.attestationAge == duration('1800s')"
        " && device.facts == {'disk': 'on'} && size(instance.imageDigests) == 1"
    )
    deny = {**policy("deny"), "spec": {"rules": [{"name": "no", "effect": "Deny", "when": seen}]}}
    words = ("-f", FILES, "-f", tmp_path, *READ, "--now", "2026-11-24T12:00:00Z", "--instance", "one")
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([instance, deny]))
    assert "there is no Device worker-1" in refused(*words)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([device, instance, deny]))
    assert ask(*words, code=1)["code"] == "policy.denied"
    assert ask(*words, "--fact", "disk=off")["code"] == "policy.allowed"
    assert ask(*words, "--assurance", "Virtual", code=1)["code"] == "environment.assurance_too_low"


@pytest.mark.plane
def test_files_are_laid_over_a_live_cluster(crds: Plane, namespace: str, tmp_path: Path) -> None:
    text = (FILES / "billing.yaml").read_text().replace("namespace: billing", f"namespace: {namespace}")
    # An audience is one server's in the whole cluster, and this cluster is other tests' too.
    text = re.sub(r"audience: .*", f"audience: https://tools.example.com/{namespace}", text)
    crds.kubectl("apply", "-f", "-", data=text)
    call = ("--agent", f"{namespace}/refund-agent", "--server", f"{namespace}/stripe", "--tool", "get_charge")
    live = ("--kubeconfig", str(crds.admin_kubeconfig))
    assert ask(*live, *call)["rule"] == "read"
    deny = {**policy("stop", namespace), "spec": {"rules": [{"name": "stop", "effect": "Deny"}]}}
    (tmp_path / "stop.yaml").write_text(yaml.safe_dump(deny))
    assert ask(*live, "-f", str(tmp_path), *call, code=1)["code"] == "policy.denied"
    assert ask(*live, *call)["code"] == "policy.allowed"

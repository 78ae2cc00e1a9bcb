"""The quickstart: what a person copies is accepted, says what the demo needs, and decides as its comments say."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from policy.given import question
from support.chart import apply

from countersign.demo.layout import Layout, Ports
from countersign.demo.quickstart import Call, Quickstart
from countersign.devcluster import EkAuthority, Plane, PlaneError
from countersign.policy import Catalogue, Question, RuleSet, audience_owned, decide, listable
from countersign_webhook.admission.pem import bundle_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "examples" / "quickstart"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def objects() -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(FOLDER.glob("*.yaml"))]
    return [each for text in texts for each in yaml.safe_load_all(text)]


def one(kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects() if each["kind"] == kind]
    return found


# -- the API server ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def placed(crds: Plane, namespace: str) -> Iterator[list[dict[str, Any]]]:
    """The objects, in a namespace of this test."""
    found = objects()
    for each in found:
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = namespace
    # Objects of other tests would make a create of these cluster-scoped ones a change.
    for each in found:
        if "namespace" not in each["metadata"] and each["kind"] != "Namespace":
            crds.kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found")
    # Without it the API server refuses the pod, dry run or not.
    apply(crds, [each for each in found if each["kind"] == "ServiceAccount"])
    return found


@pytest.mark.plane
def test_the_api_server_accepts_every_object_strictly(crds: Plane, placed: list[dict[str, Any]]) -> None:
    said = apply(crds, placed, "--dry-run=server", "--force-conflicts")
    assert len(said.splitlines()) == len(placed)


@pytest.mark.plane
def test_what_the_crds_fill_in_is_what_the_comments_say(crds: Plane, placed: list[dict[str, Any]]) -> None:
    identity = next(each for each in placed if each["kind"] == "AgentIdentity")
    del identity["spec"]["minAssurance"], identity["spec"]["tasks"]
    words = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    spec = json.loads(crds.kubectl(*words, data=json.dumps(identity)))["spec"]
    assert (spec["minAssurance"], spec["tasks"]) == ("Hardware", "Required")
    assert (spec["issuerRef"], spec["signer"]["injection"]) == ({"name": "default"}, "Sidecar")


@pytest.mark.plane
def test_a_misspelt_field_is_refused_with_its_place(crds: Plane, placed: list[dict[str, Any]]) -> None:
    policy = next(each for each in placed if each["kind"] == "ToolPolicy")
    rule = policy["spec"]["rules"][1]
    rule["argumnets"] = rule.pop("arguments")
    with pytest.raises(PlaneError, match=r'unknown field "spec.rules\[1\].argumnets"'):
        crds.kubectl("apply", "--dry-run=server", "-f", "-", data=json.dumps(policy))


# -- what a person must replace -----------------------------------------------------------------------------------------------


def test_the_placeholder_for_roots_is_refused() -> None:
    assert bundle_fault(one("DevicePool")["spec"]["ekRoots"], NOW) == "is not a list of PEM certificates"


@pytest.mark.tpm
def test_the_command_for_the_endorsement_key_gives_what_a_device_says(tmp_path: Path) -> None:
    """The second line of the comment, run on a certificate as the first line writes it."""
    tpm = EkAuthority(tmp_path / "tpm").manufacture("t1")
    certificate = next(each for each in tpm.directory.glob("ek-rsa*.crt"))
    (tmp_path / "ek.der").write_bytes(certificate.read_bytes())
    (line,) = [line for line in (FOLDER / "20-devices.yaml").read_text().splitlines() if "sha256sum" in line]
    done = subprocess.run(line.lstrip(" #"), shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"sha256:{done.stdout.split()[0]}" == tpm.ek_digests["RSA"]


def test_what_is_to_be_replaced_is_marked() -> None:
    marked = {path.name for path in FOLDER.glob("*.yaml") if "REPLACE" in path.read_text()}
    assert marked == {"20-devices.yaml", "60-pod.yaml"}


# -- what it means --------------------------------------------------------------------------------------------------------------


def test_the_audience_belongs_to_the_namespace_without_a_grant() -> None:
    server = one("ToolServer")
    assert audience_owned(server["spec"]["audience"], server["metadata"]["namespace"], [])
    assert "endpoint" not in server["spec"]


def asked(call: Call, **caller: Any) -> Question:
    identity = one("AgentIdentity")
    meta, spec = identity["metadata"], identity["spec"]
    given = {
        "now": "2026-11-24T12:00:00Z",
        "cluster": "kind",
        "caller": {
            "agent": {
                **meta,
                **{name: spec[name] for name in ("tasks", "minAssurance", "minKeyTier")},
            },
            "instance": {"name": f"{meta['name']}-7f9c4", "uid": "1", "source": "Pod"},
            "device": {
                "name": "node-a",
                "pool": "lab",
                "assurance": "Virtual",
                "attestationTime": "2026-11-24T11:00:00Z",
            },
            "keyTier": "TPM",
            **caller,
        },
    }
    server = one("ToolServer")["metadata"]
    name = f"{server['namespace']}/{server['name']}"
    return question(given, {"server": name, "tool": call.tool, "arguments": call.arguments})


def code(call: Call, **caller: Any) -> str:
    return decide(
        asked(call, **caller), RuleSet.compile([one("ToolPolicy")]), Catalogue.build([one("ToolServer")], [])
    ).code


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Quickstart.allowed, "policy.allowed"),
        (Quickstart.denied_argument, Quickstart.denied_argument.code),
        (Quickstart.not_named, Quickstart.not_named.code),
        (Call("create_refund", {"charge": "ch_1", "amount": 5000}), "policy.allowed"),
        (Call("create_refund", {"charge": "ch_1", "amount": 5001}), "policy.denied"),
        (Call("create_refund", {"charge": "ch_1", "amount": "5000"}), "tool.arguments_invalid"),
        (Call("create_refund", {"charge": "ch_1"}), "tool.arguments_invalid"),
        (Call("drop_tables", {}), "tool.unknown"),
    ],
    ids=["read", "too much", "not named", "the limit", "above it", "as text", "left out", "not registered"],
)
def test_a_call_is_decided_as_the_demo_and_the_comments_say(call: Call, expected: str) -> None:
    assert code(call) == expected


def test_a_software_tpm_or_a_lower_tier_is_below_the_floors() -> None:
    software = {"name": "node-a", "pool": "lab", "assurance": "Software", "attestationTime": "2026-11-24T11:00:00Z"}
    assert code(Quickstart.allowed, device=software) == "environment.assurance_too_low"
    assert code(Quickstart.allowed, keyTier="TPMSession") == "environment.key_tier_too_low"


def test_the_list_shows_what_the_demo_expects() -> None:
    rules, servers = RuleSet.compile([one("ToolPolicy")]), Catalogue.build([one("ToolServer")], [])
    found = listable(asked(Quickstart.allowed), rules, servers)
    assert sorted(each if isinstance(each, str) else each.name for each in found) == sorted(Quickstart.listable)


def test_the_demo_finds_what_it_needs(tmp_path: Path) -> None:
    story = Quickstart(FOLDER, Layout(tmp_path, Ports(*range(20001, 20008))))
    assert (story.namespace, story.server) == ("billing", "payments")
    assert story.ports[0] not in (story.ports[1], story.ports[1] - 1, story.ports[1] + 1)
    assert [pod["spec"]["nodeName"] for pod in story.pod_objects()] == ["node-a", "node-b"]
    assert "argumnets" in story.misspelt_policy()["spec"]["rules"][0]
    pod = story.pod_objects()[0]
    assert pod["metadata"]["labels"].items() >= one("AgentIdentity")["spec"]["podSelector"]["matchLabels"].items()
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert one("Namespace")["metadata"]["labels"]["countersign.dev/injection"] == "enabled"
    assert one("Namespace")["metadata"]["labels"]["countersign.dev/tpm"] == "allowed"

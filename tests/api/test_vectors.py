"""Every file of ``tests/data/crds`` against a real API server that has the CRDs and nothing else of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from countersign.devcluster import PlaneError

if TYPE_CHECKING:
    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

DATA = Path(__file__).parents[1] / "data" / "crds"
GOOD, BAD = sorted(DATA.glob("good/*.yaml")), sorted(DATA.glob("bad/*.yaml"))
NAMESPACES = ("billing", "dev", "tools")
STRICT = "--validate=strict"


@pytest.fixture(scope="module")
def cluster(crds: Plane) -> Plane:
    """The plane with the namespaces that the files name."""
    for name in NAMESPACES:
        one = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        crds.kubectl("apply", "--server-side", "-f", "-", data=json.dumps(one))
    return crds


def try_it(plane: Plane, *objects: dict[str, Any]) -> None:
    """Create one object without keeping it; with two, create the first and replace it by the second."""
    if len(objects) == 1:
        plane.kubectl("create", "--dry-run=server", STRICT, "-f", "-", data=json.dumps(objects[0]))
        return
    first = json.dumps(objects[0])
    plane.kubectl("create", STRICT, "-f", "-", data=first)
    try:
        plane.kubectl("replace", STRICT, "-f", "-", data=json.dumps(objects[1]))
    finally:
        plane.kubectl("delete", "-f", "-", data=first)


def documents(path: Path) -> list[dict[str, Any]]:
    found = [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    for one in found:
        # The owners that the files name do not exist, and the garbage collector would win the race against a replacement.
        one["metadata"].pop("ownerReferences", None)
    return found


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_object_is_accepted(cluster: Plane, path: Path) -> None:
    try_it(cluster, *documents(path))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_object_is_refused_in_the_words_of_its_first_line(cluster: Plane, path: Path) -> None:
    words = path.read_text("utf-8").partition("\n")[0].removeprefix("# refused: ")
    with pytest.raises(PlaneError) as caught:
        try_it(cluster, *documents(path))
    assert words in str(caught.value)


def test_the_largest_policy_stays_within_the_limits_of_cel(cluster: Plane) -> None:
    pointer = "/" + "a/" * 100 + "*/" + "b" * 50
    arguments = [
        {
            "pointer": f"{pointer}{number}",
            "type": "Integer",
            "integer": {"minimum": 0, "maximum": 2**53 - 1},
            "quantifier": "All",
            "whenMissing": "DoesNotMatch",
        }
        for number in range(16)
    ]
    tools = [{"server": {"namespace": "tools", "name": f"s{number}"}, "names": ["t" * 128]} for number in range(32)]
    agents = [{"namespace": "billing", "name": "a" * 63} for _ in range(64)]
    rules = [
        {
            "name": f"rule-{number}",
            "effect": "RequireApproval",
            "subjects": {"agents": agents},
            "environment": {"minAssurance": "Hardware", "facts": [{"name": "disk", "values": ["on"]}]},
            "tools": tools,
            "arguments": arguments,
            "when": "t" * 1024,
            "approval": {"users": ["u" * 256] * 8},
        }
        for number in range(32)
    ]
    policy = {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "ClusterToolPolicy",
        "metadata": {"name": "largest"},
        "spec": {"rules": rules},
    }
    try_it(cluster, policy)
    policy["kind"], policy["metadata"] = "ToolPolicy", {"name": "largest", "namespace": "billing"}
    for agent in agents:
        del agent["namespace"]
    try_it(cluster, policy)


def test_a_misspelt_field_is_refused_by_its_name(cluster: Plane) -> None:
    policy = documents(DATA / "good" / "toolpolicy-refunds.yaml")[0]
    policy["spec"]["rules"][1]["argumnets"] = policy["spec"]["rules"][1].pop("arguments")
    with pytest.raises(PlaneError, match=r'unknown field "spec\.rules\[1\]\.argumnets"'):
        try_it(cluster, policy)


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("identityissuer-default", {"lifeSeconds": 300, "exposeTo": {"from": "All"}}),
    ("devicepool-racks", {"enrollment": "Refuse", "attestation": {"maxAgeSeconds": 60, "pcrs": None}}),
    ("device-laptop-ana", {"state": "Approved"}),
    ("device-worker-1", {"state": "Denied", "owner": None}),
    ("device-dev-box", {"binding": {"users": ["ana@example.com", "bent@example.com"]}}),
    ("agentidentity-coder", {"minAssurance": "Hardware", "run": None, "podSelector": {"matchLabels": {"app": "x"}}}),
    ("agentinstance-pod", {"state": "Revoked", "stateReason": "stolen"}),
    ("agentinstance-run", {"state": "Revoked"}),
    ("toolserver-stripe", {"endpoint": None, "enforcement": "Gateway", "requires": {"minKeyTier": "TPM"}}),
    ("toolpolicy-refunds", {"mode": "Audit", "description": None}),
    ("clustertoolpolicy-baseline", {"namespaceSelector": {"matchLabels": {"team": "x"}}}),
]


@pytest.mark.parametrize(("stem", "change"), CHANGES, ids=[stem for stem, _ in CHANGES])
def test_what_may_change_may_change(cluster: Plane, stem: str, change: dict[str, Any]) -> None:
    before = documents(DATA / "good" / f"{stem}.yaml")[0]
    before["metadata"]["name"] += "-changes"
    after = before | {"spec": merged(before["spec"], change)}
    try_it(cluster, before, after)


def merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Apply ``change`` as a JSON merge patch (RFC 7396)."""
    found = dict(old)
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name, {}), value) if isinstance(value, dict) else value
    return found

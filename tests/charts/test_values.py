"""What may be said to the chart: every value is known, described once, and a typo is refused at every depth."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator
from support.chart import CHART, helm
from support.values_table import main, replaced, table

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
# Objects of Kubernetes' own, which the API server checks, and what a parent chart hands down.
OPEN = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity", "labelSelector"}


@pytest.mark.parametrize(
    "value",
    [
        "webhok.url=https://127.0.0.1:9443",
        "webhook.urll=https://127.0.0.1:9443",
        "webhook.url=http://127.0.0.1:9443",
        "webhook.url=https://127.0.0.1:9443/",
        "webhook.replicas=0",
        "peps[0].name=edge",
        "replay.url=unix:///socket",
        "replay.url=redis://user:password@valkey",
        "webhook.storage.typ=EmptyDir",
        "authority.replicas=0",
        "authority.storage.existingClaim=Ours",
        "operator.replicas=0",
        "operator.tolerations[0].effct=NoSchedule",
        "operator.nodeSelector.disk.size=1",
        "webhook.affinity.podAntiAfinity.x=1",
        "topologySpreadConstraints[0].maxSkew=1",
        "image.digest=sha256:abc",
        "image.tag=1.0@sha256:abc",
        "certificates.source=Certmanager",
        "certificates.certManager.issuerRef.nam=ours",
        "certificates.certManager.duration=90d",
        "metrics.rules.enable=true",
        "metrics.serviceMonitor.interval=often",
        "podDisruptionBudget.maxUnavailable=0",
        "podDisruptionBudget.minAvailable=1",
        "networkPolicy.egress.apiServerPorts={}",
        "commonLabels.team=7",
        "clusterName=Prod",
        "logLevel=loud",
        "image.pullPolicy=Sometimes",
        "audiences[0].prefix=https://tools.example.com",
        "crds.enabled=maybe",
        "networkPolicy.podCIDRs={everything}",
        "injection.formerImages=localhost/countersign:0.0.9",
        "injection.formerImages={not an image}",
        "injection.image=localhost/countersign:0.0.9",
        "guards.exec=perhaps",
        "guards.attach=true",
        "factSources.mdm=node",
        "factSources.mdm=",
        "node.enabled=maybe",
        "node.type=Chip",
        "node.slots=0",
        "node.device=tpmrm0",
        "node.simulator.socketDir=/var/../etc",
        "node.simulator.imag=swtpm",
    ],
)
def test_a_value_that_is_not_known_or_not_possible_is_refused(value: str) -> None:
    done = helm("template", "countersign", str(CHART), "--set", value)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


REPLAY = "replay.url=redis://valkey.store.svc"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (("authority.replicas=2",), "orders and issued certificates are in SQLite"),
        (("webhook.replicas=2",), "set replay.url"),
        (("webhook.workers=2",), "webhook.workers: more than one needs a replay store"),
        (("webhook.replicas=2", REPLAY, "webhook.storage.existingClaim=ours"), "a claim is for one replica"),
        (("certificates.source=ExistingSecret",), "certificates.existingSecret.webhook"),
        (
            ("certificates.source=ExistingSecret", "certificates.existingSecret.webhook=a"),
            "certificates.existingSecret.authority",
        ),
        (("certificates.existingSecret.authority=a",), "is for certificates.source ExistingSecret"),
    ],
)
def test_values_that_are_possible_alone_and_not_together_are_refused_with_the_reason(
    values: tuple[str, ...], why: str
) -> None:
    words = [word for each in values for word in ("--set", each)]
    done = helm("template", "countersign", str(CHART), *words)
    assert done.returncode != 0
    assert why in done.stderr


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema of an object, wherever it stands, with the name it stands under."""
    if isinstance(schema, list):
        for each in schema:
            yield from objects(each, name)
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield name, schema
        for key, inner in schema.items():
            yield from objects(inner, key)


def test_every_object_of_the_schema_is_closed_or_a_map_of_scalars() -> None:
    found = list(objects(SCHEMA))
    assert len(found) > 30
    for name, schema in found:
        if name in OPEN:
            assert "properties" not in schema
            continue
        more = schema.get("additionalProperties")
        assert more is False or "properties" not in schema, name
        assert more is False or more["type"] in ("string", ["string", "number"]), name


def mappings(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(values, dict):
        yield path
        for key, value in values.items():
            yield from mappings(value, (*path, key))
    if isinstance(values, list):
        for at, value in enumerate(values):
            yield from mappings(value, (*path, at))


MAPS = {"podAnnotations", "podLabels", "nodeSelector", "commonLabels", "labels", "factSources", "requests", "limits"}


@pytest.mark.parametrize("path", [path for path in mappings(VALUES) if not MAPS & {*path}], ids=str)
def test_a_typo_at_any_depth_of_the_file_is_refused(path: tuple[Any, ...]) -> None:
    assert Draft7Validator(SCHEMA).is_valid(VALUES)
    values = copy.deepcopy(VALUES)
    inner = values
    for step in path:
        inner = inner[step]
    inner["enabld"] = True
    errors = [error.message for error in Draft7Validator(SCHEMA).iter_errors(values)]
    assert len(errors) == 1
    assert "'enabld' was unexpected" in errors[0]


def test_the_schema_and_the_file_know_the_same_values() -> None:
    compare(VALUES, SCHEMA)


def compare(values: dict[str, Any], schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        inner = schema["properties"][name]
        inner = SCHEMA["definitions"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if isinstance(value, dict) and value and "properties" in inner:
            compare(value, inner)


def test_the_table_of_the_readme_is_made_of_the_comments() -> None:
    assert main(["--check"]) == 0


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        nested = isinstance(value, dict) and value and key != "resources"
        yield from leaves(value, f"{path}{key}.") if nested else [f"{path}{key}"]


def test_the_table_knows_every_value_and_what_it_is_for() -> None:
    rows = [line.split(" | ") for line in table((CHART / "values.yaml").read_text()).splitlines()[2:]]
    shown = set()
    for keys, _default, meaning in rows:
        assert meaning.strip(" |"), keys
        first, *more = [each.strip("`| ") for each in keys.split(", ")]
        prefix = first.rpartition(".")[0]
        shown |= {first, *(f"{prefix}{each}" if each.startswith(".") else each for each in more)}
    assert set(leaves(VALUES)) <= shown


def test_a_table_of_before_is_found_and_replaced() -> None:
    readme = (CHART / "README.md").read_text()
    other = replaced(readme, "# What it is.\nname: 1\n")
    assert "| `name` | `1` | What it is. |" in other
    assert replaced(other, (CHART / "values.yaml").read_text()) == readme

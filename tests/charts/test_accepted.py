"""The chart's objects before a real API server: all accepted, expressions without fault, and nothing reset by an upgrade."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.chart import VALUE_SETS, apply, one, render

from countersign.devcluster import LocalCA, PlaneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

FOREIGN = Path(__file__).parents[1] / "data" / "foreign" / "kinds.yaml"
FOREIGN_GROUPS = {"monitoring.coreos.com", "cert-manager.io"}


@pytest.fixture(scope="module")
def foreign(installed: Plane) -> Iterator[Plane]:
    """The plane with the kinds of prometheus-operator and cert-manager that the chart can make objects of."""
    installed.kubectl("apply", "--server-side", "-f", str(FOREIGN))
    installed.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(FOREIGN))
    yield installed
    installed.kubectl("delete", "-f", str(FOREIGN))


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_api_server_accepts_every_object(
    installed: Plane, values: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    objects = render(*values)
    if any(each["apiVersion"].split("/")[0] in FOREIGN_GROUPS for each in objects):
        request.getfixturevalue("foreign")
    # --force-conflicts: some of these are installed, and a controller has written to them.
    said = apply(installed, objects, "--dry-run=server", "--force-conflicts")
    assert len(said.splitlines()) == len(objects)


def test_the_api_server_finds_no_fault_with_the_expressions(installed: Plane) -> None:
    """Types are checked against the CRDs by a controller, which writes what it finds into the status."""
    names = [each["metadata"]["name"] for each in render() if each["kind"] == "ValidatingAdmissionPolicy"]
    assert names
    for name in names:
        end = time.monotonic() + 30
        while "typeChecking" not in (status := policy_status(installed, name)):
            assert time.monotonic() < end, f"{name} was not checked"
        assert status["typeChecking"] == {}, status


def policy_status(plane: Plane, name: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.get("validatingadmissionpolicy", name).get("status", {})
    return found


@pytest.mark.parametrize("words", [[], ["--server-side"]], ids=["as helm merges", "server-side"])
def test_an_upgrade_does_not_reset_the_bundle(installed: Plane, namespace: str, words: list[str]) -> None:
    found = one(render(), "MutatingWebhookConfiguration", "countersign")
    # Under another name and about nothing, so that nobody else's pods are asked for.
    found["metadata"]["name"] = namespace
    found["webhooks"][0]["rules"][0]["apiGroups"] = ["test.example.com"]
    found["webhooks"][0]["clientConfig"]["service"]["namespace"] = namespace
    try:
        installed.kubectl("apply", *words, "-f", "-", data=json.dumps(found))
        bundle = base64.b64encode(LocalCA("test").pem).decode()
        change = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
        where = ["mutatingwebhookconfiguration", namespace]
        installed.kubectl("patch", *where, "--type=json", "-p", json.dumps(change))
        found["webhooks"][0]["timeoutSeconds"] = 7
        installed.kubectl("apply", *words, "-f", "-", data=json.dumps(found))
        (after,) = installed.get(*where)["webhooks"]
        assert (after["timeoutSeconds"], after["clientConfig"].get("caBundle")) == (7, bundle)
    finally:
        installed.kubectl("delete", "mutatingwebhookconfiguration", namespace)


def test_the_policies_deny_and_fail_closed() -> None:
    objects = render()
    policies = {each["metadata"]["name"]: each for each in objects if each["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [each for each in objects if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {each["spec"]["policyName"] for each in bindings} == set(policies)
    assert all(each["spec"]["validationActions"] == ["Deny"] for each in bindings)
    assert all(each["spec"]["failurePolicy"] == "Fail" for each in policies.values())


def test_with_the_webhook_down_only_a_new_expression_cannot_be_written(installed: Plane, namespace: str) -> None:
    """A Deny is applicable at any time, also to a policy that has expressions."""
    found = one(render(), "ValidatingWebhookConfiguration", "countersign")
    found["metadata"]["name"] = namespace
    # Nobody listens there, and nobody else's policies are asked about.
    found["webhooks"] = [each for each in found["webhooks"] if each["name"].startswith("expressions.")]
    for each in found["webhooks"]:
        each["clientConfig"] = {"url": "https://127.0.0.1:9/validate"}
        each["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    old = {"name": "old", "effect": "Deny", "when": "args.amount > 5"}
    deny, new = {"name": "stop", "effect": "Deny"}, {"name": "new", "effect": "Deny", "when": "args.amount > 6"}

    def write(*rules: dict[str, Any], name: str = "a") -> None:
        policy = {"apiVersion": "countersign.dev/v1alpha1", "kind": "ToolPolicy"}
        policy |= {"metadata": {"name": name, "namespace": namespace}, "spec": {"rules": list(rules)}}
        installed.kubectl("apply", "-f", "-", data=json.dumps(policy))

    write(old)
    apply(installed, [found])
    try:
        end = time.monotonic() + 30
        while not refused(write, new, name="probe"):
            assert time.monotonic() < end, "the webhook was never asked"
        write(old, deny)
        write(deny, name="b")
        assert refused(write, old, new)
        assert refused(write, deny, new, name="c")
        write(deny, {**old, "name": "renamed"})
        write(deny)
        assert refused(write, deny, old)
    finally:
        installed.kubectl("delete", "validatingwebhookconfiguration", namespace)


def refused(write: Callable[..., None], *rules: dict[str, Any], name: str = "a") -> bool:
    try:
        write(*rules, name=name)
    except PlaneError as error:
        if "expressions.countersign.dev" not in str(error):
            raise
        return True
    return False

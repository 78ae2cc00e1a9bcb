"""The README's five commands, as they are written there. Where a command needs a kubelet, its words stand in for it; ``make e2e``
does the same on real nodes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.chart import CHART, helm, one

from countersign.devcluster import LocalCA, Plane

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().partition("## From any cluster to the first allowed call")[2]
# A line that ends in a backslash goes on.
LINES = re.sub(r"\\\n\s*", "", SECTION.split("```")[1]).splitlines()
COMMANDS = [line for line in LINES if line and not line.startswith("#")]
IMAGES, INSTALL, POOL, APPROVE, CALL = COMMANDS
SYSTEM = "countersign-system"
NODES = ("first-call-a", "first-call-b")


def values() -> list[str]:
    words = shlex.split(INSTALL)
    return [word for at, word in enumerate(words) if word == "--values" or words[at - 1] == "--values"]


@cache
def rendered() -> list[dict[str, Any]]:
    done = helm(
        "template",
        "countersign",
        str(CHART),
        "--skip-tests",
        "--namespace",
        SYSTEM,
        *(_absolute(word) for word in values()),
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def _absolute(word: str) -> str:
    return word if word.startswith("--") else str(ROOT / word)


def test_the_images_that_are_built_are_the_ones_that_are_installed() -> None:
    node = one(rendered(), "DaemonSet", "countersign-node")["spec"]["template"]["spec"]
    webhook = one(rendered(), "Deployment", "countersign-webhook")["spec"]["template"]["spec"]
    images = {each["image"] for each in [*node["containers"], *webhook["containers"]]}
    built = set(re.findall(r"docker build -t (\S+)", IMAGES))
    assert built == images
    assert set(re.findall(r"localhost/\S+", IMAGES.partition("kind load")[2])) == images


def test_what_is_installed_and_what_is_tested_is_one_release() -> None:
    assert shlex.split(INSTALL)[:4] == ["helm", "install", "countersign", "charts/countersign"]
    assert shlex.split(CALL)[:3] == ["helm", "test", "countersign"]
    assert f"--namespace {SYSTEM} --create-namespace" in INSTALL
    assert f"--namespace {SYSTEM}" in CALL


def test_kinds_configuration_says_the_same() -> None:
    said = (ROOT / "kind-config.yaml").read_text()
    assert " ".join(values()) in said
    assert re.findall(r"kind load .* --name countersign", IMAGES)[0] in said


def simulators_say() -> str:
    """What the simulators of two nodes print: the two CA certificates of each, and other lines."""
    roots = [LocalCA(name).pem.decode() for name in ("root a", "issuing a", "root b", "issuing b")]
    return "the simulator of slot-0 ended and is started again\n".join(roots)


@pytest.fixture
def person(crds: Plane, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a person with a kubeconfig; ``kubectl logs`` asks a kubelet, so it is answered here."""
    words = tmp_path / "words"
    words.write_text(simulators_say())
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    script = f'#!/bin/sh\nif [ "$1" = logs ]; then exec cat {words}; fi\nexec {crds.binaries.kubectl} "$@"\n'
    (bin_ / "kubectl").write_text(script)
    (bin_ / "kubectl").chmod(0o755)
    # Others share this API server.
    crds.kubectl("delete", "identityissuer/default", "devicepool/lab", "--ignore-not-found")
    yield {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "KUBECONFIG": str(crds.admin_kubeconfig)}
    crds.kubectl("delete", "identityissuer/default", "devicepool/lab", "--ignore-not-found")


def run(command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.plane
def test_the_third_command_makes_the_trust_domain_and_the_pool(crds: Plane, person: dict[str, str]) -> None:
    assert run(POOL, person).splitlines() == [
        "identityissuer.countersign.dev/default created",
        "devicepool.countersign.dev/lab created",
    ]
    spec = crds.get("devicepool", "lab")["spec"]
    assert spec["ekRoots"].count("-----BEGIN CERTIFICATE-----") == 4
    assert "ended" not in spec["ekRoots"]
    assert (spec["assurance"], spec["enrollment"]) == ("Virtual", "Request")


@pytest.fixture
def proposed(crds: Plane) -> Iterator[None]:
    """Two nodes with their pods, and what they proposed."""
    if SYSTEM not in crds.kubectl("get", "namespaces", "-o", "name"):
        crds.kubectl("create", "namespace", SYSTEM)
    template = one(rendered(), "DaemonSet", "countersign-node")["spec"]["template"]
    items: list[dict[str, Any]] = []
    for name in NODES:
        containers = [{"name": "node", "image": "localhost/countersign:0.1.0"}]
        meta = {"name": name, "namespace": SYSTEM, "labels": template["metadata"]["labels"]}
        items.append({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        spec = {"nodeName": name, "automountServiceAccountToken": False, "serviceAccountName": "default"}
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**spec, "containers": containers}})
        device = {"poolRef": {"name": "lab"}, "binding": {"type": "Node", "node": {"name": name}}, "state": "Pending"}
        ours = {"apiVersion": "countersign.dev/v1alpha1", "kind": "Device", "metadata": {"name": name}, "spec": device}
        items.append(ours)
    every = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    crds.kubectl("apply", "-f", "-", data=every)
    yield
    crds.kubectl("delete", "--force", "--grace-period=0", "-f", "-", data=every)


@pytest.mark.plane
@pytest.mark.usefixtures("proposed")
def test_the_fourth_command_approves_what_each_node_proposed(crds: Plane, person: dict[str, str]) -> None:
    run(APPROVE, person)
    assert {crds.get("device", name)["spec"]["state"] for name in NODES} == {"Approved"}

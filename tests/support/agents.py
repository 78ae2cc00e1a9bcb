"""A namespace with agents in real pods, and the tool server that they call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from support import ci_runner
from support.eventually import until
from support.install import NAMESPACE as SYSTEM

if TYPE_CHECKING:
    from support.real_cluster import RealCluster

E2E = Path(__file__).parents[1] / "e2e"
_COMMON = {"Namespace", "ToolServer", "ToolPolicy", "Service"}


def image_of(cluster: RealCluster) -> str:
    """Return the image that runs as the webhook, which is the product's."""
    found = cluster.get("-n", SYSTEM, "pods", "-l", "app.kubernetes.io/component=webhook")["items"]
    return str(found[0]["spec"]["containers"][0]["image"])


class Agents:
    """The namespace ``space`` with some of the shapes of ``agents.yaml``."""

    def __init__(self, cluster: RealCluster, space: str) -> None:
        self.cluster, self.space = cluster, space

    def prepare(self) -> None:
        """Make the namespace anew, with the tool server, its rules and the programs."""
        self.delete()
        self._apply({"Namespace"})
        files = [*sorted((E2E / "pods").glob("*.py")), ci_runner.FOLDER / "step.py"]
        programs = [f"--from-file={file}" for file in files]
        self.kubectl("create", "configmap", "programs", *programs)
        until(lambda: "countersign-trust" in self.kubectl("get", "configmaps", "-o", "name"), "the operator's trust")
        self._apply(_COMMON, "tools")
        self.kubectl("rollout", "status", "deployment/tools", "--timeout=90s")

    def start(self, *names: str) -> None:
        """Start the workloads called ``names``, each with its identity; nothing is waited for."""
        for name in names:
            self._apply(set(), name)

    def start_job(self) -> None:
        """Start the Job of examples/ci-runner, with its identity."""
        for each in ci_runner.job(self.space, image_of(self.cluster), node="node-a"):
            self.cluster.apply(each)

    def delete(self) -> None:
        """Remove the namespace and wait until its TPMs are free."""
        self.cluster.kubectl("delete", "namespace", self.space, "--ignore-not-found", "--timeout=120s")

    def _apply(self, kinds: set[str], name: str | None = None) -> None:
        """Apply the documents of these kinds, or called ``name``."""
        text = (E2E / "agents.yaml").read_text()
        text = text.replace("NAMESPACE", self.space).replace("IMAGE", image_of(self.cluster))
        found = [
            each
            for each in yaml.safe_load_all(text)
            if each["kind"] in kinds or (each["kind"] != "Namespace" and each["metadata"]["name"] == name)
        ]
        assert found
        self.cluster.apply(yaml.safe_dump_all(found))

    def kubectl(self, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.space, *words, check=check)

    def get(self, *words: str) -> Any:
        return self.cluster.get("-n", self.space, *words)

    def pods(self, app: str) -> list[dict[str, Any]]:
        return list(self.get("pods", "-l", f"app={app}")["items"])

    def pod(self, app: str) -> dict[str, Any]:
        (found,) = self.pods(app)
        return found

    def instance_of(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Return the instance of ``pod``, which has exactly one."""
        uid = pod["metadata"]["uid"]
        (found,) = [each for each in self.get("agentinstances")["items"] if each["spec"]["pod"]["uid"] == uid]
        return dict(found)

    def instance(self, app: str) -> dict[str, Any]:
        return self.instance_of(self.pod(app))

    def run(self, app: str, *words: str, container: str | None = None) -> str:
        name = self.pod(app)["metadata"]["name"]
        return self.kubectl("exec", name, "-c", container or app, "--", *words, check=False)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Let the agent call a tool from inside its container."""
        return dict(json.loads(self.run("agent", "python", "/srv/step.py", tool, json.dumps(arguments))))

    def captured(self) -> list[str]:
        """Return every request that reached the tool server, as a thief there would have it."""
        return self.run("tools", "cat", "/tmp/captures", container="server").splitlines()

"""The demo's machine: control plane, TPMs, nodes, the five processes, two agents, and the way to end it all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

from countersign.demo.client import Agent
from countersign.demo.keeper import Keeper
from countersign.demo.kubectl import Kubectl, KubectlError
from countersign.demo.kubelet import Kubelet
from countersign.demo.layout import IMAGE, SYSTEM, Layout, Ports, project_root
from countersign.demo.mounts import MOUNTED, mount_secrets
from countersign.demo.processes import ProcessError, Processes, console, until
from countersign.demo.quickstart import Quickstart
from countersign.devcluster import EkAuthority, Plane, state, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from countersign.demo.kubelet import PodFolder
    from countersign.devcluster import Binaries, Tpm

__all__ = ["Machine"]

_PROCESSES: Final = ("operator", "authority", "webhook")
_ACCOUNT_SECONDS: Final = 24 * 3600
# Node, TPM, and whether the inventory knows and has approved it. T3 is somebody's, and nobody's here.
TPM_OF_NODE: Final = {"node-a": "t1", "node-b": "t2", "node-c": "t4"}
_UNKNOWN_TPM: Final = "t3"


class Machine:
    """Everything that runs for one story. Methods bring up one part each, in the order in which they stand here."""

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        say: Callable[[str], None],
        *,
        keep: bool = False,
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Empty ``directory`` and choose ports; nothing is started. With ``keep`` what is started outlives this process.

        ``more`` are settings, by process, beside those of the story.
        """
        self._more = more or {}
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        self.say = say
        self._keep = keep
        self.root = project_root()
        self.layout = Layout(directory, Ports.free())
        self.processes = Processes(directory / "logs", outlive=keep)
        admission = f"127.0.0.1:{self.layout.ports.admission}"
        self.plane = Plane(binaries, directory / "plane", webhook_hosts=[admission], outlive=keep)
        self.admin = Kubectl(binaries.kubectl, self.plane.admin_kubeconfig)
        self.manufacturer = EkAuthority(directory / "tpm")
        self.tpms: dict[str, Tpm] = {}
        self.kubelets: dict[str, Kubelet] = {}
        self.agents: dict[str, Agent] = {}
        self.pods: dict[str, PodFolder] = {}
        self.quickstart = Quickstart(self.root / "examples" / "quickstart", self.layout)
        self.settings: dict[str, Path] = {}
        self.keeper = Keeper([self._mount, self._renew], directory / "logs" / "keeper.log")

    # -- bringing it up -------------------------------------------------------------------------------------------------

    def start_plane(self) -> None:
        """Start the control plane, make the nodes, and establish the kinds."""
        self.plane.start(self.say)
        self.admin.run("apply", "--server-side", "-f", str(self.root / "crds"))
        self.admin.wait("condition=Established", "-f", str(self.root / "crds"))
        names = sorted(TPM_OF_NODE)
        self.admin.apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in names])
        for name in names:
            self.kubelets[name] = Kubelet(self.plane, name, self.layout.directory / "nodes")

    def start_tpms(self) -> None:
        """Make and start the TPMs under one local manufacturer's CA."""
        for name in (*TPM_OF_NODE.values(), _UNKNOWN_TPM):
            self.tpms[name] = self.manufacturer.manufacture(name, outlive=self._keep)
            self.tpms[name].start()

    def install_chart(self) -> None:
        """Apply the chart: ServiceAccounts, RBAC, admission policies, and the webhooks by URL; log the processes in."""
        values = ["--set", f"webhook.url={self.layout.admission_url}", "--set", "image.pullPolicy=Never"]
        values += ["--set", f"image.tag={IMAGE.rpartition(':')[2]}"]
        chart = str(self.root / "charts" / "countersign")
        command = [
            str(self.plane.binaries.helm),
            "template",
            "countersign",
            chart,
            "--skip-tests",
            "--namespace",
            SYSTEM,
            *values,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise KubectlError(f"helm template: {done.stderr.strip()}")
        wanted = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] in _FROM_CHART]
        self.admin.run("create", "namespace", SYSTEM)
        self.admin.apply([_in_system(each) for each in wanted])
        for process in _PROCESSES:
            self._log_in(f"countersign-{process}")

    def start_processes(self) -> None:
        """Start operator, authority and webhook by their console commands, each when it has what it reads."""
        client_ca = self.plane.directory / "pki" / "webhook-client-ca.crt"
        self.settings = self.layout.write_settings(self.quickstart.audiences, client_ca, self._more)
        ports = self.layout.ports
        self.start("operator")
        if until(lambda: self._mount() >= set(MOUNTED), 30, every=0.3) is None:
            log = self.layout.directory / "logs" / "operator.log"
            raise ProcessError(f"the operator made no Secrets in 30 s\n{log.read_text()[-2000:]}")
        self.keeper.start()
        self.start("authority")
        self.start("webhook")
        for name, port in zip(
            _PROCESSES, (ports.operator_health, ports.authority_health, ports.webhook_health), strict=True
        ):
            self.processes.await_ready(name, port)

    def start(self, process: str, env: Mapping[str, str] | None = None) -> None:
        """Start ``countersign PROCESS`` with its settings file; ``env`` adds to the environment."""
        self.processes.start(process, [console(), process, "--config", self.settings[process]], env)

    def start_tools(self, more: Mapping[str, str] | None = None) -> None:
        """Start the quickstart's tool server with its verifier, which is told all it believes by environment."""
        env = {
            **(more or {}),
            "COUNTERSIGN_VERIFIER_ISSUER": self.layout.issuer,
            "COUNTERSIGN_VERIFIER_AUDIENCE": self.quickstart.audience,
            "COUNTERSIGN_VERIFIER_JWKS_URL": f"{self.layout.issuer}/.well-known/jwks.json",
            "COUNTERSIGN_VERIFIER_CA_FILE": str(self.layout.serving_ca),
            "COUNTERSIGN_VERIFIER_PATH": urlsplit(self.layout.tools_url).path,
        }
        program = str(self.root / "examples" / "quickstart" / "server.py")
        address = f"127.0.0.1:{self.layout.ports.tools}"
        command = [sys.executable, "-m", "countersign.demo.toolserver", program, address, str(self.captures)]
        self.processes.start("tools", command, env)
        self.processes.await_listening("tools", self.layout.ports.tools)

    # -- agents ---------------------------------------------------------------------------------------------------------

    def run_pod(self, name: str) -> PodFolder:
        """Let the pod's node take it up: its token and trust files are there afterwards."""
        pod = self.admin.get("pod", name, "-n", self.quickstart.namespace)
        self.pods[name] = self.kubelets[pod["spec"]["nodeName"]].run(pod)
        return self.pods[name]

    def start_signer(
        self, name: str, pod: PodFolder, tpm: Tpm, port: int, more: Mapping[str, str] | None = None
    ) -> None:
        """Start ``countersign signer`` as process ``name`` with the files of ``pod`` and the TPM ``tpm``."""
        env = {
            **(more or {}),
            "TCTI": tpm.tcti,
            "COUNTERSIGN_SIGNER_TRUST_DIR": str(pod.trust),
            "COUNTERSIGN_SIGNER_TOKEN_FILE": str(pod.token),
            "COUNTERSIGN_SIGNER_PORT": str(port),
            "COUNTERSIGN_SIGNER_HEALTH_HOST": "127.0.0.1",
        }
        self.processes.start(name, [console(), "signer"], env)

    def start_agent(self, name: str, port: int) -> Agent:
        """Start the agent of pod ``name`` with the environment that the injected container has, and nothing else."""
        pod = self.admin.get("pod", name, "-n", self.quickstart.namespace)
        given = pod["spec"]["containers"][0].get("env", [])
        env = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.layout.directory / "agents" / name)}
        env |= {each["name"]: each.get("value", "") for each in given}
        env |= {key: value for key, value in os.environ.items() if key == "COUNTERSIGN_DEMO_RUN"}
        url = f"http://127.0.0.1:{port}/{self.quickstart.server}"
        self.agents[name] = Agent(name, url, self.layout.directory / "agents" / name, env)
        return self.agents[name]

    @property
    def captures(self) -> Path:
        """What the thief at the tool server wrote down: one JSON line a request."""
        return self.layout.directory / "captures.jsonl"

    @property
    def unknown_tpm(self) -> Tpm:
        """A TPM of the same manufacturer that is not in the inventory."""
        return self.tpms[_UNKNOWN_TPM]

    def tpm_of(self, node: str) -> Tpm:
        """Return the TPM of ``node``."""
        return self.tpms[TPM_OF_NODE[node]]

    # -- staying ---------------------------------------------------------------------------------------------------------

    def record(self, name: str) -> None:
        """Write down what runs under ``name``, so that ``countersign dev down`` ends it."""
        tpms = [tpm.child for tpm in self.tpms.values() if tpm.child is not None]
        running = [*reversed(self.processes.children), *tpms, *reversed(self.plane.children)]
        records = tuple(child.record for child in running)
        url = self.plane.url if self.plane.children else ""
        state.write(state.Run(name, self.layout.directory, url, self.plane.admin_kubeconfig, records))

    def hand_over(self, description: Path) -> None:
        """End what lives in this process, and let a daemon that reads ``description`` go on mounting and renewing."""
        self.keeper.stop()
        for agent in self.agents.values():
            agent.stop()
        self.processes.start("kubelets", [sys.executable, "-m", "countersign.demo.kept", description])

    # -- ending ---------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process, and return when they have ended. Safe to call at any moment, and twice."""
        self.keeper.stop()
        for agent in self.agents.values():
            agent.stop()
        self.processes.stop_all()
        for tpm in self.tpms.values():
            tpm.stop()
        self.plane.stop()

    def _log_in(self, account: str) -> None:
        """Give the ServiceAccount ``account`` a token file and a kubeconfig that names it."""
        token = self.admin.run("create", "token", account, "-n", SYSTEM, f"--duration={_ACCOUNT_SECONDS}s").strip()
        path = self.layout.kubeconfig(account)
        file = write_private(path.with_suffix(".token"), token.encode())
        self.plane.kubeconfig(path, file, namespace=SYSTEM)

    def _mount(self) -> set[str]:
        return mount_secrets(self.admin, SYSTEM, self.layout.mounts)

    def _renew(self) -> None:
        for kubelet in self.kubelets.values():
            kubelet.renew_due()


_FROM_CHART: Final = {
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
}
_CLUSTER_SCOPED: Final = _FROM_CHART - {"ServiceAccount", "Role", "RoleBinding"}


def _in_system(found: dict[str, Any]) -> dict[str, Any]:
    """Return the object with its namespace said: ``helm template`` leaves to ``install`` what has none."""
    if found["kind"] in _CLUSTER_SCOPED:
        return found
    return {**found, "metadata": {"namespace": SYSTEM, **found["metadata"]}}

"""The chart as helm renders it, and as a plane takes it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from countersign.devcluster import Plane

CHART = Path(__file__).parents[2] / "charts" / "countersign"
SYSTEM = "countersign-chart-test"
# Who is told to write facts about Devices where the chart is installed for tests.
MDM = "chart-test-mdm"
FACTS = (f"factSources.{MDM}=mdm",)
DEMO = ("webhook.url=https://127.0.0.1:9443", "image.pullPolicy=Never")
# What each of these renders is kept as golden files.
GOLDEN_SETS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "ha": (
        "operator.replicas=2",
        "webhook.replicas=3",
        "webhook.storage.storageClassName=fast",
        "replay.url=rediss://valkey.store.svc:6380/1",
        "replay.username=countersign",
        "replay.passwordSecret=valkey-password",
        "replay.caConfigMap=valkey-ca",
        "priorityClassName=system-cluster-critical",
        "webhook.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=kubernetes.io/hostname",
        "podDisruptionBudget.maxUnavailable=34%",
        "networkPolicy.egress.enabled=true",
    ),
    "certmanager-monitoring": (
        "certificates.source=CertManager",
        "metrics.serviceMonitor.enabled=true",
        "metrics.podMonitor.enabled=true",
        "metrics.rules.enabled=true",
        "metrics.rules.labels.release=prometheus",
        "podAnnotations.owner=platform",
        "webhook.podAnnotations.owner=security",
        "operator.podLabels.tier=control",
    ),
    "existing": (
        "certificates.source=ExistingSecret",
        "certificates.existingSecret.webhook=our-webhook-tls",
        "certificates.existingSecret.authority=our-authority-tls",
        "image.digest=sha256:" + "a" * 64,
        "imagePullSecrets[0].name=pull",
        "webhook.storage.existingClaim=our-webhook-log",
        "authority.storage.existingClaim=our-authority-store",
    ),
    "node-demo": (
        "webhook.url=https://127.0.0.1:9443",
        "image.pullPolicy=Never",
        "node.enabled=true",
        "node.type=Simulator",
        "node.slots=2",
        "node.simulator.image=localhost/countersign-swtpm:0.1.0",
        "metrics.podMonitor.enabled=true",
        "networkPolicy.egress.enabled=true",
    ),
}
# Every template's other branch is in one of these.
VALUE_SETS: dict[str, tuple[str, ...]] = {
    **GOLDEN_SETS,
    "as the demo installs it": DEMO,
    "nothing that can be left out": (
        "crds.enabled=false",
        "networkPolicy.enabled=false",
        "webhook.storage.type=EmptyDir",
        "authority.storage.type=EmptyDir",
    ),
    "everything that can be said": (
        "image.tag=1.2.3",
        "image.digest=sha256:" + "a" * 64,
        "imagePullSecrets[0].name=pull",
        "clusterName=prod-eu",
        "audiences[0].prefix=https://tools.example.com/",
        "audiences[0].namespaces={billing,tools}",
        "operator.replicas=3",
        "crds.keep=false",
        "certificates.source=CertManager",
        "certificates.certManager.issuerRef.name=platform",
        "certificates.certManager.issuerRef.kind=ClusterIssuer",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
        "metrics.podMonitor.labels.release=prometheus",
        "webhook.tolerations[0].key=edge",
        "webhook.tolerations[0].effect=NoSchedule",
        "webhook.topologySpreadConstraints[0].maxSkew=1",
        "webhook.topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone",
        "webhook.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "podLabels.cost=security",
        "commonLabels.team=platform",
        "podDisruptionBudget.enabled=false",
        "webhook.clientCAConfigMap=apiserver-client-ca",
        "webhook.timeoutSeconds=5",
        "webhook.pepCAConfigMap=pep-ca",
        "peps[0].name=edge",
        "peps[0].servers={billing/stripe,billing/mail}",
        "peps[0].serviceAccount=edge/gateway",
        "peps[1].name=gate",
        "peps[1].servers={billing/stripe}",
        "peps[1].certificate=spiffe://edge.example.com/gate",
        "webhook.storage.storageClassName=fast",
        "authority.storage.size=20Gi",
        "networkPolicy.podCIDRs={10.0.0.0/8,fd00::/8}",
        "nodeSelector.disk=ssd",
        "tolerations[0].operator=Exists",
        "injection.formerImages={localhost/countersign:0.0.9}",
        "guards.exec=false",
        *FACTS,
    ),
    "replicas without volumes": (
        "webhook.replicas=2",
        "webhook.storage.type=EmptyDir",
        "replay.url=redis://valkey.store.svc",
    ),
    "one that shares its store": ("replay.url=redis://valkey.store.svc:6379", "webhook.workers=4"),
    "with the nodes' chips": (
        "node.enabled=true",
        "node.slots=8",
        "node.nodeSelector.tpm=yes",
        "node.tolerations[0].operator=Exists",
        "imagePullSecrets[0].name=pull",
    ),
}


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_or_build().helm), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def render(*values: str, namespace: str = SYSTEM) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(_rendered(values, namespace)) if each]


@cache
def _rendered(values: tuple[str, ...], namespace: str) -> str:
    words = [word for each in values for word in ("--set", each)]
    done = helm("template", "countersign", str(CHART), "--skip-tests", "--namespace", namespace, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].startswith(name)]
    assert len(found) == 1, f"{kind} {name}: {[each['metadata']['name'] for each in found]}"
    return found[0]


def as_list(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def apply(plane: Plane, objects: list[dict[str, Any]], *words: str) -> str:
    return plane.kubectl("apply", "--server-side", "--validate=strict", *words, "-f", "-", data=as_list(objects))


def instance(name: str, namespace: str) -> dict[str, Any]:
    uid = "0f4f3f5c-1111-4222-8333-444455556666"
    return {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "AgentInstance",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "agentRef": {"name": "agent", "uid": uid},
            "deviceRef": {"name": "node-a", "uid": uid},
            "type": "Pod",
            "pod": {"name": "pod", "uid": uid, "nodeName": "node-a"},
        },
    }

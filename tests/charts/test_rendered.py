"""What helm makes of the chart: linted, closed against typos, and in agreement with the processes that it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import CHART, DEMO, SYSTEM, VALUE_SETS, helm, one, render

from countersign.api import KINDS
from countersign.authority.settings import load as load_authority
from countersign.controller.settings import load as load_operator
from countersign.demo.machine import _FROM_CHART
from countersign.kube.injection import InjectionSettings
from countersign.node.settings import load as load_node
from countersign_webhook.admission.kinds import KINDS as JUDGED
from countersign_webhook.settings import load as load_webhook

GOLDEN = Path(__file__).parent / "webhooks.yaml"
LOADERS: dict[str, Any] = {"operator": load_operator, "webhook": load_webhook, "authority": load_authority}
PLURALS = {kind.__name__: kind.names.plural for kind in KINDS}


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_lints_strictly(values: tuple[str, ...]) -> None:
    words = [word for each in values for word in ("--set", each)]
    done = helm("lint", "--strict", str(CHART), "--namespace", SYSTEM, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_webhooks_are_registered_as_golden() -> None:
    found = [each for each in render(namespace="countersign-system") if each["kind"].endswith("WebhookConfiguration")]
    for each in found:
        del each["metadata"]["labels"]
    assert found == list(yaml.safe_load_all(GOLDEN.read_text()))


def test_a_url_stands_in_the_place_of_the_service() -> None:
    service, url = render(), render(*DEMO)
    for kind, path in (
        ("MutatingWebhookConfiguration", "/mutate-pods"),
        ("ValidatingWebhookConfiguration", "/validate"),
    ):
        by_url, by_service = (one(each, kind, "countersign")["webhooks"][0] for each in (url, service))
        assert by_url.pop("clientConfig") == {"url": f"https://127.0.0.1:9443{path}"}
        assert "caBundle" not in by_service.pop("clientConfig")
        assert by_url == by_service


def test_validation_is_asked_for_exactly_the_kinds_that_the_webhook_judges() -> None:
    webhooks = one(render(), "ValidatingWebhookConfiguration", "countersign")["webhooks"]
    asked = [resource for webhook in webhooks for rule in webhook["rules"] for resource in rule["resources"]]
    assert sorted(asked) == sorted(PLURALS[kind] for kind in JUDGED)


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
@pytest.mark.parametrize("process", LOADERS)
def test_each_process_can_read_its_settings(process: str, values: tuple[str, ...], tmp_path: Path) -> None:
    objects = render(*values)
    pod = workload(objects, process)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["args"] == [process, "--config", f"/etc/countersign/{process}.yaml"]
    assert pod["serviceAccountName"] == f"countersign-{process}"
    settings = one(objects, "ConfigMap", f"countersign-{process}-")
    assert settings["immutable"] is True
    assert volume(pod, "/etc/countersign")["configMap"]["name"] == settings["metadata"]["name"]
    file = tmp_path / "settings.yaml"
    file.write_text(settings["data"][f"{process}.yaml"])
    read = LOADERS[process](file)
    assert (read.namespace, read.kubeconfig) == (SYSTEM, None)
    assert_mounted(pod, read, serving_secrets(objects))
    assert_ports(objects, process, container, read)


def workload(objects: list[dict[str, Any]], process: str) -> dict[str, Any]:
    """The Deployment of a process; of several with a volume each, the StatefulSet, whose claim stands for a volume."""
    sets = [each for each in objects if each["kind"] == "StatefulSet"]
    if process != "webhook" or not sets:
        return one(objects, "Deployment", f"countersign-{process}")
    found = one(objects, "StatefulSet", "countersign-webhook")
    [claim] = found["spec"]["volumeClaimTemplates"]
    name = claim["metadata"]["name"]
    found["spec"]["template"]["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    return found


def test_several_replicas_roll_and_one_ends_before_the_next() -> None:
    alone, few, many = (
        workload(render(*VALUE_SETS[name]), "webhook")
        for name in ("one that shares its store", "replicas without volumes", "ha")
    )
    assert (alone["spec"]["replicas"], alone["spec"]["strategy"]["type"]) == (1, "Recreate")
    assert (few["kind"], few["spec"]["replicas"], few["spec"]["strategy"]["type"]) == ("Deployment", 2, "RollingUpdate")
    assert (many["kind"], many["spec"]["replicas"], "strategy" in many["spec"]) == ("StatefulSet", 3, False)
    assert not [each for each in render(*VALUE_SETS["ha"]) if "webhook" in claim_name(each)]


def claim_name(found: dict[str, Any]) -> str:
    return str(found["metadata"]["name"]) if found["kind"] == "PersistentVolumeClaim" else ""


def volume(pod: dict[str, Any], path: str) -> dict[str, Any]:
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    return next(each for each in pod["volumes"] if each["name"] == mounts[path])


def serving_secrets(objects: list[dict[str, Any]]) -> dict[str, str]:
    """What the operator is told about the Secrets of the serving certificates."""
    said = yaml.safe_load(one(objects, "ConfigMap", "countersign-operator-")["data"]["operator.yaml"])["certificates"]
    return {"webhook": said["webhook_secret"], "authority": said["authority_secret"]}


def assert_mounted(pod: dict[str, Any], read: Any, serving: dict[str, str]) -> None:
    """Every file that the settings name is in a Secret or ConfigMap that is mounted there."""
    process = read.__class__.__name__.removesuffix("Settings").lower()
    for block in ("admission", "calls", "listen"):
        part = getattr(read, block, None)
        for path in filter(None, (getattr(part, "tls_cert", None), getattr(part, "tls_key", None))):
            assert volume(pod, str(path.parent))["secret"]["secretName"] == serving[process]
        if client_ca := getattr(part, "client_ca", None):
            name = "pep-ca" if block == "calls" else "apiserver-client-ca"
            assert volume(pod, str(client_ca.parent))["configMap"]["name"] == name
    if keys := getattr(read, "token_keys", None):
        assert volume(pod, str(keys))["secret"]["secretName"] == "countersign-token-keys"
    if replay := getattr(read, "replay", None):
        assert volume(pod, str(replay.nonce_key.parent))["secret"]["secretName"] == "countersign-nonce-key"
        if replay.password:
            assert volume(pod, str(replay.password.parent))["secret"]["secretName"] == "valkey-password"
            assert volume(pod, str(replay.ca.parent))["configMap"]["name"] == "valkey-ca"
    if audit := getattr(read, "audit", None):
        assert volume(pod, str(audit.directory.parent)).keys() & {"persistentVolumeClaim", "emptyDir"}
    if database := getattr(read, "database_url", None):
        assert database == f"sqlite+aiosqlite:///{audit.directory.parent}/authority.db"


def assert_ports(objects: list[dict[str, Any]], process: str, container: dict[str, Any], read: Any) -> None:
    """Each port that the process listens on is a port of the container and, by its name, of the Service."""
    blocks = ("admission", "calls", "listen", "health")
    listening = {part.port for name in blocks if (part := getattr(read, name, None)) is not None}
    assert {each["containerPort"] for each in container["ports"]} == listening
    service = one(objects, "Service", f"countersign-{process}")["spec"]
    assert {each["targetPort"]: each["port"] for each in service["ports"]} == {
        each["name"]: each["containerPort"] for each in container["ports"]
    }
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "health"


def test_the_processes_are_told_the_same_about_each_other(tmp_path: Path) -> None:
    objects = render(
        "clusterName=prod-eu",
        "audiences[0].prefix=https://a.example/",
        "audiences[0].namespaces={billing}",
        "injection.formerImages={localhost/countersign:0.0.9}",
    )
    read = {}
    for process, load in LOADERS.items():
        file = tmp_path / process
        file.write_text(one(objects, "ConfigMap", f"countersign-{process}-")["data"][f"{process}.yaml"])
        read[process] = load(file)
    operator, webhook, authority = read["operator"], read["webhook"], read["authority"]
    assert operator.webhook_url == webhook.issuer == f"https://countersign-webhook.{SYSTEM}.svc:8443"
    assert operator.authority_url == authority.url == f"https://countersign-authority.{SYSTEM}.svc:8443"
    assert f"countersign-webhook.{SYSTEM}.svc" in operator.webhook_names
    assert f"countersign-authority.{SYSTEM}.svc" in operator.authority_names
    assert operator.grants == webhook.grants == (("https://a.example/", ("billing",)),)
    assert {each.cluster for each in read.values()} == {"prod-eu"}
    assert webhook.injection.model_dump() == authority.injection.model_dump()
    assert operator.signer == InjectionSettings(
        webhook.injection.image, webhook.injection.version, webhook.token_audience
    )
    assert authority.injection.former_images == ("localhost/countersign:0.0.9",)


def test_another_image_is_another_version_of_what_is_injected() -> None:
    """By the version that a pod says, the operator knows which image it was given."""
    said = {
        yaml.safe_load(one(render(*values), "ConfigMap", "countersign-operator-")["data"]["operator.yaml"])[
            "injection"
        ]["version"]
        for values in ((), ("image.tag=next",), ("image.repository=localhost/other",))
    }
    assert len(said) == 3


def test_another_setting_is_another_configmap_and_so_a_new_pod() -> None:
    names = {
        one(render(f"logLevel={level}"), "ConfigMap", "countersign-webhook-")["metadata"]["name"]
        for level in ("info", "debug")
    }
    assert len(names) == 2


@pytest.mark.parametrize("process", LOADERS)
def test_e8_no_process_has_more_of_its_node_than_it_needs(process: str) -> None:
    pod = one(render(), "Deployment", f"countersign-{process}")["spec"]["template"]["spec"]
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    assert not any("hostPath" in each for each in pod["volumes"])
    # kubelet makes COUNTERSIGN_WEBHOOK_PORT of a Service's name, which a process could take for a setting.
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert container["resources"]["limits"]["memory"]
    for name in ("settings", "tls", "token-keys"):
        assert all(each.get("readOnly") for each in container["volumeMounts"] if each["name"] == name)


NODES = {"chips": "with the nodes' chips", "simulators": "node-demo"}


def node_pod(kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    objects = render(*VALUE_SETS[NODES[kind]])
    return objects, one(objects, "DaemonSet", "countersign-node")["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", NODES)
def test_the_node_can_read_its_settings(kind: str, tmp_path: Path) -> None:
    objects, pod = node_pod(kind)
    maps = [each for each in objects if each["kind"] == "ConfigMap" and "node.yaml" in each["data"]]
    (settings,) = maps
    file = tmp_path / "node.yaml"
    file.write_text(settings["data"]["node.yaml"])
    read = load_node(file)
    assert volume(pod, "/etc/countersign")["configMap"]["name"] == settings["metadata"]["name"]
    assert volume(pod, str(read.trust_dir))["configMap"]["name"] == "countersign-trust"
    (source,) = volume(pod, str(read.token_file.parent))["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "countersign.dev"
    assert volume(pod, str(read.plugin_dir))["hostPath"]["path"] == str(read.plugin_dir)
    if kind == "chips":
        assert (read.socket_dir, str(read.device), read.slots) == (None, "/dev/tpmrm0", 8)
    else:
        assert volume(pod, str(read.socket_dir))["hostPath"]["path"] == str(read.socket_dir)
    container = pod["containers"][0]
    assert {each["containerPort"] for each in container["ports"]} == {read.health.port}


def test_nodes_are_off_by_default_and_simulators_need_an_image() -> None:
    assert not [each for each in render() if each["metadata"]["name"].startswith("countersign-node")]
    done = helm("template", "c", str(CHART), "--set", "node.enabled=true", "--set", "node.type=Simulator")
    assert "node.simulator.image is required" in done.stderr


@pytest.mark.parametrize("kind", NODES)
def test_a_node_has_no_more_of_its_machine_than_it_says(kind: str) -> None:
    _, pod = node_pod(kind)
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    paths = {each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each}
    simulated = kind == "simulators"
    assert paths == {"/var/lib/kubelet/device-plugins"} | ({"/var/lib/countersign/tpm"} if simulated else set())
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["privileged"] is not simulated
        added = security.get("capabilities", {}).get("add", [])
        assert added == (["SETGID", "SETUID"] if container["name"] == "simulators" else [])
        assert not simulated or security["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["limits"]["memory"]


def test_the_kinds_can_be_left_out_and_are_kept() -> None:
    definitions = [each for each in render() if each["kind"] == "CustomResourceDefinition"]
    assert {each["spec"]["names"]["plural"] for each in definitions} == set(PLURALS.values())
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in definitions)
    assert not [each for each in render("crds.enabled=false") if each["kind"] == "CustomResourceDefinition"]


def test_the_demo_takes_all_but_what_a_kubelet_would_run() -> None:
    left = {each["kind"] for each in render(*DEMO)} - _FROM_CHART
    assert left == {
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Service",
    }


def test_no_container_registry_is_named() -> None:
    images = {
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in render() if each["kind"] == "Deployment"
    }
    assert images == {"localhost/countersign:0.1.0"}

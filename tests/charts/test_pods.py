"""A pod with a signer is whole or is refused (crds.md 4, rows V), on a real API server with our webhook not even installed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube.given import pod
from support.agent_pods import SETTINGS, answer_to, create, init, injected, label, policy, refused, until
from support.chart import apply, one, render
from support.hostile_pods import HOSTILE, agent, signer
from support.jsonpatch import patched

from countersign.devcluster import Plane, free_ports
from countersign.kube.injection import inject, injection_faults

pytestmark = [pytest.mark.plane, pytest.mark.usefixtures("developers")]

DATA = Path(__file__).parents[1] / "data" / "pods"
GOLDEN = sorted(path for path in DATA.glob("*.yaml") if not path.stem.endswith(".injected"))
Change = Callable[[dict[str, Any]], Any]
FIRST = "countersign-signer must be the first init container"
IMAGE = "countersign-signer must have the image that Countersign gives it"
COMMAND = "countersign-signer must run the command that Countersign gives it, always"
VARIABLES = "countersign-signer must have the variables that Countersign gives it, and no other"
PROBE = "countersign-signer must have the startup probe that Countersign gives it, no other probe and no hook"
SECURITY = "countersign-signer must have the securityContext that Countersign gives it"
MOUNTS = "countersign-signer must mount the volumes that Countersign gives it, and no other"
VOLUMES = "the volumes countersign-token and countersign-trust must be as Countersign makes them"
TOKEN = "only the signer may have a token for countersign.dev"
MOUNTED = "only the signer may mount countersign-token and countersign-trust"
UID = "only the signer may run as uid 64174"
PRIVILEGED = "an agent's pod may have no privileged container"
NODE = "an agent's pod may not use the namespaces of its node"
PROCESSES = "an agent's pod may not share its process namespace"
HOST_PATH = "an agent's pod may have no hostPath volume"
TPM = "only the signer may use the TPM"
API = "is invalid"  # Kubernetes itself refuses it
TAKEN: Any = None  # no policy can know: without a signer it is no agent's; which identity it has is not in the pod

# What each of the changes that the authority refuses is answered at the door.
ANSWERS = {
    "no signer": TAKEN,
    "signer that does not stay": API,
    "another image": IMAGE,
    "another command": COMMAND,
    "arguments": COMMAND,
    "one more variable": VARIABLES,
    "variables from a ConfigMap": VARIABLES,
    "another uid": SECURITY,
    "a capability": SECURITY,
    "a hook": PROBE,
    "another probe": PROBE,
    "one more mount in the signer": MOUNTS,
    "a signer without a TPM": TAKEN,
    "another trust": VOLUMES,
    "another token": VOLUMES,
    "a token of our audience for the agent": TOKEN,
    "the agent mounts the token": MOUNTED,
    "the agent is the signer's uid": UID,
    "the whole pod is the signer's uid": UID,
    "the agent is privileged": PRIVILEGED,
    "the agent asks for a TPM": TPM,
    "a path of the node": HOST_PATH,
    "an ephemeral container": "cannot be set on create",
    "hostNetwork": NODE,
    "hostPID": NODE,
    "hostIPC": NODE,
    "shareProcessNamespace": PROCESSES,
}


def env(spec: dict[str, Any], number: int, value: str) -> None:
    signer(spec)["env"][number]["value"] = value


def probe(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = signer(spec)["startupProbe"]["httpGet"]
    return found


def security(field: str, value: Any) -> Change:
    return lambda spec: signer(spec)["securityContext"].update({field: value})


def mount(number: int, **fields: Any) -> Change:
    return lambda spec: signer(spec)["volumeMounts"][number].update(fields)


def volume(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in spec["volumes"] if each["name"] == name)


def token(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = volume(spec, "countersign-token")["projected"]["sources"][0]["serviceAccountToken"]
    return found


PROBED = {"exec": {"command": ["sh"]}}
# One clause each: without it this pod would be taken.
CLAUSES: dict[str, tuple[Change, str]] = {
    "not first": (lambda spec: spec["initContainers"].insert(0, init("first")), FIRST),
    "beside the agent": (
        lambda spec: (spec.pop("initContainers"), spec["containers"].append(init("countersign-signer"))),
        FIRST,
    ),
    "no command": (lambda spec: signer(spec).pop("command"), COMMAND),
    "another folder": (lambda spec: signer(spec).update(workingDir="/tmp"), COMMAND),
    "another trust folder": (lambda spec: env(spec, 0, "/tmp"), VARIABLES),
    "another token file": (lambda spec: env(spec, 1, "/tmp/token"), VARIABLES),
    "a port of the system's": (lambda spec: (env(spec, 2, "80"), probe(spec).update(port=81)), VARIABLES),
    "a variable twice": (lambda spec: signer(spec)["env"].append(dict(signer(spec)["env"][2])), VARIABLES),
    "another port than is probed": (lambda spec: env(spec, 2, "7082"), PROBE),
    "a probe elsewhere": (lambda spec: probe(spec).update(host="10.0.0.1"), PROBE),
    "no probe": (lambda spec: signer(spec).pop("startupProbe"), PROBE),
    "a probe that runs a command": (lambda spec: signer(spec).update(livenessProbe=PROBED), PROBE),
    "another that does": (lambda spec: signer(spec).update(readinessProbe=PROBED), PROBE),
    "another group": (security("runAsGroup", 0), SECURITY),
    "root allowed": (security("runAsNonRoot", value=False), SECURITY),
    "a root filesystem to write": (security("readOnlyRootFilesystem", value=False), SECURITY),
    "escalation": (security("allowPrivilegeEscalation", value=True), SECURITY),
    "a privileged signer": (
        lambda spec: signer(spec)["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
        SECURITY,
    ),
    "nothing dropped": (security("capabilities", {}), SECURITY),
    "one added": (security("capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}), SECURITY),
    "no seccomp": (security("seccompProfile", {"type": "Unconfined"}), SECURITY),
    "another SELinux type": (security("seLinuxOptions", {"type": "spc_t"}), SECURITY),
    "no AppArmor": (security("appArmorProfile", {"type": "Unconfined"}), SECURITY),
    "all of /proc": (
        lambda spec: (spec.update(hostUsers=False), signer(spec)["securityContext"].update(procMount="Unmasked")),
        SECURITY,
    ),
    "another volume in its place": (
        lambda spec: (
            spec["volumes"].append({"name": "data", "emptyDir": {}}),
            signer(spec)["volumeMounts"][0].update(name="data"),
        ),
        MOUNTS,
    ),
    "a disk": (
        lambda spec: (
            spec["volumes"].append({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}),
            signer(spec).update(volumeDevices=[{"name": "disk", "devicePath": "/dev/disk"}]),
        ),
        MOUNTS,
    ),
    "a mount to write": (mount(0, readOnly=False), MOUNTS),
    "a part of a volume": (mount(1, subPath="x"), MOUNTS),
    "a part by a variable": (mount(1, subPathExpr="$(HOME)"), MOUNTS),
    "a mount elsewhere": (mount(0, mountPath="/var/run/countersign/other"), MOUNTS),
    "one mount short": (lambda spec: signer(spec)["volumeMounts"].pop(), MOUNTS),
    "a token for another": (lambda spec: token(spec).update(audience="other"), VOLUMES),
    "a token of a day": (lambda spec: token(spec).update(expirationSeconds=86400), VOLUMES),
    "a token under another name": (lambda spec: token(spec).update(path="other"), VOLUMES),
    "a part of the trust": (
        lambda spec: volume(spec, "countersign-trust")["configMap"].update(items=[{"key": "a", "path": "ca.crt"}]),
        VOLUMES,
    ),
    "trust that may be missing": (
        lambda spec: volume(spec, "countersign-trust")["configMap"].update(optional=True),
        VOLUMES,
    ),
    "an init container with the uid": (
        lambda spec: spec["initContainers"].append(init("second", securityContext={"runAsUser": 64174})),
        UID,
    ),
    "a privileged init container": (
        lambda spec: spec["initContainers"].append(init("second", securityContext={"privileged": True})),
        PRIVILEGED,
    ),
    "the trust in the agent": (
        lambda spec: agent(spec).update(volumeMounts=[{"name": "countersign-trust", "mountPath": "/t"}]),
        MOUNTED,
    ),
    "a TPM for an init container": (
        lambda spec: spec["initContainers"].append(init("second", resources={"limits": {"countersign.dev/tpm": "1"}})),
        TPM,
    ),
}


CHECKS = sorted(({said for _, said in CLAUSES.values()} | {TOKEN, NODE, PROCESSES, HOST_PATH, IMAGE}) - {TPM})


# Whole or not at all


def test_an_injected_pod_is_taken_as_injection_makes_it(installed: Plane, agents: str) -> None:
    create(installed, injected(agents))


@pytest.mark.parametrize("name", HOSTILE)
def test_c2_a_pod_that_the_authority_would_refuse_is_refused_at_the_door(
    installed: Plane, agents: str, name: str
) -> None:
    found = injected(agents)
    HOSTILE[name][0](found["spec"])

    if ANSWERS[name] is TAKEN:
        create(installed, found, "--dry-run=server")
    else:
        refused(installed, found, ANSWERS[name])


@pytest.mark.parametrize("name", CLAUSES)
def test_c2_each_clause_has_a_pod_that_only_it_refuses(installed: Plane, agents: str, name: str) -> None:
    change, message = CLAUSES[name]
    found = injected(agents)
    create(installed, found, "--dry-run=server")

    change(found["spec"])

    refused(installed, found, message)


@pytest.mark.parametrize("message", CHECKS)
def test_without_one_check_its_pods_are_taken(installed: Plane, agents: str, message: str) -> None:
    """No other check refuses them: each is needed, and each of its pods is its alone."""
    whole = policy("countersign-pod")
    without = copy.deepcopy(whole)
    without["spec"]["validations"] = [each for each in whole["spec"]["validations"] if each["message"] != message]
    assert len(without["spec"]["validations"]) == len(whole["spec"]["validations"]) - 1
    every = {**CLAUSES, **{name: (HOSTILE[name][0], said) for name, said in ANSWERS.items()}}
    pods = {name: injected(agents) for name, (_, said) in every.items() if said == message}
    for name, found in pods.items():
        every[name][0](found["spec"])
    apply(installed, [without])
    try:
        for name, found in pods.items():
            until(lambda found=found: not answer_to(installed, found), name)
    finally:
        apply(installed, [whole])
        until(lambda: message in answer_to(installed, next(iter(pods.values()))), "the check is not back")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_golden_pod_is_taken_once_injected(installed: Plane, agents: str, path: Path) -> None:
    before, owner = yaml.safe_load_all(path.read_text())
    account = before["spec"]["serviceAccountName"]
    if account != "refund-agent":
        installed.kubectl("create", "serviceaccount", account, "-n", agents)
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}}
    overhead = {"podFixed": {"cpu": "250m", "memory": "120Mi"}}
    apply(installed, [{**runtime, "handler": "runsc", "overhead": overhead}])
    before["metadata"] |= {"namespace": agents, "ownerReferences": None, "finalizers": None}
    found = patched(before, inject(before, owner, SETTINGS))

    data = json.dumps(found)
    live = json.loads(installed.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", data=data))

    assert injection_faults(live, owner, SETTINGS) == []
    assert inject(live, owner, SETTINGS) == []


def test_a_signer_is_whole_in_namespaces_that_did_not_opt_in_too(installed: Plane, namespace: str) -> None:
    label(installed, namespace, "countersign.dev/tpm=allowed")
    installed.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    found = injected(namespace)
    signer(found["spec"])["image"] = "evil"

    refused(installed, found, IMAGE)


def test_a_pod_without_a_signer_is_not_looked_at(installed: Plane, agents: str) -> None:
    found = pod(hostNetwork=True, shareProcessNamespace=True, securityContext={"runAsUser": 64174})
    found["metadata"]["namespace"] = agents

    create(installed, found)


def test_a_pod_with_very_many_containers_is_judged_in_time(installed: Plane, agents: str) -> None:
    many = [{"name": f"V{number}", "value": "x"} for number in range(50)]
    inits = [init(f"init-{number}", env=list(many)) for number in range(100)]
    volumes = [{"name": f"v-{number}", "emptyDir": {}} for number in range(100)]
    found = injected(agents, initContainers=inits, volumes=volumes)

    create(installed, found)
    found["spec"]["volumes"][50] = {"name": "v-50", "hostPath": {"path": "/"}}
    refused(installed, found, HOST_PATH)


def test_the_signer_of_before_an_upgrade_is_taken_and_no_other() -> None:
    rules = policy("countersign-pod", "injection.formerImages={localhost/countersign:0.0.9}")["spec"]["validations"]
    (images,) = [each["expression"] for each in rules if each["message"] == IMAGE]
    assert '["localhost/countersign:0.1.0","localhost/countersign:0.0.9"]' in images


def test_c3_while_the_webhook_is_down_no_pod_of_an_agents_namespace_is_made(installed: Plane, agents: str) -> None:
    """As the chart registers it; only the namespace is this test's, and nobody listens there."""
    [port] = free_ports(1)
    found = one(render(f"webhook.url=https://127.0.0.1:{port}"), "MutatingWebhookConfiguration", "countersign")
    found["metadata"] = {"name": agents}
    found["webhooks"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] = agents
    bare, opted_out = pod(), pod(labels={"countersign.dev/inject": "disabled"})
    bare["metadata"]["namespace"] = opted_out["metadata"]["namespace"] = agents
    apply(installed, [found])
    try:
        until(lambda: "failed calling webhook" in answer_to(installed, bare), "the webhook is not registered")
        refused(installed, bare, 'failed calling webhook "pods.countersign.dev"')
        # Who keeps a pod out of it gets a pod, and no identity.
        create(installed, opted_out)
    finally:
        installed.kubectl("delete", "mutatingwebhookconfiguration", agents)

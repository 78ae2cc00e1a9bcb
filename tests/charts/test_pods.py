"""Rows V of crds.md 4 about pods, on a real API server with our webhook not even installed: one pod for each check."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kube.given import identity, pod
from support.chart import apply, one, render
from support.hostile_pods import HOSTILE, agent, signer
from support.jsonpatch import patched

from countersign.devcluster import Plane, PlaneError, free_ports
from countersign.kube.injection import InjectionSettings, inject, injection_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.plane

DATA = Path(__file__).parents[1] / "data" / "pods"
GOLDEN = sorted(path for path in DATA.glob("*.yaml") if not path.stem.endswith(".injected"))
Change = Callable[[dict[str, Any]], Any]
SETTINGS = InjectionSettings(image="localhost/countersign:0.1.0", version="0.1.0")
# May do with pods what `edit` may, and nothing with our kinds.
DEVELOPER, DEBUGGER = "chart-test-developer", "chart-test-debugger"

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
POLICY = "ValidatingAdmissionPolicy"
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


def init(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": name, **fields}


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


@pytest.fixture(scope="module", autouse=True)
def people(installed: Plane) -> Iterator[None]:
    rbac = "rbac.authorization.k8s.io"
    verbs = ["get", "list", "create", "update", "patch", "delete"]
    every = ["pods", *(f"pods/{each}" for each in ("attach", "exec", "ephemeralcontainers", "portforward", "status"))]
    rules = {
        DEVELOPER: [{"apiGroups": [""], "resources": [*every, "namespaces", "namespaces/status"], "verbs": verbs}],
        DEBUGGER: [{"apiGroups": ["countersign.dev"], "resources": ["agentinstances"], "verbs": ["exec"]}],
    }
    users = {DEVELOPER: [DEVELOPER, DEBUGGER], DEBUGGER: [DEBUGGER]}
    objects: list[dict[str, Any]] = []
    for name, granted in rules.items():
        head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
        subjects = [{"apiGroup": rbac, "kind": "User", "name": user} for user in users[name]]
        ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": name}
        objects.append({**head, "kind": "ClusterRole", "rules": granted})
        objects.append({**head, "kind": "ClusterRoleBinding", "roleRef": ref, "subjects": subjects})
    apply(installed, objects)
    yield
    # Other tests look at all pods of this plane.
    installed.kubectl("delete", "pods", "-A", "-l", "app=refund-agent", "--grace-period=0", "--force")
    for kind in ("clusterrole", "clusterrolebinding"):
        installed.kubectl("delete", kind, *rules)


@pytest.fixture
def agents(installed: Plane, namespace: str) -> str:
    label(installed, namespace, "countersign.dev/injection=enabled", "countersign.dev/tpm=allowed")
    installed.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    return namespace


def label(plane: Plane, namespace: str, *labels: str, user: str | None = None) -> None:
    plane.kubectl("label", "--overwrite", "namespace", namespace, *labels, *([f"--as={user}"] if user else []))


def injected(namespace: str, *, plain: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    before = plain or pod(**spec)
    before["metadata"]["namespace"] = namespace
    return patched(before, inject(before, identity(), SETTINGS))


def create(plane: Plane, found: dict[str, Any], *words: str, user: str | None = None) -> None:
    plane.kubectl("create", *words, "-f", "-", *([f"--as={user}"] if user else []), data=json.dumps(found))


def refused(plane: Plane, found: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaneError) as caught:
        create(plane, found, "--dry-run=server")
    assert message in str(caught.value)


def patch(plane: Plane, namespace: str, change: Any, *words: str, user: str | None = None) -> None:
    as_user = [f"--as={user}"] if user else []
    kind = "--type=json" if isinstance(change, list) else "--type=strategic"
    where = ["pod", "refund-1", "-n", namespace, *words, *as_user]
    plane.kubectl("patch", *where, kind, "-p", json.dumps(change))


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
    objects = render("injection.formerImages={localhost/countersign:0.0.9}")
    (policy,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (POLICY, "countersign-pod")]
    rules = policy["spec"]["validations"]
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


def answer_to(plane: Plane, found: dict[str, Any]) -> str:
    """What the API server says against a pod, in a dry run; nothing if it would take it."""
    try:
        create(plane, found, "--dry-run=server")
    except PlaneError as error:
        return str(error)
    return ""


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what


# What changes about a pod that runs


@pytest.mark.parametrize("which", ["containers", "initContainers"])
def test_c13_an_image_of_an_agent_is_never_swapped(installed: Plane, agents: str, which: str) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match="images of an agent are immutable"):
        patch(
            installed,
            agents,
            [{"op": "replace", "path": f"/spec/{which}/0/image", "value": "evil"}],
            user=DEVELOPER,
        )


def test_c13_somebody_elses_pod_may_change_its_image(installed: Plane, agents: str) -> None:
    other = pod()
    other["metadata"]["namespace"] = agents
    create(installed, other)

    patch(installed, agents, [{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}], user=DEVELOPER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"app": None}}, "labels of an agent's pod may be neither removed nor changed"),
        ({"labels": {"app": "other"}}, "labels of an agent's pod may be neither removed nor changed"),
        ({"labels": {"countersign.dev/inject": "disabled"}}, "takes no label of countersign.dev"),
        ({"annotations": {"countersign.dev/injected": None}}, "countersign.dev/injected is written by Countersign"),
        ({"annotations": {"countersign.dev/injected": "2"}}, "countersign.dev/injected is written by Countersign"),
    ],
)
@pytest.mark.parametrize("way", [[], ["--subresource=status"]], ids=["itself", "its status"])
def test_c2_an_agent_keeps_what_it_is_known_by(
    installed: Plane, agents: str, change: dict[str, Any], message: str, way: list[str]
) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match=message):
        patch(installed, agents, {"metadata": change}, *way, user=DEVELOPER)


def test_everything_else_about_an_agents_pod_changes_as_ever(installed: Plane, agents: str) -> None:
    create(installed, injected(agents))

    patch(installed, agents, {"metadata": {"labels": {"new": "label"}, "annotations": {"new": "note"}}}, user=DEVELOPER)
    patch(installed, agents, {"status": {"phase": "Running"}}, "--subresource=status", user=DEVELOPER)
    installed.kubectl("delete", "pod", "refund-1", "-n", agents, "--grace-period=0", "--force", f"--as={DEVELOPER}")


# Getting into one


def debugger(**fields: Any) -> dict[str, Any]:
    return {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox", **fields}]}}


@pytest.mark.parametrize(
    ("words", "subresource"),
    [
        (["exec", "refund-1", "--", "id"], "exec"),
        (["exec", "refund-1", "-c", "countersign-signer", "--", "id"], "exec"),
        (["attach", "refund-1"], "attach"),
        (["port-forward", "refund-1", "17080:7080"], "portforward"),
        (["debug", "refund-1", "--image=busybox"], "ephemeralcontainers"),
        (["debug", "refund-1", "--image=busybox", "--target=agent"], "ephemeralcontainers"),
    ],
    ids=["exec", "exec into the signer", "attach", "port-forward", "debug", "debug --target"],
)
def test_c9_getting_into_an_agents_pod_needs_the_verb(
    installed: Plane, agents: str, words: list[str], subresource: str
) -> None:
    create(installed, injected(agents))
    ready(installed, agents)

    said = f"{DEVELOPER} may not use pods/{subresource} in namespace {agents}: it needs the verb exec on agentinstances"
    assert said in answer(installed, "-n", agents, f"--as={DEVELOPER}", *words)
    # Nobody runs the pod, so nothing comes of it; but it is not forbidden.
    assert "orbidden" not in answer(installed, "-n", agents, f"--as={DEBUGGER}", *words)


def answer(plane: Plane, *words: str) -> str:
    """What kubectl says went wrong, or nothing."""
    try:
        plane.kubectl(*words)
    except PlaneError as error:
        return str(error)
    return ""


def ready(plane: Plane, namespace: str) -> None:
    """Say of the pod what a kubelet would: kubectl looks before it asks."""
    patch(plane, namespace, {"status": {"phase": "Running"}}, "--subresource=status")


def test_c9_the_verb_can_be_granted_in_one_namespace(installed: Plane, agents: str) -> None:
    create(installed, injected(agents))
    rule = ["--verb=exec", "--resource=agentinstances.countersign.dev"]
    installed.kubectl("create", "role", "exec", *rule, "-n", agents)
    installed.kubectl("create", "rolebinding", "exec", "--role=exec", f"--user={DEVELOPER}", "-n", agents)

    patch(installed, agents, debugger(), "--subresource=ephemeralcontainers", user=DEVELOPER)


def test_c9_namespaces_without_agents_are_as_they_were(installed: Plane, namespace: str) -> None:
    installed.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    other = pod()
    other["metadata"]["namespace"] = namespace
    create(installed, other)

    patch(installed, namespace, debugger(), "--subresource=ephemeralcontainers", user=DEVELOPER)


@pytest.mark.parametrize(
    "fields",
    [
        {"targetContainerName": "countersign-signer"},
        {"securityContext": {"runAsUser": 64174}},
        {"securityContext": {"privileged": True}},
        {"volumeMounts": [{"name": "countersign-token", "mountPath": "/t"}]},
        {"volumeMounts": [{"name": "countersign-trust", "mountPath": "/t"}]},
    ],
    ids=["target", "uid", "privileged", "token", "trust"],
)
def test_c9_who_may_debug_still_does_not_become_the_signer(
    installed: Plane, agents: str, fields: dict[str, Any]
) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match="an ephemeral container may not be the signer's uid"):
        patch(installed, agents, debugger(**fields), "--subresource=ephemeralcontainers", user=DEBUGGER)
    patch(installed, agents, debugger(), "--subresource=ephemeralcontainers", user=DEBUGGER)


def test_c9_the_guard_can_be_left_to_others() -> None:
    names = [each["metadata"]["name"] for each in render("guards.exec=false")]
    assert "countersign-pod-access" not in names
    assert "countersign-pod-access" in [each["metadata"]["name"] for each in render()]


# TPMs, and the namespaces that may have them


@pytest.mark.parametrize("kind", ["limits", "requests"])
def test_a_tpm_is_for_signers_in_any_namespace(installed: Plane, agents: str, kind: str) -> None:
    thief = pod(containers=[init("thief", resources={kind: {"countersign.dev/tpm": "1"}})])
    thief["metadata"]["namespace"] = agents

    # Kubernetes wants limits beside requests; requests beside limits it writes by itself.
    refused(installed, thief, TPM if kind == "limits" else "is invalid")


def test_a_tpm_is_given_out_where_the_platform_says_so(installed: Plane, agents: str) -> None:
    found = injected(agents)
    create(installed, found, "--dry-run=server")

    label(installed, agents, "countersign.dev/tpm-")

    refused(installed, found, f"{TPM}, in namespaces labelled countersign.dev/tpm: allowed, and {agents} is not")
    software = pod()
    software["metadata"]["namespace"] = agents
    create(installed, patched(software, inject(software, identity(minAssurance="Software"), SETTINGS)))


@pytest.mark.parametrize("key", ["scope.countersign.dev/tenant", "countersign.dev/tpm"])
def test_what_rules_select_by_is_not_the_namespace_editors(installed: Plane, namespace: str, key: str) -> None:
    said = f"{DEVELOPER} may not relabel"
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}=a", user=DEVELOPER)
    label(installed, namespace, f"{key}=a")
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}=b", user=DEVELOPER)
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}-", user=DEVELOPER)
    change = json.dumps({"metadata": {"labels": {key: None}}})
    where = ["namespace", namespace, "--subresource=status", "--type=merge"]
    with pytest.raises(PlaneError, match=said):
        installed.kubectl("patch", *where, "-p", change, f"--as={DEVELOPER}")
    label(installed, namespace, "other=label", user=DEVELOPER)

    new = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-b", "labels": {key: "a"}}}
    with pytest.raises(PlaneError, match=said):
        create(installed, new, "--dry-run=server", user=DEVELOPER)


def test_c9_a_namespace_takes_part_for_good_unless_the_platform_says_otherwise(installed: Plane, agents: str) -> None:
    """Else who may edit a Namespace takes the guard off its agents and walks in."""
    for change in ("countersign.dev/injection-", "countersign.dev/injection=disabled"):
        with pytest.raises(PlaneError, match=f"{DEVELOPER} may not relabel"):
            label(installed, agents, change, user=DEVELOPER)
    label(installed, agents, "countersign.dev/injection-")
    label(installed, agents, "countersign.dev/injection=enabled", user=DEVELOPER)


def test_the_right_to_relabel_is_a_verb(installed: Plane, namespace: str) -> None:
    rule = ["--verb=label", "--resource=clustertoolpolicies.countersign.dev"]
    installed.kubectl("create", "clusterrole", f"{namespace}-label", *rule)
    for role in (f"{namespace}-label", DEVELOPER):
        binding = ["clusterrolebinding", f"{namespace}-{role}", f"--clusterrole={role}", f"--user={namespace}"]
        installed.kubectl("create", *binding)

    label(installed, namespace, "scope.countersign.dev/tenant=a", user=namespace)

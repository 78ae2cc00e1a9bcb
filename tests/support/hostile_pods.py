"""What nobody may make of an injected pod: one change each, and the fault that it is; shared by all who look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], Any]
_TOKEN_VOLUME = {
    "name": "mine",
    "projected": {"sources": [{"serviceAccountToken": {"audience": "countersign.dev", "path": "t"}}]},
}


def signer(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["initContainers"][0]
    return found


def agent(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["containers"][0]
    return found


HOSTILE: dict[str, tuple[Change, str]] = {
    "no signer": (lambda spec: spec.pop("initContainers"), "no init container countersign-signer"),
    "signer that does not stay": (lambda spec: signer(spec).pop("restartPolicy"), "another restartPolicy"),
    "another image": (lambda spec: signer(spec).update(image="evil"), "another image"),
    "another command": (lambda spec: signer(spec).update(command=["sh"]), "another command"),
    "arguments": (lambda spec: signer(spec).update(args=["--log-level=debug"]), "another args"),
    "one more variable": (
        lambda spec: signer(spec)["env"].append({"name": "PYTHONPATH", "value": "/x"}),
        "another env",
    ),
    "variables from a ConfigMap": (
        lambda spec: signer(spec).update(envFrom=[{"configMapRef": {"name": "x"}}]),
        "another envFrom",
    ),
    "another uid": (lambda spec: signer(spec)["securityContext"].update(runAsUser=0), "another securityContext"),
    "a capability": (
        lambda spec: signer(spec)["securityContext"].update(capabilities={"add": ["SYS_PTRACE"]}),
        "another securityContext",
    ),
    "a hook": (
        lambda spec: signer(spec).update(lifecycle={"preStop": {"exec": {"command": ["x"]}}}),
        "another lifecycle",
    ),
    "another probe": (lambda spec: signer(spec)["startupProbe"]["httpGet"].update(path="/"), "another startupProbe"),
    "one more mount in the signer": (
        lambda spec: (
            spec["volumes"].append({"name": "data", "emptyDir": {}}),
            signer(spec)["volumeMounts"].append({"name": "data", "mountPath": "/usr"}),
        ),
        "other volumeMounts",
    ),
    "a signer without a TPM": (lambda spec: signer(spec).update(resources={}), "another number of countersign.dev/tpm"),
    "another trust": (
        lambda spec: spec["volumes"][1].update(configMap={"name": "evil"}),
        "volume countersign-trust is missing or another",
    ),
    "another token": (
        lambda spec: spec["volumes"][0]["projected"]["sources"].append({"secret": {"name": "x"}}),
        "volume countersign-token is missing or another",
    ),
    "a token of our audience for the agent": (
        lambda spec: spec["volumes"].append(_TOKEN_VOLUME),
        "volume mine holds a token for the signer's audience",
    ),
    "the agent mounts the token": (
        lambda spec: agent(spec).update(volumeMounts=[{"name": "countersign-token", "mountPath": "/t"}]),
        "container agent mounts countersign-token",
    ),
    "the agent is the signer's uid": (
        lambda spec: agent(spec).update(securityContext={"runAsUser": 64174}),
        "container agent runs as the signer's uid",
    ),
    "the whole pod is the signer's uid": (
        lambda spec: spec.update(securityContext={"runAsUser": 64174}),
        "container agent runs as the signer's uid",
    ),
    "the agent is privileged": (
        lambda spec: agent(spec).update(securityContext={"privileged": True}),
        "container agent is privileged",
    ),
    "the agent asks for a TPM": (
        lambda spec: agent(spec).update(resources={"limits": {"countersign.dev/tpm": "1"}}),
        "container agent asks for countersign.dev/tpm",
    ),
    "a path of the node": (
        lambda spec: spec["volumes"].append({"name": "node", "hostPath": {"path": "/run"}}),
        "volume node is a hostPath",
    ),
    "an ephemeral container": (
        lambda spec: spec.update(ephemeralContainers=[{"name": "debug"}]),
        "there is an ephemeral container",
    ),
    **{
        f"{field}": (lambda spec, field=field: spec.update({field: True}), f"{field} is set")
        for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
    },
}

"""Attacks on what Kubernetes holds, by the row of docs/threats.md, as far as no node is needed; admission's are in tests/charts."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.enrolment import AGENT, INJECTION, NAMESPACE, POD, TOKEN, Office, bare_pod, bound, patched
from support.line import Line, code_of
from support.world import AUDIENCE, SoftwareKey, details, form

from countersign import kube
from countersign.kube.injection import inject

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
INJECTED = sorted((ROOT / "tests" / "data" / "pods").glob("*.injected.yaml"))


# Kubernetes and the node


@pytest.mark.parametrize("path", INJECTED, ids=lambda path: path.name.partition(".")[0])
def test_c1_injection_puts_no_credential_into_the_agents_reach(path: Path) -> None:
    injected = yaml.safe_load(path.read_text())["spec"]
    plain = next(yaml.safe_load_all(path.with_name(path.name.replace(".injected", "")).read_text()))["spec"]
    before = {each["name"]: each for each in containers(plain)}
    for after in containers(injected):
        was = before[after["name"]]
        assert after.get("volumeMounts") == was.get("volumeMounts")
        assert {name for name in after if after[name] != was.get(name)} <= {"env"}
        new = {each["name"]: each.get("value") for each in after["env"] if each not in (was.get("env") or [])}
        assert set(new) <= {"COUNTERSIGN_URL", "NO_PROXY", "no_proxy"}
        assert new.get("COUNTERSIGN_URL", "http://127.0.0.1:").startswith("http://127.0.0.1:")
    added = [each for each in injected["volumes"] if each not in (plain.get("volumes") or [])]
    assert "secret" not in str(added)
    assert {each["name"] for each in added} == {"countersign-token", "countersign-trust"}


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All containers but the signer."""
    for kind in ("initContainers", "containers"):
        yield from (each for each in spec.get(kind) or [] if each["name"] != "countersign-signer")


async def test_c1_a_tool_server_takes_nothing_from_an_agent_that_goes_past_its_signer(line: Line) -> None:
    own = await line.call(await line.token())
    for dropped, code in (
        ({"authorization", "signature", "signature-input"}, "token.missing"),
        ({"signature", "signature-input"}, "proof.missing"),
        ({"authorization"}, "token.missing"),
    ):
        past = replace(own, headers=tuple(each for each in own.headers if each[0] not in dropped))
        answer = await line.present(past)
        assert (answer.status_code, code_of(answer)) == (401, code)
    assert line.ran[AUDIENCE] == []


async def test_c9_a_pod_that_somebody_got_into_enrols_no_more(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    live = office.cluster.find(kube.PODS, POD, NAMESPACE)
    live["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox"}]
    office.cluster.put(kube.PODS, live)

    assert code_of(await one.attest()) == "attest.not_injected"


async def test_c13_another_signer_than_the_injected_one_enrols_nobody(office: Office) -> None:
    one = await office.signer()
    live = office.cluster.find(kube.PODS, POD, NAMESPACE)
    live["spec"]["initContainers"][0]["image"] = "countersign:other"
    office.cluster.put(kube.PODS, live)

    assert code_of(await one.attest()) == "attest.not_injected"


async def test_c13_the_signer_of_the_release_before_enrols_while_the_platform_says_so(tmp_path: Path) -> None:
    """An upgrade gives new pods another signer, and does not shut out those that run."""
    for former, code in ((["countersign:before"], "ok"), ([], "attest.not_injected")):
        injection = {"image": INJECTION.image, "version": INJECTION.version, "former_images": former}
        directory = tmp_path / str(len(former))
        directory.mkdir()
        async with Office.open(directory, injection=injection) as office:
            identity = office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
            pod = bare_pod()
            old = replace(INJECTION, image="countersign:before")
            office.cluster.put(kube.PODS, patched(pod, inject(pod, identity, old)))
            office.cluster.tokens[TOKEN] = bound(pod)
            one = await office.signer()
            assert code_of(await one.attest()) == code


async def test_c2_a_path_of_the_node_makes_no_agent(office: Office) -> None:
    one = await office.signer()
    pod = bare_pod("open", "uid-open")
    pod["spec"]["volumes"] = [{"name": "node", "hostPath": {"path": "/run"}}]
    office.schedule(pod, "open")

    assert code_of(await replace(one, token="open").attest()) == "attest.not_injected"


# Availability


async def test_e3_an_instance_that_floods_the_front_door_keeps_nobody_else_waiting(line: Line) -> None:
    other = SoftwareKey()
    second = line.world.instance()
    second["metadata"] |= {"name": "refund-agent-second", "uid": "uid-second"}
    second["status"]["certificate"]["keyThumbprint"] = other.jkt
    line.world.source.put(kube.AGENT_INSTANCES, second)
    burst = line.world.context.settings.limits.instance_burst

    async def ask(key: SoftwareKey) -> str:
        body = form(details(), resource=AUDIENCE)
        return code_of(await line.world.send(await line.world.signed(body=body, key=key)))

    flood = Counter(await asyncio.gather(*(ask(line.world.key) for _ in range(burst + 50))))
    assert flood == {"ok": burst, "rate.limited": 50}
    assert Counter(await asyncio.gather(*(ask(other) for _ in range(20)))) == {"ok": 20}


def test_e8_what_we_install_is_pinned_to_its_bytes() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        named = re.findall(r"^[a-zA-Z0-9][^\s\\]*", text, re.MULTILINE)
        assert named, path
        assert all("==" in each for each in named), path
        entries = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in each for each in entries), path
        assert "://" not in text, path


def test_e8_the_signer_may_do_nothing_to_its_node() -> None:
    pod = bare_pod()
    identity = {"metadata": {"name": AGENT, "namespace": NAMESPACE}, "spec": {"serviceAccountName": AGENT}}
    (signer,) = patched(pod, inject(pod, identity, INJECTION))["spec"]["initContainers"]
    assert signer["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsGroup": 64174,
        "runAsNonRoot": True,
        "runAsUser": 64174,
        "seccompProfile": {"type": "RuntimeDefault"},
    }

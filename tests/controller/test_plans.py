"""Plans by table: what one object's status says, given the others; and one small cluster whole, as golden YAML."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding
from support import cluster
from support.cluster import (
    NOW,
    account,
    device,
    identity,
    instance,
    issuer,
    pod,
    policy,
    pool,
    ready,
    rule,
    server,
)
from support.world import Ca

from countersign.controller.identities import plan_identity, plan_pod
from countersign.controller.instances import plan_instance
from countersign.controller.policies import plan_policy
from countersign.controller.pools import device_news, plan_pool
from countersign.controller.servers import Audiences, plan_server
from countersign.controller.view import View
from countersign.kube.injection import InjectionSettings
from countersign.policy import policy_digest

AUDIENCES = Audiences("https://countersign.example.com", None)
GOING = {"deletionTimestamp": "2026-11-24T11:00:00Z"}


def view(*objects: dict[str, Any]) -> View:
    seen = View()
    for one in objects:
        seen.put(cluster.RESOURCES[one["kind"]], one)
    return seen


def condition(plan: Any, kind: str = "Ready") -> tuple[str, str]:
    [found] = [one for one in plan.status["conditions"] if one["type"] == kind]
    assert found["observedGeneration"] == 1
    return found["status"], found["reason"]


def message(plan: Any, kind: str = "Ready") -> str:
    [found] = [one for one in plan.status["conditions"] if one["type"] == kind]
    return str(found["message"])


def notices(plan: Any) -> list[tuple[str, str, str]]:
    return [(one.regarding["kind"], one.type, one.reason) for one in plan.notices]


# AgentIdentity

OTHER = identity("other-agent")


def sharing(**more: Any) -> dict[str, Any]:
    """A pod that nobody can inject."""
    made = pod(signer=False, **more)
    made["spec"]["shareProcessNamespace"] = True
    return made


PLATFORM: list[dict[str, Any]] = [cluster.namespace(), issuer(), account()]


@pytest.mark.parametrize(
    ("objects", "expected", "said"),
    [
        ([*PLATFORM], ("True", "Ready"), ""),
        ([*PLATFORM, pod()], ("True", "Ready"), ""),
        ([cluster.namespace(), account()], ("False", "IssuerNotFound"), "default does not exist"),
        ([cluster.namespace(), account(), issuer(**GOING)], ("False", "IssuerNotFound"), "default"),
        (
            [
                cluster.namespace(),
                account(),
                issuer(exposeTo={"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}),
            ],
            ("False", "IssuerNotFound"),
            "not exposed to namespace billing",
        ),
        (
            [
                cluster.namespace(labels={"a": "b"}),
                account(),
                issuer(exposeTo={"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}),
            ],
            ("True", "Ready"),
            "",
        ),
        (
            [cluster.namespace(), account(), issuer(status=ready("CAExpired", status="False"))],
            ("False", "IssuerNotReady"),
            "default",
        ),
        ([cluster.namespace(), account(), issuer(status={})], ("False", "IssuerNotReady"), "default"),
        ([cluster.namespace(), account(), issuer(status=ready("CAExpiring"))], ("True", "Ready"), ""),
        (
            [*PLATFORM, issuer("older", creationTimestamp="2026-11-01T00:00:00Z")],
            ("False", "IssuerNotReady"),
            "belongs to the older older",
        ),
        ([cluster.namespace(), issuer()], ("False", "ServiceAccountNotFound"), "refund-agent"),
        ([*PLATFORM, OTHER, pod()], ("False", "Overlap"), "refund-1 (other-agent)"),
        ([*PLATFORM, OTHER], ("True", "Ready"), ""),
        ([*PLATFORM, OTHER, pod(**GOING)], ("True", "Ready"), ""),
        ([*PLATFORM, pod(signer=False)], ("False", "NotInjected"), "refund-1"),
        (
            [cluster.namespace(labels={}), issuer(), account(), pod(signer=False)],
            ("False", "NotInjected"),
            "not labelled",
        ),
        ([*PLATFORM, sharing()], ("False", "NotInjected"), "refund-1; shareProcessNamespace is set"),
        ([*PLATFORM, pod(signer=False, labels={"countersign.dev/inject": "disabled"})], ("True", "Ready"), ""),
        ([*PLATFORM, pod(signer=False, status={"phase": "Succeeded"})], ("True", "Ready"), ""),
        ([*PLATFORM, pod(signer=False, where="elsewhere")], ("True", "Ready"), ""),
    ],
)
def test_an_agent_identity_is_ready_or_says_why_not(
    objects: list[dict[str, Any]], expected: tuple[str, str], said: str
) -> None:
    own = identity()

    plan = plan_identity(own, view(own, *objects), NOW)

    assert condition(plan) == expected
    assert said in message(plan)


def test_an_identity_that_brings_its_own_signer_is_not_asked_for_one() -> None:
    own = identity(signer={"injection": "None"})

    assert condition(plan_identity(own, view(own, *PLATFORM, pod(signer=False)), NOW)) == ("True", "Ready")


def test_an_identity_counts_its_own_instances() -> None:
    own = identity()
    running, waiting = instance(), instance("second")
    running["status"]["conditions"] += ready()["conditions"]
    foreign = instance("third", agentRef={"name": "refund-agent", "uid": "uid-of-an-earlier-one"})
    going = instance("fourth", **GOING)

    status = plan_identity(own, view(own, *PLATFORM, running, waiting, foreign, going), NOW).status

    assert status is not None
    assert (status["instances"], status["readyInstances"]) == (2, 1)
    assert status["spiffeID"] == "spiffe://agents.example.com/ns/billing/sa/refund-agent"


def test_without_an_issuer_there_is_no_name() -> None:
    status = plan_identity(identity(), view(identity(), cluster.namespace(), account()), NOW).status

    assert status is not None
    assert "spiffeID" not in status


def test_overlap_is_an_event_once() -> None:
    own = identity()
    seen = view(own, OTHER, *PLATFORM, pod())
    first = plan_identity(own, seen, NOW)
    again = plan_identity({**own, "status": first.status}, seen, NOW + timedelta(hours=1))

    assert notices(first) == [("AgentIdentity", "Warning", "Overlap")]
    assert notices(again) == []
    assert again.status == first.status


@pytest.mark.parametrize(
    ("objects", "made", "expected"),
    [
        ([], {}, [("Pod", "Normal", "Injected"), ("AgentIdentity", "Normal", "Injected")]),
        ([], {"signer": False}, [("Pod", "Warning", "NotInjected")]),
        ([OTHER], {}, [("Pod", "Warning", "Overlap")]),
        ([], {"labels": {"countersign.dev/inject": "disabled"}, "signer": False}, []),
        ([], {"creationTimestamp": "2026-11-24T11:58:00Z"}, []),
    ],
)
def test_a_new_pod_is_spoken_of(
    objects: list[dict[str, Any]], made: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    own = pod(**{"creationTimestamp": "2026-11-24T11:59:30Z", **made})

    plan = plan_pod(own, view(own, identity(), *PLATFORM, *objects), NOW)

    assert plan.status is None
    assert notices(plan) == expected


def test_a_pod_that_cannot_be_injected_is_told_why() -> None:
    own = sharing(creationTimestamp="2026-11-24T11:59:30Z")

    (notice,) = plan_pod(own, view(own, identity(), *PLATFORM), NOW).notices

    assert (notice.regarding, notice.type, notice.reason) == (own, "Warning", "NotInjected")
    assert notice.note.endswith("which has no signer: shareProcessNamespace is set")


# DevicePool and Device


def pem(ca: Ca | None = None) -> str:
    return (ca or Ca()).pem


def leaf() -> str:
    ca = Ca()
    return ca.leaf(ca.key.public_key()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("spec", "later", "expected"),
    [
        ({}, 0, ("True", "Ready")),
        ({"assurance": "Hardware", "ekRoots": pem()}, 0, ("True", "Ready")),
        ({"assurance": "Hardware", "ekRoots": pem() + pem()}, 0, ("True", "Ready")),
        ({"assurance": "Hardware", "ekRoots": pem()}, 2, ("False", "RootExpired")),
        ({"assurance": "Hardware"}, 0, ("False", "RootsInvalid")),
        ({"assurance": "Hardware", "ekRoots": "nonsense"}, 0, ("False", "RootsInvalid")),
        ({"assurance": "Hardware", "ekRoots": leaf()}, 0, ("False", "RootsInvalid")),
        ({"assurance": "Hardware", "ekRoots": pem() + leaf()}, 2, ("False", "RootsInvalid")),
    ],
)
def test_a_pool_is_ready_while_its_roots_are(spec: dict[str, Any], later: int, expected: tuple[str, str]) -> None:
    own = pool(**spec)

    assert condition(plan_pool(own, view(own), NOW + timedelta(days=later))) == expected


def test_a_pool_counts_its_devices() -> None:
    own = pool()
    attested = device("a", status=ready("Attested", kind="Attested"))
    others = [device("b", state="Pending"), device("c", poolRef={"name": "elsewhere"}), device("d", **GOING)]

    status = plan_pool(own, view(own, attested, *others), NOW).status

    assert status is not None
    assert status["devices"] == {"total": 2, "approved": 1, "attested": 1}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"state": "Pending"}, {}, ["Approved"]),
        ({}, {}, []),
        ({}, {"state": "Denied"}, []),
        ({}, {"status": ready("DuplicateEK", kind="Conflicted")}, ["DuplicateEK"]),
        ({}, {"status": ready("ModelDenied", kind="Attested", status="False")}, ["ModelDenied"]),
        ({"status": ready("DuplicateEK", kind="Conflicted")}, {"status": ready("DuplicateEK", kind="Conflicted")}, []),
    ],
)
def test_what_happens_to_a_device_is_an_event(
    before: dict[str, Any], after: dict[str, Any], expected: list[str]
) -> None:
    assert [one.reason for one in device_news(device(**before), device(**after))] == expected


# ToolServer

TOOL: dict[str, Any] = {"name": "t", "access": "ReadOnly", "inputSchema": {"type": "object"}}
DIGEST = {"definitionDigest": f"sha256:{'b' * 64}"}
OLDER = {"creationTimestamp": "2026-11-24T09:00:00Z"}


@pytest.mark.parametrize(
    ("others", "spec", "expected", "said"),
    [
        ([], {}, ("True", "Accepted"), ""),
        ([server("older", **OLDER)], {}, ("False", "AudienceConflict"), "billing/older"),
        ([server("younger", creationTimestamp="2026-11-24T11:00:00Z")], {}, ("True", "Accepted"), ""),
        ([server("older", **OLDER, **GOING)], {}, ("True", "Accepted"), ""),
        ([server("thief", "evil", **OLDER)], {}, ("True", "Accepted"), ""),
        ([server("other", audience="https://tools.billing.svc/other", **OLDER)], {}, ("True", "Accepted"), ""),
        ([], {"audience": "https://tools.other.svc/x"}, ("False", "AudienceConflict"), "may not claim"),
        ([], {"audience": "https://countersign.example.com/x"}, ("False", "AudienceConflict"), "may not claim"),
        ([], {"audience": "https://tools.example.com/x"}, ("True", "Accepted"), ""),
        (
            [],
            {"tools": [{**TOOL, "inputSchema": {"type": 7}}]},
            ("False", "InvalidSchema"),
            "spec.tools[t].inputSchema",
        ),
        ([], {"protocol": "HTTP", "tools": [{"name": "t", "access": "ReadOnly"}]}, ("True", "Accepted"), ""),
    ],
)
def test_a_tool_server_is_accepted_or_says_why_not(
    others: list[dict[str, Any]], spec: dict[str, Any], expected: tuple[str, str], said: str
) -> None:
    own = server(**spec)

    plan = plan_server(own, view(own, *others), NOW, AUDIENCES)

    assert condition(plan, "Accepted") == expected
    assert said in message(plan, "Accepted")
    assert notices(plan) == [
        ("ToolServer", "Normal" if expected[0] == "True" else "Warning", expected[1])
        for _ in range(expected[1] != "InvalidSchema")
    ]


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ([], "AudienceConflict"),
        ([("https://tools.example.com", ("other",))], "AudienceConflict"),
        ([("https://tools.example.com", ("billing",))], "Accepted"),
    ],
)
def test_the_platform_says_whose_other_audiences_are(grants: list[Any], expected: str) -> None:
    own = server(audience="https://tools.example.com/x")
    audiences = Audiences("https://countersign.example.com", grants)

    assert condition(plan_server(own, view(own), NOW, audiences), "Accepted")[1] == expected


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([TOOL], ("False", "Unpinned")),
        ([{**TOOL, **DIGEST}], ("Unknown", "NotObserved")),
        ([TOOL, {**TOOL, **DIGEST, "name": "u"}], ("False", "Unpinned")),
    ],
)
def test_pinned_tools_are_reported_as_not_observed(tools: list[Any], expected: tuple[str, str]) -> None:
    own = server(tools=tools)
    plan = plan_server(own, view(own), NOW, AUDIENCES)

    assert condition(plan, "ToolsPinned") == expected
    assert plan.status is not None
    assert plan.status["tools"] == len(tools)


# Policies

AGENTS = {"subjects": {"agents": [{"name": "refund-agent"}]}}


@pytest.mark.parametrize(
    ("rules", "accepted", "resolved"),
    [
        ([rule()], ("True", "Accepted"), ("True", "ResolvedRefs")),
        ([rule(**AGENTS)], ("True", "Accepted"), ("True", "ResolvedRefs")),
        ([{"name": "no", "effect": "Deny"}], ("True", "Accepted"), ("True", "ResolvedRefs")),
        ([rule(tools=[{"server": {"name": "gone"}}])], ("True", "Accepted"), ("False", "RefNotFound")),
        (
            [rule(tools=[{"server": {"name": "hidden", "namespace": "other"}}])],
            ("True", "Accepted"),
            ("False", "RefNotFound"),
        ),
        (
            [rule(tools=[{"server": {"name": "open", "namespace": "other"}}])],
            ("True", "Accepted"),
            ("True", "ResolvedRefs"),
        ),
        ([rule(subjects={"agents": [{"name": "gone"}]})], ("True", "Accepted"), ("False", "RefNotFound")),
        ([rule(when="args.amount > 5")], ("True", "Accepted"), ("True", "ResolvedRefs")),
        ([rule(when="args.amount")], ("False", "InvalidExpression"), ("True", "ResolvedRefs")),
        ([rule(effect="RequireApproval", approval={})], ("False", "UnknownField"), ("True", "ResolvedRefs")),
    ],
)
def test_a_policy_says_what_is_not_understood_and_what_is_missing(
    rules: list[Any], accepted: tuple[str, str], resolved: tuple[str, str]
) -> None:
    own = policy(*rules)
    others = [server("hidden", "other"), server("open", "other", exposeTo={"from": "All"})]

    plan = plan_policy(own, view(own, cluster.namespace(), identity(), server(), *others), NOW)

    assert (condition(plan, "Accepted"), condition(plan, "ResolvedRefs")) == (accepted, resolved)
    assert plan.status is not None
    assert plan.status["digest"] == policy_digest(own)
    assert plan.status["rules"] == 1


def test_the_place_of_a_fault_in_an_expression_is_in_the_message() -> None:
    own = policy(rule("fine", when="args.amount > 5"), rule("odd", when="true && user.nmae == 'x'"))

    plan = plan_policy(own, view(own), NOW)

    assert "odd; rule odd: 1:13: undeclared reference to 'user.nmae'" in message(plan, "Accepted")
    assert ("ToolPolicy", "Warning", "InvalidExpression") in notices(plan)


def test_what_a_policy_names_is_named_in_the_message() -> None:
    own = policy(rule(tools=[{"server": {"name": "gone"}}]))

    plan = plan_policy(own, view(own), NOW)

    assert "ToolServer billing/gone" in message(plan, "ResolvedRefs")
    assert ("ToolPolicy", "Warning", "RefNotFound") in notices(plan)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (policy(rule()), 2),
        (policy(rule(**AGENTS)), 1),
        (policy(rule(**AGENTS), rule("all")), 2),
        (policy({"name": "no", "effect": "Deny"}, where=None), 3),
        (
            policy(
                {"name": "no", "effect": "Deny", "subjects": {"agents": [{"namespace": "other", "name": "x"}]}},
                where=None,
            ),
            1,
        ),
        (policy({"name": "no", "effect": "Deny"}, where=None, namespaceSelector={"matchLabels": {"team": "x"}}), 1),
        (
            policy(
                {"name": "no", "effect": "Deny"},
                where=None,
                namespaceSelector={"matchExpressions": [{"key": "team", "operator": "Odd"}]},
            ),
            0,
        ),
    ],
)
def test_a_policy_counts_the_agents_that_it_speaks_about(own: dict[str, Any], expected: int) -> None:
    seen = view(
        cluster.namespace(),
        cluster.namespace("other", {"team": "x"}),
        identity(),
        identity("second"),
        identity("x", "other"),
    )

    status = plan_policy(own, seen, NOW).status

    assert status is not None
    assert status["matchedAgents"] == expected


# AgentInstance

GOOD = [identity(), device(), pod()]
PINNED = f"agent@sha256:{'a' * 64}"


def debugged() -> dict[str, Any]:
    found = pod()
    found["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
    return found


def with_pod(**changes: Any) -> list[dict[str, Any]]:
    return [identity(), device(), pod(**changes)]


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (instance(), GOOD, "Ready"),
        (instance(status={}), GOOD, "WaitingForCertificate"),
        (instance(status=ready("Attested", kind="Attested")), GOOD, "WaitingForCertificate"),
        (instance(status=ready("EvidenceExpired", kind="Attested", status="False")), GOOD, "EvidenceExpired"),
        (instance(status=ready("DeviceNotApproved", kind="Attested", status="False")), GOOD, "DeviceNotApproved"),
        (
            instance(
                status={"certificate": {"notAfter": "2026-11-24T12:00:00Z"}, **ready("Attested", kind="Attested")}
            ),
            GOOD,
            "CertificateExpired",
        ),
        (instance(), with_pod(status={"phase": "Pending"}), "PodNotReady"),
        (instance(), with_pod(**GOING), "PodNotReady"),
    ],
)
def test_an_instance_is_ready_or_says_why_not(own: dict[str, Any], others: list[dict[str, Any]], expected: str) -> None:
    plan = plan_instance(own, view(own, *others), NOW)

    assert condition(plan) == ("True" if expected == "Ready" else "False", expected)
    assert condition(plan, "Revoked") == ("False", "Active")
    assert (plan.revoke, plan.delete) == (None, False)


@pytest.mark.parametrize(
    ("others", "spec", "reason"),
    [
        ([device(), pod()], {}, "AgentGone"),
        ([identity(), pod()], {}, "DeviceDenied"),
        ([identity(), pod(), device(state="Denied")], {}, "DeviceDenied"),
        ([identity(), pod(), device(uid="uid-of-another")], {}, "DeviceDenied"),
        ([identity(), pod(), device(**GOING)], {}, "DeviceDenied"),
        (with_pod(signer=False), {}, "PodChanged"),
        ([identity(), device(), debugged()], {}, "PodChanged"),
        (
            with_pod(image=PINNED),
            {"pod": {"name": "refund-1", "uid": "uid-refund-1", "imageDigests": [f"sha256:{'b' * 64}"]}},
            "PodChanged",
        ),
    ],
)
def test_an_instance_is_revoked_when_what_it_hangs_on_is_gone(
    others: list[dict[str, Any]], spec: dict[str, Any], reason: str
) -> None:
    own = instance(**spec)

    plan = plan_instance(own, view(own, *others), NOW)

    assert plan.revoke is not None
    assert plan.revoke.startswith(f"{reason}: ")
    assert condition(plan) == ("False", "Revoked")
    assert condition(plan, "Revoked") == ("True", reason)
    assert notices(plan) == [("AgentInstance", "Warning", "Revoked")]


def signed(image: str, version: str = "1") -> dict[str, Any]:
    made = pod(annotations={"countersign.dev/injected": version})
    made["spec"]["initContainers"][0]["image"] = image
    return made


def pulled(digest: str) -> dict[str, Any]:
    ran = {"containerStatuses": [{"name": "agent", "imageID": f"registry.example/agent@sha256:{digest * 64}"}]}
    return pod(status={"phase": "Running", **ready(), **ran})


RELEASE = InjectionSettings(image="countersign:1", version="1")
RECORDED = {"pod": {"name": "refund-1", "uid": "uid-refund-1", "imageDigests": [f"sha256:{'a' * 64}"]}}


@pytest.mark.parametrize(
    ("own_pod", "own_identity", "spec", "said"),
    [
        (signed("evil"), {}, {}, "its signer has another image than it was given"),
        (pulled("b"), {}, RECORDED, "container agent has another image than when it enrolled"),
        (pod(labels={"app": "other"}), {"podSelector": {"matchLabels": {"app": "refund-agent"}}}, {}, "its labels"),
        (pod(labels={"countersign.dev/inject": "disabled"}), {}, {}, "its labels no longer make it this agent"),
    ],
    ids=["signer", "another image of the same tag", "labels", "opted out"],
)
def test_c2_c13_a_pod_that_leaves_its_shape_ends_its_instance(
    own_pod: dict[str, Any], own_identity: dict[str, Any], spec: dict[str, Any], said: str
) -> None:
    own = instance(**spec)

    plan = plan_instance(own, view(own, device(), own_pod, identity(**own_identity)), NOW, RELEASE)

    assert plan.revoke is not None
    assert plan.revoke.startswith(f"PodChanged: pod refund-1: {said}")


@pytest.mark.parametrize(
    ("own_pod", "spec"),
    [
        (signed("countersign:1"), {}),
        (signed("countersign:0", version="0"), {}),
        (pulled("a"), RECORDED),
        (pulled("b"), {}),
    ],
    ids=["of this release", "of the release before", "the image it had", "nothing recorded"],
)
def test_an_upgrade_or_a_restart_ends_nobody(own_pod: dict[str, Any], spec: dict[str, Any]) -> None:
    own = instance(**spec)

    assert plan_instance(own, view(own, device(), own_pod, identity()), NOW, RELEASE).revoke is None


def test_the_reason_of_a_revocation_stays_and_is_told_once() -> None:
    own = instance()
    first = plan_instance(own, view(own, identity(), pod()), NOW)
    revoked = instance(state="Revoked", stateReason=first.revoke)
    revoked["status"]["conditions"] += (first.status or {})["conditions"]

    again = plan_instance(revoked, view(revoked, *GOOD), NOW + timedelta(minutes=5))

    assert condition(again, "Revoked") == ("True", "DeviceDenied")
    assert again.status == first.status
    assert (again.revoke, again.notices) == (None, ())


@pytest.mark.parametrize("why", [None, "left the team", "Odd: left", "AgentGone: "])
def test_a_person_may_revoke(why: str | None) -> None:
    own = instance(state="Revoked", **({} if why is None else {"stateReason": why}))

    plan = plan_instance(own, view(own, *GOOD), NOW)

    assert condition(plan, "Revoked") == ("True", "ByPerson")
    assert (why or "no reason") in message(plan, "Revoked")


def test_the_same_image_in_the_pod_revokes_nothing() -> None:
    own = instance(pod={"name": "refund-1", "uid": "uid-refund-1", "imageDigests": [f"sha256:{'a' * 64}"]})

    assert plan_instance(own, view(own, *with_pod(image=PINNED)), NOW).revoke is None


def test_a_pending_device_revokes_nothing() -> None:
    own = instance()

    assert plan_instance(own, view(own, identity(), pod(), device(state="Pending")), NOW).revoke is None


@pytest.mark.parametrize("others", [[], [pod(uid="uid-of-a-later-one")], [pod("another")]])
def test_an_instance_whose_pod_is_gone_is_a_leftover(others: list[dict[str, Any]]) -> None:
    own = instance()

    assert plan_instance(own, view(own, identity(), device(), *others), NOW).delete


@pytest.mark.parametrize(("phase", "leftover"), [("Running", False), ("Succeeded", True), ("Failed", True)])
def test_an_instance_ends_with_the_job_of_its_pod(phase: str, leftover: bool) -> None:  # noqa: FBT001 - a table
    own, done = instance(), pod()
    done["status"] = {**done.get("status", {}), "phase": phase}

    assert plan_instance(own, view(own, identity(), device(), done), NOW).delete is leftover


@pytest.mark.parametrize(("hours", "leftover"), [(1.9, False), (2.1, True)])
def test_a_run_is_kept_an_hour_after_its_certificate(hours: float, leftover: bool) -> None:  # noqa: FBT001 - a table
    own = instance(type="Run", run={"username": "bent@example.com"})
    del own["spec"]["pod"]

    plan = plan_instance(own, view(own, identity(), device()), NOW + timedelta(hours=hours))

    assert plan.delete is leftover


# What holds for every plan


def test_a_time_stays_where_a_status_stays() -> None:
    own = pool()
    first = plan_pool(own, view(own), NOW).status
    again = plan_pool({**own, "status": first}, view(own), NOW + timedelta(hours=1)).status

    assert again == first


def test_a_long_message_is_cut() -> None:
    own = instance(state="Revoked", stateReason="x" * 4000)

    assert len(message(plan_instance(own, view(own, *GOOD), NOW), "Revoked")) == 1024


# A cluster whole

GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "data" / "controller" / "billing.yaml").read_text())
PLANS = {
    "AgentIdentity": plan_identity,
    "AgentInstance": plan_instance,
    "ClusterToolPolicy": plan_policy,
    "DevicePool": plan_pool,
    "ToolPolicy": plan_policy,
    "ToolServer": lambda found, seen, now: plan_server(found, seen, now, AUDIENCES),
}


@pytest.mark.parametrize("wanted", GOLDEN["plans"], ids=lambda wanted: f"{wanted['kind']}-{wanted['name']}")
def test_a_cluster_is_described_as_written_down(wanted: dict[str, Any]) -> None:
    seen = view(*GOLDEN["objects"])
    [own] = [
        one for one in GOLDEN["objects"] if (one["kind"], one["metadata"]["name"]) == (wanted["kind"], wanted["name"])
    ]

    plan = PLANS[wanted["kind"]](own, seen, NOW)

    found = {"kind": wanted["kind"], "name": wanted["name"], "status": plan.status}
    if plan.notices:
        found["events"] = [f"{one.type} {one.reason}: {one.note}" for one in plan.notices]
    if plan.revoke is not None:
        found["revoke"] = plan.revoke
    assert found == wanted

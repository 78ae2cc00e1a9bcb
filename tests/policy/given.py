"""Builds questions from the shape of the policy vectors: `given`, `call`, and what a case lays over them."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import yaml

from countersign.policy import (
    Agent,
    Caller,
    Catalogue,
    Device,
    Fact,
    Instance,
    Question,
    RuleSet,
)
from countersign.policy.times import read_time

DATA = Path(__file__).parent.parent / "data" / "policy"
GRANTS = [("https://tools.example.com", ["billing"]), ("https://api.github.example.com", ["tools"])]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DATA / name).read_text("utf-8"))


def merge(below: Any, above: Any) -> Any:
    """Lay `above` over `below`, map by map; lists and scalars are replaced; DELETE removes a key."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return copy.deepcopy(above)
    merged = {key: copy.deepcopy(value) for key, value in below.items() if above.get(key) != "DELETE"}
    for key, value in above.items():
        if value != "DELETE":
            merged[key] = merge(merged.get(key), value)
    return merged


def question(given: dict[str, Any], call: dict[str, Any]) -> Question:
    caller = given["caller"]
    agent, instance, device = caller["agent"], caller["instance"], caller["device"]
    now = read_time(given["now"])
    assert now is not None
    digests = instance.get("imageDigests")
    return Question(
        now=now,
        caller=Caller(
            agent=Agent(
                namespace=agent["namespace"],
                name=agent["name"],
                tasks=agent["tasks"],
                min_assurance=agent["minAssurance"],
                min_key_tier=agent["minKeyTier"],
                namespace_labels=agent.get("namespaceLabels"),
            ),
            instance=Instance(
                instance["name"], instance["uid"], instance["source"], tuple(digests) if digests else None
            ),
            device=Device(
                name=device["name"],
                pool=device["pool"],
                assurance=device["assurance"],
                attestation_time=read_time(device.get("attestationTime")),
                facts=tuple(
                    Fact(one["name"], one["value"], one["source"], read_time(one.get("observedTime")))
                    for one in device.get("facts") or []
                ),
            ),
            key_tier=caller["keyTier"],
            cluster=given["cluster"],
        ),
        server=call["server"],
        tool=call.get("tool", ""),
        arguments=call.get("arguments", {}),
        method=call.get("method", "tools/call"),
        call_digest=call.get("digest", ""),
        task=given.get("task"),
        approvals=given.get("approvals") or [],
    )


def shuffled(policies: list[Any], seed: int) -> list[Any]:
    """Return the policies, and the rules in each, in another order."""
    order = random.Random(seed)
    mixed = copy.deepcopy(policies)
    order.shuffle(mixed)
    for policy in mixed:
        rules = (policy.get("spec") or {}).get("rules")
        if isinstance(rules, list):
            order.shuffle(rules)
    return mixed


def rules_of(given: dict[str, Any], seed: int = 0) -> RuleSet:
    return RuleSet.compile(shuffled(given["policies"], seed))


def servers_of(given: dict[str, Any]) -> Catalogue:
    return Catalogue.build(given["toolServers"], GRANTS, pins_observed=True)

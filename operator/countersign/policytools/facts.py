"""From what a file gives to the words that policy reads: the caller, the moment, the servers' claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.policy import Agent, Caller, Device, Fact, Instance
from countersign.policy.times import read_time
from countersign.policytools.strict import BadFile, block, items, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = ["claims_of", "read_caller", "read_now"]

_NONE: Final[frozenset[str]] = frozenset()


def read_now(value: Any, where: str) -> datetime:
    """Read the moment of a decision. Raises ``BadFile``."""
    now = read_time(value)
    if now is None:
        raise BadFile(f"{where}: an RFC 3339 time with an offset is wanted")
    return now


def read_caller(value: Any, cluster: str, where: str) -> Caller:
    """Read ``given.caller``. Raises ``BadFile``."""
    found = block(value, where, required=frozenset({"agent", "instance", "device", "keyTier"}), optional=_NONE)
    return Caller(
        agent=_agent(found["agent"], f"{where}.agent"),
        instance=_instance(found["instance"], f"{where}.instance"),
        device=_device(found["device"], f"{where}.device"),
        key_tier=text(found["keyTier"], f"{where}.keyTier"),
        cluster=cluster,
    )


def _agent(value: Any, where: str) -> Agent:
    names = frozenset({"namespace", "name", "tasks", "minAssurance", "minKeyTier"})
    found = block(value, where, required=names, optional=frozenset({"namespaceLabels"}))
    labels = found.get("namespaceLabels")
    if labels is not None and not isinstance(labels, dict):
        raise BadFile(f"{where}.namespaceLabels: a mapping is wanted")
    return Agent(
        namespace=text(found["namespace"], f"{where}.namespace"),
        name=text(found["name"], f"{where}.name"),
        tasks=text(found["tasks"], f"{where}.tasks"),
        min_assurance=text(found["minAssurance"], f"{where}.minAssurance"),
        min_key_tier=text(found["minKeyTier"], f"{where}.minKeyTier"),
        namespace_labels=labels,
    )


def _instance(value: Any, where: str) -> Instance:
    names = frozenset({"name", "uid", "source"})
    found = block(value, where, required=names, optional=frozenset({"imageDigests"}))
    digests = items(found.get("imageDigests"), f"{where}.imageDigests")
    if not all(isinstance(one, str) for one in digests):
        raise BadFile(f"{where}.imageDigests: a list of texts is wanted")
    return Instance(
        name=text(found["name"], f"{where}.name"),
        uid=text(found["uid"], f"{where}.uid"),
        source=text(found["source"], f"{where}.source"),
        image_digests=tuple(digests) or None,
    )


def _device(value: Any, where: str) -> Device:
    names = frozenset({"name", "pool", "assurance"})
    found = block(value, where, required=names, optional=frozenset({"attestationTime", "facts"}))
    return Device(
        name=text(found["name"], f"{where}.name"),
        pool=text(found["pool"], f"{where}.pool"),
        assurance=text(found["assurance"], f"{where}.assurance"),
        attestation_time=read_time(found.get("attestationTime")),
        facts=tuple(_fact(one, f"{where}.facts") for one in items(found.get("facts"), f"{where}.facts")),
    )


def _fact(value: Any, where: str) -> Fact:
    found = block(value, where, required=frozenset({"name", "value"}), optional=frozenset({"source", "observedTime"}))
    said = found.get("source", "")
    if not isinstance(found["value"], str) or not isinstance(said, str):
        raise BadFile(f"{where}: value and source are texts (quote `on`, `off`, `yes` and `no`)")
    return Fact(text(found["name"], where), found["value"], said, read_time(found.get("observedTime")))


def claims_of(servers: Iterable[Any]) -> list[tuple[str, list[str]]]:
    """Return the grants under which each server may have the audience that it claims: a file gives no platform's setting."""
    found: list[tuple[str, list[str]]] = []
    for server in servers:
        metadata, spec = (_part(server, name) for name in ("metadata", "spec"))
        audience, namespace = spec.get("audience"), metadata.get("namespace")
        if isinstance(audience, str) and isinstance(namespace, str):
            found.append((audience, [namespace]))
    return found


def _part(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}

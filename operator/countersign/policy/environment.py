"""The blocks ``environment`` and ``unless``: where a call comes from (crds.md 5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from countersign.policy.facts import CallFacts
from countersign.policy.logic import (
    ASSURANCE,
    KEY_TIER,
    Unreadable,
    block,
    conjunction,
    integer,
    items,
    rank,
    text,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countersign.policy.model import Fact

__all__ = ["DENY_ONLY_IN_UNLESS", "Part", "compile_environment"]

Part = Callable[[CallFacts], bool | None]

# "Deny when assurance is at least Hardware" is never meant: in a Deny rule these belong under `unless` (3.8).
DENY_ONLY_IN_UNLESS: Final = frozenset({"minAssurance", "minKeyTier", "maxAttestationAgeSeconds", "imageDigests"})
_PODS: Final = frozenset({"Pod", "OwnSigner"})
_SOURCES: Final = frozenset({"Pod", "OwnSigner", "Run", "StepCLI"})
# The node's own word about itself satisfies only a rule that asks for it by name.
_NODE: Final = "node"


def compile_environment(value: Any) -> Part:
    """Compile a block; raise ``Unreadable`` for one that this replica does not know."""
    entry = block(value, frozenset(_FIELDS))
    return conjunction([_FIELDS[name](entry[name]) for name in entry])


def _at_least(order: Mapping[str, int], read: Callable[[CallFacts], int | None]) -> Callable[[Any], Part]:
    def build(value: Any) -> Part:
        least = rank(order, value)
        if least is None:
            raise Unreadable
        return lambda facts: None if (place := read(facts)) is None else place >= least

    return build


def _age(value: Any) -> Part:
    most = integer(value, least=0)
    return lambda facts: None if facts.age_seconds is None else facts.age_seconds <= most


def _images(value: Any) -> Part:
    listed = texts(value)

    def part(facts: CallFacts) -> bool | None:
        instance = facts.caller.instance
        if instance.source not in _PODS or not instance.image_digests:
            return None
        if not all(digest.startswith("sha256:") for digest in instance.image_digests):
            return None
        return listed.issuperset(instance.image_digests)

    return part


def _one_of(read: Callable[[CallFacts], str], known: frozenset[str] | None = None) -> Callable[[Any], Part]:
    def build(value: Any) -> Part:
        listed = texts(value)
        if known is not None and not known.issuperset(listed):
            raise Unreadable
        return lambda facts: read(facts) in listed

    return build


def _posture(value: Any) -> Part:
    return conjunction([_fact(entry) for entry in items(value)])


def _fact(value: Any) -> Part:
    entry = block(value, frozenset({"name", "values", "source", "maxAgeSeconds"}))
    name, values = text(entry.get("name")), texts(entry.get("values"))
    source = text(entry["source"]) if "source" in entry else None
    most = integer(entry["maxAgeSeconds"], least=0) if "maxAgeSeconds" in entry else None

    def part(facts: CallFacts) -> bool | None:
        fresh = [
            fact.value in values
            for fact in facts.caller.device.facts
            if fact.name == name and _from(fact, source) and _fresh(facts, fact, most)
        ]
        # Two sources that contradict each other are no answer.
        return None if not fresh or len(set(fresh)) > 1 else fresh[0]

    return part


def _from(fact: Fact, source: str | None) -> bool:
    return fact.source != _NODE if source is None else fact.source == source


def _fresh(facts: CallFacts, fact: Fact, most: int | None) -> bool:
    if fact.observed_time is None:
        return False
    age = (facts.now - fact.observed_time).total_seconds()
    return age >= 0 and (most is None or age <= most)


_FIELDS: Final[dict[str, Callable[[Any], Part]]] = {
    "minAssurance": _at_least(ASSURANCE, lambda facts: facts.assurance),
    "minKeyTier": _at_least(KEY_TIER, lambda facts: facts.key_tier),
    "maxAttestationAgeSeconds": _age,
    "imageDigests": _images,
    "devicePools": _one_of(lambda facts: facts.caller.device.pool),
    "clusters": _one_of(lambda facts: facts.caller.cluster),
    "sources": _one_of(lambda facts: facts.caller.instance.source, _SOURCES),
    "facts": _posture,
}

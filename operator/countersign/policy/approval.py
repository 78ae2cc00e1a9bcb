"""Has a person said yes to this very call? What ToolApproval objects answer the rules that ask (crds.md 5.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from countersign.policy.logic import block, integer, items, texts
from countersign.policy.times import read_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from countersign.policy.model import Question

__all__ = ["Answer", "Approvers", "Asking", "answer_of", "compile_approvers"]


@dataclass(frozen=True)
class Approvers:
    """Who may answer: anybody named by user or by group; nobody named (both None): anyone with the verb ``approve``."""

    users: frozenset[str] | None
    groups: frozenset[str] | None

    def admit(self, name: str, groups: frozenset[str]) -> bool:
        """Whether this person is among them."""
        if self.users is None and self.groups is None:
            return True
        return name in (self.users or ()) or not groups.isdisjoint(self.groups or ())


def compile_approvers(value: Any) -> Approvers:
    """Compile the block ``approval``; raises ``Unreadable``."""
    entry = block(value, frozenset({"users", "groups", "expiresSeconds"}))
    if "expiresSeconds" in entry:
        integer(entry["expiresSeconds"], least=1)
    return Approvers(*(texts(items(entry[name])) if name in entry else None for name in ("users", "groups")))


@dataclass(frozen=True)
class Asking:
    """A rule that asks now: its policy's kind, namespace (empty for a cluster's) and name, and its own name."""

    policy: tuple[str, str, str]
    rule: str
    approvers: Approvers


@dataclass(frozen=True)
class Answer:
    """``code`` is ``policy.allowed`` or one of ``approval.*``; ``approval`` is the object that says so, if one does."""

    code: str
    approval: str | None = None


def answer_of(question: Question, asking: Sequence[Asking]) -> Answer:
    """Return what the approvals that were given say to the rules that ask. A no counts more than any yes."""
    found = [one for one in map(_mapping, question.approvals) if _for_this_call(one, question)]
    said = {
        "approval.denied": [one for one in found if _decision(one) == "Denied" and not _expired(one, question)],
        "policy.allowed": [one for one in found if _grants(one, question, asking)],
        "approval.pending": [one for one in found if _decision(one) == "Pending" and _open(one, question)],
    }
    return next(
        (Answer(code, min(map(_name, approvals))) for code, approvals in said.items() if approvals),
        Answer("approval.required"),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = _mapping(value).get(name)
    return value


def _name(approval: Mapping[str, Any]) -> str:
    return f"{_at(approval, 'metadata', 'namespace')}/{_at(approval, 'metadata', 'name')}"


def _decision(approval: Mapping[str, Any]) -> Any:
    return _mapping(approval.get("spec")).get("decision", "Pending")


def _for_this_call(approval: Mapping[str, Any], question: Question) -> bool:
    """Whether it is about this very call of this instance, for this task, in the agent's namespace."""
    instance, digest = question.caller.instance.uid, question.call_digest
    task = None if question.task is None else _at(question.task, "metadata", "uid")
    if question.task is not None and not (isinstance(task, str) and task):
        return False
    return (
        bool(instance and digest)
        and _at(approval, "metadata", "deletionTimestamp") is None
        and _at(approval, "metadata", "namespace") == question.caller.agent.namespace
        and _at(approval, "spec", "call", "digest") == digest
        and _at(approval, "spec", "instanceRef", "uid") == instance
        and _at(approval, "spec", "taskRef", "uid") == task
    )


def _expired(approval: Mapping[str, Any], question: Question) -> bool:
    """Whether its time is over; one that cannot be read is not over: a no must not end by that."""
    expires = read_time(_at(approval, "spec", "expirationTime"))
    return expires is not None and question.now >= expires


def _open(approval: Mapping[str, Any], question: Question) -> bool:
    """Whether it can be read, is still in time and was not used."""
    expires = read_time(_at(approval, "spec", "expirationTime"))
    return expires is not None and question.now < expires and _at(approval, "status", "usedTime") is None


def _grants(approval: Mapping[str, Any], question: Question, asking: Sequence[Asking]) -> bool:
    """Whether it is a yes to every rule that asks, by somebody whom each of them admits as it is now."""
    if _decision(approval) != "Approved" or not _open(approval, question):
        return False
    name, groups = _at(approval, "spec", "decidedBy", "username"), _at(approval, "spec", "decidedBy", "groups")
    if not isinstance(name, str) or not name or name == _at(question.task, "spec", "user", "username"):
        return False
    listed = set(_listed(_at(approval, "spec", "rules")))
    member_of = frozenset(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else frozenset()
    return all((*one.policy, one.rule) in listed and one.approvers.admit(name, member_of) for one in asking)


def _listed(rules: Any) -> Iterable[tuple[Any, ...]]:
    """Yield kind, namespace, policy and rule of each rule that the approval was asked by."""
    for one in rules if isinstance(rules, list) else ():
        policy = _mapping(_mapping(one).get("policy"))
        entry = (policy.get("kind"), policy.get("namespace", ""), policy.get("name"), _mapping(one).get("rule"))
        if all(isinstance(word, str) for word in entry):
            yield entry

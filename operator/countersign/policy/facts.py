"""What a decision knows about one call, worked out once: the inside of a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from countersign.policy.expression import Evaluation
from countersign.policy.logic import ASSURANCE, KEY_TIER, rank

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.policy.model import Caller, Question

__all__ = ["CallFacts", "User", "user_of"]


@dataclass(frozen=True)
class User:
    """The user of the bound task, as the API server authenticated it, and the task's purpose."""

    name: str | None
    groups: frozenset[str]
    purpose: str | None


class CallFacts(NamedTuple):
    """The facts that parts of rules read. ``arguments_known`` is False for a list: then every such part is undecided.

    ``tier`` is ``key_tier`` as a word. ``evaluation`` is what the expressions of this one decision share.
    """

    now: datetime
    caller: Caller
    agent: str
    user: User | None
    task: Mapping[str, Any] | None
    server: str
    audience: str
    tool: str
    access: str
    arguments: Any
    assurance: int | None
    tier: str
    key_tier: int | None
    age_seconds: float | None
    arguments_known: bool
    evaluation: Evaluation

    @classmethod
    def of(
        cls,
        question: Question,
        *,
        server: str,
        tool: str,
        access: str,
        audience: str = "",
        arguments_known: bool = True,
    ) -> CallFacts:
        """Work the facts out. The age of an attestation is None if there was none or it lies in the future."""
        caller = question.caller
        attested = caller.device.attestation_time
        age = None if attested is None else (question.now - attested).total_seconds()
        tier = _tier(caller)
        return cls(
            now=question.now,
            caller=caller,
            agent=f"{caller.agent.namespace}/{caller.agent.name}",
            user=user_of(question.task),
            task=question.task,
            server=server,
            audience=audience,
            tool=tool,
            access=access,
            arguments=question.arguments,
            assurance=rank(ASSURANCE, caller.device.assurance),
            tier=tier,
            key_tier=rank(KEY_TIER, tier),
            age_seconds=None if age is None or age < 0 else age,
            arguments_known=arguments_known,
            evaluation=Evaluation(),
        )

    def aside(self) -> CallFacts:
        """Return the same facts for what is only recorded: what that uses up, the decision does not miss."""
        return self._replace(evaluation=Evaluation())


def _tier(caller: Caller) -> str:
    """Return the tier of this call; on a device that proves nothing it is Software, whatever was signed (wire.md 1.8)."""
    return "Software" if caller.device.assurance == "Software" else caller.key_tier


def user_of(task: Mapping[str, Any] | None) -> User | None:
    """Read user and purpose from an AgentTask object; what is not a string is not there."""
    if task is None:
        return None
    spec = task.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    user = spec.get("user")
    user = user if isinstance(user, Mapping) else {}
    name, groups, purpose = user.get("username"), user.get("groups"), spec.get("purpose")
    return User(
        name=name if isinstance(name, str) and name else None,
        groups=frozenset(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else frozenset(),
        purpose=purpose if isinstance(purpose, str) and purpose else None,
    )

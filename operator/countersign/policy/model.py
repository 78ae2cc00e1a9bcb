"""What a decision is asked about, and what it answers. Plain data; nothing here reads a clock or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = ["Agent", "Caller", "Decision", "Device", "Effect", "Fact", "Instance", "Question", "RuleMark"]

Effect = Literal["Allow", "Deny", "RequireApproval"]


@dataclass(frozen=True)
class Fact:
    """One entry of a Device's ``status.facts``. ``observed_time`` is aware; None where it could not be read."""

    name: str
    value: str
    source: str
    observed_time: datetime | None


@dataclass(frozen=True)
class Agent:
    """The AgentIdentity of the caller. ``namespace_labels`` is None while its Namespace object is not known."""

    namespace: str
    name: str
    tasks: str
    min_assurance: str
    min_key_tier: str
    namespace_labels: Mapping[str, str] | None


@dataclass(frozen=True)
class Instance:
    """The AgentInstance of the caller.

    ``source`` is ``Pod``, ``OwnSigner`` (``injection: None``), ``Run`` or ``StepCLI``; ``image_digests`` holds one entry
    for each container of the pod but the signer, and is None where no digest is known.
    """

    name: str
    uid: str
    source: str
    image_digests: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Device:
    """The Device under the instance. ``attestation_time`` is aware; None if it never attested."""

    name: str
    pool: str
    assurance: str
    attestation_time: datetime | None = None
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Caller:
    """Who calls, as the decision point looked it up. ``key_tier`` is the tier of this very call."""

    agent: Agent
    instance: Instance
    device: Device
    key_tier: str
    cluster: str


@dataclass(frozen=True)
class Question:
    """One call to decide.

    ``server`` is the ToolServer's ``namespace/name`` or its audience (a text with ``://``). ``tool`` is empty for a base
    method of MCP. ``arguments`` is what policy sees: for MCP ``params.arguments``, for HTTP template arguments, query and
    body members together. ``task`` is the AgentTask object bound to the instance, or None; ``approvals`` are the ToolApproval
    objects that could be about this call. ``now`` is aware, one reading for the whole decision.
    """

    now: datetime
    caller: Caller
    server: str | None
    tool: str
    arguments: Any
    protocol: str = "MCP"
    method: str = "tools/call"
    call_digest: str = ""
    task: Mapping[str, Any] | None = None
    approvals: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class RuleMark:
    """A rule that took part: ``policy`` as ``ToolPolicy namespace/name``; ``rule`` is None for an unreadable policy."""

    policy: str
    rule: str | None
    effect: Effect


@dataclass(frozen=True)
class Decision:
    """The answer.

    ``code`` is a code of ``wire.md`` section 10. ``policy``, ``rule`` and ``reason`` name the first rule in reporting order
    that settled it, if rules did (``reason`` only where not allowed). ``settled`` has all of them; ``audit`` has what rules
    of policies in mode Audit would have done. ``approval`` is the ToolApproval (``namespace/name``) that answered a rule that
    asks: an allowing decision uses it up.
    """

    effect: Effect
    code: str
    policy: str | None = None
    rule: str | None = None
    reason: str | None = None
    audit: tuple[RuleMark, ...] = ()
    settled: tuple[RuleMark, ...] = ()
    approval: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether the call may happen now. Nothing but Allow is a yes."""
        return self.effect == "Allow"

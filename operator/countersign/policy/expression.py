"""``when``: a condition in CEL, type-checked once, evaluated within limits (crds.md 5.6). The only file that knows the library.

Anything but the result ``true`` or ``false`` of type bool is undecided. The library gives errors back *as values*, and
``bool()`` of a value is always true: nothing here asks for less than the type BOOL and the very value True or False.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel

from countersign.policy.cost import too_much

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from countersign.policy.facts import CallFacts

__all__ = [
    "CPU_SECONDS",
    "MAX_CHARACTERS",
    "Evaluation",
    "Expression",
    "InvalidExpression",
    "compile_when",
    "when_fault",
]

MAX_CHARACTERS: Final = 1024
CPU_SECONDS: Final = 0.05
"""CPU that all expressions of one decision may use together; those of Audit policies have as much of their own."""

_NODE: Final = "node"
_LARGEST: Final = 2**53 - 1
_PLACE: Final = re.compile(r"<input>:(-?[0-9]+):(-?[0-9]+): (.+)")
# What the report says for machines: a status before and after, the container, and every token that could have stood there.
_NOISE: Final = re.compile(r"\A[A-Z_]+: |\s*\[[A-Z_]+\]\Z| \(in container ''\)| expecting \{.*\}")
# Names of the library's own machinery that the parser takes for functions: the first turns an error into `true`.
_MACHINERY: Final = ("__not_strictly_false__", "_in_")

_TYPE: Final = cel.Type
_VARIABLES: Final[Mapping[str, Any]] = {
    "call.server": _TYPE.STRING,
    "call.audience": _TYPE.STRING,
    "call.tool": _TYPE.STRING,
    "call.access": _TYPE.STRING,
    "args": _TYPE.Map(_TYPE.STRING, _TYPE.DYN),
    "agent.name": _TYPE.STRING,
    "agent.namespace": _TYPE.STRING,
    "user.present": _TYPE.BOOL,
    "user.name": _TYPE.STRING,
    "user.groups": _TYPE.List(_TYPE.STRING),
    "task.present": _TYPE.BOOL,
    "task.name": _TYPE.STRING,
    "task.purpose": _TYPE.STRING,
    "task.calls": _TYPE.INT,
    "device.name": _TYPE.STRING,
    "device.pool": _TYPE.STRING,
    "device.assurance": _TYPE.STRING,
    "device.attestationAge": _TYPE.DURATION,
    "device.facts": _TYPE.Map(_TYPE.STRING, _TYPE.STRING),
    "key.tier": _TYPE.STRING,
    "instance.source": _TYPE.STRING,
    "instance.imageDigests": _TYPE.List(_TYPE.STRING),
    "cluster.name": _TYPE.STRING,
    "now": _TYPE.TIMESTAMP,
}


class InvalidExpression(Exception):
    """A text is no condition. ``message`` begins with ``line:column`` where the compiler gave a place."""

    def __init__(self, message: str) -> None:
        """Keep what is said to the person who wrote it."""
        super().__init__(message)
        self.message = message


class Expression:
    """A compiled condition. Made by :func:`compile_when`."""

    __slots__ = ("_program", "text")

    def __init__(self, text: str, program: Any) -> None:
        """Keep the text and what it compiled to."""
        self.text, self._program = text, program

    def holds(self, facts: CallFacts) -> bool | None:
        """Return the value for a call: None for every result but true and false, and where a limit is passed."""
        if not facts.arguments_known:
            return None
        evaluation = facts.evaluation
        if evaluation.spent > CPU_SECONDS or too_much(self.text, facts):
            return None
        begun = time.thread_time()
        try:
            value = self._program.eval(evaluation.activation(facts))
            found = value.value() if value.type() == _TYPE.BOOL else None
        except Exception:  # noqa: BLE001 - the iteration budget, and whatever else a native library raises
            found = None
        evaluation.spent += time.thread_time() - begun
        # One that passed the limit itself is no better than one after it.
        if evaluation.spent > CPU_SECONDS:
            return None
        return found if found is True or found is False else None


class Evaluation:
    """What the expressions of one decision share: the variables, bound when first asked for, and the CPU used so far."""

    __slots__ = ("_activation", "spent")

    def __init__(self) -> None:
        """Start with nothing bound and nothing spent; CPU is in seconds."""
        self._activation: Any = None
        self.spent = 0.0

    def activation(self, facts: CallFacts) -> Any:
        """Return the variables of this call as the library wants them."""
        if self._activation is None:
            self._activation = _environment().Activation(dict(_bound(facts)))
        return self._activation


@cache
def _environment() -> Any:
    """Return the one environment: the standard library, our variables, and no extension."""
    return cel.NewEnv(variables=_VARIABLES)


def compile_when(text: Any) -> Expression:
    """Compile a condition.

    Raises
    ------
    InvalidExpression
        If it is too long, names what does not exist, or is not of type bool (``dyn`` is not).

    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidExpression("an expression is a text that is not empty")
    if len(text) > MAX_CHARACTERS:
        raise InvalidExpression(f"{len(text)} characters; at most {MAX_CHARACTERS}")
    if name := next((one for one in _MACHINERY if one in text), None):
        raise InvalidExpression(f"{_place(text, name)}: undeclared reference to '{name}'")
    try:
        program = _environment().compile(text)
        kind = program.return_type()
    except Exception as error:
        raise InvalidExpression(_message(str(error))) from error
    if kind != _TYPE.BOOL:
        hint = ": compare it, as in `args.force == true`" if kind == _TYPE.DYN else ""
        raise InvalidExpression(f"the result is {kind.name()}, not bool{hint}")
    return Expression(text, program)


def when_fault(text: Any) -> str | None:
    """Return what is wrong with a condition, with its place, or None."""
    try:
        compile_when(text)
    except InvalidExpression as error:
        return error.message
    return None


def _place(text: str, name: str) -> str:
    before = text[: text.index(name)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _message(text: str) -> str:
    """Return the first fault of the compiler's report as ``line:column: what``, without its drawing of the text."""
    found = _PLACE.search(text)
    if found is None:
        return _NOISE.sub("", text.partition(chr(10))[0])
    line, column, what = found[1], found[2], _NOISE.sub("", found[3])
    return what if line.startswith("-") else f"{line}:{column}: {what}"


def _bound(facts: CallFacts) -> Iterator[tuple[str, Any]]:
    """Yield the variables that have a value; one that has none is left unbound, so that reading it is an error."""
    caller, instance, device = facts.caller, facts.caller.instance, facts.caller.device
    yield from (("call.server", facts.server), ("call.audience", facts.audience))
    yield from (("call.tool", facts.tool), ("call.access", facts.access))
    if isinstance(facts.arguments, dict):
        yield "args", _plain(facts.arguments)
    yield from (("agent.name", caller.agent.name), ("agent.namespace", caller.agent.namespace))
    yield from _task(facts)
    yield from (("device.name", device.name), ("device.pool", device.pool), ("device.assurance", device.assurance))
    if facts.age_seconds is not None and device.attestation_time is not None:
        yield "device.attestationAge", facts.now - device.attestation_time
    yield "device.facts", _posture(facts)
    yield from (("key.tier", facts.tier), ("instance.source", instance.source), ("cluster.name", caller.cluster))
    if instance.image_digests is not None:
        yield "instance.imageDigests", list(instance.image_digests)
    yield "now", facts.now


def _task(facts: CallFacts) -> Iterator[tuple[str, Any]]:
    user, task = facts.user, facts.task
    present = user is not None and user.name is not None
    yield from (("user.present", present), ("task.present", task is not None))
    if user is not None and present:
        yield from (("user.name", user.name), ("user.groups", sorted(user.groups)))
    if task is None:
        return
    read: tuple[tuple[str, Callable[[], Any], type], ...] = (
        ("task.name", lambda: task["metadata"]["name"], str),
        ("task.purpose", lambda: task["spec"]["purpose"], str),
        ("task.calls", lambda: ((task.get("status") or {}).get("calls") or {}).get("allowed", 0), int),
    )
    for name, value_of, kind in read:
        try:
            value = value_of()
        except (KeyError, TypeError, AttributeError):
            continue
        if type(value) is kind:
            yield name, value


def _posture(facts: CallFacts) -> dict[str, str]:
    """Return the device's facts, whatever their age.

    The node's own word is not among them: it satisfies only who asks for that source by name, which an expression cannot.
    Neither is a fact on which two sources disagree: they are no answer.
    """
    found: dict[str, set[str]] = {}
    for fact in facts.caller.device.facts:
        if fact.source != _NODE:
            found.setdefault(fact.name, set()).add(fact.value)
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}


def _plain(value: Any) -> Any:
    """Return arguments with each whole number as an int, however it was written; the others stay double."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
        return int(value)
    return value

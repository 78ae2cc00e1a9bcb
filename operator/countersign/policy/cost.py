"""How much work an expression could make of a call, guessed before it is evaluated: the library cannot be stopped half way.

Its own budget counts comprehension steps, not what a step does. A step may read the longest text of the call, compare with a
whole list, or (``map``, ``filter``) copy the list made so far: measured, 10,000,000 characters read are about 50 ms. A pattern
with a counted repetition may take 1,000 times as long for each character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from countersign.policy.facts import CallFacts

__all__ = ["MAX_STEPS", "counts", "loops", "too_much"]

MAX_STEPS: Final = 10_000
_MAX_COPIES: Final = 1_000
_MAX_WORK: Final = 10_000_000
_LOOP: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_COPYING: Final = re.compile(r"\.\s*(?:map|filter)\s*\(")
# An escape may spell the brace.
_COUNTED: Final = re.compile(r"\bmatches\b(?s:.)*(?:\{|\\[xXuU0-7])|(?:\{|\\[xXuU0-7])(?s:.)*\bmatches\b")
_COUNTED_FACTOR: Final = 1_000
_MEMBER: Final = re.compile(r"\bin\b")


def loops(text: str) -> int:
    """Return how many comprehensions an expression has; one in a quoted text counts, which only makes it look dearer."""
    return len(_LOOP.findall(text))


def counts(text: str) -> bool:
    """Whether an expression may match a pattern that has a counted repetition."""
    return _COUNTED.search(text) is not None


def too_much(text: str, facts: CallFacts) -> bool:
    """Whether evaluating ``text`` for this call might use far more than a decision has."""
    nested, slow = loops(text), counts(text)
    if not nested and not slow:
        return False
    elements, longest = _measure(facts.arguments)
    elements += text.count(",") + len(facts.caller.device.facts) + len(facts.caller.instance.image_digests or ())
    elements += len(facts.user.groups) if facts.user else 0
    steps = min(MAX_STEPS, max(elements, 1) ** nested)
    reads = longest * (_COUNTED_FACTOR if slow else 1) + (elements if _MEMBER.search(text) else 0)
    return steps * reads > _MAX_WORK or (steps > _MAX_COPIES and _COPYING.search(text) is not None)


def _measure(value: Any) -> tuple[int, int]:
    """Return how many elements lists and objects have, and the characters of the longest text."""
    elements, longest, waiting = 0, 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            longest = max(longest, len(one))
        elif isinstance(one, dict):
            elements += len(one)
            longest = max(longest, *(len(name) for name in one if isinstance(name, str)), 0)
            waiting.extend(one.values())
        elif isinstance(one, list):
            elements += len(one)
            waiting.extend(one)
    return elements, longest

"""Typed conditions on the arguments of a call (crds.md 5.5)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from countersign.api.meta import AbsolutePath, Pointer
from countersign.api.shape import Rule, Shape, union

__all__ = ["Argument"]

_LARGEST: Final = 2**53 - 1
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# The last label begins with a letter: what ends in a number is an address to some readers.
_TOP: Final = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_OCTET: Final = r"(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_HOST: Final = rf"^([*][.]({_LABEL}[.])+{_TOP}|({_LABEL}[.])*{_TOP}|{_OCTET}([.]{_OCTET}){{3}})$"

Exact = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
Host = Annotated[str, Field(max_length=255, pattern=_HOST)]
Scheme = Annotated[str, Field(max_length=16, pattern=r"^[a-z][a-z0-9+.-]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Roots = Annotated[tuple[AbsolutePath, ...], Field(min_length=1, max_length=64)]


class StringCondition(Shape):
    """The value is a plain string, equal to one of the values."""

    values: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(min_length=1, max_length=64)]
    """Compared byte for byte."""


class IntegerCondition(Shape):
    """The value is a whole number in the range, or one of the values."""

    filled = True
    cel = (
        Rule(
            "!has(self.values) || !(has(self.minimum) || has(self.maximum))",
            "give values or a range, not both",
        ),
        Rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            "minimum must not exceed maximum",
        ),
    )

    minimum: Exact | None = None
    """Least value, inclusive."""
    maximum: Exact | None = None
    """Greatest value, inclusive."""
    values: Annotated[tuple[Exact, ...], Field(min_length=1, max_length=64)] | None = None
    """Exactly these values."""


class BooleanCondition(Shape):
    """The value is this truth value."""

    value: bool
    """What the argument must be."""


class PathCondition(Shape):
    """The value is an absolute path, equal to an entry or below it, by whole segments."""

    under: Roots
    """Paths that hold what is accepted."""


class UrlCondition(Shape):
    """The value is a URL in canonical form, and all that is given here matches."""

    hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=64)]
    """Hosts; *.example.com matches one or more labels before, not the domain itself, never an address."""
    schemes: Annotated[tuple[Scheme, ...], Field(min_length=1, max_length=8)] | None = None
    """Schemes; left out: https."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1, max_length=16)] | None = None
    """Ports; left out: the scheme's own."""
    under: Roots | None = None
    """Paths that hold what is accepted; left out: any."""


class Argument(Shape):
    """One condition on one argument."""

    cel = (
        *union(
            "type",
            {"String": "string", "Integer": "integer", "Boolean": "boolean", "Path": "path", "URL": "url"},
        ),
        Rule("self.type != 'Absent' || !has(self.whenMissing)", "whenMissing is forbidden when type is Absent"),
        Rule(
            "self.pointer.matches('/[*](/|$)') == has(self.quantifier)",
            "quantifier is required when pointer has a * segment and forbidden otherwise",
        ),
        Rule("!self.pointer.matches('/[*](/.*)?/[*](/|$)')", "pointer may have one * segment"),
    )

    pointer: Pointer
    """Where the value is (RFC 6901); one segment may be *: every element of an array."""
    type: Literal["String", "Integer", "Boolean", "Path", "URL", "Absent"]
    """How the value is judged. A value of another type leaves the rule undecided."""
    string: StringCondition | None = None
    """With type: String."""
    integer: IntegerCondition | None = None
    """With type: Integer."""
    boolean: BooleanCondition | None = None
    """With type: Boolean."""
    path: PathCondition | None = None
    """With type: Path."""
    url: UrlCondition | None = None
    """With type: URL."""
    quantifier: Literal["All", "Any"] | None = None
    """With a * segment: whether all elements must match, or any."""
    when_missing: Literal["Undecided", "Matches", "DoesNotMatch"] | None = None
    """What a missing value means; left out: Undecided."""

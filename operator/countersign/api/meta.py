"""Words and blocks that several kinds use: names, digests, PEM, URLs, references, conditions, selectors.

Patterns are RE2: no look-ahead, and ``$`` is the end of the text. Every text and every list has a maximum, so that the API
server can bound the cost of CEL.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from countersign.api.shape import Mark, Rule, Shape

__all__ = [
    "AbsolutePath",
    "Access",
    "Assurance",
    "Condition",
    "Conditions",
    "Count",
    "Digest",
    "DnsLabel",
    "DnsName",
    "Exposure",
    "KeyTier",
    "LabelSelector",
    "NameReference",
    "Pem",
    "Pointer",
    "Principal",
    "Status",
    "Time",
    "ToolName",
    "Uid",
    "UidReference",
    "Url",
]

_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# A segment of a path that is neither "." nor "..", and holds nothing that two readers decode differently.
_SEGMENT: Final = r"([^/.%\\[:cntrl:]][^/%\\[:cntrl:]]*|[.][^/.%\\[:cntrl:]][^/%\\[:cntrl:]]*|[.][.][^/%\\[:cntrl:]]+)"
_KEY: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

Assurance = Literal["Software", "Virtual", "Hardware"]
KeyTier = Literal["Software", "DPoP", "TPMSession", "TPM"]
Access = Literal["ReadOnly", "ReadWrite", "Destructive"]

Time = AwareDatetime
Count = Annotated[int, Field(ge=0)]
DnsLabel = Annotated[str, Field(max_length=63, pattern=rf"^{_LABEL}$")]
DnsName = Annotated[str, Field(max_length=253, pattern=rf"^{_LABEL}([.]{_LABEL})*$")]
Uid = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Za-z-]+$")]
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Principal = Annotated[str, Field(min_length=1, max_length=256)]
ToolName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Pointer = Annotated[str, Field(max_length=256, pattern=r"^(/([^~/]|~[01])*)+$")]
AbsolutePath = Annotated[str, Field(max_length=1024, pattern=rf"^/$|^(/{_SEGMENT})+$")]
Pem = Annotated[
    str,
    Field(
        max_length=256 * 1024,
        pattern=r"^\s*(-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+$",
    ),
]
Url = Annotated[
    str,
    Field(
        max_length=512,
        pattern=rf"^https?://{_LABEL}([.]{_LABEL})*(:[1-9][0-9]{{0,4}})?(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$",
    ),
    Mark.rules(
        Rule(
            "!self.startsWith('http://') || self.matches('^http://(localhost|127[.]0[.]0[.]1"
            "|[a-z0-9-]+([.][a-z0-9-]+)+[.]svc([.]cluster[.]local)?)(:|/|$)')",
            "plain http is accepted only for a cluster Service (*.svc) or loopback",
        ),
        Rule(
            "!self.matches('^(https://[^/]+:443|http://[^/]+:80)(/|$)')",
            "write the URL without its default port",
        ),
        Rule("!self.matches('/([.]|%2[eE]){1,2}(/|$)')", "dot segments are refused"),
    ),
]


class NameReference(Shape):
    """A reference by name; it is looked up at each decision."""

    name: DnsName
    """Name of the object."""


class UidReference(Shape):
    """A reference to one object and no later one of the same name."""

    name: DnsName
    """Name of the object."""
    uid: Uid
    """UID of the object."""


class Condition(Shape):
    """One observation, as metav1.Condition. A condition that is missing means Unknown."""

    type: Annotated[str, Field(max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """What is observed."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(max_length=1024, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Why, in one word that programs may compare."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for people."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: Count | None = None
    """The generation of the object that was looked at."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16), Mark.map("type")]


class Status(Shape):
    """What Countersign observed. Only Countersign writes it."""

    observed_generation: Count | None = None
    """The generation of the object that was looked at last."""
    conditions: Conditions | None = None
    """What holds, and since when."""


class LabelRequirement(Shape):
    """One requirement on a label."""

    cel = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == has(self.values)",
            "values is required when operator is In or NotIn and forbidden otherwise",
        ),
    )

    key: Annotated[str, Field(max_length=317, pattern=_KEY)]
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value is judged."""
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(min_length=1, max_length=64)] | None = (
        None
    )
    """Values for In and NotIn."""


class LabelSelector(Shape):
    """A selector over labels; all requirements must hold. An empty one is refused."""

    cel = (
        Rule(
            "(has(self.matchLabels) || has(self.matchExpressions))"
            " && (!has(self.matchLabels) || size(self.matchLabels) > 0)"
            " && (!has(self.matchExpressions) || size(self.matchExpressions) > 0)",
            "an empty selector is refused: leave the field out to select everything",
        ),
    )

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] | None = None
    """Labels with exactly these values."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=64)] | None = None
    """Requirements on labels."""


class Exposure(Shape):
    """Which namespaces may know an object."""

    cel = (
        Rule(
            "(self.from == 'Selector') == has(self.selector)",
            "selector is required when from is Selector and forbidden otherwise",
        ),
    )

    from_: Annotated[Literal["Same", "All", "Selector"], Field(alias="from")] = "Same"
    """Same: the object's own namespace. All: every namespace. Selector: those that selector matches."""
    selector: LabelSelector | None = None
    """Labels of the Namespaces, with from: Selector."""

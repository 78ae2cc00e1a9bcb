"""The grammar of ``Signature`` and ``Signature-Input``: the part of RFC 8941 that they can be written in, read strictly.

Both are dictionaries. What is no dictionary is ``proof.format``; whether a dictionary is the one this profile wants is the
numbered checks' to say, so everything that could be written is kept as it was written.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from countersign.errors import Denied

__all__ = ["PARAMETERS", "InputMember", "SignatureMember", "read_signature", "read_signature_input"]

PARAMETERS: Final = ("created", "expires", "nonce", "tag", "wimse-aud")
"""All parameters of a signature, in their order (wire.md 3.1.2)."""

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_STRING: Final = r'"[ !#-\[\]-~]*"'  # printable ASCII without escapes
_BARE: Final = (
    r"[!#-'*+\--:<-~]*"  # numbers, tokens, booleans and byte sequences; no quote, comma, semicolon or parenthesis
)
_VALUE: Final = rf"(?:{_STRING}|{_BARE})"
_PARAMETERS: Final = rf"(?:;{_KEY}(?:={_VALUE})?)*"
_PARAMETER: Final = re.compile(rf";({_KEY})(?:=({_VALUE}))?")
_ITEM: Final = re.compile(_STRING)
_INPUT_MEMBER: Final = re.compile(rf"({_KEY})=(\(((?:{_STRING}(?: {_STRING})*)?)\)({_PARAMETERS}))")
_SIGNATURE_MEMBER: Final = re.compile(rf"({_KEY})=({_VALUE}{_PARAMETERS})")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_SECONDS: Final = r"0|[1-9][0-9]{0,14}"
_USUAL_INPUT: Final = re.compile(
    r'(wimse)=(\("([a-z0-9@-]+(?:" "[a-z0-9@-]+)*)"\)'
    rf";created=({_SECONDS});expires=({_SECONDS})"
    r';nonce=("[A-Za-z0-9_-]{22,256}");tag=("[ !#-\[\]-~]*");wimse-aud=("[ !#-\[\]-~]*"))'
)
"""How nearly every signer writes the field: one pass instead of three, to the same end."""
_USUAL_SIGNATURE: Final = re.compile(r"(wimse)=(:[A-Za-z0-9+/]{86}==:)")


class InputMember(NamedTuple):
    """One member of ``Signature-Input``: component names, parameters as written and in order, and its whole value."""

    label: str
    components: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    text: str
    usual: bool = False
    """Whether it is written as nearly every signer does: then each parameter is there, in order and of its form."""


class SignatureMember(NamedTuple):
    """One member of ``Signature``, its value as written."""

    label: str
    text: str


def read_signature_input(value: str) -> tuple[InputMember, ...]:
    """Read the field. Raises Denied ``proof.format``."""
    usual = _USUAL_INPUT.fullmatch(value)
    if usual is not None:
        label, text, components, *values = usual.groups()
        parameters = tuple(zip(PARAMETERS, values, strict=True))
        return (InputMember(label, tuple(components.split('" "')), parameters, text, usual=True),)
    return _input_by_grammar(value)


def _input_by_grammar(value: str) -> tuple[InputMember, ...]:
    return tuple(
        InputMember(
            label=match[1],
            components=tuple(item[1:-1] for item in _ITEM.findall(match[3])),
            parameters=tuple((name, text) for name, text in _PARAMETER.findall(match[4])),
            text=match[2],
        )
        for match in _members(_INPUT_MEMBER, value, "Signature-Input")
    )


def read_signature(value: str) -> tuple[SignatureMember, ...]:
    """Read the field. Raises Denied ``proof.format``."""
    usual = _USUAL_SIGNATURE.fullmatch(value)
    if usual is not None:
        return (SignatureMember(usual[1], usual[2]),)
    return _signature_by_grammar(value)


def _signature_by_grammar(value: str) -> tuple[SignatureMember, ...]:
    return tuple(SignatureMember(match[1], match[2]) for match in _members(_SIGNATURE_MEMBER, value, "Signature"))


def _members(member: re.Pattern[str], value: str, name: str) -> list[re.Match[str]]:
    found: list[re.Match[str]] = []
    at = 0
    while match := member.match(value, at):
        found.append(match)
        if match.end() == len(value):
            return found
        comma = _COMMA.match(value, match.end())
        if comma is None:
            break
        at = comma.end()
    raise Denied("proof.format", f"{name} is no dictionary of signatures")

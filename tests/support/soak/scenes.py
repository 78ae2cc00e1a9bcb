"""Calls whose right answer is known because of how they are made, never by asking policy: tools, their rules, good and bad calls.

Each scene is a tool with one rule that allows it, arguments that the rule is for, and ways to spoil them after which the
answer must be no. All tools are of one server, and their schemas take any value: it is policy that must say no.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Arguments = dict[str, Any]

__all__ = ["SCENES", "Scene"]

WRONG_NUMBERS: tuple[Any, ...] = (
    0, -1, 5001, 10**9, 2**53 - 1, 0.5, 5000.5, "5", "5000", "", True, False, None, [5], [], {"a": 5},
)  # fmt: skip
WRONG_WORDS: tuple[Any, ...] = (
    "eur", "Eur", "EUR ", " EUR", "EU", "EURO", "GBP", "", "*", "\uff25\uff35\uff32", "E\u200bUR", "EUR\ufeff", "\u202eEUR", "EU\u211b",
    "E\u0055\u0301R", "EUR\n", "EUR\\", 5, 0, None, True, ["EUR"], {"EUR": 1},
)  # fmt: skip
WRONG_PATHS: tuple[Any, ...] = (
    "/srv/data/../../etc/passwd", "/srv/data/..", "/srv/data/./x", "/srv/data//x", "/srv/data/", "/srv/database", "/srv/dat", "/srv",
    "/", "", "srv/data/x", "../srv/data/x", "/SRV/data/x", "/srv/Data/x", "/srv/data/%2e%2e/x", "/srv/data/a%2fb", "/srv/data\\x",
    "\\srv\\data\\x", "/srv/data/x\x00", "/srv/data/x\u200b", "/srv\u2215data/x", "/srv/data/x\n", "//srv/data/x", "file:///srv/data/x",
    "/etc/passwd", "/srv/data\u0301/x", "/\uff53\uff52\uff56/data/x", None, 5, ["/srv/data/x"], {"": "/srv/data/x"},
)  # fmt: skip
WRONG_URLS: tuple[Any, ...] = (
    "http://api.example.com/v1/x", "HTTPS://api.example.com/v1/x", "https://API.example.com/v1/x", "https://api.example.com/v2/x",
    "https://api.example.com/v10/x", "https://api.example.com", "https://api.example.com/", "https://api.example.com:8443/v1/x",
    "https://api.example.com:0443/v1/x", "https://api.example.com./v1/x", "https://api.example.com.evil.com/v1/x",
    "https://xapi.example.com/v1/x", "https://cdn.example.com/v1/x", "https://evilcdn.example.com/v1/x", "https://a@api.example.com/v1/x",
    "https://api.example.com@evil.com/v1/x", "https://evil.com/v1/x#@api.example.com", "https://api.example.com/v1/x#y",
    "https://api.example.com/v1/../v2", "https://api.example.com/v1/%2e%2e/v2", "https://api.example.com\\@evil.com/v1/x",
    "https:/api.example.com/v1/x", "//api.example.com/v1/x", "https://[::1]/v1/x", "https://127.0.0.1/v1/x", "https://2130706433/v1/x",
    "https://api.example.com/v1/x y", "https://api.example.com/v1/x\n", "https://\u0430pi.example.com/v1/x", "javascript:alert(1)",
    "https://.cdn.example.com/v1/x", "https://a..cdn.example.com/v1/x", "ftp://api.example.com/v1/x", "", None, 5,
    ["https://api.example.com/v1/x"],
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A tool: what allows it (``parts`` of its rule), good arguments, and what spoils them."""

    tool: str
    parts: dict[str, Any]
    good: Callable[[Random], Arguments]
    spoil: Callable[[Random, Arguments], Arguments]
    names: tuple[str, ...]
    denies: tuple[dict[str, Any], ...] = ()

    def bad(self, rng: Random) -> Arguments:
        """Return arguments that must be refused: spoilt, or with a name that the schema does not have."""
        arguments = copy.deepcopy(self.good(rng))
        if rng.random() < 0.1:
            return arguments | {rng.choice(("x", "Amount", "force ", "__proto__", "", "target\u200b")): 1}
        return self.spoil(rng, arguments)


def _one_of(name: str, wrong: tuple[Any, ...], *, missing: bool = True) -> Callable[[Random, Arguments], Arguments]:
    """Spoil by another value, by leaving the name out, or by a value one level too deep."""

    def spoil(rng: Random, arguments: Arguments) -> Arguments:
        if missing and rng.random() < 0.15:
            return {key: value for key, value in arguments.items() if key != name}
        if rng.random() < 0.1:
            return arguments | {name: {name: arguments[name]}}
        return arguments | {name: rng.choice(wrong)}

    return spoil


def _pay(rng: Random, arguments: Arguments) -> Arguments:
    spoil = _one_of("amount", WRONG_NUMBERS) if rng.random() < 0.5 else _one_of("currency", WRONG_WORDS)
    return spoil(rng, arguments)


def _batch(rng: Random, arguments: Arguments) -> Arguments:
    items = arguments["items"]
    how = rng.randrange(4)
    if how == 0:
        return {"items": rng.choice(([], {}, None, "x", 5, {"0": {"amount": 1}}, [[{"amount": 1}]]))}
    if how == 1:
        return {}
    place = rng.randrange(len(items))
    items[place] = (
        {"amount": rng.choice((0, 101, -1, "1", None, True, 1.5))} if how == 2 else rng.choice(({}, None, 5, [1], "x"))
    )
    return arguments


def _report(rng: Random, arguments: Arguments) -> Arguments:
    if rng.random() < 0.5:
        return _one_of("kind", ("monthly", "Daily", "daily ", "", None, 5, ["daily"], True))(rng, arguments)
    return _one_of("days", (0, 32, -1, 10**9, "5", "", None, True, [5], {"x": 5}))(rng, arguments)


def _segments(rng: Random) -> str:
    words = ("a", "b-c", "2026", "report.csv", "x_y", "é", "~", "..a", "a..", ".hidden")
    return "".join("/" + rng.choice(words) for _ in range(rng.randrange(4)))


def _url(rng: Random) -> str:
    host = rng.choice(("api.example.com", "a.cdn.example.com", "a.b.cdn.example.com"))
    port = rng.choice(("", "", ":443"))
    path = "/v1" + rng.choice(("", "/x", "/x/y", "/~a/b_c"))
    return f"https://{host}{port}{path}" + rng.choice(("", "?q=1", "?a=b&c=/../d"))


SCENES = (
    Scene(
        "pay",
        {
            "arguments": [
                {"pointer": "/amount", "type": "Integer", "integer": {"minimum": 1, "maximum": 5000}},
                {"pointer": "/currency", "type": "String", "string": {"values": ["EUR", "USD"]}},
            ]
        },
        lambda rng: {"amount": rng.randint(1, 5000), "currency": rng.choice(("EUR", "USD"))},
        _pay,
        ("amount", "currency"),
    ),
    Scene(
        "read_file",
        {"arguments": [{"pointer": "/path", "type": "Path", "path": {"under": ["/srv/data", "/var/report"]}}]},
        lambda rng: {"path": rng.choice(("/srv/data", "/var/report")) + _segments(rng)},
        _one_of("path", WRONG_PATHS),
        ("path",),
    ),
    Scene(
        "fetch",
        {
            "arguments": [
                {
                    "pointer": "/url",
                    "type": "URL",
                    "url": {"hosts": ["api.example.com", "*.cdn.example.com"], "under": ["/v1"]},
                }
            ]
        },
        lambda rng: {"url": _url(rng)},
        _one_of("url", WRONG_URLS),
        ("url",),
    ),
    Scene(
        "toggle",
        {"arguments": [{"pointer": "/on", "type": "Boolean", "boolean": {"value": True}}]},
        lambda _rng: {"on": True},
        _one_of("on", (False, "true", "True", 1, 0, "", None, [True], {})),
        ("on",),
    ),
    Scene(
        "batch",
        {
            "arguments": [
                {
                    "pointer": "/items/*/amount",
                    "quantifier": "All",
                    "type": "Integer",
                    "integer": {"minimum": 1, "maximum": 100},
                }
            ]
        },
        lambda rng: {"items": [{"amount": rng.randint(1, 100)} for _ in range(rng.randint(1, 4))]},
        _batch,
        ("items",),
    ),
    Scene(
        "list_things",
        {"arguments": [{"pointer": "/force", "type": "Absent"}]},
        lambda rng: rng.choice(({}, {"name": "x"}, {"name": None}, {"name": {"force": True}})),
        lambda rng, arguments: arguments | {"force": rng.choice((True, False, None, 0, "", [], {}))},
        ("force", "name"),
    ),
    Scene(
        "report",
        {"when": "args.kind in ['daily', 'weekly'] && args.days >= 1 && args.days <= 31"},
        lambda rng: {"kind": rng.choice(("daily", "weekly")), "days": rng.randint(1, 31)},
        _report,
        ("kind", "days"),
    ),
    Scene(
        "deploy",
        {},
        lambda rng: {"target": rng.choice(("staging", "dev", "test-1"))},
        _one_of(
            "target",
            (
                "prod",
                "prod\u200b",
                "\uff50\uff52\uff4f\uff44",
                "prod\n",
                "\u202dprod",
                None,
                5,
                ["prod"],
                {"target": "prod"},
            ),
        ),
        ("target",),
        ({"pointer": "/target", "type": "String", "string": {"values": ["prod"]}, "whenMissing": "Matches"},),
    ),
)

"""What is printed: aligned without colour, at any width, and no text of an object acts on the terminal."""

from __future__ import annotations

import json

import pytest
import yaml

from countersign.console.output import Form, age, document, pairs, table

HOSTILE = "evil\x1b[2J\u202e\r\nname"


def test_columns_are_aligned_and_nothing_is_wrapped_or_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table(["NAME", "WHAT"], [["a", "x" * 200], ["longer", ""]])

    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME     WHAT", f"a        {'x' * 200}", "longer"]


def test_a_hostile_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    table(["NAME"], [[HOSTILE]])
    pairs([("word", HOSTILE)])

    out = capsys.readouterr().out
    assert out.count("\n") == 3
    assert not any(letter in out for letter in "\x1b\u202e\r")
    assert r"evil\x1b[2J\u202e\r\nname" in out


@pytest.mark.parametrize("form", [Form.json, Form.yaml])
def test_data_is_ascii_and_reads_back(capsys: pytest.CaptureFixture[str], form: Form) -> None:
    document(form, {"name": HOSTILE})

    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert (json.loads(out) if form is Form.json else yaml.safe_load(out)) == {"name": HOSTILE}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")],
)
def test_an_age_is_told_as_kubectl_does(seconds: float, shown: str) -> None:
    assert age(seconds) == shown

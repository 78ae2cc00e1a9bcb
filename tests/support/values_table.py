"""The table of values in the chart's README, made of the comments in values.yaml: ``make chart``; CI refuses a difference.

A key without a comment joins the row of the key before it; a mapping without a comment inside is a value like any other.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

CHART = Path(__file__).parents[2] / "charts" / "countersign"
_BEGIN = "<!-- The table is made of the comments in values.yaml: `make chart`. -->\n"
_END = "<!-- The end of the table. -->\n"
_WIDTH = 100


@dataclass
class Row:
    """Keys that share a comment."""

    keys: list[str]
    defaults: list[str]
    meaning: str = ""


@dataclass
class _Reader:
    lines: list[str]
    rows: list[Row] = field(default_factory=list)

    def read(self, node: yaml.MappingNode, path: str = "") -> None:
        for key, value in node.value:
            name = f"{path}{key.value}"
            comment = self._above(key.start_mark.line)
            if isinstance(value, yaml.MappingNode) and not value.flow_style and self._commented(value):
                if comment:
                    self.rows.append(Row([name], [""], comment))
                self.read(value, f"{name}.")
                continue
            default = _shown(value)
            if (
                comment
                or not self.rows
                or not self.rows[-1].keys[-1].startswith(path)
                or not self.rows[-1].defaults[-1]
            ):
                self.rows.append(Row([name], [default], comment))
            else:
                self.rows[-1].keys.append(name)
                self.rows[-1].defaults.append(default)

    def _commented(self, node: yaml.MappingNode) -> bool:
        return any(
            self._above(key.start_mark.line) or (isinstance(value, yaml.MappingNode) and self._commented(value))
            for key, value in node.value
        )

    def _above(self, line: int) -> str:
        words: list[str] = []
        while line and self.lines[line - 1].lstrip().startswith("#"):
            line -= 1
            words.insert(0, self.lines[line].lstrip().lstrip("# "))
        return " ".join(words)


def _shown(node: yaml.Node) -> str:
    text = json.dumps(yaml.safe_load(yaml.serialize(node)))
    return text if len(text) <= _WIDTH else "see `values.yaml`"


def _short(key: str) -> str:
    """Leave out what the key has in common with the first of its row."""
    return f".{key.rpartition('.')[2]}" if "." in key else key


def table(text: str) -> str:
    """Return the table of a values.yaml."""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    reader = _Reader(text.splitlines())
    reader.read(node)
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for row in reader.rows:
        first, *more = row.keys
        keys = ", ".join([f"`{first}`", *(f"`{_short(key)}`" for key in more)])
        defaults = list(dict.fromkeys(row.defaults)) if len(set(row.defaults)) == 1 else row.defaults
        shown = ", ".join(one if one.startswith("see ") else f"`{one}`" for one in defaults if one)
        lines.append(f"| {keys} | {shown} | {row.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def replaced(readme: str, values: str) -> str:
    """Return the README with the table of now."""
    before, _, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, "the README has lost the marks of its table"
    return f"{before}{_BEGIN}{table(values)}{_END}{after}"


def main(words: list[str]) -> int:
    """Write the README, or with ``--check`` only tell whether it is as it would be written."""
    file = CHART / "README.md"
    found = file.read_text()
    wanted = replaced(found, (CHART / "values.yaml").read_text())
    if words == ["--check"]:
        if found != wanted:
            print(f"{file.name}: its table is not that of values.yaml; run `make chart`", file=sys.stderr)
        return int(found != wanted)
    file.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What helm makes of five sets of values, object by object: read in the diff, written by ``--update-golden``.

``defaults.yaml`` has every object but the kinds, which are generated and checked where they are made. The others have what
differs from it: objects that are changed or more, and the names of those that are not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import GOLDEN_SETS, render

GOLDEN = Path(__file__).parents[1] / "data" / "chart"
Key = tuple[str, str, str]


def rendered(*values: str) -> dict[Key, dict[str, Any]]:
    found = [each for each in render(*values) if each["kind"] != "CustomResourceDefinition"]
    keyed = {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in found}
    assert len(keyed) == len(found), "two objects of one name"
    return dict(sorted(keyed.items()))


@pytest.mark.parametrize("name", GOLDEN_SETS)
def test_what_is_rendered_is_as_golden(name: str, request: pytest.FixtureRequest) -> None:
    found, default = rendered(*GOLDEN_SETS[name]), rendered()
    documents: list[Any] = list(found.values())
    if name != "defaults":
        gone = [" ".join(filter(None, key)) for key in default if key not in found]
        documents = [{"notRendered": gone}] if gone else []
        documents += [each for key, each in found.items() if default.get(key) != each]
    file = GOLDEN / f"{name}.yaml"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump_all(documents, sort_keys=False, width=120))
    assert documents == list(yaml.safe_load_all(file.read_text()))


def test_every_golden_file_is_of_a_set() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == set(GOLDEN_SETS)

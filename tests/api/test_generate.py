"""From a model to a structural schema: what is turned, what is refused, and that the files say what the models say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from countersign.api import KINDS
from countersign.api.generate import UnstructuralError, differences, files, manifest, structural, write
from countersign.api.shape import Mark, Rule, Shape

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "data" / "crds"


class Inner(Shape):
    """An inner block."""

    cel = (Rule("has(self.word)", "word is there"),)
    filled = True

    word: Annotated[str, Field(max_length=3)] | None = None
    """A word."""


def schema_of(annotation: Any, default: Any = ...) -> dict[str, Any]:
    class Outer(Shape):
        field: annotation = default

    found: dict[str, Any] = structural(Outer.model_json_schema(by_alias=True))["properties"]["field"]
    return found


def test_the_files_are_as_the_models_say() -> None:
    assert differences(ROOT) == []


def test_a_reference_is_inlined_with_its_rules_and_the_fields_own_words() -> None:
    found = schema_of(Annotated[Inner, Field(description="Why it\nis here.")])
    assert found == {
        "type": "object",
        "description": "Why it is here.",
        "minProperties": 1,
        "x-kubernetes-validations": [{"rule": "has(self.word)", "message": "word is there"}],
        "properties": {"word": {"type": "string", "description": "A word.", "maxLength": 3}},
    }


def test_the_null_branch_of_a_union_is_dropped_and_so_is_a_default_of_null() -> None:
    assert schema_of(Annotated[str, Field(max_length=9)] | None, None) == {"type": "string", "maxLength": 9}


def test_a_default_that_is_a_block_leaves_out_what_is_not_given() -> None:
    assert schema_of(Inner, Inner())["default"] == {}
    assert schema_of(Inner, Inner(word="abc"))["default"] == {"word": "abc"}


def test_exclusive_bounds_of_integers_become_inclusive() -> None:
    found = schema_of(Annotated[int, Field(gt=0, lt=10)])
    assert found == {"type": "integer", "format": "int64", "minimum": 1, "maximum": 9}


def test_one_literal_is_an_enumeration_of_one() -> None:
    assert schema_of(Literal["Only"]) == {"type": "string", "enum": ["Only"]}


def test_a_marked_list_is_a_map() -> None:
    found = schema_of(Annotated[tuple[Inner, ...], Field(max_length=2), Mark.map("word")])
    assert (found["x-kubernetes-list-type"], found["x-kubernetes-list-map-keys"]) == ("map", ["word"])


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | bool, "a union of 2 shapes cannot be said"),
        (str | int | None, "a union of 2 shapes cannot be said"),
        (str, "has no maximum"),
        (tuple[int, ...], "has no maximum"),
        (dict[str, int], "has no maximum"),
        (Any, "has no maximum"),
        (Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=2)], ".field[]: has no maximum"),
        (tuple[int, int], "cannot be said"),
        (Annotated[float, Field(gt=0.5)], "exclusiveMinimum cannot be said"),
        (Annotated[dict[Annotated[str, Field(pattern="^a$")], int], Field(max_length=2)], "cannot be said"),
    ],
)
def test_what_cannot_be_said_is_an_error_that_names_the_field(annotation: Any, words: str) -> None:
    with pytest.raises(UnstructuralError, match=re.escape(words)) as caught:
        schema_of(annotation)
    assert str(caught.value).startswith(".field")


def test_a_block_that_forbids_unknown_fields_is_an_error() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(UnstructuralError, match="forbids unknown fields"):
        schema_of(Strict)


def nodes(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, one in schema.get("properties", {}).items():
        found += nodes(one, f"{path}.{name}")
    for inside in ("items", "additionalProperties"):
        if isinstance(schema.get(inside), dict):
            found += nodes(schema[inside], f"{path}[]")
    return found


EVERY = [
    (kind.__name__, path, node)
    for kind in KINDS
    for path, node in nodes(manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
]


def test_nothing_is_nullable_a_float_or_a_boolean() -> None:
    assert not [path for _, path, node in EVERY if "nullable" in node or node.get("type") == "number"]
    switches = {path for _, path, node in EVERY if node.get("type") == "boolean"}
    assert switches == {".spec.rules[].arguments[].boolean.value"}


def test_every_field_is_explained() -> None:
    named = [(kind, path, node) for kind, path, node in EVERY if path and not path.endswith("[]")]
    unsaid = [f"{kind}{path}" for kind, path, node in named if not node.get("description") and path != ".metadata"]
    assert unsaid == []


def test_no_pattern_needs_what_re2_lacks() -> None:
    patterns = {node["pattern"] for _, _, node in EVERY if "pattern" in node}
    assert patterns
    assert not [one for one in patterns if re.search(r"\(\?[=!<]|\\[1-9]|\\Z", one)]
    assert not [one for one in patterns if not (one.startswith("^") and one.endswith("$"))]


def test_every_rule_has_a_file_that_only_it_refuses_in_these_words() -> None:
    rules = {rule["message"] for _, _, node in EVERY for rule in node.get("x-kubernetes-validations", [])}
    first = {path.read_text("utf-8").partition("\n")[0].removeprefix("# refused: ") for path in VECTORS.glob("bad/*")}
    assert rules - first == set()


def test_every_kind_has_a_good_file() -> None:
    seen = {yaml.safe_load(path.read_text("utf-8"))["kind"] for path in VECTORS.glob("good/*")}
    assert seen == {kind.__name__ for kind in KINDS}


def test_the_charts_copy_is_wrapped_and_otherwise_the_same() -> None:
    written = files()
    for kind in KINDS:
        name = f"countersign.dev_{kind.names.plural}.yaml"
        chart = written[f"charts/countersign/templates/crds/{name}"].splitlines()
        assert chart[1] == "{{- if .Values.crds.enabled }}"
        assert chart[-1] == "{{- end }}"
        keep = chart.index("  {{- if .Values.crds.keep }}")
        assert chart[keep + 1 : keep + 4] == ["  annotations:", "    helm.sh/resource-policy: keep", "  {{- end }}"]
        plain = [*chart[2:keep], *chart[keep + 4 : -1]]
        assert yaml.safe_load("\n".join(plain)) == yaml.safe_load(written[f"crds/{name}"])


def test_missing_different_and_left_over_files_are_named_and_put_right(tmp_path: Path) -> None:
    assert len(write(tmp_path)) == 2 * len(KINDS)
    assert differences(tmp_path) == []
    device = tmp_path / "crds" / "countersign.dev_devices.yaml"
    device.write_text(device.read_text("utf-8").replace("maxLength: 63", "maxLength: 64"), encoding="utf-8")
    (tmp_path / "crds" / "countersign.dev_devicepools.yaml").unlink()
    (tmp_path / "charts/countersign/templates/crds/countersign.dev_sessions.yaml").write_text("{}", encoding="utf-8")
    wrong = [
        "charts/countersign/templates/crds/countersign.dev_sessions.yaml",
        "crds/countersign.dev_devicepools.yaml",
        "crds/countersign.dev_devices.yaml",
    ]
    assert differences(tmp_path) == wrong
    assert write(tmp_path) == wrong
    assert differences(tmp_path) == []

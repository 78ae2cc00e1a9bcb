"""From the models to CustomResourceDefinitions, and to the files that hold them.

A structural schema is stricter than pydantic's: no ``$ref``, no unions, every bound said. What cannot be said in it is an
error of ours and raises :class:`UnstructuralError`; nothing is guessed or dropped in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from countersign.api import KINDS
from countersign.api.kind import GROUP, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from countersign.api.kind import Column, Kind

__all__ = ["UnstructuralError", "differences", "files", "manifest", "structural", "write"]

CRDS: Final = "crds"
CHART: Final = "charts/countersign/templates/crds"
_HEADER: Final = "Written by `countersign crds` from operator/countersign/api: change the models, not this file."
_CATEGORY: Final = "countersign"
# What both dialects say alike, in the order in which it is written.
_ORDER: Final = (
    "type",
    "description",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
_API_VERSION: Final = {"type": "string", "description": f"Always {GROUP}/{VERSION}."}
_KIND: Final = {"type": "string", "description": "Name of the kind."}


class UnstructuralError(Exception):
    """A model says what a structural schema cannot; the text begins with the path of the field."""


def structural(schema: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Turn a JSON schema of pydantic's into a structural schema.

    Inlines ``$ref``, drops the null branch of a union (``nullable`` would store an explicit null over the default), makes
    exclusive bounds of integers inclusive, and demands a maximum of every text, list and map.

    Raises
    ------
    UnstructuralError
        For any other union, a keyword that is not known here, or a missing maximum.

    """
    return _node(schema, schema.get("$defs", {}), path)


def _node(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    given = _inlined(schema, definitions, path)
    node: dict[str, Any] = {name: given.pop(name) for name in _ORDER if name in given}
    for name in ("title", "$defs"):
        given.pop(name, None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if "default" in node and (default := _without_nulls(node.pop("default"))) is not None:
        node["default"] = default
    if "const" in given:
        node["enum"] = [given.pop("const")]
    _bounds(node, given)
    _inside(node, given, definitions, path)
    if given:
        raise UnstructuralError(f"{path}: {', '.join(sorted(given))} cannot be said")
    _finite(node, path)
    return node


def _inside(node: dict[str, Any], given: dict[str, Any], definitions: Mapping[str, Any], path: str) -> None:
    """Turn what a map, a block or a list holds."""
    properties = given.pop("properties", None)
    if properties is not None:
        node["properties"] = {name: _node(one, definitions, f"{path}.{name}") for name, one in properties.items()}
    if "items" in given:
        node["items"] = _node(given.pop("items"), definitions, f"{path}[]")
    values = given.pop("additionalProperties", None)
    if isinstance(values, dict):
        node["additionalProperties"] = _node(values, definitions, f"{path}{{}}")
    elif values is False:
        raise UnstructuralError(f"{path}: a block that forbids unknown fields cannot be said")


def _inlined(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the schema with what it refers to in its place; what stands beside a reference wins."""
    given = dict(schema)
    while True:
        if "$ref" in given:
            inner = definitions[given.pop("$ref").removeprefix("#/$defs/")]
        elif given.get("x-kubernetes-int-or-string"):
            given.pop("anyOf", None)
            return given
        elif "anyOf" in given:
            branches = [branch for branch in given.pop("anyOf") if branch != {"type": "null"}]
            if len(branches) != 1:
                raise UnstructuralError(f"{path}: a union of {len(branches)} shapes cannot be said")
            inner = branches[0]
        else:
            return given
        given = {**inner, **given}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value


def _bounds(node: dict[str, Any], given: dict[str, Any]) -> None:
    """Make exclusive bounds of integers inclusive: in a CRD ``exclusiveMinimum`` is a truth value."""
    if node.get("type") == "integer":
        if "exclusiveMinimum" in given:
            node["minimum"] = given.pop("exclusiveMinimum") + 1
        if "exclusiveMaximum" in given:
            node["maximum"] = given.pop("exclusiveMaximum") - 1
        node["format"] = "int64"


def _finite(node: Mapping[str, Any], path: str) -> None:
    """Demand a maximum, without which the API server must assume the worst of a CEL rule."""
    kind = node.get("type")
    missing = (
        (kind == "string" and not {"maxLength", "enum", "format"} & node.keys())
        or (kind == "array" and "maxItems" not in node)
        or (kind == "object" and "properties" not in node and "maxProperties" not in node)
        or (kind is None and not node.get("x-kubernetes-int-or-string"))
    )
    if missing:
        raise UnstructuralError(f"{path}: has no maximum")


def manifest(kind: type[Kind]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    names, name = kind.names, kind.__name__
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": _object(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": names.scope,
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": names.plural,
                "singular": name.lower(),
                "shortNames": [names.short],
                "categories": [_CATEGORY],
            },
            "versions": [version],
        },
    }


def _object(kind: type[Kind]) -> dict[str, Any]:
    whole = kind.model_json_schema(by_alias=True)
    definitions, properties = whole["$defs"], whole["properties"]
    schema: dict[str, Any] = {
        "type": "object",
        "description": " ".join(whole["description"].split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": _API_VERSION,
            "kind": _KIND,
            "metadata": {"type": "object"},
            "spec": _node(properties["spec"], definitions, "spec"),
            "status": _node(properties["status"], definitions, "status"),
        },
    }
    if "x-kubernetes-validations" in whole:
        schema["x-kubernetes-validations"] = whole["x-kubernetes-validations"]
    return schema


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.heading, "type": column.type, "jsonPath": column.path}
    return found | {"priority": 1} if column.wide else found


class _Dumper(yaml.SafeDumper):
    """Writes every value out: an alias saves bytes and costs the reader."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write an alias."""
        del data
        return True


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _chart(found: Mapping[str, Any]) -> str:
    """Return the chart's copy: installed unless ``crds.enabled`` is false, and kept by ``helm uninstall`` if ``crds.keep``."""
    spec = _dump({"spec": found["spec"]})
    if "{{" in spec or "}}" in spec:
        raise UnstructuralError(f"{found['metadata']['name']}: helm would read a template in it")
    return (
        f"{{{{- /* {_HEADER} */ -}}}}\n"
        "{{- if .Values.crds.enabled }}\n"
        f"apiVersion: {found['apiVersion']}\n"
        f"kind: {found['kind']}\n"
        "metadata:\n"
        f"  name: {found['metadata']['name']}\n"
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
        f"{spec}"
        "{{- end }}\n"
    )


def files() -> dict[str, str]:
    """Return the text of every generated file by its path in the repository."""
    found = {}
    for kind in KINDS:
        one, name = manifest(kind), f"{GROUP}_{kind.names.plural}.yaml"
        found[f"{CRDS}/{name}"] = f"# {_HEADER}\n{_dump(one)}"
        found[f"{CHART}/{name}"] = _chart(one)
    return found


def _stale(root: Path) -> list[str]:
    """Return files of ours that no kind asks for any more."""
    wanted = files()
    there = [path.relative_to(root).as_posix() for folder in (CRDS, CHART) for path in (root / folder).glob("*.yaml")]
    return sorted(set(there) - set(wanted))


def differences(root: Path) -> list[str]:
    """Return the paths below ``root`` that are not as they would be written now: missing, different or left over."""
    differ = [
        name
        for name, text in files().items()
        if not (root / name).is_file() or (root / name).read_text("utf-8") != text
    ]
    return sorted([*differ, *_stale(root)])


def write(root: Path) -> list[str]:
    """Write what differs below ``root`` and remove what is left over; return those paths."""
    changed, wanted = differences(root), files()
    for name in changed:
        path = root / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], encoding="utf-8")
        else:
            path.unlink()
    return changed

"""What every shape of the API shares: how it reads, and the CEL rules that its schema carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["Mark", "Rule", "Shape", "frozen", "immutable", "union"]


class Rule(NamedTuple):
    """A CEL expression over ``self`` (and ``oldSelf``) that the API server evaluates, and what it says when it is false."""

    expression: str
    message: str


class Shape(BaseModel):
    """A block of an object.

    Unknown fields are ignored: an object from the cluster may be of a newer version. ``cel`` are the rules of the block;
    ``filled`` says that an empty block is refused (crds.md 2, rule 2: empty never means any).
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    cel: ClassVar[tuple[Rule, ...]] = ()
    filled: ClassVar[bool] = False

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules to the schema that pydantic makes."""
        schema = handler(core)
        found = handler.resolve_ref_schema(schema)
        if cls.cel:
            found["x-kubernetes-validations"] = [{"rule": rule.expression, "message": rule.message} for rule in cls.cel]
        if cls.filled:
            found["minProperties"] = 1
        return schema


@dataclass(frozen=True, eq=False)
class Mark:
    """An annotation that adds keywords of Kubernetes to a field's schema, such as the kind of a list."""

    keywords: dict[str, Any]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the keywords to the schema that pydantic makes."""
        return {**handler(core), **self.keywords}

    @classmethod
    def map(cls, *keys: str) -> Mark:
        """Return the mark of a list whose entries are told apart by ``keys``."""
        return cls({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})

    @classmethod
    def rules(cls, *rules: Rule) -> Mark:
        """Return the mark of a value with rules of its own."""
        return cls({"x-kubernetes-validations": [{"rule": rule.expression, "message": rule.message} for rule in rules]})


def immutable(*fields: str, said: str = "") -> tuple[Rule, ...]:
    """Return rules for required fields (or such with a default) that never change; ``said`` stands before their names."""
    return tuple(Rule(f"self.{field} == oldSelf.{field}", f"{said}{field} is immutable") for field in fields)


def frozen(*fields: str, said: str = "") -> tuple[Rule, ...]:
    """Return rules for optional fields that never change, and may be neither added nor removed."""
    return tuple(
        Rule(
            f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
            f"{said}{field} is immutable",
        )
        for field in fields
    )


def union(tag: str, blocks: dict[str, str]) -> tuple[Rule, ...]:
    """Return the rules that tie each block to its value of ``tag``, both ways; ``blocks`` is value to block."""
    return tuple(
        Rule(
            f"(self.{tag} == '{value}') == has(self.{block})",
            f"{block} is required when {tag} is {value} and forbidden otherwise",
        )
        for value, block in blocks.items()
    )

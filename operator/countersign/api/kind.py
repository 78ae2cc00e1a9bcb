"""What makes a shape a kind: its names, its scope and the columns that ``kubectl get`` shows."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, NamedTuple

from countersign.api.meta import Time  # noqa: TC001 - pydantic reads the annotation
from countersign.api.shape import Rule, Shape

__all__ = ["AGE", "GROUP", "VERSION", "Column", "Kind", "Metadata", "Names", "condition"]

GROUP: Final = "countersign.dev"
VERSION: Final = "v1alpha1"

LABEL_NAME: Final = Rule(
    "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
    "metadata.name must be a DNS label: at most 63 characters, no dots",
)
"""Names become path segments and parts of SPIFFE IDs and certificates. Only a Device, named like a node, may have dots."""


class Column(NamedTuple):
    """A column of ``kubectl get``. A time to come is a ``string``: as a ``date`` it would print ``<invalid>``."""

    heading: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False


AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


def condition(heading: str, type_: str, field: str = "status", *, wide: bool = False) -> Column:
    """Return a column with a field of a condition."""
    return Column(heading, f'.status.conditions[?(@.type=="{type_}")].{field}', wide=wide)


class Names(NamedTuple):
    """What a kind is called."""

    plural: str
    short: str
    scope: Literal["Cluster", "Namespaced"]


class Metadata(Shape):
    """The part of an object's metadata that is read."""

    name: str
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    labels: dict[str, str] | None = None
    deletion_timestamp: Time | None = None


class Kind(Shape):
    """An object of ``countersign.dev/v1alpha1``.

    A subclass gives ``names`` and ``columns``, and the fields ``spec`` and ``status``; its docstring is what
    ``kubectl explain`` says. ``cel`` are rules over the whole object.
    """

    names: ClassVar[Names]
    columns: ClassVar[tuple[Column, ...]]
    cel: ClassVar[tuple[Rule, ...]] = (LABEL_NAME,)

    api_version: Literal["countersign.dev/v1alpha1"]
    kind: str
    metadata: Metadata
    spec: Any
    status: Any = None

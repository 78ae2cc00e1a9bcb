"""Read YAML that a person wrote as strictly as a program wants it: nothing twice, nothing unknown, no times made of texts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["BadFile", "block", "documents", "files_of", "items", "mapping", "text"]


class BadFile(Exception):
    """A file is not what it should be; the text says which, where and why."""


class _Loader(yaml.SafeLoader):
    """YAML without dates (a time stays the text that an object of the API has) and without a key said twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        seen: set[Any] = set()
        for key, _value in node.value:
            name = getattr(key, "value", None)
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(name, str):
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} is said twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that are named, and the YAML files below the directories that are named, in order.

    Raises
    ------
    BadFile
        For a path that does not exist, and a directory without any.

    """
    for path in paths:
        if path.is_dir():
            found = sorted(one for one in path.rglob("*") if one.suffix in (".yaml", ".yml", ".json") and one.is_file())
            if not found:
                raise BadFile(f"{path}: no YAML file is in this directory")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise BadFile(f"{path}: there is no such file or directory")


def documents(path: Path) -> list[Any]:
    """Return the documents of a YAML (or JSON) file. Raises ``BadFile``."""
    try:
        # Safe: the loader is SafeLoader, made stricter.
        return [one for one in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader) if one is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: cannot be read ({type(error).__name__})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadFile(f"{path}: no YAML: {' '.join(str(error).split())}") from error


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping with texts for keys. Raises ``BadFile``."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise BadFile(f"{where}: a mapping is wanted")
    return value


def block(value: Any, where: str, *, required: frozenset[str], optional: frozenset[str]) -> Mapping[str, Any]:
    """Return ``value`` if it has every required key and no unknown one. Raises ``BadFile``."""
    found = mapping(value, where)
    if unknown := sorted(set(found) - required - optional):
        raise BadFile(f"{where}: unknown field {unknown[0]!r}")
    if missing := sorted(required - set(found)):
        raise BadFile(f"{where}: {missing[0]!r} is missing")
    return found


def text(value: Any, where: str) -> str:
    """Return ``value`` if it is a text that is not empty. Raises ``BadFile``."""
    if not isinstance(value, str) or not value:
        raise BadFile(f"{where}: a text is wanted")
    return value


def items(value: Any, where: str) -> list[Any]:
    """Return ``value`` if it is a list; nothing is an empty one. Raises ``BadFile``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadFile(f"{where}: a list is wanted")
    return value

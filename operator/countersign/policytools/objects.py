"""The objects that decisions are made of, from manifests or from a live cluster, found by kind and name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from countersign.api import GROUP, KINDS, VERSION
from countersign.api.generate import manifest
from countersign.policytools.strict import BadFile, documents, files_of, mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Objects", "from_cluster", "from_files", "unknown_fields"]

# The method ``list`` hides the type of that name inside the class.
_Found = list[dict[str, Any]]
_API: Final = f"{GROUP}/{VERSION}"


@dataclass
class Objects:
    """Objects by kind, namespace (empty for what has none) and name. ``live`` says that a cluster was read."""

    live: bool = False
    _found: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def put(self, obj: Mapping[str, Any]) -> None:
        """Add an object, or put it in the place of the one with its name."""
        meta = obj["metadata"]
        self._found[str(obj["kind"]), str(meta.get("namespace") or ""), str(meta["name"])] = dict(obj)

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._found.get((kind, namespace, name))

    def list(self, *kinds: str) -> _Found:
        """Return the objects of these kinds, by kind, namespace and name."""
        return [obj for (kind, *_rest), obj in sorted(self._found.items(), key=lambda one: one[0]) if kind in kinds]

    @property
    def policies(self) -> _Found:
        """Every ToolPolicy and ClusterToolPolicy."""
        return self.list("ToolPolicy", "ClusterToolPolicy")

    def labels_of(self, namespace: str) -> dict[str, str] | None:
        """Return a Namespace's labels; None where it is not known. In files alone, one that is not there has only its name."""
        found = self.get("Namespace", namespace)
        if found is None:
            return None if self.live else {"kubernetes.io/metadata.name": namespace}
        return {"kubernetes.io/metadata.name": namespace, **(found["metadata"].get("labels") or {})}


def from_files(paths: Iterable[Path], objects: Objects | None = None) -> Objects:
    """Read manifests: the documents, and the items of lists, of our kinds and Namespaces; what else is there is left alone.

    Raises
    ------
    BadFile
        For what is no manifest.

    """
    found = Objects() if objects is None else objects
    for path in files_of(paths):
        for document in documents(path):
            for obj in _items(mapping(document, str(path)), str(path)):
                found.put(obj)
    return found


def _items(document: Mapping[str, Any], where: str) -> Iterator[Mapping[str, Any]]:
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        raise BadFile(f"{where}: apiVersion or kind is missing: this is no manifest")
    if kind == "List":
        for one in document.get("items") or []:
            yield from _items(mapping(one, where), where)
    elif version == _API or (version == "v1" and kind == "Namespace"):
        meta = mapping(document.get("metadata"), f"{where}: {kind}: metadata")
        if not isinstance(meta.get("name"), str) or not meta["name"]:
            raise BadFile(f"{where}: {kind}: metadata.name is missing")
        yield document


async def from_cluster(kubeconfig: Path) -> Objects:
    """Read what a decision needs, once. Raises ``KubeError``."""
    # Files need no client of a cluster, and a machine that tests policies may have none.
    from countersign import kube as api  # noqa: PLC0415

    wanted = (
        api.TOOL_POLICIES,
        api.CLUSTER_TOOL_POLICIES,
        api.TOOL_SERVERS,
        api.AGENT_IDENTITIES,
        api.AGENT_INSTANCES,
        api.DEVICES,
        api.NAMESPACES,
    )
    found = Objects(live=True)
    kube = await api.Kube.connect(kubeconfig)
    try:
        for resource in wanted:
            for obj in await kube.list(resource):
                if obj["metadata"].get("deletionTimestamp") is None:
                    found.put(obj)
    finally:
        await kube.aclose()
    return found


def unknown_fields(obj: Mapping[str, Any]) -> list[str]:
    """Return the paths in ``spec`` that the kind does not have: the API server drops them, and may only warn."""
    return list(_unknown(obj.get("spec"), _schema(str(obj.get("kind"))), "spec"))


@cache
def _schema(name: str) -> Mapping[str, Any]:
    """Return the schema of a kind's ``spec``; of a kind that is not ours nothing is known."""
    kind = next((one for one in KINDS if one.__name__ == name), None)
    if kind is None:
        return {}
    whole = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Mapping[str, Any] = whole["properties"]["spec"]
    return found


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from _unknown(one, schema.get("items") or {}, f"{path}[{place}]")
    elif isinstance(value, dict) and "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for name, one in value.items():
            if name in schema["properties"]:
                yield from _unknown(one, schema["properties"][name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"

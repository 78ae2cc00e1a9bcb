"""The tool servers of a cluster as a decision sees them: whose audience, exposed to whom, which tools (crds.md 3.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from countersign.policy.logic import Unreadable, block, integer
from countersign.policy.schema import ArgumentCheck, compile_schema, schema_fault
from countersign.policy.scope import ACCESS
from countersign.policy.selector import compile_selector

__all__ = ["Catalogue", "Floors", "Tool", "ToolServer", "audience_owned", "exposes"]

_TEMPLATE: Final = re.compile(r"\{([^{}/]+)\}")
_SERVICE: Final = re.compile(r"(?:[a-z0-9-]+\.)+(?P<namespace>[a-z0-9-]+)\.svc(?:\.cluster\.local)?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_REQUIRES: Final = frozenset({"minAssurance", "minKeyTier", "maxAttestationAgeSeconds"})

Grant = tuple[str, Sequence[str]]


@dataclass(frozen=True)
class Tool:
    """One registered tool. ``changed`` says that its published definition is not the pinned one, or not known to be."""

    name: str
    access: str
    changed: bool
    fits: ArgumentCheck
    record_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Floors:
    """``requires``: what no policy can lift. Unknown words are kept: they are above everything."""

    assurance: Any = "Virtual"
    key_tier: Any = "TPMSession"
    max_age_seconds: int | None = None


@dataclass(frozen=True)
class ToolServer:
    """An accepted ToolServer. ``exposed`` answers for a namespace and its labels; ``source`` is the object itself."""

    namespace: str
    name: str
    audience: str
    protocol: str
    floors: Floors
    tools: Mapping[str, Tool]
    source: Mapping[str, Any] = field(repr=False)
    exposed: Callable[[str, Mapping[str, str] | None], bool] = field(repr=False)

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


def exposes(expose: Any, *, own: bool, labels: Mapping[str, str] | None) -> bool:
    """Whether ``exposeTo`` lets a namespace in; ``own`` says it is the object's own. What cannot be read lets nobody in."""
    block = {"from": "Same"} if expose is None else expose
    if not isinstance(block, Mapping) or not {"from", "selector"}.issuperset(block):
        return False
    where, selector = block.get("from", "Same"), block.get("selector")
    if where == "Selector":
        try:
            return labels is not None and compile_selector(selector)(labels)
        except Unreadable:
            return False
    return selector is None and (where == "All" or (where == "Same" and own))


def audience_owned(audience: str, namespace: str, grants: Iterable[Grant], issuer: str | None = None) -> bool:
    """Whether ``audience`` belongs to ``namespace`` (3.7, "Whose audience").

    ``grants`` are the platform's ``(prefix, namespaces)``; a prefix ends at a ``/`` or ``:`` of the audience, so that
    ``https://a.example`` gives nothing of ``https://a.example.org``. The origin of ``issuer`` belongs to nobody.
    """
    origin = _origin(audience)
    if origin is None or (issuer is not None and origin == _origin(issuer)):
        return False
    service = _SERVICE.fullmatch(origin[1])
    if service is not None:
        return service["namespace"] == namespace
    return any(namespace in namespaces and _under(audience, prefix) for prefix, namespaces in grants)


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.scheme and parts.hostname and "@" not in url else None


def _under(audience: str, prefix: str) -> bool:
    if not prefix or not audience.startswith(prefix):
        return False
    return len(audience) == len(prefix) or prefix[-1] in "/:" or audience[len(prefix)] == "/"


def _server(value: Any, *, pins_observed: bool) -> ToolServer | None:
    """Read one ToolServer object; None for one that cannot be accepted as it stands."""
    source = _mapping(value)
    metadata, spec = _mapping(source.get("metadata")), _mapping(source.get("spec"))
    namespace, name, audience = metadata.get("namespace"), metadata.get("name"), spec.get("audience")
    protocol = spec.get("protocol")
    texts = (namespace, name, audience)
    if not all(isinstance(text, str) and text for text in texts) or protocol not in ("MCP", "HTTP"):
        return None
    listed, status = spec.get("tools"), _mapping(source.get("status"))
    if not isinstance(listed, list) or not listed:
        return None
    listed_as_changed = status.get("changedTools")
    changed = listed_as_changed if isinstance(listed_as_changed, list) else []
    try:
        tools = [_tool(entry, protocol, changed, pins_observed=pins_observed) for entry in listed]
        floors = _floors(spec.get("requires"))
    except Unreadable:
        return None
    expose = spec.get("exposeTo")
    return ToolServer(
        namespace=str(namespace),
        name=str(name),
        audience=str(audience),
        protocol=protocol,
        floors=floors,
        tools={tool.name: tool for tool in tools},
        source=source,
        exposed=lambda asking, labels: exposes(expose, own=asking == namespace, labels=labels),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tool(value: Any, protocol: str, changed: list[Any], *, pins_observed: bool) -> Tool:
    entry = _mapping(value)
    name, access = entry.get("name"), entry.get("access")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name) or not isinstance(access, str):
        raise Unreadable
    if access not in ACCESS:
        raise Unreadable
    recorded = entry.get("recordArguments")
    return Tool(
        name=name,
        access=access,
        changed=name in changed or (entry.get("definitionDigest") is not None and not pins_observed),
        fits=_fits(entry, protocol),
        record_arguments=tuple(one for one in recorded if isinstance(one, str)) if isinstance(recorded, list) else (),
    )


def _fits(entry: Mapping[str, Any], protocol: str) -> ArgumentCheck:
    schema = entry.get("inputSchema")
    if schema is None and protocol == "HTTP":
        path = _mapping(entry.get("http")).get("path")
        names = frozenset(_TEMPLATE.findall(path)) if isinstance(path, str) else frozenset()
        return lambda arguments: isinstance(arguments, dict) and names.issuperset(arguments)
    if not isinstance(schema, Mapping) or schema_fault(schema) is not None:
        raise Unreadable
    try:
        return compile_schema(schema)
    except Exception as error:  # one team's schema, however odd, must not keep the others' servers away
        raise Unreadable from error


def _floors(value: Any) -> Floors:
    requires = {} if value in (None, {}) else block(value, _REQUIRES)
    age = requires.get("maxAttestationAgeSeconds")
    return Floors(
        assurance=requires.get("minAssurance", "Virtual"),
        key_tier=requires.get("minKeyTier", "TPMSession"),
        max_age_seconds=None if age is None else integer(age, least=0),
    )


@dataclass(frozen=True)
class Catalogue:
    """The accepted servers, found by name and by audience. Make one with :meth:`build`; it never changes."""

    servers: Mapping[str, ToolServer]
    _audiences: Mapping[str, ToolServer] = field(repr=False)
    cache: Mapping[tuple[str, str], ToolServer | None] = field(repr=False)

    @classmethod
    def build(
        cls,
        tool_servers: Iterable[Any],
        audience_grants: Iterable[Grant] = (),
        *,
        issuer: str | None = None,
        previous: Catalogue | None = None,
        pins_observed: bool = False,
    ) -> Catalogue:
        """Read ToolServer objects as the API server stores them. Total: what is not acceptable is unknown.

        Of two objects with one audience that may both claim it, the older keeps it. ``previous`` saves work: an object with
        the same UID and resourceVersion is not read again. ``pins_observed`` says that ``status.changedTools`` is somebody's
        observation; without one, a tool with a pinned definition counts as changed.
        """
        grants = [(prefix, tuple(namespaces)) for prefix, namespaces in audience_grants]
        known, cache = (previous.cache if previous else {}), {}
        servers: dict[str, ToolServer] = {}
        audiences: dict[str, ToolServer | None] = {}
        for value in sorted(tool_servers, key=_age):
            metadata, audience = _mapping(_mapping(value).get("metadata")), _audience(value)
            namespace = metadata.get("namespace")
            if metadata.get("deletionTimestamp") is not None or not isinstance(namespace, str):
                continue
            if audience is None or not audience_owned(audience, namespace, grants, issuer):
                continue
            version = _version(metadata)
            server = (
                known[version]
                if version is not None and version in known
                else _server(value, pins_observed=pins_observed)
            )
            if version is not None:
                cache[version] = server
            if audience in audiences:
                continue
            audiences[audience] = server
            if server is not None:
                servers[server.key] = server
        return cls(
            servers=servers,
            _audiences={audience: server for audience, server in audiences.items() if server is not None},
            cache=cache,
        )

    def by_audience(self, audience: str) -> ToolServer | None:
        """Return the server whose audience this is, byte for byte."""
        return self._audiences.get(audience)

    def find(self, server: str | None) -> ToolServer | None:
        """Return a server by ``namespace/name`` or, for a text with ``://``, by audience."""
        if server is None:
            return None
        return self.by_audience(server) if "://" in server else self.servers.get(server)

    def exposed_to(self, namespace: str, labels: Mapping[str, str] | None) -> list[ToolServer]:
        """Return the servers that agents of ``namespace`` may know, by namespace and name."""
        return [server for _key, server in sorted(self.servers.items()) if server.exposed(namespace, labels)]


def _audience(value: Any) -> str | None:
    audience = _mapping(_mapping(value).get("spec")).get("audience")
    return audience if isinstance(audience, str) and audience else None


def _version(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    return (uid, version) if isinstance(uid, str) and isinstance(version, str) and uid and version else None


def _age(value: Any) -> tuple[str, str, str]:
    """Order by creation, then name; an object without a time is younger than any that has one."""
    metadata = _mapping(_mapping(value).get("metadata"))
    created, namespace, name = (metadata.get(key) for key in ("creationTimestamp", "namespace", "name"))
    return (
        created if isinstance(created, str) else "\U0010ffff",
        namespace if isinstance(namespace, str) else "",
        name if isinstance(name, str) else "",
    )

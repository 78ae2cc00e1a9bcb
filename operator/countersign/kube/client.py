"""One connection to the API server: objects in and out as plain dicts, and nothing but :class:`KubeError` raised."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import aiohttp

from countersign.clock import Clock, SystemClock, ahead_of
from countersign.kube.connection import Connection, connect, connect_person
from countersign.kube.errors import KubeError, error_of
from countersign.kube.resources import ACCESS_REVIEWS, LEASES, PODS, TOKEN_REVIEWS, Resource
from countersign.kube.reviews import TokenReview, read_review, review_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["Kube"]

_SECONDS: Final = 10.0
_PATIENCE: Final = 30.0
_SLACK: Final = 5.0
_BAD: Final = 300
_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
_OPERATIONS: Final = "application/json-patch+json"
_APPLY: Final = "application/apply-patch+yaml"

# The method ``list`` hides the type of that name inside the class.
_Objects = list[dict[str, Any]]
_Patch = dict[str, Any] | list[dict[str, Any]]


class Kube:
    """The API server. Made by :meth:`connect`; every call answers or fails within ten seconds."""

    def __init__(self, connection: Connection, *, page: int = 500, clock: Clock | None = None) -> None:
        """Keep an open connection; lists are asked for in pages of ``page`` objects."""
        self._clock = clock or SystemClock()
        self.clock_skew: float | None = None
        """By how many seconds our clock was ahead of the API server's at its last answer."""
        self.fence: Callable[[], None] = _nothing
        """Asked before each write but those of Leases; raises KubeError to forbid it. Who leads sets it."""
        self._connection = connection
        self._page = page

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> Kube:
        """Return a connection to the cluster that ``kubeconfig`` names, or to the one this process runs in.

        Nothing is sent yet. Raises :class:`KubeError` if the file, or the pod's own account, cannot be used.
        """
        return cls(await connect(kubeconfig))

    @classmethod
    async def connect_person(cls, files: str, context: str | None) -> tuple[Kube, str]:
        """Return a connection with a person's kubeconfig, and the namespace of its context. Raises :class:`KubeError`."""
        connection, namespace = await connect_person(files, context)
        return cls(connection), namespace

    async def aclose(self) -> None:
        """Close every connection; watches end."""
        await self._connection.aclose()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return one object as it is now. Raises :class:`NotFound`."""
        return await self._call(
            "GET", resource, resource.path(name, namespace), f"get {_name(resource, name, namespace)}"
        )

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> _Objects:
        """Return the objects of a kind, of one namespace or of all; ``labels`` and ``fields`` are selectors as text."""
        return (await self.list_version(resource, namespace, labels=labels, fields=fields))[0]

    async def list_version(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found,
    ) -> tuple[_Objects, str]:
        """Return the objects, as ``keep`` leaves each, and the version of the list, from which a watch goes on."""
        items: _Objects = []
        query = {"limit": str(self._page), "labelSelector": labels, "fieldSelector": fields}
        what = f"list {resource.plural}"
        while True:
            page = await self._call("GET", resource, resource.path(namespace=namespace), what, query=query)
            # Items of built-in kinds come without these two; an Event or an apply needs them.
            head = {"apiVersion": resource.api_version, "kind": resource.kind}
            items += [keep({**head, **item}) for item in page.get("items") or []]
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return items, str(meta.get("resourceVersion") or "")
            query["continue"] = meta["continue"]

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, in the namespace that its metadata names. Raises :class:`Conflict` if it exists."""
        name, namespace = _where(body)
        what = f"create {_name(resource, name, namespace)}"
        return await self._call("POST", resource, resource.path(namespace=namespace), what, body=body)

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; with ``resourceVersion`` in its metadata, only that version. Raises :class:`Conflict`."""
        name, namespace = _where(body)
        what = f"replace {_name(resource, name, namespace)}"
        return await self._call("PUT", resource, resource.path(name, namespace), what, body=body)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete an object; with ``uid`` or ``resource_version`` only that one, else :class:`Conflict`."""
        wanted = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if conditions := {key: value for key, value in wanted.items() if value is not None}:
            options["preconditions"] = conditions
        what = f"delete {_name(resource, name, namespace)}"
        await self._call("DELETE", resource, resource.path(name, namespace), what, body=options)

    async def apply(
        self, resource: Resource, body: Mapping[str, Any], manager: str, *, force: bool = True
    ) -> dict[str, Any]:
        """Apply an object server-side: ``manager`` owns exactly what ``body`` says, and gives up what it no longer says.

        With ``resourceVersion`` in its metadata, only that version; raises :class:`Conflict`. Without ``force`` another
        owner of a field is a :class:`Conflict` too.
        """
        return await self._apply(resource, body, manager, None, force=force)

    async def apply_status(
        self, resource: Resource, body: Mapping[str, Any], manager: str, *, force: bool = True
    ) -> dict[str, Any]:
        """Apply ``status`` server-side, as :meth:`apply`. Raises :class:`NotFound` if there is no such object."""
        return await self._apply(resource, body, manager, "status", force=force)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: _Patch,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Change an object: a dict is a merge patch (RFC 7396), a list is a JSON Patch (RFC 6902)."""
        kind = _OPERATIONS if isinstance(patch, list) else _MERGE
        path = resource.path(name, namespace, subresource)
        return await self._call(
            "PATCH", resource, path, f"patch {_name(resource, name, namespace)}", body=patch, kind=kind
        )

    async def review_token(self, token: str, audiences: Sequence[str]) -> TokenReview:
        """Ask whose token this is, for these audiences. Raises :class:`KubeError` if nobody can say."""
        body = review_body(token, audiences)
        answer = await self._call("POST", TOKEN_REVIEWS, TOKEN_REVIEWS.path(), "review a token", body=body)
        return read_review(answer.get("status"), audiences)

    async def review_access(self, who: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
        """Ask whether somebody (``user``, ``groups``, ``uid``, ``extra``) may do what ``attributes`` say.

        Raises :class:`KubeError` if nobody can say.
        """
        spec = {**who, "resourceAttributes": dict(attributes)}
        body = {"apiVersion": ACCESS_REVIEWS.api_version, "kind": ACCESS_REVIEWS.kind, "spec": spec}
        answer = await self._call("POST", ACCESS_REVIEWS, ACCESS_REVIEWS.path(), "review access", body=body)
        status = answer.get("status") or {}
        return status.get("allowed") is True and not status.get("denied")

    async def server(self) -> tuple[str, datetime]:
        """Return the API server's version, and the time on its clock to the second."""
        async with self._exchange("GET", PODS, "/version", "ask for the version", timeout=_timeout()) as response:
            answer = _parsed(await response.read())
            try:
                return str(answer["gitVersion"]), parsedate_to_datetime(response.headers["Date"])
            except (TypeError, KeyError, ValueError) as error:
                raise KubeError("the API server does not say its version and time; see what stands between") from error

    async def ask_pod(
        self, name: str, namespace: str, port: int, path: str, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Ask a pod's HTTPS port through the API server: status and body, whatever they are.

        The API server does not look at the pod's certificate: send nothing that may not be seen between the two. Raises
        :class:`KubeError` if the API server itself refuses or nobody answers.
        """
        url = f"{PODS.path(namespace=namespace)}/https:{name}:{port}/proxy{path}"
        what = f"ask {_name(PODS, name, namespace)} through the API server"
        try:
            response = await self._connection.send(
                "GET", url, body=None, kind=_JSON, timeout=_timeout(_PATIENCE), more=headers
            )
            try:
                data = await response.read()
                answer = _parsed(data)
                if isinstance(answer, dict) and answer.get("kind") == "Status":
                    raise error_of(response.status, answer, what, PODS)
                return response.status, data
            finally:
                response.release()
        except (aiohttp.ClientError, OSError) as error:
            raise KubeError(f"{what}: no answer ({type(error).__name__})") from error

    async def watch(self, resource: Resource, version: str, seconds: int) -> AsyncGenerator[dict[str, Any]]:
        """Yield ``{"type", "object"}`` for each change of a kind since ``version``; ends after ``seconds``.

        Bookmarks are among them. Raises :class:`Gone` if ``version`` is too old, :class:`KubeError` if the stream breaks.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        what, path = f"watch {resource.plural}", resource.path()
        timeout = aiohttp.ClientTimeout(total=seconds + _SLACK, sock_connect=_SLACK)
        async with self._exchange("GET", resource, path, what, query=query, timeout=timeout) as response:
            async for line in response.content:
                yield _event(line, what, resource)

    async def _apply(
        self, resource: Resource, body: Mapping[str, Any], manager: str, subresource: str | None, *, force: bool
    ) -> dict[str, Any]:
        name, namespace = _where(body)
        query = {"fieldManager": manager, "force": str(force).lower()}
        path = resource.path(name, namespace, subresource)
        what = f"apply {_name(resource, name, namespace)}"
        return await self._call("PATCH", resource, path, what, body=body, query=query, kind=_APPLY)

    async def _call(
        self,
        method: str,
        resource: Resource,
        path: str,
        what: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        kind: str = _JSON,
    ) -> dict[str, Any]:
        """Return the parsed answer."""
        if method != "GET" and resource is not LEASES:
            self.fence()
        timeout = _timeout()
        call = self._exchange(method, resource, path, what, body=body, query=query, kind=kind, timeout=timeout)
        async with call as response:
            answer = _parsed(await response.read())
        if not isinstance(answer, dict):
            raise KubeError(f"{what}: the API server's answer is no object; see what stands between")
        return answer

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        resource: Resource,
        path: str,
        what: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, for each phase
        body: Any = None,
        query: Mapping[str, str] | None = None,
        kind: str = _JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the response if it is a success; whatever breaks is a :class:`KubeError`."""
        given = {key: value for key, value in (query or {}).items() if value}
        url = f"{path}?{urlencode(given)}" if given else path
        try:
            response = await self._connection.send(method, url, body=body, kind=kind, timeout=timeout)
            self.clock_skew = ahead_of(response.headers.get("Date"), self._clock.now())
            try:
                if response.status >= _BAD:
                    raise error_of(response.status, _parsed(await response.read()), what, resource)
                yield response
            finally:
                # One that was not read to its end is closed by this, and its connection with it.
                response.release()
        except (aiohttp.ClientError, OSError) as error:
            reason = type(error).__name__
            raise KubeError(
                f"{what}: the API server does not answer ({reason}); see that it runs and is reachable"
            ) from error


def _nothing() -> None:
    """Forbid nothing."""


def _timeout(seconds: float = _SECONDS) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=_SLACK)


def _event(line: bytes, what: str, resource: Resource) -> dict[str, Any]:
    event = _parsed(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict) or "type" not in event:
        raise KubeError(f"{what}: the stream holds what is no event; see what stands between")
    if event["type"] == "ERROR":
        status = event["object"]
        raise error_of(int(status.get("code") or 0), status, what, resource)
    return event


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _where(body: Mapping[str, Any]) -> tuple[str, str | None]:
    meta = body["metadata"]
    return str(meta.get("name") or meta.get("generateName") or ""), meta.get("namespace")


def _name(resource: Resource, name: str, namespace: str | None) -> str:
    return f"{resource.plural} {namespace}/{name}" if namespace else f"{resource.plural} {name}"

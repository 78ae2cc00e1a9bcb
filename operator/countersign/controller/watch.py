"""kopf, kept small: one ``on.event`` a kind that says which object changed, and nothing that kopf would write.

No timers, daemons, create, update or delete handlers: those put finalizers and annotations on users' objects. No peering
(leadership is a Lease), no Events by kopf, no look at CustomResourceDefinitions. Handlers return nothing: what they return
would land in ``status``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import kopf

from countersign.controller.keys import WATCHED
from countersign.kube.connection import connect

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.kube import Resource

__all__ = ["Watcher", "kopf_registry", "kopf_settings"]

# kopf takes its own finalizer off whatever it watches, and other operators made with kopf use its default name: with a
# name that nobody has, it leaves theirs alone.
_NO_FINALIZER: Final = "countersign.dev/never"
# A task for each object that something happened to stays so long: after a list there is one for every object.
_IDLE_SECONDS: Final = 0.5


class Watcher(Protocol):
    """What the handlers call; kopf hands it to them as memo."""

    def seen(self, resource: Resource, type: str | None, found: dict[str, Any]) -> None:  # noqa: A002 - kopf's name
        """Take one event: ``ADDED``, ``MODIFIED``, ``DELETED``, or None for an object of the first list."""


def kopf_registry(kubeconfig: Path | None) -> kopf.OperatorRegistry:
    """Return a registry with one handler a kind, and a login by the same connection as everything else here."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(kubeconfig)

    kopf.on.login(registry=registry)(login)
    for resource in WATCHED:
        _handle(registry, resource)
    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings with which kopf only watches."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.finalizer = _NO_FINALIZER
    settings.persistence.diffbase_storage = _NoEssence()
    settings.persistence.progress_storage = _NoProgress()
    settings.queueing.idle_timeout = _IDLE_SECONDS
    return settings


class _NoEssence(kopf.DiffBaseStorage):  # type: ignore[misc]  # kopf has no types here
    """What an object was before is nobody's question here; kopf's answer copies each object several times an event."""

    def build(self, **_: object) -> dict[str, Any]:
        """Return nothing, of which nothing ever differs."""
        return {}

    def fetch(self, **_: object) -> None:
        """Return that nothing was kept."""

    def store(self, **_: object) -> None:
        """Keep nothing: nobody's object is written to."""


class _NoProgress(kopf.ProgressStorage):  # type: ignore[misc]  # as above
    """Handlers that only look have no progress."""

    def fetch(self, **_: object) -> None:
        """Return that nothing was kept."""

    def store(self, **_: object) -> None:
        """Keep nothing."""

    def purge(self, **_: object) -> None:
        """Keep nothing."""

    def touch(self, **_: object) -> None:
        """Keep nothing."""

    def clear(self, *, essence: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is: nothing of ours is in it."""
        return essence


async def connection_info(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Return how kopf reaches the API server; asked again whenever its credentials are refused, so tokens may rotate."""
    connection = await connect(kubeconfig)
    try:
        configuration = connection.client.configuration
        token = None if connection.token_file is None else connection.token_file.read_text(encoding="ascii").strip()
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            token=token or None,
        )
    finally:
        await connection.aclose()


def _handle(registry: kopf.OperatorRegistry, resource: Resource) -> None:
    async def see(event: Any, memo: Watcher, **_: Any) -> None:
        found = {"apiVersion": resource.api_version, "kind": resource.kind, **event["object"]}
        memo.seen(resource, event["type"], found)

    selector = (resource.group, resource.version, resource.plural)
    kopf.on.event(*selector, registry=registry, id=f"see-{resource.plural}")(see)

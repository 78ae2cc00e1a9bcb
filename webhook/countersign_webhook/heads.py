"""Signed heads of the audit log, kept where the log's keeper cannot write: a ConfigMap of our own namespace (wire.md 9)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import Unavailable
from countersign.kube import CONFIG_MAPS, KubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign.audit import Head
    from countersign.kube import Kube

__all__ = ["LABEL", "HeadMap"]

LABEL: Final = "countersign.dev/audit"
_MANAGER: Final = "countersign-webhook"


class HeadMap:
    """Writes ``countersign-audit-<log>``: the newest head, and every key that signed one, so that it outlives the JWKS."""

    def __init__(self, kube: Kube, namespace: str, public_key: Callable[[str], dict[str, Any]]) -> None:
        """Write into ``namespace``; ``public_key`` gives the JWK of a ``kid``."""
        self._kube, self._namespace, self._public_key = kube, namespace, public_key
        self._jwks: dict[str, dict[str, Any]] = {}

    async def keep(self, head: Head, text: str, kid: str) -> None:
        """Write one head. Raises Unavailable ``audit.unavailable``: decisions do not wait for this, so nobody is refused."""
        self._jwks.setdefault(kid, self._public_key(kid))
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"countersign-audit-{head.log}",
                "namespace": self._namespace,
                "labels": {LABEL: "head", "app.kubernetes.io/name": "countersign"},
            },
            "data": {
                "head": text,
                "jwks.json": json.dumps({"keys": list(self._jwks.values())}),
                "log": head.log,
                "seq": str(head.seq),
            },
        }
        try:
            await self._kube.apply(CONFIG_MAPS, body, _MANAGER)
        except KubeError as error:
            raise Unavailable("audit.unavailable", f"the head is not kept: {error}") from error

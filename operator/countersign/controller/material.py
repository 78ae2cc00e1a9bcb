"""Serving certificates, token keys and what signers trust, written into the cluster (architecture.md, "Keys").

A Secret that does not bear our label was given by people or by cert-manager: it is used and never touched. One of ours is
rotated when it is due, or when a person annotates it with ``countersign.dev/rotate``: the annotation goes with the write.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.clock import skew_fault
from countersign.controller.identities import OPT_IN
from countersign.controller.serving import Unusable, bundle_of, ca_members, require_usable, serving_members
from countersign.controller.tokenkeys import TokenKey, read_keys, rotated, written
from countersign.kube import CONFIG_MAPS, MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS, KubeError, NotFound
from countersign.kube.rotation import rotation_asked, without_request
from countersign.metrics import expiry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from countersign.clock import Clock
    from countersign.controller.metrics import OperatorMetrics
    from countersign.controller.settings import OperatorSettings
    from countersign.kube import Kube, Resource
    from countersign.kube.rotation import Members, Overlap

    _Wanted = Callable[[Members, bool], Members]

__all__ = ["MANAGER", "TRUST", "Material", "opted_in"]

MANAGER: Final = "countersign-operator"
TRUST: Final = "countersign-trust"
_LABELS: Final = {"app.kubernetes.io/managed-by": MANAGER}
_CA: Final = "countersign-ca"
_TOKEN_KEYS: Final = "countersign-token-keys"  # noqa: S105 - a name
_KEYS_JSON: Final = "keys.json"
_NONCE_KEY: Final = "countersign-nonce-key"
_NONCE_KEY_BYTES: Final = 32
_WEBHOOKS: Final = "countersign"
_TLS: Final = "kubernetes.io/tls"
# A ConfigMap that somebody changed or deleted is put right within this time.
_REPAIR_SECONDS: Final = 60.0
_LOG: Final = structlog.get_logger(__name__)


class Material:
    """Keeps the Secrets, the webhooks' ``caBundle`` and the trust ConfigMaps as they should be. Only the leader calls it."""

    def __init__(self, kube: Kube, settings: OperatorSettings, clock: Clock, metrics: OperatorMetrics) -> None:
        """Know nothing yet; :attr:`ready` after the first :meth:`refresh`."""
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._bundle = ""
        self.fault = ""
        self._told: dict[str, tuple[str, float]] = {}

    @property
    def ready(self) -> bool:
        """Whether the Secrets are there, so that :meth:`trust` can tell signers whom to believe."""
        return bool(self._bundle)

    @property
    def pace(self) -> float:
        """How many seconds may pass between two refreshes, so that no step of a rotation is much late."""
        return self._settings.overlap.ahead_seconds / 4

    async def refresh(self) -> None:
        """Make or rotate what is due. Raises KubeError, and Unusable for a serving certificate that others made.

        What was written until then stays, and the next call goes on. With a clock that is wrong nothing is made: what is to
        be used from now on would be so at another time.
        """
        await self._require_clock()
        now, overlap = self._clock.now(), self._settings.overlap.times

        def token_keys(has: Members, forced: bool) -> Members:  # noqa: FBT001 - what _secret calls
            return _keys(has, int(now.timestamp()), overlap, forced=forced)

        keys = await self._secret(_TOKEN_KEYS, "Opaque", token_keys)
        with suppress(KeyError, ValueError):  # one that was given to us, and that the front door cannot read either
            self._metrics.token_key_expiry.set(max(one.use_until for one in read_keys(keys[_KEYS_JSON])))
        await self._secret(_NONCE_KEY, "Opaque", _nonce_key)
        webhook, authority = await self._serving(now)
        if self._settings.certificates.source != "CertManager":
            for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
                await self._ca_bundle(resource, bundle_of(webhook))
        self._bundle = _joined(bundle_of(webhook), bundle_of(authority))
        self.fault = ""

    async def _require_clock(self) -> None:
        with suppress(NotFound):
            await self._kube.get(SECRETS, _CA, self._settings.namespace)  # its answer says what time it is there
        if (fault := skew_fault(self._kube.clock_skew, "the API server")) is not None:
            raise KubeError(fault)

    async def trust(self, namespace: dict[str, Any]) -> None:
        """Tell the signers of a Namespace whom to believe, if it has opted in; and our own nodes. Raises KubeError."""
        name, own = namespace["metadata"]["name"], self._settings.namespace
        if not self.ready or not (opted_in(namespace, own) or (self._settings.nodes and _lives(namespace, own))):
            self._told.pop(name, None)
            return
        data = {
            "ca.crt": self._bundle,
            "authorityURL": self._settings.authority_url,
            "webhookURL": self._settings.webhook_url,
        }
        digest, now = hashlib.sha256(json.dumps(data).encode()).hexdigest(), self._clock.monotonic()
        told, when = self._told.get(name, ("", float("-inf")))
        if told == digest and now - when < _REPAIR_SECONDS:
            return
        body = {
            "apiVersion": CONFIG_MAPS.api_version,
            "kind": CONFIG_MAPS.kind,
            "metadata": {"name": TRUST, "namespace": name, "labels": _LABELS},
            "data": data,
        }
        await self._kube.apply(CONFIG_MAPS, body, MANAGER)
        self._told[name] = digest, now

    async def _serving(self, now: datetime) -> tuple[Members, Members]:
        """Return the Secrets of the webhook's and the authority's serving certificate, made or as others made them.

        Raises KubeError, also for one that is not there, and Unusable for one that nobody could believe.
        """
        given, overlap = self._settings.certificates, self._settings.overlap.times
        secrets = {"webhook": given.webhook_secret, "authority": given.authority_secret}
        found = {}
        if given.source == "SelfManaged":
            ca = await self._secret(_CA, _TLS, lambda has, forced: ca_members(has, now, overlap, forced=forced))
            self._tell_expiry(_CA, ca)

            def serving(process: str) -> _Wanted:
                names = self._settings.names(process)
                return lambda has, forced: serving_members(has, ca, names, now, forced=forced)

            for process, name in secrets.items():
                found[process] = await self._secret(name, _TLS, serving(process))
        else:
            for process, name in secrets.items():
                found[process] = await self._given(name, self._settings.names(process), now)
        for process, members in found.items():
            self._tell_expiry(secrets[process], members)
        return found["webhook"], found["authority"]

    async def _given(self, name: str, names: Sequence[str], now: datetime) -> Members:
        """Return the Secret of a serving certificate that others make."""
        try:
            members = _decoded(await self._kube.get(SECRETS, name, self._settings.namespace))
            require_usable(members, names, now)
        except NotFound:
            self.fault = f"Secret {name} does not exist"
            raise
        except Unusable as error:
            self.fault = f"Secret {name}: {error}"
            raise Unusable(self.fault) from error
        return members

    def _tell_expiry(self, secret: str, members: Members) -> None:
        with suppress(KeyError, ValueError):
            self._metrics.certificate_expiry.labels(secret).set(expiry_of(members["tls.crt"]))

    async def _secret(self, name: str, kind: str, wanted: _Wanted) -> Members:
        """Bring a Secret of ours to what ``wanted`` makes of its members, and whether to rotate now, and return them.

        Another writer's change in between is a Conflict: then the next pass looks again, and no key is lost.
        """
        try:
            found = await self._kube.get(SECRETS, name, self._settings.namespace)
        except NotFound:
            found = None
        present = _decoded(found or {})
        if found is not None and (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != MANAGER:
            return present
        forced = found is not None and rotation_asked(found)
        members = wanted(present, forced)
        if members == present and not forced:
            return members
        body: dict[str, Any] = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {"name": name, "namespace": self._settings.namespace, "labels": _LABELS},
            "type": kind,
            "data": {key: base64.b64encode(value).decode() for key, value in members.items()},
        }
        if found is None:
            await self._kube.create(SECRETS, body)
        else:
            body["metadata"] = without_request(found["metadata"])
            await self._kube.replace(SECRETS, body)
        self._metrics.rotations.labels(name).inc()
        _LOG.info("secret written", secret=name, new=found is None, asked=forced)
        return members

    async def _ca_bundle(self, resource: Resource, bundle: bytes) -> None:
        """Tell the API server whom to believe at the other end of our webhooks."""
        try:
            found = await self._kube.get(resource, _WEBHOOKS)
        except NotFound:
            return  # installed without webhooks, or not yet
        wanted = base64.b64encode(bundle).decode()
        patch: list[dict[str, Any]] = []
        for at, webhook in enumerate(found.get("webhooks") or []):
            if webhook["clientConfig"].get("caBundle") != wanted:
                # By place, so the name is tested: a list that changed meanwhile is left for the next pass.
                patch.append({"op": "test", "path": f"/webhooks/{at}/name", "value": webhook["name"]})
                patch.append({"op": "add", "path": f"/webhooks/{at}/clientConfig/caBundle", "value": wanted})
        if patch:
            await self._kube.patch(resource, _WEBHOOKS, patch)
            _LOG.info("caBundle written", kind=resource.kind)


def opted_in(namespace: dict[str, Any], own: str) -> bool:
    """Tell whether pods of a Namespace get a signer: it says so, lives, and is not one of the system's (crds.md 4.1)."""
    meta = namespace["metadata"]
    labelled = (meta.get("labels") or {}).get(OPT_IN[0]) == OPT_IN[1]
    return labelled and meta["name"] not in (own, "kube-system") and meta.get("deletionTimestamp") is None


def _decoded(secret: dict[str, Any]) -> Members:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _lives(namespace: dict[str, Any], own: str) -> bool:
    return bool(namespace["metadata"]["name"] == own) and namespace["metadata"].get("deletionTimestamp") is None


def _keys(present: Members, now: int, overlap: Overlap, *, forced: bool) -> Members:
    """Rotate the token keys. A file that cannot be read is useless to the front door too: it gets a new key."""
    keys: tuple[TokenKey, ...] = ()
    if _KEYS_JSON in present:
        try:
            keys = read_keys(present[_KEYS_JSON])
        except (ValueError, RecursionError) as error:
            _LOG.error("the token keys cannot be read and are made anew", error=str(error))
    after = rotated(keys, now, overlap, forced=forced)
    return present if after == keys and keys else {_KEYS_JSON: written(after)}


def _nonce_key(present: Members, _forced: bool) -> Members:  # noqa: FBT001 - what _secret calls
    """Keep the key that replicas of the front door share (wire.md 3.3.3), or make it; they read it once, at their start."""
    return present if len(present.get("key", b"")) >= _NONCE_KEY_BYTES else {"key": os.urandom(_NONCE_KEY_BYTES)}


def _joined(*bundles: bytes) -> str:
    """Return each certificate of several bundles once, as text."""
    end = "-----END CERTIFICATE-----\n"
    parts = [part + end for bundle in bundles for part in bundle.decode().replace("\r", "").split(end) if part.strip()]
    return "".join(dict.fromkeys(part.lstrip("\n") for part in parts))

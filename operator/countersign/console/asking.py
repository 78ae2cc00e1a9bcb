"""How a person's question reaches the webhook's log and comes back (wire.md 9.1): no credential of theirs leaves for it.

The API server is told a fresh public key in a CertificateSigningRequest, and writes down who told it. The question is signed
by that key and goes to each webhook pod through the API server; or, where no webhook runs in the cluster, to its address.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from countersign.audit import READER_SIGNER, Question, row_of, sign_question
from countersign.console.cluster import find, look, part
from countersign.kube import CERTIFICATE_REQUESTS, CONFIG_MAPS, MUTATING_WEBHOOKS, PODS, KubeError

if TYPE_CHECKING:
    from countersign.audit import Filters
    from countersign.kube import Kube

__all__ = ["Answer", "NoRecordsError", "Reader", "ask"]

_PORT: Final = 8443
_PATH: Final = "/audit/decisions"
_METADATA: Final = "/.well-known/oauth-authorization-server"
_PODS: Final = "app.kubernetes.io/component=webhook"
_TRUST: Final = "countersign-trust"
_HOOKS: Final = "countersign"
_OK: Final = 200
_BUSY: Final = 429
_TRIES: Final = 5
_SECONDS: Final = 30
_LIFE: Final = 600


class NoRecordsError(Exception):
    """No webhook answered; the words say what each of them said."""


@dataclass(frozen=True)
class Answer:
    """Records by time; ``more`` tells that older ones match too; ``silent`` are webhooks that did not answer, and why."""

    records: list[dict[str, Any]]
    more: bool
    silent: tuple[str, ...]


class Reader:
    """A key, and the API server's statement of whose it is."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, name: str) -> None:
        """Keep both; :meth:`introduce` makes one."""
        self._key, self.name = key, name

    @classmethod
    async def introduce(cls, kube: Kube) -> Reader:
        """Make a key and tell the API server. Raises KubeError, also if this person may not."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = await kube.create(CERTIFICATE_REQUESTS, statement(key))
        return cls(key, made["metadata"]["name"])

    async def leave(self, kube: Kube) -> None:
        """Take the statement back, if this person may; else the cluster forgets it in a day."""
        with contextlib.suppress(KubeError):
            await kube.delete(CERTIFICATE_REQUESTS, self.name)

    def question(self, aud: str, namespace: str | None, filters: Filters, limit: int) -> str:
        """Return a signed question of now."""
        return sign_question(Question(aud, self.name, int(time.time()), namespace, filters, limit), self._key)


def statement(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """Return the object that tells the API server a key. Nobody signs it."""
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "countersign audit reader")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return {
        "apiVersion": CERTIFICATE_REQUESTS.api_version,
        "kind": CERTIFICATE_REQUESTS.kind,
        "metadata": {"generateName": "countersign-audit-reader-"},
        "spec": {
            "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": READER_SIGNER,
            "usages": ["client auth"],
            "expirationSeconds": _LIFE,
        },
    }


async def ask(kube: Kube, system: str, told_in: str, namespace: str | None, filters: Filters, limit: int) -> Answer:
    """Ask every webhook of ``system`` about a namespace, or about all; ``told_in`` is where signers are told of one elsewhere.

    Raises :class:`NoRecordsError` if none answers, KubeError if the API server refuses before that.
    """
    doors = await _doors(kube, system, told_in)
    reader = await Reader.introduce(kube)
    try:
        answers = await asyncio.gather(*(_one(door, reader, namespace, filters, limit) for door in doors))
    finally:
        await reader.leave(kube)
    good = [one for one in answers if isinstance(one, dict)]
    silent = tuple(one for one in answers if isinstance(one, str))
    if not good:
        raise NoRecordsError("; ".join(silent) or "no webhook was found")
    records = sorted((record for one in good for record in one["records"]), key=lambda record: row_of(record).time)
    more = any(one["more"] for one in good) or len(records) > limit
    return Answer(records[-limit:], more, silent)


@dataclass(frozen=True)
class _Pod:
    """A webhook in a pod, asked through the API server."""

    kube: Kube
    namespace: str
    name: str
    port: int

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        return await self.kube.ask_pod(self.name, self.namespace, self.port, path, headers)


@dataclass(frozen=True)
class _Address:
    """A webhook outside the cluster, at the address that signers are told, under the roots that they are told."""

    name: str
    ca: str

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._get, path, headers)

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.name}{path}", headers=headers)  # noqa: S310 - https, by _outside
        try:
            tls = ssl.create_default_context(cadata=self.ca)
            with urllib.request.urlopen(request, timeout=_SECONDS, context=tls) as answer:  # noqa: S310 - as above
                return int(answer.status), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            raise KubeError(f"no answer ({type(error).__name__})") from error


async def _doors(kube: Kube, system: str, told_in: str) -> list[_Pod | _Address]:
    pods = await look(kube, PODS, system, labels=_PODS)
    running = [one for one in pods or [] if part(one, "status", "phase") == "Running"]
    if running:
        return [_Pod(kube, system, one["metadata"]["name"], _port(one)) for one in running]
    outside = await _outside(kube, told_in)
    if not outside and pods is None:
        raise NoRecordsError(f"you may not list pods in namespace {system}, where the webhook runs")
    return list(outside)


def _port(pod: dict[str, Any]) -> int:
    """Return the port that the pod calls ``calls``."""
    ports = [port for one in part(pod, "spec", "containers") or [] for port in one.get("ports") or []]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == "calls"), _PORT)


async def _outside(kube: Kube, namespace: str) -> list[_Address]:
    """Return the webhook that signers are told of, in this namespace or another, if it runs outside the cluster.

    Its roots are those that the API server uses: whoever may write ConfigMaps there can name another address, and nobody
    can answer at it.
    """
    told = await find(kube, CONFIG_MAPS, _TRUST, namespace)
    if told is None:
        told = next(iter(await look(kube, CONFIG_MAPS, fields=f"metadata.name={_TRUST}") or []), None)
    url = str(part(told, "data", "webhookURL") or "")
    hooks = part(await find(kube, MUTATING_WEBHOOKS, _HOOKS), "webhooks") or [{}]
    bundle = part(hooks[0], "clientConfig", "caBundle")
    if not url.startswith("https://") or not isinstance(bundle, str):
        return []
    return [_Address(url, base64.b64decode(bundle).decode("ascii"))]


async def _one(
    door: _Pod | _Address, reader: Reader, namespace: str | None, filters: Filters, limit: int
) -> dict[str, Any] | str:
    """Return a webhook's answer, or what it said instead."""
    try:
        status, body = await door.get(_METADATA, {})
        issuer = part(_json(body), "issuer")
        if status != _OK or not isinstance(issuer, str):
            return f"{door.name} does not say which issuer it is (HTTP {status})"
        if isinstance(door, _Address) and issuer != door.name:
            return f"{door.name} says that it is another issuer"
        for _ in range(_TRIES):
            question = reader.question(issuer, namespace, filters, limit)
            status, body = await door.get(_PATH, {"Countersign-Question": question})
            if status != _BUSY:
                break
            await asyncio.sleep(1)
    except KubeError as error:
        return f"{door.name}: {error}"
    found = _json(body)
    if status == _OK and isinstance(part(found, "records"), list):
        return dict(found)
    code, detail = part(found, "code"), part(found, "detail")
    return f"{door.name}: {code}: {detail}" if code else f"{door.name}: HTTP {status}"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None

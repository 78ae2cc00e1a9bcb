"""An authority with a cluster, a device and a pod around it, and a signer by hand whose every message a test may change."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.attestation import NOW, make_ca
from support.memory_cluster import OWN_NAMESPACE, MemoryCluster

from countersign import kube
from countersign.acme import jwk_of, key_authorization, sign, thumbprint, to_base64url
from countersign.attest import SoftwareDevice, build_statement, key_qualifier
from countersign.authority.app import create_app
from countersign.authority.context import ProcessContext
from countersign.authority.settings import AuthoritySettings
from countersign.clock import FakeClock
from countersign.kube import TokenReview
from countersign.kube.injection import InjectionSettings, inject
from countersign.signer.csr import build_csr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from fastapi import FastAPI

    from countersign.attest import Ak, AttestationDevice, AttestingKey

URL = "https://authority.test:8443"
CLUSTER = "prod-eu"
DOMAIN = "agents.example.com"
NAMESPACE, AGENT, POD, NODE = "billing", "refund-agent", "refund-agent-x2x9p", "worker-1"
POD_UID = "5a0c1f0e-8f5b-4d53-9f0e-2f3b1a7c9d10"
TOKEN = "token-of-the-pod"
INJECTION = InjectionSettings(image="countersign:test", version="0.1.0", token_audience="countersign.dev")
EK_ROOT = make_ca("Maker of TPMs")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def thing(name: str, spec: dict[str, Any], namespace: str | None = None, **meta: Any) -> dict[str, Any]:
    where = {} if namespace is None else {"namespace": namespace}
    return {"metadata": {"name": name, **where, **meta}, "spec": spec}


def patched(pod: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply the JSON Patch that injection makes: ``add`` and ``replace`` alone."""
    found: Any = json.loads(json.dumps(pod))
    for operation in patch:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = found
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            at = len(place) if last == "-" else int(last)
            place[at : at + (operation["op"] == "replace")] = [operation["value"]]
        else:
            assert operation["op"] in {"add", "replace"}
            place[last] = operation["value"]
    return dict(found)


def bare_pod(name: str = POD, uid: str = POD_UID, node: str = NODE) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "labels": {"app": AGENT}},
        "spec": {
            "serviceAccountName": AGENT,
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "agent", "image": f"agent@sha256:{'ab' * 32}"}],
        },
    }


def bound(pod: dict[str, Any], **changes: Any) -> TokenReview:
    """What the API server says of the projected token of ``pod``."""
    meta = pod["metadata"]
    review = TokenReview(
        authenticated=True,
        username=f"system:serviceaccount:{NAMESPACE}:{AGENT}",
        namespace=meta["namespace"],
        service_account=AGENT,
        pod_name=meta["name"],
        pod_uid=meta["uid"],
        node_name=pod["spec"]["nodeName"],
        audiences=("countersign.dev",),
    )
    return replace(review, **changes)


def node_pod(node: str = NODE) -> dict[str, Any]:
    """The pod of ``countersign node`` on a node."""
    name = f"countersign-node-{node}"
    return {
        "metadata": {"name": name, "namespace": OWN_NAMESPACE, "uid": f"uid-of-{name}"},
        "spec": {"serviceAccountName": "countersign-node", "nodeName": node, "containers": [{"name": "node"}]},
    }


def spki_digest(spki: bytes) -> str:
    return f"sha256:{sha256(spki).hexdigest()}"


def serving_certificate(directory: Path) -> None:
    """Write ``tls.crt``, ``tls.key`` and ``ca.crt``, good for localhost and for the authority's name, now."""
    root, root_key = make_ca("Serving CA", days=3650)
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("authority.test")])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3000))
        .not_valid_after(NOW + timedelta(days=3000))
        .add_extension(names, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    directory.mkdir(exist_ok=True)
    (directory / "ca.crt").write_bytes(root.public_bytes(pem))
    (directory / "tls.crt").write_bytes(leaf.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "tls.key").write_bytes(private)


UNLIMITED = {"address_burst": 10**6, "pod_burst": 10**6, "node_burst": 10**6}
"""The clock of most tests stands still, so nothing would flow back into a bucket."""


def settings(directory: Path, **more: Any) -> AuthoritySettings:
    tls = directory / "tls"
    return AuthoritySettings.model_validate(
        {
            "namespace": OWN_NAMESPACE,
            "cluster": CLUSTER,
            "url": URL,
            "listen": {"host": "localhost", "port": 0, "tls_cert": tls / "tls.crt", "tls_key": tls / "tls.key"},
            "health": {"host": "127.0.0.1", "port": 0},
            "database_url": f"sqlite+aiosqlite:///{directory}/authority.db",
            "audit": {"directory": directory / "audit"},
            "injection": {"image": INJECTION.image, "version": INJECTION.version},
            "limits": UNLIMITED,
            **more,
        }
    )


@dataclass
class Office:
    """The authority's parts on a cluster in memory and a real database; a test moves clock and objects."""

    directory: Path
    clock: FakeClock
    cluster: MemoryCluster
    context: ProcessContext
    app: FastAPI

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, *, cluster: MemoryCluster | None = None, now: datetime = NOW, **more: Any
    ) -> AsyncIterator[Office]:
        """Open an authority; without ``cluster`` in a new one with an issuer, a pool, an identity and its pod."""
        clock = FakeClock(now)
        fresh = cluster is None
        cluster = cluster or MemoryCluster()
        (directory / "audit").mkdir(exist_ok=True)
        if not (directory / "tls").exists():
            serving_certificate(directory / "tls")
        context = await ProcessContext.of(
            settings(directory, **more),
            kube=cast("kube.Kube", cluster.kube),
            cache=cast("kube.WatchCache", cluster.cache),
            events=cast("kube.EventRecorder", cluster.events),
            clock=clock,
            stack=AsyncExitStack(),
        )
        office = cls(directory, clock, cluster, context, context.app())
        if fresh:
            office.populate()
        await context.reconciler.pass_once()
        try:
            yield office
        finally:
            await context.aclose()

    def populate(self) -> None:
        put = self.cluster.put
        labels = {"countersign.dev/injection": "enabled", "kubernetes.io/metadata.name": NAMESPACE}
        put(kube.NAMESPACES, {"metadata": {"name": NAMESPACE, "labels": labels}, "spec": {}})
        put(kube.IDENTITY_ISSUERS, thing("default", {"trustDomain": DOMAIN, "type": "Embedded"}))
        root = EK_ROOT[0].public_bytes(serialization.Encoding.PEM).decode()
        put(kube.DEVICE_POOLS, thing("racks", {"assurance": "Virtual", "ekRoots": root}))
        identity = {
            "serviceAccountName": AGENT,
            "issuerRef": {"name": "default"},
            "minAssurance": "Virtual",
            "minKeyTier": "TPM",
            "signer": {"injection": "Sidecar", "port": 7080},
            "lifeSeconds": 3600,
        }
        put(kube.AGENT_IDENTITIES, thing(AGENT, identity, NAMESPACE))
        self.schedule(bare_pod(), TOKEN)

    def schedule(self, pod: dict[str, Any], token: str) -> dict[str, Any]:
        """Create a pod as the API server would, injected, and its token."""
        identity = self.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
        made = self.cluster.put(kube.PODS, patched(pod, inject(pod, identity, INJECTION)))
        self.cluster.tokens[token] = bound(pod)
        return made

    async def register(self, device: AttestationDevice, name: str = NODE, **spec: Any) -> dict[str, Any]:
        """Put a Device of this TPM into the inventory, Approved and bound to the node of its name."""
        spki = (await device.endorsements())[0].spki
        wanted = {
            "poolRef": {"name": "racks"},
            "ek": {"publicKeySHA256": spki_digest(spki)},
            "binding": {"type": "Node", "node": {"name": NODE}},
            "state": "Approved",
            **spec,
        }
        return self.cluster.put(kube.DEVICES, thing(name, wanted))

    async def signer(self, token: str | None = TOKEN, *, registered: bool = True) -> Caller:
        """Return a signer with a new software TPM, registered as the node's unless the test says no."""
        device = SoftwareDevice.make(EK_ROOT)
        if registered:
            await self.register(device)
        return await Caller.make(self, device, token)

    async def node(self, device: AttestationDevice, node: str = NODE, **changes: Any) -> Caller:
        """Return ``countersign node`` on a node, with a TPM; ``changes`` are to what its token's review says."""
        pod, token = self.cluster.put(kube.PODS, node_pod(node)), f"token-of-{node}"
        account = {"namespace": OWN_NAMESPACE, "service_account": "countersign-node"}
        account["username"] = f"system:serviceaccount:{OWN_NAMESPACE}:countersign-node"
        self.cluster.tokens[token] = bound(pod, **{**account, **changes})
        return await Caller.make(self, device, token)

    def use(self, **steps: Any) -> None:
        """Put other sequences of checks into the desks."""
        of_e1 = {"attest_steps", "secret_steps", "commit_steps", "node_attest_steps", "node_secret_steps"}
        mine = {k: v for k, v in steps.items() if k in of_e1}
        theirs = {k: v for k, v in steps.items() if k not in mine}
        context = replace(
            self.context,
            attestation=replace(self.context.attestation, **mine),
            acme=replace(self.context.acme, **theirs),
        )
        self.app = create_app(context.attestation, context.acme)

    def instance(self) -> dict[str, Any]:
        """Return the one AgentInstance."""
        (found,) = self.cluster.all(kube.AGENT_INSTANCES)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return what the audit logs have on disk, but the opening records."""
        lines = [
            json.loads(line)
            for path in sorted((self.directory / "audit").glob("*"))
            if path.is_file()
            for line in path.read_bytes().splitlines()
        ]
        return [line for line in lines if line.get("status_code") != "audit.open"]


@dataclass
class Caller:
    """A signer by hand: it speaks to the application, and keeps what it was told."""

    office: Office
    device: AttestationDevice
    key: AttestingKey
    ak: Ak
    token: str | None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def make(cls, office: Office, device: AttestationDevice, token: str | None) -> Caller:
        return cls(office, device, await device.create_key(), await device.create_ak("P256"), token)

    def http(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.office.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=URL, headers=self.headers)

    async def post(self, path: str, body: Any) -> httpx.Response:
        """Post a body of leg E1: bytes as they are, anything else as JSON."""
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http() as http:
            return await http.post(path, content=content, headers=headers)

    async def attest_body(self, **changes: Any) -> dict[str, Any]:
        """Return the body of ``/attest``; a change is a member of it or of ``params``, None leaves it out."""
        (endorsement, *_) = await self.device.endorsements()
        params: dict[str, Any] = {
            "public": b64(self.ak.public),
            "createData": b64(self.ak.creation_data),
            "createAttestation": b64(self.ak.attest),
            "createSignature": b64(self.ak.signature),
        }
        body: dict[str, Any] = {
            "tpmInfo": {},
            "ek": b64(endorsement.spki),
            "ekCerts": [b64(one) for one in endorsement.certificates],
            "params": params,
        }
        for name, value in changes.items():
            (params if name in params else body)[name] = value
        return body

    async def attest(self, **changes: Any) -> httpx.Response:
        return await self.post("/attest", await self.attest_body(**changes))

    async def secret_body(self, challenge: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Open the credential and return the body of ``/secret``; a change is a member of it or of ``key``."""
        secret = await self.device.activate(
            base64.b64decode(challenge["credential"]), base64.b64decode(challenge["secret"])
        )
        proof = await self.device.certify(key_qualifier(secret))
        key = {"public": b64(proof.public), "attest": b64(proof.attest), "signature": b64(proof.signature)}
        body: dict[str, Any] = {"secret": b64(secret), "key": key}
        for name, value in changes.items():
            (key if name in key else body)[name] = value
        return body

    async def secret(self, challenge: dict[str, Any], **changes: Any) -> httpx.Response:
        return await self.post("/secret", await self.secret_body(challenge, **changes))

    async def challenged(self) -> dict[str, Any]:
        answer = await self.attest()
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def admitted(self) -> dict[str, Any]:
        """Run E1 and return what the signer is told."""
        answer = await self.secret(await self.challenged())
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def certificate(self) -> list[x509.Certificate]:
        """Run E1 and E2 and return the chain."""
        admitted = await self.admitted()
        account = await Account.make(self)
        order = await account.order(admitted["identifier"])
        verdict = await order.answer(admitted)
        assert verdict.json()["status"] == "valid", verdict.text
        final = await order.finalize()
        assert final.json()["status"] == "valid", final.text
        fetched = await account.post(final.json()["certificate"], None)
        return x509.load_pem_x509_certificates(fetched.content)

    async def statement(self, admitted: dict[str, Any], authorization: str, **changes: Any) -> bytes:
        """Return an attestation object for the device's key; a change is a part of it."""
        proof = await self.device.certify(sha256(authorization.encode()).digest())
        parts: dict[str, Any] = {
            "ak_chain": [base64.b64decode(one) for one in admitted["chain"]],
            "cert_info": proof.attest,
            "public_area": proof.public,
            "signature": proof.signature,
            "alg": -7,
            **changes,
        }
        return build_statement(**parts)


@dataclass
class Account:
    """An ACME account by hand."""

    caller: Caller
    directory: dict[str, str]
    key: ec.EllipticCurvePrivateKey
    kid: str = ""
    nonce: str = ""

    @classmethod
    async def make(cls, caller: Caller, issuer: str = "default", *, register: bool = True) -> Account:
        async with caller.http() as http:
            directory = (await http.get(f"/acme/{issuer}/directory")).json()
            nonce = (await http.head(directory["newNonce"])).headers["replay-nonce"]
        account = cls(caller, directory, ec.generate_private_key(ec.SECP256R1()), nonce=nonce)
        if register:
            answer = await account.post(directory["newAccount"], {"termsOfServiceAgreed": True})
            assert answer.status_code == 201, answer.text
            account.kid = answer.headers["location"]
        return account

    @property
    def jkt(self) -> str:
        return thumbprint(jwk_of(self.key.public_key()))

    def jws(self, url: str, payload: dict[str, Any] | None) -> bytes:
        return sign(payload, key=self.key, url=url, nonce=self.nonce, kid=self.kid or None)

    async def post(self, url: str, payload: dict[str, Any] | None) -> httpx.Response:
        return await self.send(url, self.jws(url, payload))

    async def send(self, url: str, body: bytes, content_type: str = "application/jose+json") -> httpx.Response:
        """Post a body as it is and keep the nonce that comes back."""
        async with self.caller.http() as http:
            answer = await http.post(url, content=body, headers={"content-type": content_type})
        self.nonce = answer.headers.get("replay-nonce", self.nonce)
        return answer

    async def ask(self, identifier: str, **changes: Any) -> httpx.Response:
        """Post newOrder."""
        wanted = {"identifiers": [{"type": "permanent-identifier", "value": identifier}], **changes}
        return await self.post(self.directory["newOrder"], wanted)

    async def order(self, identifier: str) -> AcmeOrder:
        answer = await self.ask(identifier)
        assert answer.status_code == 201, answer.text
        authorization = await self.post(answer.json()["authorizations"][0], None)
        (challenge,) = authorization.json()["challenges"]
        return AcmeOrder(self, answer.headers["location"], answer.json(), challenge)


@dataclass
class AcmeOrder:
    """An order and its one challenge."""

    account: Account
    url: str
    document: dict[str, Any]
    challenge: dict[str, Any]

    @property
    def authorization(self) -> str:
        return key_authorization(self.challenge["token"], self.account.jkt)

    async def answer(self, admitted: dict[str, Any], **changes: Any) -> httpx.Response:
        """Answer the challenge with a statement for the device's key."""
        return await self.attest(await self.account.caller.statement(admitted, self.authorization, **changes))

    async def attest(self, statement: bytes) -> httpx.Response:
        return await self.account.post(self.challenge["url"], {"attObj": to_base64url(statement)})

    async def finalize(self, csr: bytes | None = None) -> httpx.Response:
        der = await build_csr(self.account.caller.key) if csr is None else csr
        return await self.account.post(self.document["finalize"], {"csr": to_base64url(der)})

    async def read(self) -> dict[str, Any]:
        return dict((await self.account.post(self.url, None)).json())

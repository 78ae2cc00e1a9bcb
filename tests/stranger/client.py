"""A signer by somebody else: written from docs/wire.md and docs/enrolment.md alone, it imports nothing of this project.

It enrols a pod's TPM at the attestation CA, gets its certificate by ACME, asks for a call and makes it. Tests run it
against the real processes, so that the pages stay the contract: what only our own signer can do would fail here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_RH,
    TPM2_SE,
    TPM2_ST,
    TPM2B_DIGEST,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMT_TK_HASHCHECK,
)

EK_HANDLE, EK_CERTIFICATE = 0x81010001, 0x01C00002
SIGNING = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.SIGN_ENCRYPT
    | TPMA_OBJECT.NODA
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(method: str, url: str, headers: dict[str, str], body: bytes | None, ca: str | None) -> Answer:
    context = ssl.create_default_context(cadata=ca) if url.startswith("https") else None
    sent = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(sent, context=context, timeout=20) as got:
            return Answer(got.status, {k.lower(): v for k, v in got.headers.items()}, got.read())
    except urllib.error.HTTPError as got:
        return Answer(got.code, {k.lower(): v for k, v in got.headers.items()}, got.read())


def jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    n = key.public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": b64u(n.x.to_bytes(32, "big")), "y": b64u(n.y.to_bytes(32, "big"))}


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    return b64u(hashlib.sha256(compact(jwk(key))).digest())


def raw(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Tpm:
    """One TPM, one AK, one key: what a signer needs and nothing else."""

    def __init__(self, tcti: str) -> None:
        self.e = ESAPI(tcti)
        self.ek = self.e.tr_from_tpmpublic(EK_HANDLE)
        ek_public, _, _ = self.e.read_public(self.ek)
        self.ek_spki = serialization.load_pem_public_key(ek_public.to_pem()).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.ek_certificate = self._nv(EK_CERTIFICATE)
        storage = TPM2B_PUBLIC.parse("ecc", objectAttributes=TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATEPRIMARY_ATTRS)
        srk = self.e.create_primary(TPM2B_SENSITIVE_CREATE(), storage, ESYS_TR.OWNER)[0]
        template = TPM2B_PUBLIC.parse("ecc:ecdsa-sha256:null", objectAttributes=SIGNING | TPMA_OBJECT.RESTRICTED)
        private, self.ak_public, creation, digest, ticket = self.e.create(srk, None, template)
        self.ak = self.e.load(srk, private, self.ak_public)
        self.creation = creation.creationData.marshal()
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attest, signature = self.e.certify_creation(self.ak, self.ak, b"", digest, scheme, ticket)
        self.ak_attest, self.ak_signature = bytes(attest), signature.marshal()
        template = TPM2B_PUBLIC.parse("ecc:null:null", objectAttributes=SIGNING)
        private, self.public_area, *_ = self.e.create(srk, None, template)
        self.key = self.e.load(srk, private, self.public_area)
        self.e.flush_context(srk)  # a TPM may have three places for objects, and activation needs one
        self.public = serialization.load_pem_public_key(self.public_area.to_pem())
        self.jkt = thumbprint(self.public)

    def _nv(self, index: int) -> bytes:
        handle = self.e.tr_from_tpmpublic(index)
        public, _ = self.e.nv_read_public(handle)
        size, data = public.nvPublic.dataSize, b""
        while len(data) < size:
            data += bytes(self.e.nv_read(handle, min(512, size - len(data)), len(data), auth_handle=handle))
        return data[: 4 + int.from_bytes(data[2:4], "big")]

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        session = self.e.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
        )
        try:
            self.e.policy_secret(ESYS_TR.ENDORSEMENT, session)
            blob, _ = TPM2B_ID_OBJECT.unmarshal(credential)
            wrapped, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            return bytes(
                self.e.activate_credential(self.ak, self.ek, blob, wrapped, session1=ESYS_TR.PASSWORD, session2=session)
            )
        finally:
            self.e.flush_context(session)

    def certify(self, qualifying: bytes) -> dict[str, bytes]:
        attest, signature = self.e.certify(self.key, self.ak, qualifying, TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL))
        return {
            "public": self.public_area.publicArea.marshal(),
            "attest": bytes(attest),
            "signature": signature.marshal(),
        }

    def sign(self, data: bytes) -> bytes:
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.ECDSA)
        scheme.details.any.hashAlg = TPM2_ALG.SHA256
        ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
        signature = self.e.sign(self.key, TPM2B_DIGEST(hashlib.sha256(data).digest()), scheme, ticket)
        return raw(bytes(signature))

    def close(self) -> None:
        for handle in (self.key, self.ak):
            self.e.flush_context(handle)
        self.e.close()


def cbor(value: Any) -> bytes:
    """Just enough of RFC 8949: maps with text keys, arrays, byte strings, text and integers."""

    def head(major: int, n: int) -> bytes:
        if n < 24:
            return bytes([major << 5 | n])
        for code, size in ((24, 1), (25, 2), (26, 4)):
            if n < 1 << 8 * size:
                return bytes([major << 5 | code]) + n.to_bytes(size, "big")
        raise ValueError(n)

    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(cbor(one) for one in value)
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def tlv(tag: int, content: bytes) -> bytes:
    n = len(content)
    size = (
        bytes([n])
        if n < 128
        else bytes([0x80 | (n.bit_length() + 7) // 8]) + n.to_bytes((n.bit_length() + 7) // 8, "big")
    )
    return bytes([tag]) + size + content


@dataclass
class Acme:
    directory_url: str
    ca: str
    account: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = ""
    nonce: str = ""

    def __post_init__(self) -> None:
        self.directory = request("GET", self.directory_url, {}, None, self.ca).json
        self.nonce = request("GET", self.directory["newNonce"], {}, None, self.ca).headers["replay-nonce"]

    @property
    def thumbprint(self) -> str:
        return thumbprint(self.account.public_key())

    def post(self, url: str, payload: Any) -> Answer:
        header: dict[str, Any] = {"alg": "ES256", "nonce": self.nonce, "url": url}
        header |= {"kid": self.kid} if self.kid else {"jwk": jwk(self.account.public_key())}
        first = b64u(compact(header))
        second = "" if payload is None else b64u(compact(payload))
        signature = raw(self.account.sign(f"{first}.{second}".encode(), ec.ECDSA(hashes.SHA256())))
        body = compact({"protected": first, "payload": second, "signature": b64u(signature)})
        answer = request("POST", url, {"Content-Type": "application/jose+json"}, body, self.ca)
        self.nonce = answer.headers.get("replay-nonce", self.nonce)
        return answer

    def register(self) -> None:
        answer = self.post(self.directory["newAccount"], {"termsOfServiceAgreed": True})
        assert answer.status in (200, 201), answer
        self.kid = answer.headers["location"]


@dataclass
class Stranger:
    """One enrolled signer. ``pod_token`` is the pod's token, ``ca`` the PEM of the serving CA."""

    tpm: Tpm
    authority: str
    issuer: str
    pod_token: str
    ca: str
    chain: list[bytes] = field(default_factory=list)
    instance: str = ""
    nonces: list[str] = field(default_factory=list)

    # -- enrolment.md ----------------------------------------------------------------------------------------------

    def attest(self) -> Answer:
        t = self.tpm
        body = {
            "tpmInfo": {"version": 2},
            "ek": b64(t.ek_spki),
            "ekCerts": [b64(t.ek_certificate)],
            "params": {
                "public": b64(t.ak_public.publicArea.marshal()),
                "createData": b64(t.creation),
                "createAttestation": b64(t.ak_attest),
                "createSignature": b64(t.ak_signature),
            },
        }
        return self._authority("/attest", body)

    def secret(self, challenge: Any) -> Answer:
        secret = self.tpm.activate(base64.b64decode(challenge["credential"]), base64.b64decode(challenge["secret"]))
        proof = self.tpm.certify(hashlib.sha256(b"countersign key v1\x00" + secret).digest())
        return self._authority("/secret", {"secret": b64(secret), "key": {k: b64(v) for k, v in proof.items()}})

    def _authority(self, path: str, body: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.pod_token}", "Content-Type": "application/json"}
        return request("POST", self.authority + path, headers, compact(body), self.ca)

    def enrol(self) -> None:
        challenge = self.attest()
        assert challenge.status == 200, challenge
        admitted = self.secret(challenge.json)
        assert admitted.status == 200, admitted
        answer = admitted.json
        self.instance = answer["instance"]
        self.certify(answer)

    def certify(self, admitted: Any) -> None:
        acme = Acme(admitted["acme"]["directory"], admitted["acme"].get("caBundle") or self.ca)
        acme.register()
        identifiers = [{"type": "permanent-identifier", "value": admitted["identifier"]}]
        order = acme.post(acme.directory["newOrder"], {"identifiers": identifiers})
        assert order.status == 201, order
        order_url = order.headers["location"]
        authorization = acme.post(order.json["authorizations"][0], None).json
        challenge = next(one for one in authorization["challenges"] if one["type"] == "device-attest-01")
        authorized = f"{challenge['token']}.{acme.thumbprint}"
        proof = self.tpm.certify(hashlib.sha256(authorized.encode()).digest())
        statement = {
            "ver": "2.0",
            "alg": -7,
            "x5c": [base64.b64decode(one) for one in admitted["chain"]],
            "sig": proof["signature"],
            "certInfo": proof["attest"],
            "pubArea": proof["public"],
        }
        attestation = cbor({"fmt": "tpm", "attStmt": statement})
        verdict = acme.post(challenge["url"], {"attObj": b64u(attestation)})
        assert verdict.json["status"] == "valid", verdict
        final = acme.post(order.json["finalize"], {"csr": b64u(self._csr())})
        assert final.status == 200, final
        for _ in range(20):
            final = acme.post(order_url, None)
            if final.json["status"] == "valid":
                break
            time.sleep(0.2)
        pem = acme.post(final.json["certificate"], None).body
        der = serialization.Encoding.DER
        self.chain = [one.public_bytes(der) for one in x509.load_pem_x509_certificates(pem)]

    def _csr(self) -> bytes:
        der, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        info = tlv(0x30, bytes.fromhex("0201003000") + self.tpm.public.public_bytes(der, spki) + bytes.fromhex("a000"))
        both = self.tpm.sign(info)
        signature = encode_dss_signature(int.from_bytes(both[:32], "big"), int.from_bytes(both[32:], "big"))
        return tlv(0x30, info + bytes.fromhex("300a06082a8648ce3d040302") + tlv(0x03, b"\x00" + signature))

    # -- wire.md ---------------------------------------------------------------------------------------------------

    def signed(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, audience: str, nonce: str
    ) -> list[tuple[str, str]]:
        """Section 3.1: the fields to send, with Content-Digest, Signature-Input and Signature added."""
        fields = dict(headers)
        if body:
            fields["content-digest"] = f"sha-256=:{b64(hashlib.sha256(body).digest())}:"
        order = ["content-type", "content-digest", "authorization", "countersign-chain", "countersign-session"]
        order += ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id"]
        order += sorted(name for name in fields if name.startswith("mcp-param-"))
        covered = ["@method", "@request-target", *(name for name in order if name in fields)]
        now = int(time.time())
        parameters = (
            "(" + " ".join(f'"{name}"' for name in covered) + f');created={now};expires={now + 30};nonce="{nonce}"'
            f';tag="wimse-workload-to-workload";wimse-aud="{audience}"'
        )
        values = {"@method": method, "@request-target": target, **fields}
        base = "\n".join([f'"{name}": {values[name]}' for name in covered] + [f'"@signature-params": {parameters}'])
        fields["signature-input"] = f"wimse={parameters}"
        fields["signature"] = f"wimse=:{b64(self.tpm.sign(base.encode()))}:"
        return list(fields.items())

    def nonce(self) -> str:
        if not self.nonces:
            answer = request("GET", f"{self.issuer}/nonce?jkt={self.tpm.jkt}&count=4", {}, None, self.ca)
            assert answer.status == 200, answer
            self.nonces = answer.json["nonces"]
        return self.nonces.pop(0)

    def ask(self, method: str, path: str, body: bytes = b"", nonce: str | None = None) -> Answer:
        headers = [("countersign-chain", ", ".join(f":{b64(one)}:" for one in self.chain))]
        if body:
            headers.insert(0, ("content-type", "application/x-www-form-urlencoded"))
        fields = self.signed(method, path, headers, body, self.issuer + path, nonce or self.nonce())
        return request(method, self.issuer + path, dict(fields), body or None, self.ca)

    def catalogue(self) -> Any:
        answer = self.ask("GET", "/catalogue")
        assert answer.status == 200, answer
        return answer.json["servers"]

    def token(self, audience: str, tool: str, arguments: Any, method: str = "tools/call") -> Answer:
        details = {
            "type": "countersign_call",
            "protocol": "MCP",
            "method": method,
            "tool": tool,
            "arguments": arguments,
        }
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:countersign:token-type:task",
            "subject_token": "current",
            "resource": audience,
            "authorization_details": compact([details]).decode(),
        }
        return self.ask("POST", "/token", urllib.parse.urlencode(form).encode())

    def prepare(
        self, audience: str, endpoint: str, tool: str, arguments: Any, token: str
    ) -> tuple[dict[str, str], bytes]:
        """Return the fields and the body of the tool call itself (leg C)."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "stranger", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments, "_meta": meta},
        }
        body = json.dumps(message).encode()
        part = token.split(".")[1]
        jti = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"]
        headers = [
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("authorization", f"Countersign {token}"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ]
        target = urllib.parse.urlsplit(endpoint).path
        return dict(self.signed("POST", target, headers, body, audience, jti)), body

    def call(self, server: Any, tool: str, arguments: Any) -> Answer:
        granted = self.token(server["audience"], tool, arguments)
        assert granted.status == 200, granted
        endpoint = server.get("endpoint") or server["audience"]
        headers, body = self.prepare(server["audience"], endpoint, tool, arguments, granted.json["access_token"])
        return request("POST", endpoint, headers, body, server.get("ca_bundle") or self.ca)

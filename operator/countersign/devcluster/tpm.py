"""TPM 2.0 simulators (swtpm) with EK certificates of one local CA: what a cloud's virtual TPMs look like."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.devcluster.process import Child, start

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EkAuthority", "Tpm"]

_LONGEST_SOCKET = 107 - len(".ctrl")  # sun_path less one, and libtss2 appends .ctrl


class EkAuthority:
    """A local manufacturer: it makes TPMs and signs their EK certificates. Roots: :attr:`roots_pem`."""

    def __init__(self, directory: Path) -> None:
        """Keep the CA's keys and every TPM below ``directory``; the CA is made with the first TPM."""
        self.directory = directory.resolve()
        self._ca = self.directory / "ca"

    @property
    def roots_pem(self) -> bytes:
        """The root certificate under which every EK certificate of this authority chains, as PEM."""
        return (self._ca / "swtpm-localca-rootca-cert.pem").read_bytes()

    @property
    def issuer_pem(self) -> bytes:
        """The issuing certificate between root and EK certificates, as PEM."""
        return (self._ca / "issuercert.pem").read_bytes()

    def manufacture(self, name: str, *, outlive: bool = False) -> Tpm:
        """Make a TPM called ``name`` with RSA-2048 and P-384 endorsement keys and their certificates; about a second.

        Raises ``subprocess.CalledProcessError`` if swtpm_setup fails.
        """
        self._configure()
        place = self.directory / name
        shutil.rmtree(place, ignore_errors=True)
        state = place / "state"
        state.mkdir(parents=True, mode=0o700)
        words = ["swtpm_setup", "--tpm2", "--tpm-state", str(state), "--create-ek-cert", "--create-platform-cert"]
        words += ["--lock-nvram", "--config", str(self._ca / "setup.conf"), "--vmid", name, "--overwrite"]
        words += ["--write-ek-cert-files", str(place)]
        if os.geteuid() == 0:
            words += ["--runas", "root"]  # else it changes to a user who cannot write here
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
        return Tpm(name, place, outlive=outlive)

    def _configure(self) -> None:
        self._ca.mkdir(parents=True, exist_ok=True, mode=0o700)
        tool = shutil.which("swtpm_localca") or "/usr/bin/swtpm_localca"
        options = self._ca / "localca.options"
        options.write_text("--platform-manufacturer Countersign\n--platform-version 1\n--platform-model Demo\n")
        local = self._ca / "localca.conf"
        local.write_text(
            f"statedir = {self._ca}\nsigningkey = {self._ca / 'signkey.pem'}\n"
            f"issuercert = {self._ca / 'issuercert.pem'}\ncertserial = {self._ca / 'certserial'}\n"
        )
        (self._ca / "setup.conf").write_text(
            f"create_certs_tool = {tool}\ncreate_certs_tool_config = {local}\n"
            f"create_certs_tool_options = {options}\nactive_pcr_banks = sha256\n"
        )


class Tpm:
    """One simulated TPM: its socket, its endorsement keys and its process."""

    def __init__(self, name: str, directory: Path, *, outlive: bool = False) -> None:
        """Remember a TPM that :class:`EkAuthority` made in ``directory``."""
        self.name = name
        self.directory = directory
        self.child: Child | None = None
        self._outlive = outlive

    @property
    def tcti(self) -> str:
        """The TCTI string with which libtss2 reaches this TPM."""
        return f"swtpm:path={self.directory / 'sock'}"

    @property
    def ek_certificates(self) -> list[x509.Certificate]:
        """The EK certificates, as the TPM also keeps them in NV."""
        return [
            x509.load_der_x509_certificate(path.read_bytes())
            for path in sorted(self.directory.glob("ek-*.crt"))
            if b"BEGIN" not in path.read_bytes()
        ]

    @property
    def ek_digests(self) -> dict[str, str]:
        """``sha256:…`` of the SubjectPublicKeyInfo of each endorsement key, by ``RSA`` and ``EC``."""
        keys = [certificate.public_key() for certificate in self.ek_certificates]
        return {
            "RSA" if isinstance(key, rsa.RSAPublicKey) else "EC": "sha256:"
            + sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
            for key in keys
        }

    def start(self) -> None:
        """Start the simulator and return when its socket is there. Raises ``RuntimeError`` with its words."""
        sock = self.directory / "sock"
        if len(str(sock)) > _LONGEST_SOCKET:
            raise RuntimeError(f"{sock} is too long for a UNIX socket: choose a shorter directory")
        words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory / 'state'}"]
        words += ["--server", f"type=unixio,path={sock},mode=0600", "--ctrl", f"type=unixio,path={sock}.ctrl,mode=0600"]
        words += ["--flags", "not-need-init,startup-clear"]
        self.child = start(f"swtpm-{self.name}", words, log=self.directory / "swtpm.log", outlive=self._outlive)
        end = time.monotonic() + 10
        while not (sock.exists() and sock.with_name("sock.ctrl").exists()):
            if not self.child.alive or time.monotonic() > end:
                raise RuntimeError(f"swtpm did not start:\n{self.child.tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the simulator. Safe to call twice."""
        if self.child is not None:
            self.child.stop(2)
            self.child = None
        for name in ("sock", "sock.ctrl"):
            (self.directory / name).unlink(missing_ok=True)

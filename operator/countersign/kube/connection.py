"""Where the API server is and how to log in: the pod's own ServiceAccount, or a kubeconfig.

Kubernetes' Python client reads the kubeconfig and speaks TLS; a token in a file is read anew for each request, because
kubelet replaces it every hour and the client would keep the first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from countersign.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

__all__ = ["Connection", "connect", "connect_person"]

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_AGENT: Final = "countersign"


@dataclass(frozen=True)
class Connection:
    """An open client; ``token_file``, where there is one, outranks what the client remembers."""

    client: Any
    token_file: Path | None

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: Any,
        kind: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        more: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request to ``url`` (path and query) and return the response, its body unread; ``more`` are headers.

        Raises aiohttp's errors, and :class:`KubeError` if the token cannot be read.
        """
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": _AGENT, **(more or {})}
        if authorization := await self._authorization():
            headers["Authorization"] = authorization
        address = f"{self.client.configuration.host}{url}"
        rest = self.client.rest_client
        sent = await rest.request(method, address, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = sent.response
        return response

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.close()

    async def _authorization(self) -> str | None:
        if self.token_file is not None:
            return f"Bearer {_token(self.token_file)}"
        found: str | None = await self.client.configuration.get_api_key_with_prefix("BearerToken")
        return found


async def connect(kubeconfig: Path | None, *, account: Path = ACCOUNT) -> Connection:
    """Return a connection: to the cluster of ``kubeconfig``, or, without one, to the cluster this pod runs in.

    ``account`` is where kubelet mounts the pod's ServiceAccount. There is no third way: a process that falls back to somebody's default file writes to the wrong cluster one day.
    """
    # Half a second and 56 MiB: only where a process connects, not where one of our modules is imported.
    from kubernetes.aio import client, config  # noqa: PLC0415

    configuration = client.Configuration()
    token_file: Path | None
    if kubeconfig is None:
        token_file = _in_cluster(configuration, account)
    else:
        try:
            token_file = _token_file(kubeconfig)
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        except (
            OSError,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            yaml.YAMLError,
            config.ConfigException,
        ) as error:
            raise KubeError(
                f"kubeconfig {kubeconfig} cannot be used ({type(error).__name__}); name another one"
            ) from error
    return Connection(client.ApiClient(configuration), token_file)


async def connect_person(files: str, context: str | None) -> tuple[Connection, str]:
    """Return a connection as a person has it, and the namespace of its context: ``default`` if it names none.

    ``files`` are kubeconfigs with colons between, as in ``KUBECONFIG``; client certificates, tokens and exec plugins are the
    client's business. Raises :class:`KubeError`.
    """
    from kubernetes.aio import client, config  # noqa: PLC0415 - as above

    configuration = client.Configuration()
    try:
        loader = await config.load_kube_config(
            config_file=files, context=context, client_configuration=configuration, persist_config=False
        )
        namespace = loader.current_context["context"].get("namespace")
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError, config.ConfigException) as error:
        where = f" and context {context}" if context else ""
        raise KubeError(
            f"kubeconfig {files}{where} cannot be used ({type(error).__name__}: {error}); name another with --kubeconfig"
        ) from error
    return Connection(client.ApiClient(configuration), None), str(namespace or "default")


def _in_cluster(configuration: Any, account: Path) -> Path:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{word}") for word in ("HOST", "PORT"))
    if not host or not port or not (account / "ca.crt").is_file():
        raise KubeError("this process runs in no pod with a ServiceAccount; name a kubeconfig in its settings")
    configuration.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    configuration.ssl_ca_cert = str(account / "ca.crt")
    return account / "token"


def _token_file(kubeconfig: Path) -> Path | None:
    """Return the ``tokenFile`` of the current context's user; a relative one is relative to the kubeconfig."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    contexts = {each["name"]: each["context"] for each in document.get("contexts") or []}
    users = {each["name"]: each.get("user") or {} for each in document.get("users") or []}
    user = users.get(contexts[document["current-context"]].get("user"), {})
    return kubeconfig.parent / user["tokenFile"] if "tokenFile" in user else None


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise KubeError(
            f"the token file {path} cannot be read ({type(error).__name__}); see that it is mounted"
        ) from error
    if not token or not token.isprintable() or " " in token:
        raise KubeError(f"the token file {path} holds no token; see that it is renewed")
    return token

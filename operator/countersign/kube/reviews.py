"""TokenReview: whose token is this, and which pod and node is it bound to (local-cluster.md 8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TokenReview", "read_review", "review_body"]

_ACCOUNT: Final = "system:serviceaccount:"
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_NODE_NAME: Final = "authentication.kubernetes.io/node-name"
_NODE_UID: Final = "authentication.kubernetes.io/node-uid"


@dataclass(frozen=True)
class TokenReview:
    """What the API server says of a token. All but ``authenticated`` is empty unless that is true.

    ``namespace`` and ``service_account`` are None unless a ServiceAccount holds the token; ``pod_*`` and ``node_*`` unless
    the token is bound to them. The API server answers from a cache of ten seconds: ask for the pod itself as well.
    """

    authenticated: bool
    username: str = ""
    namespace: str | None = None
    service_account: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = None
    node_name: str | None = None
    node_uid: str | None = None
    uid: str = ""
    groups: tuple[str, ...] = ()
    audiences: tuple[str, ...] = field(default=())


def review_body(token: str, audiences: Sequence[str]) -> dict[str, Any]:
    """Return the object to create. Raises ``ValueError`` without an audience: the API server would take its own."""
    if not audiences:
        raise ValueError("a token is reviewed for at least one audience")
    spec = {"token": token, "audiences": list(audiences)}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def read_review(status: Any, audiences: Sequence[str]) -> TokenReview:
    """Return what the ``status`` of an answer says; anything unexpected in it is "not authenticated".

    An authenticator that does not know audiences names none: its yes is not for us, so it is a no.
    """
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        return TokenReview(authenticated=False)
    admitted = tuple(one for one in status.get("audiences") or () if one in audiences)
    user = status.get("user") or {}
    username = user.get("username")
    if not admitted or not isinstance(username, str) or not username:
        return TokenReview(authenticated=False)
    namespace, account = _account(username)
    extra = user.get("extra") or {}
    return TokenReview(
        authenticated=True,
        username=username,
        namespace=namespace,
        service_account=account,
        pod_name=_only(extra, _POD_NAME),
        pod_uid=_only(extra, _POD_UID),
        node_name=_only(extra, _NODE_NAME),
        node_uid=_only(extra, _NODE_UID),
        uid=str(user.get("uid") or ""),
        groups=tuple(user.get("groups") or ()),
        audiences=admitted,
    )


def _account(username: str) -> tuple[str | None, str | None]:
    if not username.startswith(_ACCOUNT):
        return None, None
    namespace, _, account = username.removeprefix(_ACCOUNT).partition(":")
    return (namespace, account) if namespace and account else (None, None)


def _only(extra: dict[str, Any], key: str) -> str | None:
    """Return the one value of ``key``; two values say nothing."""
    values = extra.get(key) or []
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else None

"""The kinds that Countersign reads or writes, each as the API server's URLs name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ACCESS_REVIEWS",
    "AGENT_IDENTITIES",
    "AGENT_INSTANCES",
    "AGENT_TASKS",
    "CERTIFICATE_REQUESTS",
    "CLUSTER_TOOL_POLICIES",
    "CONFIG_MAPS",
    "CRDS",
    "DAEMON_SETS",
    "DEPLOYMENTS",
    "DEVICES",
    "DEVICE_POOLS",
    "EVENTS",
    "IDENTITY_ISSUERS",
    "LEASES",
    "MUTATING_WEBHOOKS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICE_ACCOUNTS",
    "STATEFUL_SETS",
    "TOKEN_REVIEWS",
    "TOOL_APPROVALS",
    "TOOL_POLICIES",
    "TOOL_SERVERS",
    "VALIDATING_WEBHOOKS",
    "Resource",
]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: ``group`` is empty for the core group; ``plural`` is the word in URLs."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What ``apiVersion`` says in an object of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str | None = None, namespace: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, of one object, or of a subresource of it.

        A namespaced kind without ``namespace`` is the collection of all namespaces; raises ``ValueError`` where that
        makes no sense, and for a name that is not one path segment.
        """
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name} needs a namespace")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment(name))
        if subresource is not None:
            parts.append(_segment(subresource))
        return "/" + "/".join(parts)


def _segment(text: str) -> str:
    """Return ``text`` if it is one segment: names of objects never need escaping, so what does is somebody's trick."""
    if (
        not text
        or text in {".", ".."}
        or not all(letter.isascii() and (letter.isalnum() or letter in "-._:") for letter in text)
    ):
        raise ValueError("a name holds a character that no Kubernetes name has")
    return text


def _ours(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource("countersign.dev", "v1alpha1", plural, kind, namespaced)


IDENTITY_ISSUERS: Final = _ours("identityissuers", "IdentityIssuer", namespaced=False)
DEVICE_POOLS: Final = _ours("devicepools", "DevicePool", namespaced=False)
DEVICES: Final = _ours("devices", "Device", namespaced=False)
AGENT_IDENTITIES: Final = _ours("agentidentities", "AgentIdentity")
AGENT_INSTANCES: Final = _ours("agentinstances", "AgentInstance")
AGENT_TASKS: Final = _ours("agenttasks", "AgentTask")
TOOL_SERVERS: Final = _ours("toolservers", "ToolServer")
TOOL_POLICIES: Final = _ours("toolpolicies", "ToolPolicy")
CLUSTER_TOOL_POLICIES: Final = _ours("clustertoolpolicies", "ClusterToolPolicy", namespaced=False)
TOOL_APPROVALS: Final = _ours("toolapprovals", "ToolApproval")

NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
CERTIFICATE_REQUESTS: Final = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
CRDS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
MUTATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

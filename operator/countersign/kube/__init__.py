"""The only code (kopf aside) that talks to the API server: read, write, watch, review, lead, tell.

The authority, the operator and the front door connect one :class:`Kube` each, follow what they need with one
:class:`WatchCache`, write status with server-side apply (:func:`set_condition` first), tell people by
:class:`EventRecorder`, and run what only one replica may run under :func:`run_as_leader`. Objects are plain dicts as the API
server stores them; nobody changes one that came out of the cache. Every failure is a :class:`KubeError` whose words say what
to do.

``kube.injection`` is pure: which identity selects a pod, the patch that puts the signer in, and what is wrong with a pod
that should have one. The front door, the authority and the operator ask the same functions. So is ``kube.rotation``: when
a CA whose keys lie in a Secret gives way to the next one.

This room decides nothing about agents, holds no finalizer, never annotates an object of a user (the injected pod aside),
and never repeats a token or a Secret in an error, a log line or an Event.
"""

from countersign.kube.client import Kube
from countersign.kube.conditions import set_condition
from countersign.kube.errors import Conflict, Gone, KubeError, NotFound
from countersign.kube.events import EventRecorder
from countersign.kube.lease import Leader, run_as_leader
from countersign.kube.resources import (
    ACCESS_REVIEWS,
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    AGENT_TASKS,
    CERTIFICATE_REQUESTS,
    CLUSTER_TOOL_POLICIES,
    CONFIG_MAPS,
    CRDS,
    DAEMON_SETS,
    DEPLOYMENTS,
    DEVICE_POOLS,
    DEVICES,
    EVENTS,
    IDENTITY_ISSUERS,
    LEASES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    TOKEN_REVIEWS,
    TOOL_APPROVALS,
    TOOL_POLICIES,
    TOOL_SERVERS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from countersign.kube.reviews import TokenReview
from countersign.kube.watch import WatchCache

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
    "Conflict",
    "EventRecorder",
    "Gone",
    "Kube",
    "KubeError",
    "Leader",
    "NotFound",
    "Resource",
    "TokenReview",
    "WatchCache",
    "run_as_leader",
    "set_condition",
]

"""Is Countersign well? Each part of it judged from objects of one moment. Pure; ``status`` reads and prints.

A part is ``ok``, ``waiting`` (a person has to do something, and nothing is broken), ``bad``, or ``unknown`` where this person
may not look: not to know is never ``ok``.
"""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from countersign.console.cluster import condition, is_true, moment, part
from countersign.console.output import age

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Part", "Seen", "judge"]

_CLOCK_SECONDS: Final = 5
_SOON: Final = timedelta(days=2)
_CA_SOON: Final = timedelta(days=30)
_LEASE_SLACK: Final = timedelta(seconds=5)
_PROCESSES: Final = ("operator", "webhook", "authority")
_KINDS: Final = 8
_NAMED: Final = 3

_Found = list[dict[str, Any]] | None


@dataclass(frozen=True)
class Part:
    """One line of the answer."""

    part: str
    state: str
    detail: str


@dataclass(frozen=True)
class Seen:
    """What was read; None is what this person may not see. ``now`` is this machine's clock, ``server_now`` the API server's."""

    version: str
    now: datetime
    server_now: datetime
    system: str
    crds: _Found = None
    workloads: _Found = None
    pods: _Found = None
    hooks: _Found = None
    leases: _Found = None
    issuers: _Found = None
    pools: _Found = None
    devices: _Found = None
    identities: _Found = None
    instances: _Found = None
    servers: _Found = None
    policies: _Found = None
    scope: str = field(default="")


def judge(seen: Seen) -> list[Part]:
    """Return every part's state, in the order in which a person looks for what is wrong."""
    return [found for look in _LOOKS for found in look(seen)]


def _api_server(seen: Seen) -> Iterator[Part]:
    yield Part("API server", "ok", f"Kubernetes {seen.version}")


def _clock(seen: Seen) -> Iterator[Part]:
    """Compare this machine with the API server; and the API server with what the operator wrote, if it leads."""
    off = abs((seen.now - seen.server_now).total_seconds())
    # The API server's time is told in whole seconds, and travelled.
    good = off <= _CLOCK_SECONDS
    detail = "this machine agrees" if good else f"this machine is {age(off)} off: what it shows as ages is wrong"
    yield Part("clock", "ok" if good else "bad", detail)


def _kinds(seen: Seen) -> Iterator[Part]:
    if seen.crds is None:
        yield _hidden("kinds")
        return
    ours = [one for one in seen.crds if part(one, "spec", "group") == "countersign.dev"]
    waiting = sorted(one["metadata"]["name"] for one in ours if not is_true(one, "Established"))
    good = len(ours) >= _KINDS and not waiting
    yield Part("kinds", "ok" if good else "bad", f"{len(ours) - len(waiting)} of {max(_KINDS, len(ours))} established")


def _processes(seen: Seen) -> Iterator[Part]:
    if seen.workloads is None:
        yield _hidden("processes")
        return
    by_name = {one["metadata"]["name"]: one for one in seen.workloads}
    for name in _PROCESSES:
        found = by_name.get(f"countersign-{name}")
        if found is None:
            yield Part(name, "unknown", f"no Deployment countersign-{name} in {seen.system}: it runs elsewhere or not")
        else:
            yield _workload(name, found, seen.pods)
    if (node := by_name.get("countersign-node")) is not None:
        yield _workload("node", node, seen.pods)


def _workload(name: str, found: dict[str, Any], pods: _Found) -> Part:
    status = found.get("status") or {}
    if found["kind"] == "DaemonSet":
        wanted, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    else:
        wanted, ready = int(found["spec"].get("replicas", 1)), int(status.get("readyReplicas") or 0)
    detail = f"{ready} of {wanted} ready"
    if ready >= wanted > 0 or (wanted == 0 and found["kind"] == "DaemonSet"):
        return Part(name, "ok", detail)
    mine = [one for one in pods or [] if part(one, "metadata", "labels", "app.kubernetes.io/component") == name]
    reasons = sorted({why for one in mine for why in _why_not(one)})
    return Part(name, "bad", f"{detail}{': ' if reasons else ''}{', '.join(reasons)}")


def _why_not(pod: dict[str, Any]) -> Iterator[str]:
    if is_true(pod, "Ready"):
        return
    statuses = part(pod, "status", "containerStatuses") or []
    waiting = [reason for one in statuses if (reason := part(one, "state", "waiting", "reason"))]
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield str(scheduled.get("reason") or "Unschedulable")
    yield from (str(reason) for reason in waiting)


def _leader(seen: Seen) -> Iterator[Part]:
    if seen.leases is None:
        yield _hidden("leader")
        return
    lease = next((one for one in seen.leases if one["metadata"]["name"] == "countersign-operator"), None)
    renewed = None if lease is None else moment(part(lease, "spec", "renewTime"))
    holder = None if lease is None else part(lease, "spec", "holderIdentity")
    if lease is None or renewed is None or not holder:
        yield Part("leader", "bad", "no operator leads: nothing is reconciled")
        return
    since = seen.server_now - renewed
    limit = timedelta(seconds=int(part(lease, "spec", "leaseDurationSeconds") or 15)) + _LEASE_SLACK
    if since > limit:
        yield Part("leader", "bad", f"{holder} was last heard of {age(since.total_seconds())} ago")
    elif since < -_LEASE_SLACK:
        yield Part("leader", "bad", f"the clock of {holder} is {age(-since.total_seconds())} ahead of the API server's")
    else:
        yield Part("leader", "ok", str(holder))


def _admission(seen: Seen) -> Iterator[Part]:
    if seen.hooks is None:
        yield _hidden("admission")
        return
    ours = [one for one in seen.hooks if one["metadata"]["name"] == "countersign"]
    words = {"MutatingWebhookConfiguration": "injection", "ValidatingWebhookConfiguration": "validation"}
    for kind, word in words.items():
        found = next((one for one in ours if one["kind"] == kind), None)
        if found is None:
            yield Part(word, "bad", f"there is no {kind} countersign")
        else:
            yield _bundles(word, found, seen.now)


def _bundles(word: str, found: dict[str, Any], now: datetime) -> Part:
    hooks = found.get("webhooks") or []
    texts = [part(one, "clientConfig", "caBundle") for one in hooks]
    try:
        every = [x509.load_pem_x509_certificates(base64.b64decode(text)) for text in texts]
    except (TypeError, ValueError):
        return Part(word, "bad", "the API server was told no CA of the webhook: the operator writes it")
    # Each bundle is good for as long as one of its roots is.
    until = min((max(one.not_valid_after_utc for one in roots) for roots in every), default=now)
    loose = sorted(one["name"] for one in hooks if one.get("failurePolicy") == "Ignore")
    if until <= now:
        return Part(word, "bad", f"the CA that the API server believes ended on {until:%Y-%m-%d}")
    if loose:
        return Part(word, "bad", f"failurePolicy Ignore: {', '.join(loose)}")
    return Part(word, "ok" if until - now > _SOON else "bad", f"{len(hooks)} webhooks, CA until {until:%Y-%m-%d}")


def _issuers(seen: Seen) -> Iterator[Part]:
    if seen.issuers is None:
        yield _hidden("issuers")
    elif not seen.issuers:
        yield Part("issuers", "waiting", "there is none: no agent can get a certificate")
    for one in seen.issuers or []:
        ready, until = condition(one, "Ready"), moment(part(one, "status", "expirationTime"))
        name = f"issuer {one['metadata']['name']}"
        if ready.get("status") != "True":
            yield Part(name, "bad", _reason(ready))
        elif until is None or until - seen.now < _CA_SOON:
            yield Part(name, "bad", f"its CA ends {'soon' if until is None else f'on {until:%Y-%m-%d}'}")
        else:
            yield Part(name, "ok", f"{one['spec']['trustDomain']}, CA until {until:%Y-%m-%d}")


def _pools(seen: Seen) -> Iterator[Part]:
    yield from _counted("pools", seen.pools, "Ready")


def _devices(seen: Seen) -> Iterator[Part]:
    if seen.devices is None:
        yield _hidden("devices")
        return
    states = Counter(str(one["spec"].get("state") or "Pending") for one in seen.devices)
    attested = sum(is_true(one, "Attested") for one in seen.devices)
    conflicted = sorted(one["metadata"]["name"] for one in seen.devices if is_true(one, "Conflicted"))
    detail = f"{states['Approved']} approved, {attested} attested"
    if conflicted:
        yield Part("devices", "bad", f"{detail}; in conflict: {_few(conflicted)}")
    elif states["Pending"]:
        yield Part(
            "devices", "waiting", f"{detail}; {states['Pending']} wait: kubectl countersign device list --pending"
        )
    else:
        yield Part("devices", "ok", detail)


def _identities(seen: Seen) -> Iterator[Part]:
    yield from _counted(f"identities{seen.scope}", seen.identities, "Ready")


def _instances(seen: Seen) -> Iterator[Part]:
    """Say which instances are not Ready; those that were revoked are as somebody wanted them."""
    name = f"instances{seen.scope}"
    if seen.instances is None:
        yield _hidden(name)
        return
    living = [one for one in seen.instances if not is_true(one, "Revoked")]
    revoked = len(seen.instances) - len(living)
    for found in _counted(name, living, "Ready"):
        yield Part(name, found.state, f"{found.detail}{f'; {revoked} revoked' if revoked else ''}")


def _servers(seen: Seen) -> Iterator[Part]:
    yield from _counted(f"servers{seen.scope}", seen.servers, "Accepted")


def _policies(seen: Seen) -> Iterator[Part]:
    yield from _counted(f"policies{seen.scope}", seen.policies, "Accepted", "ResolvedRefs")


def _counted(name: str, every: _Found, *kinds: str) -> Iterator[Part]:
    """Say how many objects say True of each of ``kinds``, and which do not, with the reason."""
    if every is None:
        yield _hidden(name)
        return
    faults = {_ref(one): fault for one in every for kind in kinds if (fault := _fault(one, kind))}
    detail = f"{len(every) - len(faults)} of {len(every)} {kinds[0]}"
    if faults:
        listed = _few([f"{ref} ({reason})" for ref, reason in sorted(faults.items())])
        yield Part(name, "bad", f"{detail}; {listed}")
    else:
        yield Part(name, "ok", detail)


def _fault(found: dict[str, Any], kind: str) -> str:
    told = condition(found, kind)
    return "" if told.get("status") == "True" else str(told.get("reason") or "not looked at yet")


def _reason(told: dict[str, Any]) -> str:
    return f"{told.get('reason') or 'not looked at yet'}: {told.get('message') or ''}".rstrip(": ")


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _ref(found: dict[str, Any]) -> str:
    meta = found["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _hidden(name: str) -> Part:
    return Part(name, "unknown", "you may not look")


_LOOKS: Final[tuple[Callable[[Seen], Iterator[Part]], ...]] = (
    _api_server,
    _clock,
    _kinds,
    _processes,
    _leader,
    _admission,
    _issuers,
    _pools,
    _devices,
    _identities,
    _instances,
    _servers,
    _policies,
)

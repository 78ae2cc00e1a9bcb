"""A person asks for a rotation by an annotation on a Secret of ours: it begins at once, and nobody is left behind."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest
from controller.test_reconcile import Operator
from controller.test_serving import accepts
from cryptography import x509
from support.cluster import NOW

from countersign.controller import OperatorSettings
from countersign.controller.tokenkeys import read_keys, rotated
from countersign.kube import KubeError

SYSTEM = "countersign-system"
NAMES = ("countersign-ca", "countersign-webhook-tls", "countersign-authority-tls", "countersign-token-keys")


def stored(operator: Operator, name: str) -> dict[str, Any]:
    return operator.kube.objects["secrets", SYSTEM, name]


def ask(operator: Operator, name: str) -> None:
    found = copy.deepcopy(stored(operator, name))
    found["metadata"]["annotations"] = {"countersign.dev/rotate": "now", "who": "ann"}
    operator.kube.put(found)


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


async def later(operator: Operator, by: timedelta) -> None:
    operator.clock.advance(by)
    await operator.material.refresh()


async def made() -> Operator:
    operator = Operator.make()
    await operator.material.refresh()
    operator.clock.advance(timedelta(hours=1))
    return operator


@pytest.mark.parametrize("name", NAMES)
async def test_what_was_asked_for_begins_once_and_the_request_is_taken_away(name: str) -> None:
    operator = await made()
    before = {one: operator.secret(one) for one in NAMES}
    ask(operator, name)
    await operator.material.refresh()
    after = {one: operator.secret(one) for one in NAMES}

    assert {one for one in NAMES if before[one] != after[one]} >= {name}
    assert stored(operator, name)["metadata"]["annotations"] == {"who": "ann"}
    await operator.material.refresh()
    assert {one: operator.secret(one) for one in NAMES} == after


async def test_a_serving_certificate_is_new_at_once_and_its_ca_the_same() -> None:
    operator = await made()
    before = operator.secret("countersign-webhook-tls")
    ask(operator, "countersign-webhook-tls")
    await operator.material.refresh()
    after = operator.secret("countersign-webhook-tls")

    assert after["tls.crt"] != before["tls.crt"]
    assert after["ca.crt"] == before["ca.crt"]
    accepts(before["ca.crt"], after, operator.clock.now())


async def test_a_serving_ca_is_told_first_then_signs_and_the_former_goes_when_nothing_of_it_is_served() -> None:
    operator = await made()
    [old] = certificates(operator.secret("countersign-ca")["ca.crt"])
    ask(operator, "countersign-ca")
    await operator.material.refresh()
    told = operator.secret("countersign-webhook-tls")
    assert [len(certificates(told["ca.crt"])), certificates(told["tls.crt"])[0].issuer] == [2, old.subject]

    await later(operator, timedelta(minutes=10))
    now = operator.secret("countersign-webhook-tls")
    assert certificates(now["tls.crt"])[0].issuer != old.subject
    accepts(told["ca.crt"], now, operator.clock.now())
    await later(operator, timedelta(minutes=9))
    assert old in certificates(operator.secret("countersign-webhook-tls")["ca.crt"])
    await later(operator, timedelta(minutes=1))
    assert old not in certificates(operator.secret("countersign-webhook-tls")["ca.crt"])


async def test_token_keys_of_today_end_when_the_one_that_was_asked_for_begins() -> None:
    operator = await made()
    [old] = read_keys(operator.secret("countersign-token-keys")["keys.json"])
    ask(operator, "countersign-token-keys")
    await operator.material.refresh()
    first, second = read_keys(operator.secret("countersign-token-keys")["keys.json"])

    start = int((operator.clock.now() + timedelta(minutes=10)).timestamp())
    assert (first.kid, first.use_until, second.use_from) == (old.kid, start, start)
    await later(operator, timedelta(minutes=20))
    assert [one.kid for one in read_keys(operator.secret("countersign-token-keys")["keys.json"])] == [second.kid]


def test_asking_for_token_keys_while_a_new_one_waits_changes_nothing() -> None:
    now = int(NOW.timestamp())
    keys = rotated((), now)
    both = rotated(keys, now + 3600, forced=True)
    assert rotated(both, now + 3700, forced=True) == both


async def test_a_given_secret_is_not_touched_whatever_is_asked() -> None:
    operator = await made()
    found = copy.deepcopy(stored(operator, "countersign-webhook-tls"))
    found["metadata"] |= {"labels": {}, "annotations": {"countersign.dev/rotate": "now"}}
    operator.kube.put(found)
    before = json.dumps(stored(operator, "countersign-webhook-tls"))
    await operator.material.refresh()
    assert json.dumps(stored(operator, "countersign-webhook-tls")) == before


async def test_the_metrics_say_when_what_is_served_ends() -> None:
    operator = await made()
    [leaf] = certificates(operator.secret("countersign-webhook-tls")["tls.crt"])
    labels = {"secret": "countersign-webhook-tls"}
    name = "countersign_operator_certificate_expiry_timestamp_seconds"
    assert operator.metrics.registry.get_sample_value(name, labels) == leaf.not_valid_after_utc.timestamp()


async def test_a10_by_a_wrong_clock_nothing_is_made() -> None:
    operator = await made()
    before = {one: operator.secret(one) for one in NAMES}
    ask(operator, "countersign-token-keys")
    operator.kube.clock_skew = -600.0
    with pytest.raises(KubeError, match="clock skew: this machine is 600 s behind the API server"):
        await operator.material.refresh()
    assert {one: operator.secret(one) for one in NAMES} == before
    operator.kube.clock_skew = 0.4
    await operator.material.refresh()
    assert operator.secret("countersign-token-keys") != before["countersign-token-keys"]


def test_a_leader_that_died_is_followed_within_fifteen_seconds() -> None:
    lease = OperatorSettings(cluster="c", webhook_url="https://w", authority_url="https://a").lease
    # Renewed just before it died, and the other asks just before it runs out.
    assert lease.seconds + 1.2 * lease.retry_seconds < 15

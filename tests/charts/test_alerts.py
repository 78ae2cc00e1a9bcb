"""The chart's alerts: PromQL that parses, about metrics and labels that a process really exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import promql_parser as promql
import pytest
import yaml
from support.chart import CHART, one, render
from support.exported import REGISTRIES, exported

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
BY_NAME = {rule["alert"]: rule for rule in RULES}
# What Prometheus itself adds to whatever it scrapes from a pod.
TARGET = {"namespace", "pod", "job", "instance"}
METRICS = {name: one for process in REGISTRIES for name, one in exported(process).items()}
# What must be watched, and the alerts that do.
WANTED = {
    "a CA that ends": "CountersignCAExpiring",
    "a serving certificate that ends": "CountersignServingCertificateExpiring",
    "token keys that end": "CountersignTokenKeysExpiring",
    "a stale watch": "CountersignWatchStale",
    "a burst of denials": "CountersignDeniedBurst",
    "an audit log that does not keep up": "CountersignAuditBacklog",
    "an audit log that refuses": "CountersignAuditRefuses",
    "an operator without a leader": "CountersignOperatorWithoutLeader",
    "signers that do not renew": "CountersignRenewalOverdue",
}


def parts(expression: str) -> Iterator[Any]:
    found: list[Any] = []
    promql.walk(promql.parse(expression), found.append)
    yield from found


def selectors(expression: str) -> list[Any]:
    return [each for each in parts(expression) if isinstance(each, promql.VectorSelector)]


@pytest.mark.parametrize("alert", BY_NAME)
def test_every_metric_of_a_rule_is_exported_and_every_label_known(alert: str) -> None:
    found = selectors(BY_NAME[alert]["expr"])
    assert found
    for each in found:
        assert each.name in METRICS, each.name
        known = {*METRICS[each.name].labels, *TARGET}
        assert {matcher.name for matcher in each.matchers.matchers} <= known
    grouped = [each for each in parts(BY_NAME[alert]["expr"]) if isinstance(each, promql.AggregateExpr)]
    labels = {label for each in found for label in METRICS[each.name].labels} | TARGET
    assert {label for each in grouped if each.modifier for label in each.modifier.labels} <= labels


@pytest.mark.parametrize("alert", BY_NAME)
def test_a_rule_says_how_bad_and_what_to_do(alert: str) -> None:
    rule = BY_NAME[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {*rule["annotations"]} == {"summary", "description"}
    assert alert.startswith("Countersign")
    assert promql.parse_duration(rule.get("for", "1m"))


def test_what_must_be_watched_is_and_by_no_two_rules_of_one_name() -> None:
    assert set(WANTED.values()) <= set(BY_NAME)
    assert len(BY_NAME) == len(RULES)


def test_a_counter_is_asked_for_its_rate_and_a_gauge_is_not() -> None:
    for rule in RULES:
        for each in parts(rule["expr"]):
            if isinstance(each, promql.Call) and each.func.name in ("rate", "increase"):
                [argument] = each.args
                assert METRICS[argument.vector_selector.name].kind == "counter"
        bare = {each.name for each in parts(rule["expr"]) if isinstance(each, promql.VectorSelector)}
        in_matrix = {e.vector_selector.name for e in parts(rule["expr"]) if isinstance(e, promql.MatrixSelector)}
        assert not [name for name in bare - in_matrix if METRICS[name].kind == "counter"]


def test_a_metric_that_no_process_exports_is_found() -> None:
    assert [each.name for each in selectors("sum(rate(countersign_webhook_nothing_total[5m]))")] == [
        "countersign_webhook_nothing_total"
    ]
    assert "countersign_webhook_nothing_total" not in METRICS


def test_the_rule_of_the_chart_is_the_file() -> None:
    rule = one(render("metrics.rules.enabled=true"), "PrometheusRule", "countersign")
    assert [each for group in rule["spec"]["groups"] for each in group["rules"]] == RULES


MONITORS = ("metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true", "node.enabled=true")


def test_every_process_is_scraped_where_it_serves_metrics() -> None:
    objects = render(*MONITORS)
    monitor = one(objects, "ServiceMonitor", "countersign")["spec"]
    [endpoint] = monitor["endpoints"]
    for process in ("operator", "webhook", "authority"):
        service = one(objects, "Service", f"countersign-{process}")
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    pod = one(objects, "DaemonSet", "countersign-node")["spec"]["template"]
    node = one(objects, "PodMonitor", "countersign-node")["spec"]
    assert node["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [port] = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert node["podMetricsEndpoints"][0]["port"] == port


def test_nothing_of_monitoring_is_there_unless_it_is_asked_for() -> None:
    assert not [each for each in render() if each["apiVersion"].startswith("monitoring.coreos.com")]

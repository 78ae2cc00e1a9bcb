"""URLs of kinds; a name that is a piece of a URL is none."""

from __future__ import annotations

import pytest

from countersign.kube import AGENT_INSTANCES, DEVICES, PODS


def test_paths_of_core_grouped_and_cluster_scoped_kinds() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("a", "n") == "/api/v1/namespaces/n/pods/a"
    assert AGENT_INSTANCES.path(namespace="n") == "/apis/countersign.dev/v1alpha1/namespaces/n/agentinstances"
    assert DEVICES.path("d", None, "status") == "/apis/countersign.dev/v1alpha1/devices/d/status"
    assert (PODS.api_version, DEVICES.api_version) == ("v1", "countersign.dev/v1alpha1")


def test_an_object_of_a_namespaced_kind_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        PODS.path("a")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", "ä"])
def test_a_name_is_one_segment(name: str) -> None:
    with pytest.raises(ValueError, match="no Kubernetes name"):
        DEVICES.path(name)

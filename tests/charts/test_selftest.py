"""What `helm test` makes: everything is a hook that is removed, and the programs it runs are whole. ``tests/e2e`` runs it."""

from __future__ import annotations

import yaml
from support.chart import CHART, helm, one, render


def test_everything_of_it_is_a_hook_in_a_namespace_of_its_own_and_is_removed() -> None:
    done = helm("template", "countersign", str(CHART), "--show-only", "templates/tests/call.yaml")
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert {each["metadata"].get("namespace", each["metadata"]["name"]) for each in objects} == {"countersign-test"}
    for each in objects:
        about = each["metadata"]["annotations"]
        assert about["helm.sh/hook"] == "test"
        assert about["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    weights = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in objects}
    assert (weights.pop("Namespace"), weights.pop("Job"), set(weights.values())) == (0, 2, {1})
    for name, program in one(objects, "ConfigMap", "countersign-test")["data"].items():
        compile(program, name, "exec")


def test_an_installation_has_nothing_of_it() -> None:
    assert "countersign-test" not in str(render())

"""``kind-config.yaml`` says what the chart says. kind itself needs Docker, which no test has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from support.chart import CHART, helm, one

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "kind-config.yaml").read_text()
CONFIG = yaml.safe_load(TEXT)
# The commands in its head, lines that go on put together.
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.sub(r"\\\n#\s+", "", TEXT).splitlines()
    if re.match(r"#   (kind|docker|helm) ", line)
    for line in [line.removeprefix("#")]
]


def command(*start: str) -> list[str]:
    (found,) = [words for words in COMMANDS if words[: len(start)] == list(start)]
    return found


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_networks_policy_goes_by_the_addresses_that_kind_gives() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert CONFIG["networking"]["podSubnet"] in values["networkPolicy"]["podCIDRs"]


def test_it_has_two_workers_and_is_called_alike_everywhere() -> None:
    assert [node["role"] for node in CONFIG["nodes"]] == ["control-plane", "worker", "worker"]
    assert option(command("kind", "create"), "--name") == option(command("kind", "load"), "--name")
    assert option(command("kind", "create"), "--config") == "kind-config.yaml"


def test_the_image_that_it_loads_is_the_one_that_the_chart_asks_for() -> None:
    words = command("helm", "install")
    sets = [each for number, word in enumerate(words) if word == "--set" for each in ("--set", words[number + 1])]
    assert (ROOT / words[3]) == CHART
    done = helm("template", words[2], str(CHART), "--skip-tests", "--namespace", option(words, "--namespace"), *sets)
    assert done.returncode == 0, done.stderr
    built = option(command("docker", "build"), "--tag")
    deployment = one([each for each in yaml.safe_load_all(done.stdout) if each], "Deployment", "countersign-webhook")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == (built, "Never")
    assert command("kind", "load")[3] == built

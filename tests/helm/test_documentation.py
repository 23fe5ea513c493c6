"""The chart has the values that docs/kubernetes.md shows, and the page's links and commands are valid."""

import re
from pathlib import Path
from typing import Any

import yaml

from infra.helm.rendering import ChartError, render_releases
from tests.helm import policies
from tests.helm.test_values import MINIMAL, merged

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "kubernetes.md").read_text()


def shown() -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_the_values_shown_install() -> None:
    first, *others = shown()
    assert others
    answers = render_releases(first, *(merged(MINIMAL, values) for values in others))
    assert [str(answer) for answer in answers if isinstance(answer, ChartError)] == []


def test_every_value_that_is_named_in_the_text_is_one() -> None:
    names = {
        line.split("`")[1]
        for line in (REPOSITORY / "infra/helm/sparsewell/README.md").read_text().splitlines()
        if line.startswith("| `")
    }
    sections = {name.split(".")[0] for name in names}
    named = {word.split(":")[0] for word in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)[`:]", TEXT)}
    wrong = {
        name
        for name in named
        if name.split(".")[0] in sections and not any(one == name or one.startswith(f"{name}.") for one in names)
    }
    assert wrong == set()
    assert len({name for name in named if name.split(".")[0] in sections}) > 10


def test_the_secrets_that_are_made_are_those_that_are_mounted() -> None:
    made = {("secret", name) for name in re.findall(r"create secret generic (\S+)", TEXT)}
    made |= {("configMap", name) for name in re.findall(r"create configmap (\S+)", TEXT)}
    (release,) = render_releases(shown()[0])
    assert not isinstance(release, ChartError)
    mounted = {
        (kind, source[kind]["name"])
        for one, _ in policies.containers(release.objects)
        for volume in policies.pod(one)["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for kind in source
    }
    assert mounted == made

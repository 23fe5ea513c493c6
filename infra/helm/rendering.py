"""Renders and lints the chart as Helm 4 does, without a cluster.

Helm's own library does it (helm-python-sdk, of the extra `dev`), in a process of its own: it brings Go's runtime, whose
threads and signal handlers have no place in the process of the tests.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

CHART = Path(__file__).parent / "sparsewell"
RELEASE, NAMESPACE = "search", "prod"

Object = dict[str, Any]

_HELM = """
import json, sys
import helm_python as helm
asked = json.load(sys.stdin)
answers = []
for values in asked["values"]:
    try:
        if asked["lint"]:
            answers.append(helm.lint(asked["chart"], values, strict=True))
        else:
            with helm.Chart.load(asked["chart"]) as chart:
                chart.validate_schema(values)
                answers.append(chart.render(values, name=asked["name"], namespace=asked["namespace"], **asked["flags"]))
    except helm.HelmError as error:
        answers.append({"error": str(error)})
json.dump(answers, sys.stdout)
"""


class ChartError(Exception):
    """Helm refused the values or could not render; its own words."""


@dataclass(frozen=True)
class Rendered:
    """The files of a release by their path in the chart."""

    files: dict[str, str]

    @property
    def objects(self) -> list[Object]:
        """The Kubernetes objects, in the order of their files."""
        manifests = (text for name, text in sorted(self.files.items()) if name.endswith(".yaml"))
        return [found for text in manifests for found in yaml.safe_load_all(text) if found]

    @property
    def notes(self) -> str:
        """What Helm prints after the installation."""
        return next(text for name, text in self.files.items() if name.endswith("NOTES.txt"))

    @property
    def text(self) -> str:
        """All of it as it is committed under tests/helm/golden."""
        files = ((name, text.strip()) for name, text in sorted(self.files.items()))
        return "".join(
            f"---\n# {name}\n{text if name.endswith('.yaml') else indent(text, '# ', lambda _: True)}\n"
            for name, text in files
            if text
        )


def case(name: str) -> dict[str, Any]:
    """The values of ci/NAME.yaml."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())
    return values


def cases() -> list[str]:
    """The names of the values files that the chart is tested with."""
    return sorted(file.stem for file in (CHART / "ci").glob("*.yaml"))


def render(*values: dict[str, Any], **flags: bool) -> list[Rendered | ChartError]:
    """A release for each of the values, or why there is none."""
    answers = _helm(values, lint=False, flags=flags)
    return [ChartError(one["error"]) if "error" in one else Rendered(one) for one in answers]


def rendered(values: dict[str, Any], **flags: bool) -> Rendered:
    """The release of the values. Raises ChartError."""
    (one,) = render(values, **flags)
    if isinstance(one, ChartError):
        raise one
    return one


def lint(values: dict[str, Any], chart: Path = CHART) -> list[str]:
    """What `helm lint --strict` has to say beyond hints."""
    (report,) = _helm([values], lint=True, chart=chart)
    if "error" in report:
        return [report["error"]]
    grave = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] > 1]
    return grave + list(report["errors"])


def _helm(values: Any, *, lint: bool, chart: Path = CHART, flags: dict[str, bool] | None = None) -> list[Any]:
    asked = {"chart": str(chart), "values": list(values), "lint": lint, "name": RELEASE, "namespace": NAMESPACE}
    done = subprocess.run(
        [sys.executable, "-c", _HELM], input=json.dumps(asked | {"flags": flags or {}}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ChartError(done.stderr)
    answers: list[Any] = json.loads(done.stdout)
    return answers

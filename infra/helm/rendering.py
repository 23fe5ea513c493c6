"""Renders and lints the chart as Helm 4 does, without a cluster.

Helm's own library does it (helm-python-sdk, of the extra `dev`), in a process of its own: it brings Go's runtime, whose
threads and signal handlers have no place in the process of the tests.

The table of values in the chart's README, made of values.yaml and the comments in it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

CHART = Path(__file__).parent / "sparsewell"
RELEASE, NAMESPACE = "search", "prod"

KubernetesObject = dict[str, Any]

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
class RenderedRelease:
    """The files of a release by their path in the chart."""

    files: dict[str, str]

    @property
    def objects(self) -> list[KubernetesObject]:
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


def load_case_values(name: str) -> dict[str, Any]:
    """The values of ci/NAME.yaml."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())
    return values


def list_cases() -> list[str]:
    """The names of the values files that the chart is tested with."""
    return sorted(file.stem for file in (CHART / "ci").glob("*.yaml"))


def render_releases(*values: dict[str, Any], **flags: bool) -> list[RenderedRelease | ChartError]:
    """A release for each of the values, or why there is none."""
    answers = _run_helm(values, lint=False, flags=flags)
    return [ChartError(one["error"]) if "error" in one else RenderedRelease(one) for one in answers]


def render_release(values: dict[str, Any], **flags: bool) -> RenderedRelease:
    """The release of the values. Raises ChartError."""
    (one,) = render_releases(values, **flags)
    if isinstance(one, ChartError):
        raise one
    return one


def lint_chart(values: dict[str, Any], chart: Path = CHART) -> list[str]:
    """What `helm lint --strict` has to say beyond hints."""
    (report,) = _run_helm([values], lint=True, chart=chart)
    if "error" in report:
        return [report["error"]]
    grave = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] > 1]
    return grave + list(report["errors"])


def _run_helm(values: Any, *, lint: bool, chart: Path = CHART, flags: dict[str, bool] | None = None) -> list[Any]:
    asked = {"chart": str(chart), "values": list(values), "lint": lint, "name": RELEASE, "namespace": NAMESPACE}
    done = subprocess.run(
        [sys.executable, "-c", _HELM], input=json.dumps(asked | {"flags": flags or {}}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ChartError(done.stderr)
    answers: list[Any] = json.loads(done.stdout)
    return answers


TABLE_BEGIN, TABLE_END = "<!-- values: made by `python -m infra.helm` -->", "<!-- /values -->"


def iter_value_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each value; what has members of its own is a row only where it has a comment."""
    root = yaml.compose(text, yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _iter_node_rows(root, "", text.splitlines())


def _iter_node_rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name, said = f"{prefix}{key.value}", _comment(lines, key.start_mark.line)
        passed_on = key.value in ("resources", "podSecurityContext", "securityContext")
        if isinstance(value, yaml.MappingNode) and value.value and not passed_on:
            if said:
                yield name, "", said
            yield from _iter_node_rows(value, f"{name}.", lines)
        else:
            plain = yaml.safe_load(yaml.serialize(value))
            yield name, json.dumps(plain, ensure_ascii=False), said


def _comment(lines: list[str], line: int) -> str:
    found: list[str] = []
    indent = len(lines[line]) - len(lines[line].lstrip())
    while line and re.match(rf"^ {{{indent}}}# ", lines[line - 1]):
        line -= 1
        found.insert(0, lines[line].strip()[2:])
    return " ".join(found)


def values_table(chart: Path = CHART) -> str:
    """The table as Markdown."""
    found = iter_value_rows((chart / "values.yaml").read_text())
    body = "".join(f"| `{name}` | {f'`{value}`' if value else ''} | {said} |\n" for name, value, said in found)
    return f"| value | default | |\n|---|---|---|\n{body.replace('`` |', '|')}"


def replace_values_table(readme: str, values: str) -> str:
    """The README with its table replaced."""
    before, _, rest = readme.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{values}{TABLE_END}{after}"

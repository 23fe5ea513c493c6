"""Rendering and linting of the Helm chart without a cluster, and the table of its values.

Helm 4 itself renders, as a library (helm-python-sdk, in the extra `dev`; docs/decisions/0215). It runs in a process of
its own, because it brings Go's runtime with its threads and signal handlers. The table in the chart's README has a row
for each value of values.yaml, with its comment.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

CHART = Path(__file__).parent / "sparsewell"
# Values for users who try the service on one node. The files in ci/ are for the tests alone.
TRIAL_PROFILE = CHART / "values-trial.yaml"
RELEASE, NAMESPACE = "search", "prod"

KubernetesObject = dict[str, Any]

# libyaml, which the wheels of PyYAML contain, reads a release in a tenth of the time of the loader in Python.
_Loader = yaml.CSafeLoader

_HELM = """
import json, sys
import helm_python as helm
request = json.load(sys.stdin)
answers = []
for values in request["values"]:
    try:
        if request["lint"]:
            answers.append(helm.lint(request["chart"], values, strict=True))
        else:
            with helm.Chart.load(request["chart"]) as chart:
                chart.validate_schema(values)
                release = {"name": request["name"], "namespace": request["namespace"], **request["flags"]}
                answers.append(chart.render(values, **release))
    except helm.HelmError as error:
        answers.append({"error": str(error)})
json.dump(answers, sys.stdout)
"""


class ChartError(Exception):
    """Helm's refusal of the values or of a template, in Helm's own words."""


@dataclass(frozen=True)
class RenderedRelease:
    """Rendered files of a release, by their path in the chart."""

    files: dict[str, str]

    @cached_property
    def objects(self) -> list[KubernetesObject]:
        """Return the Kubernetes objects, in the order of their files."""
        manifests = (text for name, text in sorted(self.files.items()) if name.endswith(".yaml"))
        return [manifest for text in manifests for manifest in yaml.load_all(text, _Loader) if manifest]

    @property
    def notes(self) -> str:
        """Return the text that Helm prints after the installation."""
        return next(text for name, text in self.files.items() if name.endswith("NOTES.txt"))

    @property
    def text(self) -> str:
        """Return all files as one text, in the form of the golden files."""
        files = ((name, text.strip()) for name, text in sorted(self.files.items()))
        return "".join(
            f"---\n# {name}\n{text if name.endswith('.yaml') else indent(text, '# ', lambda _: True)}\n"
            for name, text in files
            if text
        )


def load_case_values(name: str) -> dict[str, Any]:
    """Return the values of ci/NAME.yaml, or of the profile `trial`."""
    file = TRIAL_PROFILE if name == "trial" else CHART / "ci" / f"{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(file.read_text())
    return values


def list_cases() -> list[str]:
    """Return the names of the values files that the chart is tested with."""
    return sorted(["trial", *(file.stem for file in (CHART / "ci").glob("*.yaml"))])


def render_releases(*values: dict[str, Any], **flags: bool) -> list[RenderedRelease | ChartError]:
    """Render a release for each of the values; return its error where Helm refuses them."""
    answers = _run_helm(values, lint=False, flags=flags)
    return [ChartError(answer["error"]) if "error" in answer else RenderedRelease(answer) for answer in answers]


def render_release(values: dict[str, Any], **flags: bool) -> RenderedRelease:
    """Render the release of the values. Raises ChartError."""
    (release,) = render_releases(values, **flags)
    if isinstance(release, ChartError):
        raise release
    return release


def lint_chart(values: dict[str, Any], chart: Path = CHART) -> list[str]:
    """Return the errors and warnings of `helm lint --strict`."""
    (report,) = _run_helm([values], lint=True, chart=chart)
    if "error" in report:
        return [report["error"]]
    messages = [f"{hint['path']}: {hint['error']}" for hint in report["messages"] if hint["severity"] > 1]
    return messages + list(report["errors"])


def _run_helm(values: Any, *, lint: bool, chart: Path = CHART, flags: dict[str, bool] | None = None) -> list[Any]:
    request = {"chart": str(chart), "values": list(values), "lint": lint, "name": RELEASE, "namespace": NAMESPACE}
    completed = subprocess.run(
        [sys.executable, "-c", _HELM], input=json.dumps(request | {"flags": flags or {}}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if completed.returncode:
        raise ChartError(completed.stderr)
    answers: list[Any] = json.loads(completed.stdout)
    return answers


TABLE_BEGIN, TABLE_END = "<!-- values: made by `python -m infra.helm` -->", "<!-- /values -->"


def iter_value_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and comment of each value; an object with members only where it has a comment."""
    root = yaml.compose(text, _Loader)
    if isinstance(root, yaml.MappingNode):
        yield from _iter_node_rows(root, "", text.splitlines())


def _iter_node_rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name, comment = f"{prefix}{key.value}", _comment_above(lines, key.start_mark.line)
        # Kubernetes defines the members of these objects.
        is_opaque = key.value in ("resources", "podSecurityContext", "securityContext")
        if isinstance(value, yaml.MappingNode) and value.value and not is_opaque:
            if comment:
                yield name, "", comment
            yield from _iter_node_rows(value, f"{name}.", lines)
        else:
            plain = yaml.safe_load(yaml.serialize(value))
            yield name, json.dumps(plain, ensure_ascii=False), comment


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    indent = len(lines[line]) - len(lines[line].lstrip())
    while line and re.match(rf"^ {{{indent}}}# ", lines[line - 1]):
        line -= 1
        comment.insert(0, lines[line].strip()[2:])
    return " ".join(comment)


def values_table(chart: Path = CHART) -> str:
    """Return the table of values as Markdown."""
    rows = iter_value_rows((chart / "values.yaml").read_text())
    body = "".join(f"| `{name}` | {f'`{value}`' if value else ''} | {comment} |\n" for name, value, comment in rows)
    return f"| value | default | |\n|---|---|---|\n{body.replace('`` |', '|')}"


def replace_values_table(readme: str, values: str) -> str:
    """Return the README with the new table."""
    before, _, rest = readme.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{values}{TABLE_END}{after}"

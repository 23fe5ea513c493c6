"""The table of values in the chart's README, made of values.yaml and the comments in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from infra.helm.rendering import CHART

BEGIN, END = "<!-- values: made by `python -m infra.helm` -->", "<!-- /values -->"


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each value; what has members of its own is a row only where it has a comment."""
    root = yaml.compose(text, yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _rows(root, "", text.splitlines())


def _rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name, said = f"{prefix}{key.value}", _comment(lines, key.start_mark.line)
        passed_on = key.value in ("resources", "podSecurityContext", "securityContext")
        if isinstance(value, yaml.MappingNode) and value.value and not passed_on:
            if said:
                yield name, "", said
            yield from _rows(value, f"{name}.", lines)
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


def table(chart: Path = CHART) -> str:
    """The table as Markdown."""
    found = rows((chart / "values.yaml").read_text())
    body = "".join(f"| `{name}` | {f'`{value}`' if value else ''} | {said} |\n" for name, value, said in found)
    return f"| value | default | |\n|---|---|---|\n{body.replace('`` |', '|')}"


def with_table(readme: str, values: str) -> str:
    """The README with its table replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{values}{END}{after}"

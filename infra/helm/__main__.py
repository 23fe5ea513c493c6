"""`python -m infra.helm`: writes anew what of the chart is made of something else, and its golden files."""

import json
from pathlib import Path

from infra.helm.rendering import CHART, list_cases, load_case_values, render_release, replace_values_table, values_table
from infra.helm.values_schema import values_schema

MONITORING = Path(__file__).parents[1] / "monitoring"
GOLDEN = Path(__file__).parents[2] / "tests" / "helm" / "golden"


def generate_files() -> dict[Path, str]:
    """The files of the chart that are made, and what is in them."""
    readme = CHART / "README.md"
    # Copies, because a chart reads no file outside of it.
    monitoring = {CHART / "files" / name: (MONITORING / name).read_text() for name in ("rules.yml", "dashboard.json")}
    return monitoring | {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
        readme: replace_values_table(readme.read_text(), values_table()),
    }


def main() -> None:
    """Writes everything; what is printed has changed."""
    files = generate_files()
    # the schema first: the releases are rendered by it
    for path, text in files.items():
        _write(path, text)
    for name in list_cases():
        _write(GOLDEN / f"{name}.yaml", render_release(load_case_values(name)).text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()

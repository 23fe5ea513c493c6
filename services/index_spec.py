"""Index declarations (`IndexSpec`), generations and the OpenSearch names of both.

A client declares an index: fields, encoder, windows, language, talk. Each generation records the declaration and the
encoder in its mapping's `_meta`. `IndexNames` builds OpenSearch names under the installation's prefix.
`DocumentLimits` bounds the size of documents. See docs/decisions/0095 (reindex), 0171 (windows) and 0190 (talk).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import not_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from services.encoders.manifest import DenseIdentity, WindowSettings
from services.errors import InvalidInput, TooLarge
from services.talk.parse import validate_link_template

FieldType = Literal["keyword", "text", "number", "date", "boolean"]
# The source of a document's sparse score: its merged vector, or its best window.
ScoreBy = Literal["document", "window"]
WindowStorage = Literal["merged", "nested", "both"]
# The languages of OpenSearch's analysers.
Language = Literal[
    "arabic", "armenian", "basque", "bengali", "brazilian", "bulgarian", "catalan", "cjk", "czech", "danish", "dutch",
    "english", "estonian", "finnish", "french", "galician", "german", "greek", "hindi", "hungarian", "indonesian",
    "irish", "italian", "latvian", "lithuanian", "norwegian", "persian", "portuguese", "romanian", "russian", "sorani",
    "spanish", "standard", "swedish", "thai", "turkish",
]  # fmt: skip
_SCORED_BY: dict[WindowStorage, tuple[ScoreBy, ...]] = {
    "merged": ("document",),
    "nested": ("window",),
    "both": ("window", "document"),
}

# OpenSearch's index names are lower case, do not begin with - _ +, contain none of \ / * ? " < > | space , # : and have
# at most 255 bytes. The dot separates the generation.
_INDEX_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,99}$")
_FIELD_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
MAX_FIELDS = 100


def validate_index_name(name: str) -> str:
    """Return the name if it is valid. Raises InvalidInput (`invalid_index_name`)."""
    if not _INDEX_NAME.fullmatch(name):
        raise InvalidInput(
            "invalid_index_name",
            "An index name has 1 to 100 lower-case letters, digits, hyphens and underscores "
            "and begins with a letter or a digit.",
        )
    return name


# Earlier names of members of `TalkSettings`, accepted in requests and read from stored declarations.
_DEPRECATED_TALK_MEMBERS = {
    "titles_in_keywords": "titles_in_lexical",
    "chapter_in_keywords": "chapter_in_lexical",
    "passage_in_keywords": "passage_in_lexical",
}


def rename_deprecated_talk_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a talk declaration under their present names. Raises ValueError if a member has both."""
    renamed = {}
    for name, value in members.items():
        present = _DEPRECATED_TALK_MEMBERS.get(name, name)
        if present != name and present in members:
            raise ValueError(f"`{name}` is the deprecated name of `{present}`: give only one of them")
        renamed[present] = value
    return renamed


def _describe_deprecated_talk_members(schema: dict[str, Any]) -> None:
    """Add the deprecated members to the JSON schema."""
    properties = schema["properties"]
    for name, present in _DEPRECATED_TALK_MEMBERS.items():
        properties[name] = {
            "type": "number",
            "deprecated": True,
            "title": name.replace("_", " ").title(),
            "description": f"earlier name of `{present}`, accepted in requests only",
        }


class TalkSettings(BaseModel):
    """Chapters and links of documents of the kind `talk`. A producer's own chapters are always kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_describe_deprecated_talk_members)

    chapters: Literal["tiling", "podtile", "none"] = Field(
        "tiling", description="engine that makes chapters if the producer gave none"
    )
    link: str | None = Field(
        None,
        max_length=2000,
        description="template of the URL that plays a talk from a time: `{url}` of the recording, `{id}` of the "
        "document, `{start}` in seconds; null: `{url}#t={start}`",
    )
    titles_in_lexical: float = Field(
        0,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="weight of the BM25 score of the chapter titles in the lexical score of a document; 0: not used",
    )
    chapter_in_lexical: float = Field(
        0,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="weight of the lexical score of the best chapter in that of a document; 0: not used",
    )
    passage_in_lexical: float = Field(
        0.5,
        ge=0,
        le=10,
        strict=True,
        allow_inf_nan=False,
        description="weight of the lexical score of the best passage in that of a document; 0: not used",
    )
    titles_in_vectors: bool = Field(
        False, strict=True, description="prepend the chapter's title to each window before encoding"
    )

    @model_validator(mode="before")
    @classmethod
    def _rename_deprecated(cls, members: Any) -> Any:
        return rename_deprecated_talk_members(members) if isinstance(members, dict) else members

    @field_validator("link")
    @classmethod
    def _validate_link(cls, link: str | None) -> str | None:
        return None if link is None else validate_link_template(link)


def _limit_fields(fields: Any) -> Any:
    """Refuse too many fields before each is validated: the errors of 29,000 fields took 20 MiB."""
    if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
        kinds = {"field_type": "Dictionary", "max_length": MAX_FIELDS, "actual_length": len(fields)}
        raise PydanticKnownError("too_long", kinds)
    return fields


class IndexSpec(BaseModel):
    """Body of PUT /v1/indexes/{index}. Every member has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: Annotated[dict[str, FieldType], BeforeValidator(_limit_fields)] = Field(
        default_factory=dict, max_length=MAX_FIELDS
    )
    encoder: str | None = Field(None, description="name of an encoder of the API; null: the configured one")
    window: WindowSettings | None = Field(None, description="null: the recommendation of the encoder's manifest")
    document_top_k: int = Field(
        512, strict=True, ge=1, le=8192, description="number of a document's heaviest pieces that are indexed"
    )
    windows: WindowStorage = Field(
        "merged",
        description="searched vectors: `merged`, one for each document; `nested`, one for each window, as nested "
        "documents; or `both`, the default with talk",
    )
    language: Language = Field(
        "english", description="analyser of lexical search: a language of OpenSearch, or `standard` without stemming"
    )
    dense: str | None = Field(
        None, description="dense encoder whose vectors are stored for reranking; null: no vectors"
    )
    talk: TalkSettings | None = Field(None, description="allows documents that are talk; may be an empty object")
    # The default is not stored: earlier versions of the service refuse a declaration with an unknown member.
    adapt_weights: bool = Field(
        True,
        strict=True,
        exclude_if=bool,
        description="adapt the weights of query pieces to the documents of the index, once it has enough of them",
    )
    # Not stored either, for the same reason.
    piece_features: bool = Field(
        False,
        strict=True,
        exclude_if=not_,
        description="also index each document's vector in the field `pieces`, whose features have the pieces as names, "
        "as OpenSearch's `neural_sparse` query reads them",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_windows_of_talk(cls, members: Any) -> Any:
        """Store window vectors for talk: passages need them, and NDCG@10 over meetings is .441 instead of .390."""
        if isinstance(members, dict) and members.get("talk") is not None and "windows" not in members:
            return {**members, "windows": "both"}
        return members

    @property
    def scored_by(self) -> tuple[ScoreBy, ...]:
        """Sources of sparse scores in this index. The first is the default of a search."""
        return _SCORED_BY[self.windows]

    @property
    def spelling_field(self) -> str:
        """The field with the unstemmed words: the lexical field, if the language does not stem."""
        return "lexical" if self.language == "standard" else "spelling"

    @field_validator("fields")
    @classmethod
    def _validate_field_names(cls, fields: dict[str, FieldType]) -> dict[str, FieldType]:
        for name in fields:
            if not _FIELD_NAME.fullmatch(name):
                raise ValueError(
                    f"invalid field name {name[:80]!r}: 1 to 64 letters, digits and underscores, letter first"
                )
        return fields


class EncoderIdentity(BaseModel):
    """Encoder that made the vectors of a generation."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str


class Generation(BaseModel):
    """Physical index behind an alias, as its mapping's `_meta` records it."""

    # The stored name of the lineage is `identity`.
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    index: str = Field(description="the client's name of the index")
    number: int = Field(ge=1)
    physical: str = Field(description="OpenSearch's name of the generation")
    spec: IndexSpec
    encoder: EncoderIdentity
    window: WindowSettings
    dense: DenseIdentity | None = None
    created_at: str
    lineage: str = Field(
        "",
        alias="identity",
        description="id that all generations of an index share; a deleted and recreated index has another",
    )
    token: str = Field("", description="id of this generation: its number may be used again")
    suggests: bool = Field(
        False, description="titles and words are indexed for suggestions; false for generations made before that"
    )
    titles: bool = Field(False, description="the words of titles are also indexed on their own")
    folds: bool = Field(False, description="lexical search folds accents; false for generations made before that")
    frequencies: int = Field(
        0, ge=0, description="version of the piece frequencies that query weights are adapted to; 0: not adapted"
    )
    counted: int = Field(0, ge=0, description="number of encoded documents of the generation at the time of the count")
    chapters: str = Field(
        "", description="fingerprint of the engine that makes the chapters of talk; empty: any worker's engine"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_lineage(cls, members: Any) -> Any:
        """Take the creation time as the lineage of a generation that was made before lineages."""
        if isinstance(members, dict) and not members.get("identity") and not members.get("lineage"):
            return {**members, "identity": members.get("created_at", "")}
        return members

    @property
    def alias(self) -> str:
        """Alias of the index, which points to one generation at a time."""
        return self.physical.rpartition(".")[0]

    @property
    def write_alias(self) -> str:
        """Alias for writes that belong to this generation alone: vectors, attempts, a reindex.

        OpenSearch creates a missing index on a write, but not a missing alias (`require_alias`). So a late write to a
        deleted generation fails: it does not create an index without a mapping. The alias contains the token, so the
        write does not put vectors of another encoder into a later generation with the same number either.
        """
        return f"{self.physical}.w{self.token}"


class IndexNames:
    """OpenSearch names under a prefix. `-` begins client names and `_` our own, so the two never collide."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.jobs = f"{prefix}_jobs"
        self.reindexes = f"{prefix}_reindexes"
        self.curation = f"{prefix}_curation"
        self.queries = f"{prefix}_queries"
        self.keys = f"{prefix}_keys"
        self.frequencies = f"{prefix}_frequencies"
        self.every_alias = f"{prefix}-*"
        self.every_write_alias = f"{prefix}-*.w*"
        self.every_physical = f"{prefix}-*.g*"

    def alias(self, index: str) -> str:
        """Return the alias of an index. Raises InvalidInput (`invalid_index_name`)."""
        return f"{self.prefix}-{validate_index_name(index)}"

    def physical(self, index: str, number: int) -> str:
        """Return the physical name of a generation."""
        return f"{self.alias(index)}.g{number:06d}"

    def is_generation(self, index: str, physical: str) -> bool:
        """Tell whether a physical name has the form of a generation of the index."""
        return re.fullmatch(re.escape(self.alias(index)) + r"\.g\d{6,12}", physical, re.ASCII) is not None

    def every_generation(self, index: str) -> str:
        """Return the wildcard for all generations of an index."""
        return f"{self.alias(index)}.g*"


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Largest documents in bytes of JSON. Talk has its own limit, because segments take more bytes than words."""

    document: int = 1024**2
    talk: int = 8 * 1024**2

    def longest(self, spec: IndexSpec) -> int:
        """Return the largest size of any document that an index accepts."""
        return self.document if spec.talk is None else max(self.document, self.talk)

    def check(self, size: int, spec: IndexSpec, *, talk: bool) -> None:
        """Check the size of a document. Raises TooLarge (`document_too_large`)."""
        talk = talk and spec.talk is not None
        if size > (limit := self.talk if talk else self.document):
            kind = "document that is talk" if talk else "document"
            raise TooLarge("document_too_large", f"A {kind} may have at most {limit:,} bytes of JSON.")


DEFAULT_DOCUMENT_LIMITS = DocumentLimits()

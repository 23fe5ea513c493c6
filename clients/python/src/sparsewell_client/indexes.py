"""Index specifications, indexes and encoders."""

from typing import Literal

from pydantic import BaseModel, Field

from sparsewell_client.search_request import RequestModel

FieldType = Literal["keyword", "text", "number", "date", "boolean"]
Language = Literal[
    "arabic", "armenian", "basque", "bengali", "brazilian", "bulgarian", "catalan", "cjk", "czech", "danish", "dutch",
    "english", "estonian", "finnish", "french", "galician", "german", "greek", "hindi", "hungarian", "indonesian",
    "irish", "italian", "latvian", "lithuanian", "norwegian", "persian", "portuguese", "romanian", "russian", "sorani",
    "spanish", "standard", "swedish", "thai", "turkish",
]  # fmt: skip


class WindowSettings(RequestModel):
    """Length of a window in pieces, without special pieces, and pieces that neighbouring windows share."""

    pieces: int
    overlap: int


class TalkSettings(RequestModel):
    """How talk is divided into chapters, scored and linked. A producer's own chapters are always kept."""

    chapters: Literal["tiling", "podtile", "none"] = Field(
        "tiling", description="engine that makes chapters when the producer gave none"
    )
    link: str | None = Field(
        None,
        description="template of a link that plays a talk, with `{url}`, `{id}` and `{start}` (seconds); "
        "null: `{url}#t={start}`",
    )
    titles_in_lexical: float = Field(0, description="lexical score: factor of BM25 over the titles of chapters")
    chapter_in_lexical: float = Field(0, description="lexical score: factor of the best chapter's score")
    passage_in_lexical: float = Field(0.5, description="lexical score: factor of the best passage's score")
    titles_in_vectors: bool = Field(False, description="encode the title of the chapter before each window")


class IndexSpec(RequestModel):
    """Specification of a new index. Every member has a default."""

    fields: dict[str, FieldType] = Field(default={}, description="declared metadata: name and type")
    encoder: str | None = Field(None, description="name of an encoder; null: the API's default")
    window: WindowSettings | None = Field(None, description="null: as the encoder's manifest recommends")
    document_top_k: int = Field(512, description="number of heaviest pieces of a document to index")
    windows: Literal["merged", "nested", "both"] = Field(
        "merged",
        description="vectors to search: one merged vector a document, one for each window, or both "
        "(the default for talk)",
    )
    language: Language = Field("english", description="analyser of lexical search; `standard` does not stem")
    dense: str | None = Field(None, description="dense encoder whose vectors are stored for reranking; null: none")
    talk: TalkSettings | None = Field(None, description="accept talk; an empty object takes the defaults")
    adapt_weights: bool = Field(True, description="adapt the weights of query pieces to the documents of the index")
    piece_features: bool = Field(
        False, description="also index vectors in the field `pieces`, for OpenSearch's neural_sparse query"
    )


class DenseIdentity(BaseModel):
    """The dense encoder of a generation, and the windows that it encodes."""

    name: str
    fingerprint: str
    width: int = Field(description="dimensions of a vector")
    window: WindowSettings


class IndexAnswer(BaseModel):
    """An index. `documents` counts documents by state."""

    name: str
    generation: int
    fields: dict[str, str]
    encoder: dict[str, str]
    window: dict[str, int]
    windows: str = Field(description="vectors to search: `merged`, `nested` or `both`")
    language: str
    document_top_k: int
    adapt_weights: bool = Field(description="whether query weights are adapted to the documents")
    piece_features: bool = Field(False, description="whether the field `pieces` has vectors by piece")
    adapted_to: int = Field(description="number of documents when their pieces were counted; 0: not adapted yet")
    dense: DenseIdentity | None = Field(description="dense encoder for reranking; null: none")
    talk: TalkSettings | None = Field(None, description="null: talk is not accepted")
    suggests: bool = Field(description="whether suggestions work; false: the index must be reindexed for them")
    folds: bool = Field(
        False, description="whether lexical search folds accents; false: the index must be reindexed for it"
    )
    created_at: str
    documents: dict[str, int] | None = None


class IndexList(BaseModel):
    """All indexes that the key may see."""

    indexes: list[IndexAnswer]


class EncoderAnswer(BaseModel):
    """An encoder whose query table the API has."""

    name: str
    fingerprint: str
    default: bool = Field(description="whether new indexes get it by default")
    licence: str


class EncoderList(BaseModel):
    """All encoders whose query tables the API has."""

    encoders: list[EncoderAnswer]

"""Typed client of the sparsewell API: blocking (`Client`) and asynchronous (`AsyncClient`).

    from sparsewell_client import Client

    with Client("http://127.0.0.1:8010") as client:
        for hit in client.search("books", "revenge at sea", filter={"field": "year", "range": {"gte": 1800}}).hits:
            print(hit.score, hit.title)

Answers are pydantic models. Errors are classes of `sparsewell_client.errors`: the API's code `index_not_found` is
raised as `NotFound` with that `code`.
"""

from sparsewell_client.async_client import AsyncClient
from sparsewell_client.client import Client
from sparsewell_client.curation import CurationAnswer, CurationVersion, DryRunAnswer, Rules
from sparsewell_client.documents import (
    ChaptersAnswer,
    DeadLetterList,
    DocumentAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from sparsewell_client.errors import (
    BackendUnavailable,
    ConfigurationError,
    Conflict,
    EncoderMismatch,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    TooLarge,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
)
from sparsewell_client.indexes import EncoderList, IndexAnswer, IndexSpec
from sparsewell_client.search_answer import (
    AddedQueries,
    FrequentQueries,
    FrequentQuery,
    Hit,
    MultiIndexAnswer,
    RemovedQueries,
    SearchAnswer,
    SuggestAnswer,
    Suggestion,
)
from sparsewell_client.search_request import SearchRequest

__all__ = [
    "AddedQueries",
    "AsyncClient",
    "BackendUnavailable",
    "ChaptersAnswer",
    "Client",
    "ConfigurationError",
    "Conflict",
    "CurationAnswer",
    "CurationVersion",
    "DeadLetterList",
    "DocumentAnswer",
    "DryRunAnswer",
    "EncoderList",
    "EncoderMismatch",
    "Forbidden",
    "FrequentQueries",
    "FrequentQuery",
    "Hit",
    "IndexAnswer",
    "IndexSpec",
    "IngestAnswer",
    "InvalidInput",
    "JobAnswer",
    "MultiIndexAnswer",
    "NotFound",
    "Overloaded",
    "RemovedQueries",
    "RetryAnswer",
    "Rules",
    "SearchAnswer",
    "SearchRequest",
    "SparsewellError",
    "SuggestAnswer",
    "Suggestion",
    "TooLarge",
    "TooSlow",
    "Unauthorized",
    "UnsupportedMediaType",
]

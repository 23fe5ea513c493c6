"""A typed client of the REST service, blocking (`Client`) and asynchronous (`AsyncClient`).

    from sparsewell.client import Client

    with Client("http://127.0.0.1:8010") as client:
        for hit in client.search("books", "revenge at sea", filter={"field": "year", "range": {"gte": 1800}}).hits:
            print(hit.score, hit.title)

Requests and answers are the service's own models, errors its own error tree: what the API calls `index_not_found` is
raised as `NotFound` with that `code`.
"""

from query_api.curation_form import CurationAnswer, CurationVersion, DryRunAnswer
from query_api.models import (
    DeadList,
    DocumentAnswer,
    EncoderList,
    IndexAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from query_api.queries_form import AddedQueries, FrequentQueries, FrequentQuery, RemovedQueries
from query_api.search.across_form import AcrossAnswer
from query_api.search.answer import Hit, SearchAnswer
from query_api.search.request import SearchRequest
from query_api.suggest_form import SuggestAnswer, Suggestion
from query_api.talk_form import ChaptersAnswer
from services.curation.rules import Rules
from services.errors import (
    BackendUnavailable,
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
from services.index_spec import IndexSpec
from sparsewell.client.asynchronous import AsyncClient
from sparsewell.client.blocking import Client

__all__ = [
    "AcrossAnswer",
    "AddedQueries",
    "AsyncClient",
    "BackendUnavailable",
    "ChaptersAnswer",
    "Client",
    "Conflict",
    "CurationAnswer",
    "CurationVersion",
    "DeadList",
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

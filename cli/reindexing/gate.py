"""The quality gate of a reindexing: both generations answer the same judged questions before one replaces the other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.relevance.collection import Judgements, read_judgements, read_queries
from cli.relevance.metrics import Ranking, measure
from services.errors import BackendUnavailable, ConfigurationError, Conflict, InvalidInput
from services.fusion import fuse
from services.index_spec import Generation
from services.opensearch.client import SyncSearch
from services.opensearch.generations import refresh_call
from services.opensearch.queries import Plan, body, lexical_query, msearch_call, sparse_query
from services.query_table import QueryTable

METRIC = "ndcg@10"
MODES = ("sparse", "lexical", "hybrid")
_DEPTH = 100
_SECONDS = 30.0
_MAX_PIECES = 1000


@dataclass(frozen=True, slots=True)
class Questions:
    """Judged queries: texts by id, and grades by query and document."""

    texts: dict[str, str]
    judgements: Judgements

    @classmethod
    def read(cls, directory: Path) -> "Questions":
        """DIR/queries.jsonl and DIR/qrels.tsv, as `sparsewell eval` reads them.

        Raises ConfigurationError (`collection_not_found`), InvalidInput (`malformed_collection`).
        """
        for name in ("queries.jsonl", "qrels.tsv"):
            if not (directory / name).is_file():
                raise ConfigurationError("collection_not_found", f"There is no file {directory / name}.")
        texts, judgements = read_queries(directory / "queries.jsonl"), read_judgements(directory / "qrels.tsv")
        judged = {query: grades for query, grades in judgements.items() if texts.get(query, "").strip()}
        if not judged:
            raise InvalidInput("malformed_collection", f"No judgement in {directory} is about a query that it has.")
        return cls({query: texts[query] for query in judged}, judged)


def ranked(
    search: SyncSearch, generation: Generation, table: QueryTable, questions: Questions, weights: Mapping[str, float]
) -> dict[str, dict[str, Ranking]]:
    """Rankings by mode and query, of one generation asked by its own name.

    Raises BackendUnavailable (`search_incomplete`) when a list is cut short: a figure of it would be wrong.
    """
    found: dict[str, dict[str, Ranking]] = {mode: {} for mode in MODES}
    search.send(refresh_call(generation.physical))
    for query, text in questions.texts.items():
        sparse = sparse_query(table.encode(text, _MAX_PIECES), generation.spec.scored_by[0])
        plans = [body(plan, _DEPTH, False, _SECONDS) for plan in (sparse, lexical_query(text))]
        answer = search.send(msearch_call([Plan(generation.physical, plan) for plan in plans], _SECONDS))
        lists = {}
        for mode, part in zip(("sparse", "lexical"), answer["responses"], strict=True):
            if "error" in part or part["timed_out"] or part["_shards"]["failed"]:
                raise BackendUnavailable("search_incomplete", f"OpenSearch did not answer the query {query!r} whole.")
            lists[mode] = {hit["_id"]: float(hit["_score"]) for hit in part["hits"]["hits"]}
            found[mode][query] = list(lists[mode].items())
        found["hybrid"][query] = fuse(lists, weights)[:_DEPTH]
    return found


def quality(rankings: Mapping[str, Mapping[str, Ranking]], questions: Questions) -> dict[str, float]:
    """NDCG@10 by mode."""
    return {mode: measure(questions.judgements, found).mean[METRIC] for mode, found in rankings.items()}


def worse(old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], most: float) -> list[str]:
    """The modes in which the new generation loses more than `most`."""
    return [mode for mode in modes if new[mode] < old[mode] - most]


def hold(index: str, old: Mapping[str, float], new: Mapping[str, float], modes: Iterable[str], most: float) -> None:
    """Raises Conflict (`quality_gate`) when the new generation is worse by more than `most` in one of `modes`."""
    failing = worse(old, new, modes, most)
    if failing:
        figures = ", ".join(f"{mode} {old[mode]:.4f} -> {new[mode]:.4f}" for mode in failing)
        raise Conflict(
            "quality_gate",
            f"Not swapped: NDCG@10 falls by more than {most:g} ({figures}). The old generation goes on; "
            f"`sparsewell generations abort {index}` removes the new one, a larger --max-loss accepts it.",
        )

"""The quality gate of a reindex."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.relevance.metrics import Ranking
from cli.relevance.reindex_gate import JudgedQuestions, degraded_modes, measure_modes, rank_questions, require_quality
from query_api.search.executor import Key
from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, Conflict, InvalidInput
from services.index_spec import EncoderIdentity, Generation, IndexSpec
from services.opensearch.queries import SearchPlan
from services.settings import Settings


def means(rankings: Mapping[str, Mapping[str, Ranking]], questions: JudgedQuestions) -> dict[str, float]:
    return {mode: quality.mean["ndcg@10"] for mode, quality in measure_modes(rankings, questions).items()}


def test_only_the_chosen_modes_block_the_swap() -> None:
    old, new = {"sparse": 0.5, "hybrid": 0.6}, {"sparse": 0.48, "hybrid": 0.61}
    assert degraded_modes(old, new, ["hybrid"], 0.0) == []
    assert degraded_modes(old, new, ["sparse", "hybrid"], 0.0) == ["sparse"]
    require_quality("docs", old, new, ["sparse"], 0.03)
    with pytest.raises(Conflict, match=r"0\.5000 -> 0\.4800.*quality_gate"):
        require_quality("docs", old, new, ["sparse"], 0.01)


def test_quality_is_measured_on_the_ranking() -> None:
    questions = JudgedQuestions({"q": "words"}, {"q": {"right": 1}})
    first = {"sparse": {"q": [("right", 2.0), ("wrong", 1.0)]}}
    assert means(first, questions) == {"sparse": 1.0}
    assert means({"sparse": {"q": [("wrong", 1.0)]}}, questions) == {"sparse": 0.0}


def test_queries_without_judgements_are_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="collection_not_found"):
        JudgedQuestions.read(tmp_path)
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in ("ab", "cd")))
    (tmp_path / "qrels.tsv").write_text("a\td1\t1\nunknown\td2\t1\n")
    assert JudgedQuestions.read(tmp_path).texts == {"a": "b"}
    (tmp_path / "qrels.tsv").write_text("unknown\td2\t1\n")
    with pytest.raises(InvalidInput, match="malformed_collection"):
        JudgedQuestions.read(tmp_path)


def test_the_gate_sends_the_same_searches_as_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate applies pruning and the curation rules of the index, because it measures the served search."""
    table = QueryTable.load(resolve_model_directory("standin"))
    settings = Settings(encoder="standin", prune=0.9)
    rules = Rules.model_validate({"results": [{"query": "make a folder", "hide": ["secret"]}]})
    sent: list[SearchPlan] = []

    class Sends:
        def __init__(self, *given: object, **named: object) -> None:
            pass

        async def send(self, call: object) -> None:
            pass

        async def close(self) -> None:
            pass

        async def lists(self, plans: list[SearchPlan]) -> list[dict[str, Any]]:
            sent.extend(plans)
            hit = {"_id": "right", "_index": "docs-1", "_score": 1.0, "_source": {"state": "encoded"}}
            whole = {"took": 1, "timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": [hit]}}
            return [whole for _ in plans]

        async def documents(self, wanted: list[Key], source: object) -> dict[Key, dict[str, Any]]:
            return {key: {"state": "encoded"} for key in wanted}

        async def read(self, index: str, *, prefer_local: bool) -> None:
            pass

        def remember(self, generation: Generation, read: None) -> None:
            pass

        def of(self, generation: Generation) -> CompiledRules:
            return CompiledRules(rules, 1)

    for name in ("AsyncSearchClient", "DirectExecutor", "CurationCache"):
        monkeypatch.setattr(f"cli.relevance.reindex_gate.{name}", Sends)
    manifest = read_manifest(resolve_model_directory("standin"))
    encoder = EncoderIdentity(name=manifest.name, fingerprint=manifest.fingerprint)
    generation = Generation(
        index="docs", number=1, physical="docs-1", spec=IndexSpec(), encoder=encoder,
        window=manifest.window, created_at="now",
    )  # fmt: skip
    questions = JudgedQuestions({"q": "make a folder"}, {"q": {"right": 1}})
    found = rank_questions(settings, generation, table, questions)
    assert means(found, questions) == {"sparse": 1.0, "lexical": 1.0, "hybrid": 1.0}
    assert len(sent) == 4, "one list each of sparse and lexical, two of hybrid"
    assert all("secret" in json.dumps(plan.body) for plan in sent)
    every = table.encode("make a folder", 100)
    kept = json.dumps(sent[0].body).count('"rank_feature"')
    assert 0 < kept < len(every.ids)

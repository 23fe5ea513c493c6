"""When a new generation is too bad to be swapped in."""

import json
from pathlib import Path

import pytest

from cli.reindexing.gate import Questions, hold, quality, worse
from services.errors import ConfigurationError, Conflict, InvalidInput


def test_only_the_modes_that_were_named_hold_it_back() -> None:
    old, new = {"sparse": 0.5, "hybrid": 0.6}, {"sparse": 0.48, "hybrid": 0.61}
    assert worse(old, new, ["hybrid"], 0.0) == []
    assert worse(old, new, ["sparse", "hybrid"], 0.0) == ["sparse"]
    hold("docs", old, new, ["sparse"], 0.03)
    with pytest.raises(Conflict, match=r"0\.5000 -> 0\.4800.*quality_gate"):
        hold("docs", old, new, ["sparse"], 0.01)


def test_quality_is_that_of_the_ranking() -> None:
    questions = Questions({"q": "words"}, {"q": {"right": 1}})
    first = {"sparse": {"q": [("right", 2.0), ("wrong", 1.0)]}}
    assert quality(first, questions) == {"sparse": 1.0}
    assert quality({"sparse": {"q": [("wrong", 1.0)]}}, questions) == {"sparse": 0.0}


def test_questions_without_judgements_are_not_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="collection_not_found"):
        Questions.read(tmp_path)
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in ("ab", "cd")))
    (tmp_path / "qrels.tsv").write_text("a\td1\t1\nunknown\td2\t1\n")
    assert Questions.read(tmp_path).texts == {"a": "b"}
    (tmp_path / "qrels.tsv").write_text("unknown\td2\t1\n")
    with pytest.raises(InvalidInput, match="malformed_collection"):
        Questions.read(tmp_path)

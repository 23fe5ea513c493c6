"""The least match of a hit: its scale, and the condition for a share of words."""

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.export.package import measure_full_match, write_full_match
from models.registry import load_encoder
from query_api.schemas.search_request import SearchRequest
from query_api.search.min_score import check_min_score, cut_sparse, minimum_should_match, required_words
from services.encoders.manifest import WEIGHTS_ROOT, read_manifest
from services.encoders.query_table import QueryTable, QueryVector
from services.errors import InvalidInput

STANDIN = WEIGHTS_ROOT / "standin"
MANIFEST = read_manifest(STANDIN)
WORDS = ["river", "bridge", "castle", "garden", "window", "mountain", "candle", "harbour", "lantern", "orchard"]


def required(condition: str, words: int) -> int:
    """Return the number of words that OpenSearch requires (Queries.calculateMinShouldMatch)."""
    value = ""
    for part in condition.split(" "):
        bound, _, then = part.partition("<")
        if words <= int(bound):
            break
        value = then
    if not value:
        return words
    return int(words * int(value[:-1]) / 100) if value.endswith("%") else int(value)


@given(st.integers(1, 100), st.integers(1, 31))
def test_a_share_of_the_words_is_rounded_up(percent: int, words: int) -> None:
    assert required(minimum_should_match(percent / 100), words) == math.ceil(round(words * percent / 100, 6))


@given(st.integers(1, 100), st.integers(33, 500))
def test_of_many_words_at_most_one_more_may_be_missing(percent: int, words: int) -> None:
    assert 0 <= words * percent / 100 - required(minimum_should_match(percent / 100), words) < 1


def test_without_it_the_lists_stay_as_they_are() -> None:
    query = {"bool": {"should": []}}
    vector = QueryVector((1, 2), (2.0, 3.0), 2)
    assert cut_sparse(query, vector, MANIFEST, None) is query
    assert required_words("a lawn", None) == []
    manifest = MANIFEST.model_copy(update={"full_match": 2.0})
    assert cut_sparse(query, vector, manifest, 0.5) == {"function_score": {"query": query, "min_score": 5.0}}


def test_an_encoder_without_a_scale_is_named() -> None:
    manifest = MANIFEST.model_copy(update={"full_match": None})
    for mode in ("sparse", "hybrid"):
        with pytest.raises(InvalidInput, match="standin") as caught:
            check_min_score(SearchRequest(query="x", mode=mode, min_score=0.5), manifest)
        assert caught.value.code == "min_score_uncalibrated"
    check_min_score(SearchRequest(query="x", mode="lexical", min_score=0.5), manifest)
    check_min_score(SearchRequest(query="x"), manifest)


def test_a_scale_is_measured_and_changes_no_fingerprint(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    shutil.copytree(STANDIN, directory)
    passages = [("made.jsonl", f"{word} {other}. {word}.") for word in WORDS for other in WORDS if word != other]
    full_match, by_file = measure_full_match(load_encoder("standin"), QueryTable.load(STANDIN), passages, 0.2)
    # the stand-in's weight is log(1 + count), of two counts and of one
    assert math.log(2) < full_match < math.log(4)
    assert by_file == {"made.jsonl": 90}
    write_full_match(directory, full_match, by_file)
    manifest = QueryTable.load(directory).manifest
    assert (manifest.full_match, manifest.fingerprint) == (full_match, MANIFEST.fingerprint)
    with pytest.raises(InvalidInput, match="too_few_passages"):
        measure_full_match(load_encoder("standin"), QueryTable.load(STANDIN), passages[:10], 0.2)


@pytest.mark.parametrize("name", ["standin", "projected-minilm-l6"])
def test_the_shipped_encoders_have_a_scale(name: str) -> None:
    assert read_manifest(WEIGHTS_ROOT / name).full_match

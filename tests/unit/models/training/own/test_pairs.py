"""Pairs from a corpus without queries, and reading the corpus."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.training.own.pairs import (
    ENGLISH_FUNCTION_WORDS,
    MIN_CORPUS_PASSAGES,
    PairKind,
    PairOptions,
    make_own_pairs,
    read_corpus,
    split_words,
)
from models.training.own.sections import split_sentences
from models.training.pairs import Pair, PairSet
from models.training.storage import ReadReport
from services.documents.document import Document
from services.errors import ConfigurationError, InvalidInput

NOUNS = ["wing", "layer", "shock", "nozzle", "rotor", "flutter", "plate", "vortex", "inlet", "cone", "panel", "jet"]
VERBS = ["bends", "lifts", "heats", "cools", "turns", "vibrates", "separates", "expands"]


def sentence(random: np.random.Generator) -> str:
    first, second, third = (str(one) for one in random.choice(NOUNS, 3, replace=False))
    return f"The {first}{random.integers(99)} {random.choice(VERBS)} and it is about the {second} of a {third}."


def paragraph(random: np.random.Generator) -> str:
    return " ".join(sentence(random) for _ in range(5))


def document(number: int, sections: int = 3) -> Document:
    random = np.random.default_rng(number)
    parts = [paragraph(random)]
    parts += [f"## Part {number} {place}\n\n{paragraph(random)}" for place in range(1, sections)]
    return Document(str(number), "\n\n".join(parts), f"Title {number}")


DOCUMENTS = [document(number) for number in range(40)]


def of_kind(pairs: PairSet, kind: PairKind) -> list[Pair]:
    return [pair for pair in map(pairs.pair, range(len(pairs))) if pair.origin == kind]


def made(documents: Sequence[Document] = DOCUMENTS, **options: object) -> PairSet:
    return make_own_pairs(documents, PairOptions(**options))  # type: ignore[arg-type]


def test_every_kind_is_made_and_counted() -> None:
    found = made().counts()
    assert found == {"title": 120, "heading": 80, "inverse-cloze": 120, "keywords": 120, "body-first": 80}
    assert all(type(name) is str for name in found)


def test_kinds_can_be_selected() -> None:
    assert made(kinds=(PairKind.TITLE, PairKind.BODY_FIRST)).counts() == {"title": 120, "body-first": 80}


def test_titles_pair_with_their_document_and_headings_with_their_section() -> None:
    pairs = made(kinds=(PairKind.TITLE, PairKind.HEADING))
    for pair in of_kind(pairs, PairKind.TITLE):
        assert pair.passage in DOCUMENTS[int(pair.query.split()[1])].text
    for pair in of_kind(pairs, PairKind.HEADING):
        title, heading = pair.query.split(": ")
        text = DOCUMENTS[int(title.split()[1])].text
        assert pair.passage in text[text.index(f"## {heading}") :]


def test_inverse_cloze_removes_the_sentence_nine_times_in_ten() -> None:
    assert 2 <= sum(map(holds_its_query, of_kind(made(), PairKind.INVERSE_CLOZE))) <= 25
    for share, wanted in ((0.0, 120), (1.0, 0)):
        assert sum(map(holds_its_query, of_kind(made(removed=share), PairKind.INVERSE_CLOZE))) == wanted


def holds_its_query(pair: Pair) -> bool:
    query_words = set(pair.query.lower().split())
    return any(query_words <= {word.lower() for word in split_words(one)} for one in split_sentences(pair.passage))


def test_a_passage_has_one_text_in_all_its_pairs() -> None:
    assert len(made().passages) == 120


def test_body_first_pairs_the_first_section_with_a_later_passage() -> None:
    pairs = of_kind(made(removed=0.0, drop_function_words=False), PairKind.BODY_FIRST)
    for pair in pairs:
        text = next(one.text for one in DOCUMENTS if pair.passage in one.text)
        assert pair.query in text[: text.index("##")]
        assert pair.passage not in text[: text.index("##")]


def test_cut_out_queries_drop_function_words_by_default() -> None:
    cut_out = {PairKind.INVERSE_CLOZE, PairKind.BODY_FIRST, PairKind.KEYWORDS}
    for pair in (pair for kind in cut_out for pair in of_kind(made(), kind)):
        assert not ENGLISH_FUNCTION_WORDS & set(pair.query.lower().split())
    kept = of_kind(made(drop_function_words=False), PairKind.INVERSE_CLOZE)
    assert all("about the" in pair.query for pair in kept)


def test_keywords_prefer_rare_words_of_the_passage() -> None:
    common = [Document(str(n), f"alpha beta gamma delta unique{n} rare{n} seldom{n} odd{n}") for n in range(100)]
    # With fewer than 200 passages, common words are not dropped.
    pairs = of_kind(made(common, kinds=(PairKind.KEYWORDS,)), PairKind.KEYWORDS)
    assert len(pairs) == 100
    drawn = [word for pair in pairs for word in pair.query.split()]
    for pair in pairs:
        assert set(pair.query.split()) <= set(pair.passage.split())
        assert 2 <= len(pair.query.split()) <= 5
    rare = sum(any(character.isdigit() for character in word) for word in drawn)
    assert rare > 0.85 * len(drawn), "half of the words are rare, and five of eight are drawn at most"


def test_the_same_seed_makes_the_same_pairs() -> None:
    assert made(seed=1).fingerprint == made(seed=1).fingerprint != made(seed=2).fingerprint


def test_an_added_document_changes_no_earlier_pair() -> None:
    # Without keywords: they depend on the corpus, because another document makes a word less rare.
    kinds = (PairKind.TITLE, PairKind.HEADING, PairKind.INVERSE_CLOZE, PairKind.BODY_FIRST)
    fewer, more = made(DOCUMENTS[:30], kinds=kinds), made(DOCUMENTS[:31], kinds=kinds)
    assert [fewer.pair(link) for link in range(len(fewer))] == [more.pair(link) for link in range(len(fewer))]


def test_long_documents_give_passages_from_all_their_parts() -> None:
    pairs = made([document(number, sections=40) for number in range(10)], kinds=(PairKind.TITLE,), per_document=8)
    assert pairs.counts() == {"title": 80}


def test_common_titles_and_headings_make_no_pairs() -> None:
    same = [Document(one.id, one.text.replace("## Part", "## Overview\n\n# Part"), "Report") for one in DOCUMENTS]
    counts = made(same, kinds=(PairKind.TITLE, PairKind.KEYWORDS)).counts()
    assert "title" not in counts
    texts = [paragraph(np.random.default_rng(number)) for number in range(70)]
    untitled = [Document(str(number), f"## Overview\n\n{text}") for number, text in enumerate(texts)]
    assert "heading" not in made(untitled).counts()
    named = [Document(str(number), f"## Overview {number}\n\n{text}") for number, text in enumerate(texts)]
    assert made(named).counts()["heading"] == 70


def test_a_repeated_passage_counts_only_in_its_first_document() -> None:
    notice = "This notice of the owner stands in every document that there is and says the same each time it comes."
    copied = [Document(one.id, f"{one.text}\n\n# Notice\n\n{notice}", one.title) for one in DOCUMENTS]
    pairs = made(copied, kinds=(PairKind.TITLE,))
    assert pairs.passages.count(notice) == 1
    assert sum(pair.passage == notice for pair in of_kind(pairs, PairKind.TITLE)) == 1


@pytest.mark.parametrize("documents", [[], DOCUMENTS[:2], [DOCUMENTS[0]] * 500, [Document("a", "same")] * 100])
def test_a_tiny_corpus_is_refused_with_the_required_size(documents: list[Document]) -> None:
    with pytest.raises(InvalidInput, match=f"at least {MIN_CORPUS_PASSAGES}") as caught:
        made(documents)
    assert caught.value.code == "corpus_too_small"
    assert f"{len(documents):,} documents" in caught.value.detail


@pytest.mark.parametrize("options", [{"kinds": ()}, {"passage_words": 5}, {"per_document": 0}, {"removed": 1.5}])
def test_invalid_pair_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        PairOptions(**options)  # type: ignore[arg-type]
    assert caught.value.code == "bad_pair_options"


def written(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_documents_of_either_layout(tmp_path: Path) -> None:
    path = written(
        tmp_path / "corpus.jsonl",
        {"id": "a", "title": "T", "text": " x "},
        {"_id": "b", "title": "only a title", "text": ""},
        {"id": 7, "text": "y"},
        {"text": "no id", "metadata": {"kept": "out"}},
    )
    wanted = [Document("a", "x", "T"), Document("b", "only a title"), Document("7", "y"), Document("line 4", "no id")]
    assert list(read_corpus(path)) == wanted
    assert list(read_corpus(tmp_path)) == wanted


def test_a_compressed_collection(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "a", "text": "x"}\n'))
    assert [one.id for one in read_corpus(tmp_path)] == ["a"]


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "c.jsonl",
        {"id": "a", "text": "x"},
        {"id": "a", "text": "y"},
        {"id": "b"},
        {"id": "c", "text": ["x"]},
        {"id": True, "text": "x"},
        {"id": {}, "text": "x"},
    )
    report = ReadReport("c")
    assert len(list(read_corpus(path, report))) == 1
    assert report.refused == {"duplicate_id": 1, "missing_member": 1, "wrong_type": 3}


@pytest.mark.parametrize("content", ["", "\n\n", "nonsense\n", '{"id": "a", "text": " "}\n'])
def test_a_corpus_without_documents_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(InvalidInput) as caught:
        list(read_corpus(tmp_path / "c.jsonl"))
    assert caught.value.code == "no_documents"


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(ConfigurationError, match=str(path)) as caught:
            list(read_corpus(path))
        assert caught.value.code == "corpus_not_found"

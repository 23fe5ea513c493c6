"""Studies: product codes, modulated vectors, links between documents, and contexts within a budget."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra [fit] is not installed")

from benchmarks.studies.context_packing import fill, weigh_sentences
from benchmarks.studies.link_pairs import Link, find_links, first_section_pairs, naming_pairs
from benchmarks.studies.product_quantisation import ProductQuantiser, make_forms
from benchmarks.studies.token_aware_vectors import modulate
from services.documents.document import Document
from services.encoders.vectors import DenseArray

DOCUMENTS = [
    Document(
        "shutil.copytree", "copytree(src, dst)\n\nCopy a whole folder. See also move() and os.rename.", "copytree"
    ),
    Document("shutil.move", "move(src, dst)\n\nMove a file to another place. It may call os.rename().", "move"),
    Document("os.rename", "rename(src, dst)\n\nGive a file another name. The word move is no link.", "rename"),
]


def unit_rows(count: int, width: int = 384, seed: int = 0) -> DenseArray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_vectors_that_are_centroids_are_kept() -> None:
    rows = unit_rows(256)
    quantiser = ProductQuantiser.fit(rows, 48)
    assert np.allclose(quantiser.decode(quantiser.encode(rows)), rows, atol=1e-5)


@pytest.mark.parametrize("rotations", [0, 2])
def test_scores_by_the_table_are_those_of_the_reconstructions(rotations: int) -> None:
    quantiser = ProductQuantiser.fit(unit_rows(300), 48, rotations=rotations)
    rows, query = unit_rows(20, seed=1), unit_rows(1, seed=2)[0]
    codes = quantiser.encode(rows)
    assert codes.shape == (20, 48)
    assert np.allclose(quantiser.scores(codes, query), quantiser.decode(codes) @ query, atol=1e-4)
    assert np.allclose(quantiser.rotation @ quantiser.rotation.T, np.eye(384), atol=1e-4)


def test_each_form_stores_its_bytes_and_scores_what_it_restores() -> None:
    rows, query = unit_rows(10, seed=3), unit_rows(1, seed=4)[0]
    for name, form in make_forms(unit_rows(300), rotations=1).items():
        text = form.pack(rows[:1])
        assert len(text) == -(-form.bytes // 3) * 4, name
        scores = form.score([form.pack(row[None, :]) for row in rows], query)
        restored = form.restore(rows) @ query
        # The signs are stored as 0 and 1, which keeps the order alone.
        assert np.argsort(scores).tolist() == np.argsort(restored).tolist(), name


@pytest.mark.parametrize("form", ["sum", "gate"])
def test_modulated_vectors_have_length_one_and_zero_changes_nothing(form: str) -> None:
    vectors, lexical = unit_rows(5), unit_rows(5, seed=1)
    assert np.allclose(np.linalg.norm(modulate(vectors, lexical, form, 0.8), axis=1), 1, atol=1e-5)
    assert np.allclose(modulate(vectors, lexical, form, 0.0), vectors, atol=1e-6)
    assert np.allclose(modulate(vectors, np.zeros_like(lexical), form, 0.8), vectors, atol=1e-6)


def test_a_sum_moves_towards_its_lexical_part() -> None:
    vectors, lexical = unit_rows(5), unit_rows(5, seed=1)
    before, after = (vectors * lexical).sum(1), (modulate(vectors, lexical, "sum", 0.5) * lexical).sum(1)
    assert (after > before).all()


def test_links_are_names_in_code_form_of_other_documents() -> None:
    found = {(link.source, link.target) for link in find_links(DOCUMENTS)}
    assert found == {
        ("shutil.copytree", "shutil.move"), ("shutil.copytree", "os.rename"), ("shutil.move", "os.rename"),
    }  # fmt: skip


def test_pairs_have_the_query_of_one_document_and_the_passage_of_the_other() -> None:
    links = [Link("shutil.move", "os.rename", "It may call os.rename().")]
    assert [tuple(pair) for pair in naming_pairs(links)] == [("It may call os.rename().", "os.rename")]
    assert next(iter(first_section_pairs(links, DOCUMENTS))) == ("Give a file another name.", "shutil.move")


def test_a_name_of_most_documents_is_no_link() -> None:
    many = [Document(f"module{n}", "It may raise os.rename() at any time.") for n in range(30)]
    assert find_links([*many, DOCUMENTS[2]]) == []


def test_a_context_stays_within_its_budget() -> None:
    groups = [[("a", 0, 60)], [("b", 0, 60)], [("c", 0, 20)]]
    assert fill(groups, 100) == [("a", 0, 60), ("c", 0, 20)], "a part that does not fit is left out"
    assert fill(groups, 100, cut=True) == [("a", 0, 60), ("b", 0, 39)], "one character separates two parts"
    assert fill(groups, 60, cut=True)[0] == ("a", 0, 60)


def test_sentences_weigh_their_distinct_pieces_by_the_document() -> None:
    weights = weigh_sentences([[1, 1, 2], [3]], {1: 0.5, 2: 2.0}, 5)
    query = np.array([0, 1, 1, 1, 0], np.float32)
    assert (weights @ query).tolist() == [2.5, 0.0]

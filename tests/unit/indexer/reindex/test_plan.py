"""The declaration of a new generation."""

import pytest

from indexer.reindex.plan import GenerationChanges, describe_changes, plan_generation
from services.encoders.manifest import DenseIdentity, Manifest, WindowSettings, read_manifest, resolve_model_directory
from services.errors import Conflict, InvalidInput
from services.index_spec import Generation, IndexNames, IndexSpec
from services.opensearch.generations import new_generation

NAMES = IndexNames("p")
STANDIN = read_manifest(resolve_model_directory("standin"))
OLD = new_generation(NAMES, "docs", 1, IndexSpec(fields={"year": "number"}), STANDIN)
OTHER = STANDIN.model_copy(update={"name": "other", "fingerprint": "f" * 16})


def plan(changes: GenerationChanges, manifest: Manifest = STANDIN) -> Generation:
    return plan_generation(NAMES, OLD, 2, changes, manifest)


def test_what_is_not_named_stays() -> None:
    new = plan(GenerationChanges(document_top_k=9, fields={"genre": "keyword"}))
    assert new.spec.fields == {"year": "number", "genre": "keyword"}
    assert (new.spec.document_top_k, new.spec.language) == (9, OLD.spec.language)
    assert (new.encoder, new.window, new.lineage) == (OLD.encoder, OLD.window, OLD.lineage)
    assert (new.number, new.physical) == (2, "p-docs.g000002")
    assert describe_changes(OLD, new)[-1] == "vectors: copied"


def test_an_index_of_an_older_version_gets_folded_words() -> None:
    older = OLD.model_copy(update={"folds": False})
    new = plan_generation(NAMES, older, 2, GenerationChanges(), STANDIN)
    assert describe_changes(older, new) == ["folds: False -> True", "vectors: copied"]


def test_another_encoder_and_half_a_window() -> None:
    assert plan(GenerationChanges(encoder="other"), OTHER).encoder.fingerprint == "f" * 16
    new = plan(GenerationChanges(window_pieces=100))
    assert (new.window.pieces, new.window.overlap) == (100, STANDIN.window.overlap)
    assert describe_changes(OLD, new)[-1] == "vectors: encoded again"


def test_dense_vectors_are_added_kept_and_left_behind() -> None:
    dense = DenseIdentity(name="d", fingerprint="d" * 16, width=8, window=WindowSettings(pieces=64, overlap=0))
    added = plan_generation(NAMES, OLD, 2, GenerationChanges(dense="d"), STANDIN, dense)
    assert (added.spec.dense, added.dense) == ("d", dense)
    assert describe_changes(OLD, added)[-1] == "vectors: encoded again"
    kept = plan_generation(NAMES, added, 3, GenerationChanges(document_top_k=9), STANDIN)
    assert (kept.spec.dense, kept.dense) == ("d", dense)
    left = plan_generation(NAMES, added, 3, GenerationChanges(dense="none"), STANDIN)
    assert (left.spec.dense, left.dense) == (None, None)
    assert describe_changes(added, left)[-1] == "vectors: copied"
    wider = dense.model_copy(update={"window": WindowSettings(pieces=128, overlap=0)})
    assert (
        describe_changes(added, plan_generation(NAMES, added, 3, GenerationChanges(dense="d"), STANDIN, wider))[-1]
        == "vectors: encoded again"
    )


def test_windows_are_nested_from_the_vectors_that_are_stored() -> None:
    new = plan(GenerationChanges(windows="both"))
    assert new.spec.scored_by == ("window", "document")
    assert describe_changes(OLD, new) == ["windows: merged -> both", "vectors: copied"]
    with pytest.raises(InvalidInput, match="bad_change"):
        plan(GenerationChanges(windows="cut"))


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="bad_window"):
        plan(GenerationChanges(window_pieces=600))
    with pytest.raises(InvalidInput, match="bad_change"):
        plan(GenerationChanges(window_overlap=300))
    with pytest.raises(InvalidInput, match="bad_change"):
        plan(GenerationChanges(language="klingon"))
    with pytest.raises(Conflict, match="encoder_name_taken"):
        plan(GenerationChanges(encoder="standin"), STANDIN.model_copy(update={"fingerprint": "f" * 16}))


def test_whether_anything_was_asked_for() -> None:
    assert not GenerationChanges().any
    assert GenerationChanges(language="standard").any


def test_talk_is_declared_and_chaptered_anew() -> None:
    first = plan_generation(NAMES, OLD, 2, GenerationChanges(chapters="tiling"), STANDIN, chapters="c1")
    assert first.spec.talk is not None
    assert (first.spec.talk.chapters, first.spec.windows, first.chapters) == ("tiling", "both", "c1")
    assert describe_changes(OLD, first) == [
        "windows: merged -> both",
        "chapters: no talk -> tiling (c1)",
        f"talk: not declared -> {first.spec.talk.model_dump(exclude={'chapters'})}",
        "vectors: copied",
    ]
    kept = plan_generation(
        NAMES, OLD, 2, GenerationChanges(chapters="tiling", windows="merged"), STANDIN, chapters="c1"
    )
    assert kept.spec.windows == "merged"
    newer = plan_generation(NAMES, first, 3, GenerationChanges(), STANDIN, chapters="c2")
    assert describe_changes(first, newer)[0] == "chapters: tiling (c1) -> tiling (c2)"
    assert "encoded again where" in describe_changes(first, newer)[-1]
    assert describe_changes(first, plan_generation(NAMES, first, 3, GenerationChanges(), STANDIN, chapters="c1")) == [
        "vectors: copied"
    ]
    with pytest.raises(InvalidInput, match="bad_change"):
        plan(GenerationChanges(chapters="oracle"))


def test_what_an_index_declares_of_talk_changes_by_itself() -> None:
    first = plan_generation(NAMES, OLD, 2, GenerationChanges(chapters="none"), STANDIN)
    linked = plan_generation(
        NAMES, first, 3, GenerationChanges(talk={"link": "https://x.example/{id}?t={start}"}), STANDIN
    )
    assert linked.spec.talk is not None
    assert (linked.spec.talk.chapters, linked.spec.talk.link) == ("none", "https://x.example/{id}?t={start}")
    said = describe_changes(first, linked)
    assert said[0].startswith("talk: ")
    assert said[-1] == "vectors: copied"
    unlinked = plan_generation(
        NAMES, linked, 4, GenerationChanges(talk={"link": None, "passage_in_lexical": 0}), STANDIN
    )
    assert unlinked.spec.talk is not None
    assert (unlinked.spec.talk.link, unlinked.spec.talk.passage_in_lexical) == (None, 0)
    renamed = plan_generation(NAMES, unlinked, 5, GenerationChanges(talk={"passage_in_keywords": 2}), STANDIN).spec.talk
    assert renamed is not None and renamed.passage_in_lexical == 2, "the deprecated name still works"
    twice = {"passage_in_lexical": 1, "passage_in_keywords": 1}
    for wrong in ({"link": "javascript:alert(1)"}, {"oracle": 1}, {"passage_in_lexical": "much"}, twice):
        with pytest.raises(InvalidInput, match="bad_change"):
            plan_generation(NAMES, first, 3, GenerationChanges(talk=wrong), STANDIN)

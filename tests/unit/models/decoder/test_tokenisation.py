"""Tokenisers whose pieces include the space before a word: matching, windows, queries, formatted pieces."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from models.decoder.tokenisation import make_matching_tokenizer, unsearchable_ids
from models.encoder import PieceTokeniser, trim_offsets
from models.export.package import write_manifest
from services.encoders.manifest import MAX_VOCABULARY
from services.encoders.query_table import QueryTable, make_piece_formatter
from services.errors import ConfigurationError
from tests.unit.models.decoder.spaced_tokenizers import KINDS, make

kinds = pytest.mark.parametrize("kind", KINDS)
PLACES = ["cat", "Cat", "CAT", "a cat", "a Cat", "(cat)", "\ncat", "a\n\n  cat", '"cat"', "the_cat", "on.cat", " cat\t"]


@kinds
@pytest.mark.parametrize("text", PLACES)
def test_a_word_has_the_same_pieces_in_every_position(kind: str, text: str) -> None:
    tokenizer = make_matching_tokenizer(make(kind))
    alone = tokenizer.encode("cat", add_special_tokens=False).ids
    found = tokenizer.encode(text, add_special_tokens=False).ids
    assert any(found[i : i + len(alone)] == alone for i in range(len(found)))


@kinds
def test_the_unchanged_tokeniser_does_not_match(kind: str) -> None:
    """Without the normaliser, capitals and the character before a word change the word's pieces."""
    tokenizer = make(kind)
    alone = tokenizer.encode("cat", add_special_tokens=False).ids
    for text in ("Cat", "a cat" if kind == "byte level" else "(cat)"):
        found = tokenizer.encode(text, add_special_tokens=False).ids
        assert not any(found[i : i + len(alone)] == alone for i in range(len(found)))


@kinds
@pytest.mark.parametrize("text", ["", " ", "\n\t", "   "])
def test_white_space_has_no_pieces(kind: str, text: str) -> None:
    assert make_matching_tokenizer(make(kind)).encode(text, add_special_tokens=False).ids == []


@kinds
def test_numbers_and_short_forms_stay_together(kind: str) -> None:
    tokenizer = make_matching_tokenizer(make(kind))
    assert (
        "".join(map(make_piece_formatter(tokenizer), tokenizer.encode("3.14").tokens)).replace("#", "").count(".") == 1
    )
    shown = [make_piece_formatter(tokenizer)(piece) for piece in tokenizer.encode("don't").tokens]
    assert "##t" in shown or "'t" in shown


@kinds
def test_case_can_be_kept(kind: str) -> None:
    kept = make_matching_tokenizer(make(kind), lowercase=False)
    assert kept.encode("The").ids != kept.encode("the").ids
    capitals = kept.token_to_id("T")
    assert capitals not in unsearchable_ids(kept)
    assert capitals in unsearchable_ids(make_matching_tokenizer(make(kind)))


@kinds
def test_unsearchable_pieces_are_found(kind: str) -> None:
    tokenizer = make_matching_tokenizer(make(kind))
    unsearched = unsearchable_ids(tokenizer)
    assert {tokenizer.token_to_id(piece) for piece in ("<s>", "</s>")} <= unsearched
    for text in ("the cat sat on a mat", "(read_file) 3.14!", "שלום 中文 naïve 🙂"):
        ids = set(tokenizer.encode(text).ids)
        blank = {i for i in ids if not make_piece_formatter(tokenizer)(tokenizer.id_to_token(i)).strip("▁")}
        assert not (ids - blank) & unsearched


def test_a_vocabulary_that_vectors_cannot_hold_is_refused() -> None:
    words = {f"w{i}": i for i in range(MAX_VOCABULARY + 1)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    with pytest.raises(ConfigurationError, match="262,145 pieces") as caught:
        make_matching_tokenizer(tokenizer)
    assert caught.value.code == "vocabulary_too_large"


@pytest.mark.parametrize(
    ("kind", "piece", "shown"),
    [
        ("byte level", "Ġcat", "cat"), ("byte level", "at", "##at"),
        ("byte level", ".", "."), ("byte level", "Ġ", "▁"),
        ("byte level", "Ċ", "\\n"), ("byte level", "Ġ(", "▁("),
        ("byte level", "ÃŃ", "##í"), ("byte level", "Ã", "<c3>"),
        ("byte level", "<s>", "<s>"), ("metaspace", "▁cat", "cat"),
        ("metaspace", "at", "##at"), ("metaspace", "▁", "▁"),
        ("metaspace", "<0xC3>", "<c3>"), ("metaspace", "<0x41>", "##A"), ("metaspace", "<s>", "<s>"),
    ],
)  # fmt: skip
def test_pieces_are_formatted_with_the_marks_of_word_piece(kind: str, piece: str, shown: str) -> None:
    assert make_piece_formatter(make(kind))(piece) == shown


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_vocabulary(kind: str) -> None:
    tokenizer = make(kind)
    pieces = PieceTokeniser(tokenizer)
    assert {pieces.token(i): i for i in tokenizer.get_vocab().values()} == tokenizer.get_vocab()
    assert pieces.token(10**6) == "#1000000"


words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["the", "sat.", "Cat", "(mat)", "\n", "  ", "\x00", "🙂", "שלום", "中文", "don't", "read_file", "3.14"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(KINDS)),
    st.booleans(),
    st.lists(words, max_size=60).map(" ".join),
    st.integers(1, 30),
    st.data(),
)
def test_every_character_and_every_piece_belongs_to_a_window(
    kind: str, matching: bool, text: str, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    tokenizer = make_matching_tokenizer(make(kind)) if matching else make(kind)
    pieces = PieceTokeniser(tokenizer)
    windows = pieces.windows(text, size, overlap)
    if not text:
        assert windows == []
        return
    assert (windows[0].start, windows[-1].end) == (0, len(text))
    assert all(0 <= w.start <= w.end <= len(text) and len(w.piece_ids) <= size for w in windows)
    for before, after in itertools.pairwise(windows):
        assert before.start <= after.start <= before.end <= after.end
    if overlap == 0:
        clean = text.encode("utf-8", "replace").decode("utf-8")
        assert [i for w in windows for i in w.piece_ids] == tokenizer.encode(clean, add_special_tokens=False).ids


@kinds
def test_offsets_exclude_white_space_and_do_not_overlap(kind: str) -> None:
    text = "The cat (sat)  on\n\na mat 🙂 中 read_file."
    tokenizer = make_matching_tokenizer(make(kind))
    encoding = tokenizer.encode(text, add_special_tokens=False)
    offsets = trim_offsets(text, encoding.offsets)
    assert len(offsets) == len(encoding.ids)
    last = 0
    for start, end in offsets:
        assert last <= start <= end
        assert not text[start:end] or text[start:end].strip() == text[start:end]
        last = end
    assert "".join(text[start:end] for start, end in offsets) == "".join(text.split())


@kinds
def test_windows_end_at_sentences_and_between_words(kind: str) -> None:
    pieces = PieceTokeniser(make_matching_tokenizer(make(kind)))
    sentences = pieces.windows("The cat sat on a mat in the library. " * 20, 96, 16)
    assert len(sentences) > 2
    for window in sentences[:-1]:
        assert ("The cat sat on a mat in the library. " * 20)[: window.end].rstrip().endswith(".")
    text = "librarytemporary folderlibrary catsat " * 30
    for window in pieces.windows(text, 64, 24):
        assert set(text[window.start : window.end].split()) <= set(text.split())


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> QueryTable:
    tokenizer = make_matching_tokenizer(make(request.param))
    directory = tmp_path / "tiny"
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    unsearched = unsearchable_ids(tokenizer)
    weights = {piece: 1.0 + i / 1000 for piece, i in tokenizer.get_vocab().items() if i not in unsearched}
    (directory / "query_weights.json").write_text(json.dumps(weights))
    description = {"name": "tiny", "architecture": "MistralForSparseEncoding", "vocabulary": len(tokenizer.get_vocab()),
                   "max_pieces": 64, "window": {"pieces": 24, "overlap": 4}, "top_k": 16, "licence": "x"}  # fmt: skip
    write_manifest(directory, description, ["tokenizer.json", "query_weights.json"])
    return QueryTable.load(directory)


def test_queries_match_in_every_case_and_position(table: QueryTable) -> None:
    wanted = table.encode("temporary folder", 100).by_id()
    assert wanted
    for query in ("Temporary  Folder", " temporary\nfolder", "(temporary) folder folder", "TEMPORARY_FOLDER"):
        found = table.encode(query, 100).by_id()
        assert wanted.items() <= found.items()
        assert {table.piece(i) for i in found.keys() - wanted.keys()} <= {"(", "▁(", ")", "_"}


def test_query_pieces_are_those_of_documents(table: QueryTable) -> None:
    document = set(table.ids('Title of it\n\n"The temporary_folder" (on a mat).'))
    assert set(table.encode("the temporary folder on a mat", 100).ids) <= document


def test_query_pieces_are_readable(table: QueryTable) -> None:
    assert [table.piece(i) for i in table.encode("The cat sat", 100).ids] == ["the", "cat", "sat"]


def test_special_pieces_in_a_query_are_characters(table: QueryTable) -> None:
    found = [table.piece(i) for i in table.encode("<s>", 100).ids]
    assert "<s>" not in found
    assert found


def test_word_piece_formats_do_not_change() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cat": 1, "##s": 2, "Ġ": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert [make_piece_formatter(tokenizer)(piece) for piece in ("cat", "##s", "Ġ")] == ["cat", "##s", "Ġ"]

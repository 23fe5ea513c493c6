"""Collections in BEIR's layout. An error states its file and line."""

import gzip
import json
from pathlib import Path

import pytest

from models.judged_collection import CorpusDocument, JudgedCollection, open_collection, read_judgements
from services.errors import ConfigurationError, InvalidInput

CORPUS = [
    {"_id": "a", "title": "Title", "text": "the text"},
    {"_id": "b", "title": "only a title", "text": " "},
    {"_id": "c", "text": "no title"},
    {"_id": "d", "title": "", "text": ""},
]
QUERIES = [{"_id": "1", "text": "first"}, {"_id": "2", "text": "second"}, {"_id": "3", "text": "not judged"}]
QRELS = "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n2\tgone\t1\n9\ta\t1\n"


def lines(records: list[dict[str, str]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text(lines(CORPUS))
    (tmp_path / "queries.jsonl").write_text(lines(QUERIES))
    (tmp_path / "qrels.tsv").write_text(QRELS)
    return tmp_path


def test_documents_keep_their_order_and_a_lone_title_becomes_the_text(directory: Path) -> None:
    documents = [document.as_json() for document in open_collection(directory).documents()]
    assert documents == [
        {"id": "a", "title": "Title", "text": "the text"},
        {"id": "b", "text": "only a title"},
        {"id": "c", "text": "no title"},
        {"id": "d", "text": ""},
    ]


def test_only_judged_queries_with_a_text_are_sent(directory: Path) -> None:
    collection = open_collection(directory)
    assert collection.judged == {"1": "first", "2": "second"}
    assert collection.unknown_queries() == ["9"]
    assert collection.unknown_documents({"a", "b", "c", "d"}) == [("2", "gone")]
    assert collection.known_judgements() == {"1": {"a": 2, "b": 0}, "2": {"gone": 1}}


def test_a_compressed_corpus_and_the_beir_path_of_judgements_are_read(directory: Path) -> None:
    (directory / "corpus.jsonl").unlink()
    (directory / "corpus.jsonl.gz").write_bytes(gzip.compress(lines(CORPUS).encode()))
    (directory / "qrels").mkdir()
    (directory / "qrels.tsv").rename(directory / "qrels" / "test.tsv")
    collection = open_collection(directory)
    assert len(list(collection.documents())) == 4
    assert len(collection.judgements) == 3


def test_queries_and_judgements_of_other_files_are_read(directory: Path) -> None:
    (directory / "q2.jsonl").write_text(lines(QUERIES[:1]))
    (directory / "r2.tsv").write_text("1\ta\t1\n")
    collection = open_collection(directory, directory / "q2.jsonl", directory / "r2.tsv")
    assert collection.judged == {"1": "first"}


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "\ufeffquery-id\tcorpus-id\tscore\n"])
def test_the_header_of_judgements_is_optional(tmp_path: Path, header: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(header + "q\td\t1\r\n\n", encoding="utf-8")
    assert read_judgements(path) == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id"\n', r"corpus.jsonl, line 2: not JSON"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n\n[1]\n', r"line 3: not a JSON object"),
        ("corpus.jsonl", '{"text": "x"}\n', r"line 1: no `_id`"),
        ("corpus.jsonl", '{"_id": "a", "text": 3}\n', r"line 1: `text` is not a string"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', r"line 2: the id 'a' is repeated"),
        ("corpus.jsonl", b'{"_id": "a", "text": "\xff"}\n', r"line 1: not UTF-8"),
        ("queries.jsonl", '{"_id": "1", "text": "x"}\n{"_id": "1", "text": "x"}\n', r"queries.jsonl, line 2"),
        ("queries.jsonl", "", r"has no queries"),
        ("qrels.tsv", "1\ta\t1\n1 a 1\n", r"qrels.tsv, line 2: expected query, document and grade"),
        ("qrels.tsv", "1\ta\tgood\n", r"line 1: the grade 'good' is not a whole number"),
        ("qrels.tsv", "1\ta\t1\n1\ta\t2\n", r"line 2: the pair is repeated with another grade"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\n", r"has no judgements"),
    ],
)
def test_a_malformed_file_names_its_line(directory: Path, file: str, content: str | bytes, where: str) -> None:
    (directory / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match=where) as raised:
        list(open_collection(directory).documents())
    assert raised.value.code == "malformed_collection"


@pytest.mark.parametrize("damage", [slice(0, -20), slice(40, None), slice(0, 0)])
def test_a_damaged_archive_is_refused(directory: Path, damage: slice) -> None:
    (directory / "corpus.jsonl").unlink()
    many = gzip.compress(lines([{"_id": str(n), "text": f"text {n * n}"} for n in range(500)]).encode())
    broken = many[:40] + many[80:] if damage.start == 40 else many[damage]
    (directory / "corpus.jsonl.gz").write_bytes(broken or b"no archive")
    with pytest.raises(InvalidInput, match="cannot be read"):
        list(open_collection(directory).documents())


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(directory: Path, missing: str) -> None:
    (directory / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing) as raised:
        open_collection(directory)
    assert raised.value.code == "collection_not_found"


def test_missing_directories_and_files_are_refused(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="no directory"):
        open_collection(directory / "absent")
    with pytest.raises(ConfigurationError, match="no file"):
        open_collection(directory, judgements=directory / "absent.tsv")


def test_judgements_of_trec_are_read_and_negative_grades_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text("101 0 d1 2\n101 0 d2 -2\n102 Q0 d1 0\n")
    assert read_judgements(path) == {"101": {"d1": 2, "d2": 0}, "102": {"d1": 0}}


def test_a_query_is_a_document_by_its_words_and_not_by_its_number_alone() -> None:
    argument = "Being vegetarian helps the environment because less land is needed."
    collection = JudgedCollection("c", Path("corpus.jsonl"), {"a": argument, "1": "land is needed", "2": ""}, {})
    own = collection.is_own_document
    assert own(CorpusDocument("a", "", argument))
    assert own(CorpusDocument("a", "animals", argument.replace(" ", "  ")))
    assert not own(CorpusDocument("1", "", argument)), "a short query that the document of its number happens to hold"
    assert not own(CorpusDocument("1", "", "Flow past a flat plate."))
    assert not own(CorpusDocument("b", "", argument))
    assert not own(CorpusDocument("2", "", ""))

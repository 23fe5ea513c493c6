"""The demo's corpus and questions in BEIR's layout, so that what measures collections measures them too."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cli.relevance.collection import Collection, open_collection
from examples.stdlib.corpus import documents
from examples.stdlib.questions import questions


def stdlib_collection(directory: Path) -> Collection:
    """Writes the collection to `directory`, unless it is there, and opens it. Every acceptable answer has grade 1."""
    if not (directory / "qrels.tsv").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        asked = {str(number): question for number, question in enumerate(questions(), 1)}
        _write(
            directory / "corpus.jsonl", ({"_id": d["id"], "title": d["title"], "text": d["text"]} for d in documents())
        )
        _write(directory / "queries.jsonl", ({"_id": number, "text": q.text} for number, q in asked.items()))
        lines = [f"{number}\t{name}\t1\n" for number, q in asked.items() for name in dict.fromkeys(q.answers + q.also)]
        (directory / "qrels.tsv").write_text("".join(lines), encoding="utf-8")
    return open_collection(directory)


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

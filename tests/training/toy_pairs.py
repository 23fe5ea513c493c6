"""Pairs that a model learns in seconds by expansion: no passage contains a word of its query."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.training.tiny_start import PIECES, make_start

TOPICS = 12
WORDS = [
    *(f"ask{chr(97 + n)}" for n in range(TOPICS)),
    *(f"tell{chr(97 + n)}" for n in range(TOPICS)),
    "so",
    "and",
    "of",
]


def toy_start(directory: Path, dropout: float = 0.1) -> Path:
    """Make a start whose vocabulary has the toy's words, and whose tables give every piece weight 1."""
    start = make_start(directory, pieces=[*PIECES, *WORDS])
    torch.manual_seed(3)
    # The large weights of make_start saturate every layer, so a model could not learn from them.
    model = transformers.BertForMaskedLM(
        transformers.BertConfig.from_pretrained(
            start, initializer_range=0.1, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
    )
    model.save_pretrained(start)
    for name in ("query_weights.json", "idf.json"):
        (start / name).write_text(json.dumps(dict.fromkeys(json.loads((start / name).read_text()), 1.0)))
    return start


def toy_lines(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `count` pairs: the query "askX", and a passage with "tellX" among filler words."""
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        letter = chr(97 + number % TOPICS)
        filler = [chance.choice(["so", "and", "of", "the", "a"]) for _ in range(chance.randint(2, 6))]
        words = [f"tell{letter}", *filler]
        chance.shuffle(words)
        lines.append({"query": f"ask{letter}", "passage": " ".join(words)})
    return lines


def toy_files(directory: Path, count: int = 240) -> Path:
    """Write pairs.jsonl and a judged collection `toy`; return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in toy_lines(count)))
    judged = toy_lines(TOPICS * 3, seed=1)
    collection = directory / "toy"
    collection.mkdir()
    with (collection / "corpus.jsonl").open("w") as file:
        for place, line in enumerate(judged):
            file.write(json.dumps({"_id": f"d{place}", "title": "", "text": line["passage"]}) + "\n")
    with (collection / "queries.jsonl").open("w") as file:
        for letter in range(TOPICS):
            file.write(json.dumps({"_id": f"q{letter}", "text": f"ask{chr(97 + letter)}"}) + "\n")
    with (collection / "qrels.tsv").open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for place in range(len(judged)):
            file.write(f"q{place % TOPICS}\td{place}\t1\n")
    return directory


def toy_recipe(start: Path, files: Path, /, **changes: Any) -> dict[str, Any]:
    """Return a recipe that learns the toy in less than ten seconds on one core."""
    return {
        "start": str(start),
        "pairs": [{"path": str(files / "pairs.jsonl")}],
        "collections": [str(files / "toy")],
        "encoder": {"passage_pieces": 16, "query_weighting": "learned"},
        "steps": 100, "batch": 12, "learning_rate": 3e-3, "evaluate_every": 50, "held_out": 0.0, "warmup": 0.1,
        "regulariser_weight": 0.001, "contrastive_weight": 1.0, "precision": "float32",
    } | changes  # fmt: skip

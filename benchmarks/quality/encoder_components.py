"""Components of a sparse encoder at equal density: the table of the unified framework, and where IDF belongs.

    python -m benchmarks encoder_components START PAIRS DATA --out DIR --seeds 3 \
        --json benchmarks/results/encoder-components.json

Each variant of `models.training.ablation` is trained from START on the same pairs, in the same order, with the same
teachers. The regulariser's weight follows the density of the training passages (`target_weights`), so that no variant
wins by denser documents. PAIRS is a directory with files of pairs, DATA one with a directory for each judged
collection, in BEIR's layout; the collections choose nothing, and each variant is shown as it is after its last step.

The figures of each run are kept in `--runs`, which is committed: a run that has figures there is not repeated, so the
seeds can be trained on several days. After a training its vectors are also searched on a real OpenSearch, beside
`match` on the same documents. Needs the extra `train`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import uvloop

from benchmarks.collections import load_vectors, save_vectors
from benchmarks.large_index import PASSAGE_SPEC
from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    fill_generation,
    merge_to_one_segment,
    open_node,
    read_opensearch_version,
    wait_for_merges,
)
from models.export.collection import read_collection
from models.judged_queries import JudgedQueries
from models.progress import SilentReporter
from models.significance import compare_rankings
from models.training.ablation import AblationVariant, ablation_variants
from models.training.architecture import InferenceFreeEncoder
from models.training.evaluation import encode_texts, evaluation_figures
from models.training.prepare import open_start, prepare_material
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.run_directory import CHECKPOINTS
from models.training.teachers import SparseTeacher, expand_texts
from models.training.train import train_encoder
from models.training.trainer import DensityControl
from services.documents.document import Document
from services.encoders.query_table import QueryVector
from services.encoders.vectors import SparseVector
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import build_search_body, lexical_query, sparse_query
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

# The whole recipe has IDF in the match and plain FLOPS, the form of the published encoders (arXiv 2411.04403, second
# version). "query weighting none + regulariser idf_flops" is the first version, the same method by a change of
# variables, and "regulariser idf_flops" has IDF twice.
VARIANTS: Final = (
    "regulariser idf_flops", "query weighting none + regulariser idf_flops", "query weighting none",
    "query weighting learned", "query weighting learned + regulariser idf_flops", "no expansion",
    "document weighting binary", "document weighting mlp", "document weighting expmlp", "document weighting cls_mlm",
    "query weighting mlm", "query weighting mlp", "no expansion + query weighting mlm", "regulariser top_k",
    "regulariser l1", "no teachers",
)  # fmt: skip
PAIR_FILES: Final = ("wikipedia_lead", "wikipedia_body", "arxiv_daily", "opensearch_docs", "podcast_qa_changelog")
COLLECTIONS: Final = "adi,cisi,cosqa,cranfield,medline"
RUNS: Final = Path("benchmarks/results/encoder-components")
DOCUMENTS, QUERIES = "documents.npz", "queries.npz"
HIT_COUNT = 10
ROUNDS = 3


def encoder_components(argv: list[str] | None = None) -> None:
    """Train each variant of an encoder, and compare NDCG@10, density, expected FLOPS and latency."""
    parser = make_parser("encoder_components", encoder_components.__doc__)
    parser.add_argument("start", help="checkpoint to start from, as in a recipe")
    parser.add_argument("pairs", type=Path, help="directory of the pair files")
    parser.add_argument("data", type=Path, help="directory of the judged collections")
    parser.add_argument("--out", type=Path, required=True, help="directory of the trainings")
    parser.add_argument("--runs", type=Path, default=RUNS, help="figures of each run (default: %(default)s)")
    parser.add_argument("--only", action="append", help="variant to train; repeatable (default: all of the table)")
    parser.add_argument("--collections", default=COLLECTIONS, help="names, with commas (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="steps of a run (default: %(default)s)")
    parser.add_argument("--weights", type=float, default=60, help="weights of a passage (default: %(default)s)")
    run_benchmark("encoder_components", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each variant, and its difference from the variant that differs in one part."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    start = open_start(arguments.start, arguments.out, print)
    judged = [
        JudgedQueries.of(read_collection(arguments.data / name), 2000) for name in arguments.collections.split(",")
    ]
    for seed in range(arguments.seeds):
        variants = ablation_variants(base_recipe(arguments, start, seed), arguments.only or VARIANTS)
        for variant in variants:
            figures = run_path(arguments.runs, variant, seed)
            if not figures.is_file():
                train_variant(variant, arguments.out, figures, judged)
                measure_latency(figures, arguments.out / figures.stem, judged)
            print(f"{variant.name}, seed {seed}: {json.dumps(json.loads(figures.read_bytes())['mean'])}", flush=True)
    runs = {
        variant.name: [
            json.loads(run_path(arguments.runs, variant, seed).read_bytes()) for seed in range(arguments.seeds)
        ]
        for variant in variants
    }
    return {each.name: summarise(runs[each.name], runs[each.against], each.against) for each in variants}


def run_path(runs: Path, variant: AblationVariant, seed: int) -> Path:
    """Return the file of a run's figures."""
    return runs / f"{variant.directory_name}-{seed}.json"


def base_recipe(arguments: argparse.Namespace, start: str, seed: int) -> TrainingRecipe:
    """Return the whole recipe: IDF in the match, learned weights with expansion, FLOPS at a density."""
    content = {
        "start": start,
        "encoder": {"query_weighting": "idf", "regulariser": "flops", "passage_pieces": 128},
        "pairs": [{"path": arguments.pairs / f"{name}.jsonl.gz", "cap": 4000} for name in PAIR_FILES],
        "teachers": [
            {"kind": "dense", "name": "all-minilm-l6-v2", "weight": 0.6},
            {"kind": "bm25", "weight": 0.4},
        ],
        "negatives": {"sources": ["bm25"], "count": 1},
        "steps": arguments.steps,
        "batch": 16,
        "learning_rate": 5e-5,
        "regulariser_weight": 1e-3,
        "target_weights": arguments.weights,
        "evaluate_every": arguments.steps,
        "seed": seed,
    }
    return parse_recipe(content, "the benchmark's recipe")


def train_variant(variant: AblationVariant, out: Path, figures: Path, judged: Sequence[JudgedQueries]) -> None:
    """Train a variant, write its figures, and keep its vectors of the collections in its directory."""
    directory = out / figures.stem
    material = prepare_material(variant.recipe, directory, SilentReporter(), vectors=out / "vectors")
    train_encoder(
        variant.recipe,
        material,
        directory,
        report=_print_step,
        trained=partial(_write_figures, variant.recipe, directory, figures, judged, out / "expansions"),
    )


def _write_figures(
    recipe: TrainingRecipe,
    directory: Path,
    figures: Path,
    judged: Sequence[JudgedQueries],
    expansions: Path,
    encoder: InferenceFreeEncoder,
) -> None:
    by_collection: dict[str, dict[str, float]] = {}
    by_query: dict[str, list[float]] = {}
    kept: dict[str, list[SparseVector]] = {DOCUMENTS: [], QUERIES: []}

    def encode(side: str, method: Any, texts: Sequence[str]) -> list[dict[int, float]]:
        vectors = encode_texts(method, texts)
        kept[side] += [
            SparseVector(np.array(list(vector), dtype=np.int32), np.array(list(vector.values()), dtype=np.float32))
            for vector in vectors
        ]
        return vectors

    for collection in judged:
        read = collection
        if recipe.encoder.expand_by:
            teacher = SparseTeacher(recipe.encoder.expand_by)
            words = recipe.encoder.expand_words
            read = collection.rewritten(expand_texts(teacher, collection.documents, words, expansions))
        by_collection[collection.name], values = evaluation_figures(
            read,
            partial(encode, DOCUMENTS, encoder.encode_document),
            partial(encode, QUERIES, encoder.encode_query),
        )
        by_query[collection.name] = [round(float(value), 4) for value in values]
    for name, vectors in kept.items():
        save_vectors(directory / name, vectors)
    control = directory / CHECKPOINTS / f"checkpoint-{recipe.steps}" / DensityControl.FILE
    density = json.loads(control.read_bytes()) if control.is_file() else {}
    run = {
        "mean": mean_figures(by_collection),
        "by_collection": by_collection,
        "passage_weights": round(density["density"], 1) if density else None,
        "lambda": float(f"{density['lambda']:.3g}") if density else None,
        "query_weights": round(float(np.mean([len(vector.ids) for vector in kept[QUERIES]])), 1),
        "by_query": by_query,
    }
    figures.write_text(json.dumps(run) + "\n", encoding="utf-8")


def _print_step(step: int, steps: int, logs: Mapping[str, float]) -> None:
    if step % 100 == 0:
        print(f"  step {step} of {steps}: {json.dumps(dict(logs))}", flush=True)


def measure_latency(figures: Path, directory: Path, judged: Sequence[JudgedQueries]) -> None:
    """Add the latency of a run's vectors, over that of `match` on the same documents, to its figures."""
    texts = [text for collection in judged for text in collection.documents]
    queries = [text for collection in judged for text in collection.queries]
    vectors = load_vectors(directory / DOCUMENTS)
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, "components", PASSAGE_SPEC)
        fill_generation(
            search,
            settings,
            generation,
            (
                (Document(f"d{at}", text), [EncodedWindow(0, len(text), vector)])
                for at, (text, vector) in enumerate(zip(texts, vectors, strict=True))
            ),
        )
        wait_for_merges(search, generation)
        merge_to_one_segment(search, generation)
        found = uvloop.run(
            compare_with_match(settings, generation.physical, queries, load_vectors(directory / QUERIES))
        )
        version = read_opensearch_version(settings)
    run = json.loads(figures.read_bytes()) | {"over_match": found, "opensearch": version}
    figures.write_text(json.dumps(run) + "\n", encoding="utf-8")


async def compare_with_match(
    settings: Settings, index: str, queries: Sequence[str], vectors: Sequence[SparseVector]
) -> dict[str, float]:
    """Return the percentiles of the sparse search over those of `match`, for the same queries in turns."""
    of = dict(zip(queries, vectors, strict=True))
    bodies = {
        "sparse": {
            text: sparse_query(QueryVector(tuple(vector.ids.tolist()), tuple(vector.weights.tolist()), len(vector.ids)))
            for text, vector in of.items()
            if len(vector.ids)
        },
        "match": {text: lexical_query(text) for text in of},
    }
    timed = [text for text in of if text in bodies["sparse"]]
    async with LoopbackConnection(settings.opensearch_url) as connection:

        async def send(side: str, text: str) -> None:
            body = build_search_body(bodies[side][text], HIT_COUNT, False, settings.search_timeout)
            await connection.send("POST", f"/{index}/_search", orjson.dumps(body))

        durations = await take_turns({side: partial(send, side) for side in bodies}, timed, ROUNDS)
    rows = {side: summarise_durations(values) for side, values in durations.items()}
    return percentile_ratios(rows["sparse"], rows["match"])


def mean_figures(by_collection: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the collections."""
    rows = list(by_collection.values())
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def summarise(
    runs: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]], against: str
) -> dict[str, Any]:
    """Return the mean figures of a variant over its seeds, and the comparison with its reference, query by query."""
    return {
        "seeds": len(runs),
        "mean": mean_figures({str(at): run["mean"] for at, run in enumerate(runs)}),
        "sparse_by_seed": [run["mean"]["sparse"] for run in runs],
        "passage_weights": [run["passage_weights"] for run in runs],
        "query_weights": runs[0]["query_weights"],
        "lambda": [run["lambda"] for run in runs],
        "over_match": mean_latency([run["over_match"] for run in runs if "over_match" in run]),
        "by_collection": {
            name: mean_figures({str(at): run["by_collection"][name] for at, run in enumerate(runs)})
            for name in runs[0]["by_collection"]
        },
        "against": against,
        "difference": (
            None if runs is reference else compare_rankings(mean_by_query(reference), mean_by_query(runs)).figures()
        ),
    }


def mean_latency(ratios: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each percentile's ratio over the runs that have it; the first runs were not timed."""
    return {name: round(float(np.mean([run[name] for run in ratios])), 2) for name in ratios[0]} if ratios else {}


def mean_by_query(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return NDCG@10 of each query, its mean over the seeds."""
    return {
        f"{name}/{at}": float(np.mean([run["by_query"][name][at] for run in runs]))
        for name, values in runs[0]["by_query"].items()
        for at in range(len(values))
    }

"""Where IDF belongs in training: in the query table, in the regulariser, or in both, at equal density.

    python -m benchmarks idf_forms START PAIRS DATA --out DIR --json benchmarks/results/idf-forms.json

Each form is trained from START on the same pairs, in the same order, with the same teachers. The regulariser's weight
follows the density of the training passages (`target_weights`), so that no form wins by denser documents. PAIRS is a
directory with files of pairs, DATA one with a directory for each judged collection, in BEIR's layout; the collections
choose nothing. A run that exists in DIR is not repeated. Needs the extra `train`. See docs/decisions/0264.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measuring import make_parser, run_benchmark
from models.export.collection import read_collection
from models.judged_queries import JudgedQueries
from models.progress import SilentReporter
from models.significance import compare_rankings
from models.training.architecture import build_encoder
from models.training.evaluation import encode_texts, evaluation_figures
from models.training.prepare import open_start, prepare_material
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.run_directory import CHECKPOINTS
from models.training.train import train_encoder
from models.training.trainer import DensityControl

# Query weighting and regulariser of each form; the first is the reference of the comparisons. arXiv 2411.04403: the
# penalty alone is its first form, the match alone its second form and that of the published encoders.
FORMS: Final[dict[str, dict[str, str]]] = {
    "both": {"query_weighting": "idf", "regulariser": "idf_flops"},
    "match": {"query_weighting": "idf", "regulariser": "flops"},
    "penalty": {"query_weighting": "none", "regulariser": "idf_flops"},
    "match, learned": {"query_weighting": "learned", "regulariser": "flops"},
    "both, learned": {"query_weighting": "learned", "regulariser": "idf_flops"},
}
PAIR_FILES: Final = ("wikipedia_lead", "wikipedia_body", "arxiv_daily", "opensearch_docs", "podcast_qa_changelog")
COLLECTIONS: Final = "adi,cisi,cosqa,cranfield,medline"
FIGURES: Final = "figures.json"


def idf_forms(argv: list[str] | None = None) -> None:
    """Train every form with every seed, and compare NDCG@10, density and expected FLOPS on the collections."""
    parser = make_parser("idf_forms", idf_forms.__doc__)
    parser.add_argument("start", help="checkpoint to start from, as in a recipe")
    parser.add_argument("pairs", type=Path, help="directory of the pair files")
    parser.add_argument("data", type=Path, help="directory of the judged collections")
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--collections", default=COLLECTIONS, help="names, with commas (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each form (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="steps of a run (default: %(default)s)")
    parser.add_argument("--weights", type=float, default=60, help="weights of a passage (default: %(default)s)")
    run_benchmark("idf_forms", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each form, and its difference from the first form over all queries."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = open_start(arguments.start, arguments.out, print)
    judged = [
        JudgedQueries.of(read_collection(arguments.data / name), 2000) for name in arguments.collections.split(",")
    ]
    runs: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    for seed in range(arguments.seeds):
        for form, encoder in FORMS.items():
            recipe = form_recipe(arguments, start, encoder, seed)
            run = run_form(recipe, arguments.out, f"{form.replace(', ', '-')}-{seed}", judged)
            runs[form].append(run)
            print(f"{form}, seed {seed}: {json.dumps(run['mean'])}", flush=True)
    return {form: summarise(found, runs[next(iter(FORMS))]) for form, found in runs.items()}


def form_recipe(arguments: argparse.Namespace, start: str, encoder: Mapping[str, str], seed: int) -> TrainingRecipe:
    """Return the recipe of a form. Its only evaluation that may win is the last, so forms compare at the same step."""
    content = {
        "start": start,
        "encoder": {**encoder, "passage_pieces": 128},
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


def run_form(recipe: TrainingRecipe, out: Path, name: str, judged: Sequence[JudgedQueries]) -> dict[str, Any]:
    """Train a recipe, or read its figures: those of each collection, NDCG@10 of each query, and the last lambda."""
    directory = out / name
    figures = directory / FIGURES
    if figures.is_file():
        found: dict[str, Any] = json.loads(figures.read_bytes())
        return found
    material = prepare_material(recipe, directory, SilentReporter(), vectors=out / "vectors")
    best = train_encoder(recipe, material, directory, report=_print_step)
    encoder = build_encoder(best, recipe.encoder)
    encoder.eval()
    by_collection: dict[str, dict[str, float]] = {}
    by_query: dict[str, float] = {}
    for collection in judged:
        by_collection[collection.name], values = evaluation_figures(
            collection,
            lambda texts: encode_texts(encoder.encode_document, texts),
            lambda texts: encode_texts(encoder.encode_query, texts),
        )
        by_query |= {f"{collection.name}/{at}": round(float(value), 6) for at, value in enumerate(values)}
    checkpoint = directory / CHECKPOINTS / f"checkpoint-{recipe.steps}"
    control = json.loads((checkpoint / DensityControl.FILE).read_bytes())
    result = {
        "mean": mean_figures(by_collection),
        "by_collection": by_collection,
        "passage_weights": round(control["density"], 1),
        "lambda": control["lambda"],
        "by_query": by_query,
    }
    figures.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def _print_step(step: int, steps: int, logs: Mapping[str, float]) -> None:
    if step % 100 == 0:
        print(f"  step {step} of {steps}: {json.dumps(dict(logs))}", flush=True)


def mean_figures(by_collection: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the collections."""
    rows = list(by_collection.values())
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def summarise(runs: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean figures of a form over its seeds, and the comparison with the reference, query by query."""
    before, after = mean_by_query(reference), mean_by_query(runs)
    comparison = compare_rankings(before, after).as_json()
    return {
        "mean": mean_figures({str(at): run["mean"] for at, run in enumerate(runs)}),
        "sparse_by_seed": [run["mean"]["sparse"] for run in runs],
        "passage_weights": [run["passage_weights"] for run in runs],
        "lambda": [float(f"{run['lambda']:.3g}") for run in runs],
        "by_collection": {
            name: mean_figures({str(at): run["by_collection"][name] for at, run in enumerate(runs)})
            for name in runs[0]["by_collection"]
        },
        "against_first": {name: comparison[name] for name in ("difference", "low", "high", "p", "beyond_chance")},
    }


def mean_by_query(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return NDCG@10 of each query, its mean over the seeds."""
    return {query: float(np.mean([run["by_query"][query] for run in runs])) for query in runs[0]["by_query"]}

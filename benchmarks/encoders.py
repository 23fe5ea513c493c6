"""Speed of encoders: training steps and encoding, with the heads of sentence-transformers and of sparsewell.

    python -m benchmarks encoder_training CHECKPOINT --json benchmarks/results/encoder_training.json
    python -m benchmarks encoder_speed CHECKPOINT --json benchmarks/results/encoder_speed.json

Training: each head has its own process and so its own peak memory. The heads take turns step by step over the same
batches. A step encodes queries and passages, computes the ranking loss over the batch and IDF-aware FLOPS, and ends
with backward and AdamW.

Encoding: all sides read the same docstrings, cut at the same number of pieces, and take turns round by round in one
process, tokenising included. On the CPU they are SparseEncoder in float32, our head in float32, and the exported int8
graph; on a GPU SparseEncoder in float32 and in bfloat16, and our head in bfloat16.

The first round is not counted. Without a GPU the `gpu` figures are "not measured". Processor time, summed over threads,
compares even on a machine with other load.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations
from benchmarks.stdlib import read_docstrings

if TYPE_CHECKING:
    from models.training.architecture import InferenceFreeEncoder


NOT_MEASURED = "not measured"
HEADS = ("plain", "chunked")
TARGET_SPEEDUP = {"gpu": 2.0}
TARGETS = {"cpu_int8_over_sparse_encoder": 4.0, "gpu_chunked_over_sparse_encoder": 3.0}
PLAIN, OURS, INT8 = "SparseEncoder float32", "our head float32", "ONNX int8"
# SparseEncoder's default is 32; smaller batches have smaller logits and may be faster.
PLAIN_SMALL, SMALL = "SparseEncoder float32, batches of 8", 8
PLAIN_16, OURS_16 = "SparseEncoder bfloat16", "our head bfloat16"
EncodeSide = Callable[[list[str]], object]


def encoder_training(argv: list[str] | None = None) -> None:
    """Compare a training step of sentence-transformers' head with one of ours: time and peak memory."""
    parser = make_parser("encoder_training", encoder_training.__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint directory with idf.json")
    parser.add_argument("--documents", type=int, default=32, help="passages of a batch, each with a query")
    parser.add_argument("--pieces", type=int, default=192, help="longest passage")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run_benchmark("encoder_training", parser, measure_training, argv)


def measure_training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures by device."""
    import torch

    results: dict[str, Any] = {"cpu": step_seconds(arguments, "cpu"), "gpu": NOT_MEASURED, "target": TARGET_SPEEDUP}
    if torch.cuda.is_available():
        results["gpu"] = {"name": torch.cuda.get_device_name(), **step_seconds(arguments, "cuda")}
    return results


def step_seconds(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """Return the figures of both heads on a device, and their ratios."""
    texts = read_docstrings(arguments.documents * arguments.rounds)
    context = multiprocessing.get_context("spawn")
    sides: dict[str, tuple[BaseProcess, Connection]] = {}
    for head in HEADS:
        parent, child = context.Pipe()
        process: BaseProcess = context.Process(
            target=_serve_head, args=(head, device, vars(arguments), texts, child), daemon=True
        )
        process.start()
        sides[head] = process, parent
    pieces = {head: pipe.recv() for head, (_, pipe) in sides.items()}
    durations: dict[str, list[float]] = {head: [] for head in HEADS}
    processor: dict[str, list[float]] = {head: [] for head in HEADS}
    for turn in range(arguments.rounds + 1):
        for head in HEADS if turn % 2 else reversed(HEADS):
            pipe = sides[head][1]
            pipe.send(turn % arguments.rounds)
            by_clock, by_processor = pipe.recv()
            if turn:
                durations[head].append(by_clock)
                processor[head].append(by_processor)
    rows: dict[str, Any] = {}
    for head, (process, pipe) in sides.items():
        pipe.send(None)
        memory = pipe.recv()
        process.join(30)
        milliseconds = summarise_durations(durations[head], 1)
        rows[head] = {
            "milliseconds": milliseconds,
            "processor_milliseconds": summarise_durations(processor[head], 1),
            "steps_a_second": round(1000 / milliseconds["p50"], 3),
            **memory,
        }
        print(
            f"{device} {head:>8}: {milliseconds['p50']:8.1f} ms a step, peak {memory['peak_mib']:7.0f} MiB", flush=True
        )
    return {
        "mean_pieces_a_passage": round(pieces["plain"], 1),
        **rows,
        "plain_over_chunked_time": percentile_ratios(rows["plain"]["milliseconds"], rows["chunked"]["milliseconds"]),
        "plain_over_chunked_processor_time": percentile_ratios(
            rows["plain"]["processor_milliseconds"], rows["chunked"]["processor_milliseconds"]
        ),
        "plain_over_chunked_step_memory": round(
            rows["plain"]["above_loaded_mib"] / max(1.0, rows["chunked"]["above_loaded_mib"]), 2
        ),
    }


def _serve_head(
    head: str, device: str, arguments: Mapping[str, Any], texts: list[tuple[str, str]], pipe: Connection
) -> None:
    """Build one head, then run a step for each batch number received, until None.

    The answer to a number is the step's milliseconds by the clock and by the processor; the answer to None is the peak
    memory.
    """
    import torch
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from transformers.utils.logging import disable_progress_bar

    from models.training.architecture import build_encoder
    from models.training.losses import IdfFlopsRegulariser
    from models.training.recipe import EncoderRecipe
    from models.training.trainer import parameter_groups

    disable_progress_bar()
    torch.set_num_threads(arguments["threads"])
    torch.manual_seed(0)
    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": arguments["pieces"]})
    encoder = build_encoder(arguments["checkpoint"], recipe, device=device)
    assert encoder.idf is not None  # noqa: S101 (build_encoder loads it for idf_flops)
    encoder.train()
    regulariser = IdfFlopsRegulariser(torch.from_numpy(encoder.idf)).to(device)
    ranking = SparseMultipleNegativesRankingLoss(encoder)
    loss = SpladeLoss(encoder, ranking, document_regularizer_weight=1e-3, document_regularizer=regulariser)
    optimiser = torch.optim.AdamW(parameter_groups(encoder, 2e-5, 1e-3, 0.01))

    def step(batch: list[tuple[str, str]]) -> None:
        features = []
        for side, task in enumerate(("query", "document")):
            tokens = encoder.preprocess([pair[side] for pair in batch], task=task)
            features.append({key: tokens[key].to(device) for key in ("input_ids", "attention_mask")} | {"task": task})
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            total = sum(loss(features, None).values())
        total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    batches = [texts[at : at + arguments["documents"]] for at in range(0, len(texts), arguments["documents"])]
    first = encoder.preprocess([text for _, text in batches[0]], task="document")
    pipe.send(float(first["attention_mask"].sum(dim=1).float().mean()))
    loaded = psutil.Process().memory_info().rss / 2**20
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        loaded = torch.cuda.memory_allocated() / 2**20
    while (number := pipe.recv()) is not None:
        started, worked = time.perf_counter(), time.process_time()
        step(batches[number])
        if device == "cuda":
            torch.cuda.synchronize()
        pipe.send(((time.perf_counter() - started) * 1000, (time.process_time() - worked) * 1000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    pipe.send({"peak_mib": round(peak), "above_loaded_mib": round(peak - loaded)})


def encoder_speed(argv: list[str] | None = None) -> None:
    """Compare documents per second of SparseEncoder in float32, our head and the exported int8 graph."""
    parser = make_parser("encoder_speed", encoder_speed.__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint directory")
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--pieces", type=int, default=192, help="longest document")
    parser.add_argument("--batch", type=int, default=32, help="documents of a batch on the CPU")
    parser.add_argument("--gpu-batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run_benchmark("encoder_speed", parser, measure_speed, argv)


def measure_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return documents per second by side and device, and ratios of the medians."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    texts = [f"{title}\n{text}" for title, text in read_docstrings(arguments.documents)]
    plain = build_encoder(arguments, "plain", "cpu")
    lengths = plain.preprocess(texts, task="document")["attention_mask"].sum(dim=1).float()
    with tempfile.TemporaryDirectory() as work:
        sides = {
            PLAIN: encode_with_torch(plain, arguments.batch),
            PLAIN_SMALL: encode_with_torch(plain, SMALL),
            OURS: encode_with_torch(build_encoder(arguments, "chunked", "cpu"), arguments.batch),
            INT8: encode_with_onnx(arguments, Path(work) / "measured"),
        }
        rows = documents_per_second(sides, texts, arguments.rounds)
    results: dict[str, Any] = {
        "documents": len(texts),
        "mean_pieces": round(float(lengths.mean()), 1),
        "cpu": {**rows, **_ratios_to_base(rows, PLAIN), **_ratios_to_base(rows, PLAIN_SMALL)},
        "gpu": NOT_MEASURED,
        "target": TARGETS,
    }
    if torch.cuda.is_available():
        wide = {name: build_encoder(arguments, head, "cuda") for name, head in ((PLAIN, "plain"), (OURS_16, "chunked"))}
        on_gpu = {
            PLAIN: encode_with_torch(wide[PLAIN], arguments.gpu_batch),
            PLAIN_16: encode_with_torch(wide[PLAIN], arguments.gpu_batch, half=True),
            OURS_16: encode_with_torch(wide[OURS_16], arguments.gpu_batch, half=True),
        }
        rows = documents_per_second(on_gpu, texts, arguments.rounds)
        results["gpu"] = {"name": torch.cuda.get_device_name(), **rows, **_ratios_to_base(rows, PLAIN)}
    return results


def build_encoder(arguments: argparse.Namespace, head: str, device: str) -> "InferenceFreeEncoder":
    """Return an encoder with one of the heads, for inference."""
    from models.training.architecture import build_encoder
    from models.training.recipe import EncoderRecipe

    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": arguments.pieces})
    encoder = build_encoder(arguments.checkpoint, recipe, device=device)
    encoder.eval()
    return encoder


def encode_with_torch(encoder: "InferenceFreeEncoder", batch: int, half: bool = False) -> EncodeSide:
    """Return a function that encodes texts with `encode_document`."""
    import torch

    kind = encoder.device.type

    def encode(texts: list[str]) -> None:
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            encoder.encode_document(texts, batch_size=batch, show_progress_bar=False)
        if kind == "cuda":
            torch.cuda.synchronize()

    return encode


def encode_with_onnx(arguments: argparse.Namespace, directory: Path) -> EncodeSide:
    """Return a function that encodes the first window of texts with the exported int8 graph."""
    from models.export.export import ExportOptions, export_encoder
    from models.registry import load_encoder

    export_encoder(ExportOptions(str(arguments.checkpoint), directory, precision="int8"))
    encoder = load_encoder(str(directory), threads=arguments.threads)

    def encode(texts: list[str]) -> None:
        encoder.encode([encoder.windows(text, arguments.pieces - 2, 0)[0] for text in texts])

    return encode


def documents_per_second(sides: dict[str, EncodeSide], texts: list[str], rounds: int) -> dict[str, Any]:
    """Return the figures of each side; sides take turns in rotating order, the first round is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, worked = time.perf_counter(), time.process_time()
            sides[name](texts)
            if turn:
                speeds[name].append(len(texts) / (time.perf_counter() - started))
                processor[name].append((time.process_time() - worked) * 1000 / len(texts))
    rows = {
        name: {
            "documents_a_second": summarise_durations(speeds[name], 1),
            "processor_milliseconds": summarise_durations(processor[name], 2),
        }
        for name in sides
    }
    for name, row in rows.items():
        print(f"{name:>24}: {row['documents_a_second']['p50']:8.1f} documents a second", flush=True)
    return rows


def _ratios_to_base(rows: dict[str, Any], base: str) -> dict[str, Any]:
    """Return ratios of the medians to the base side: documents per second, and processor time."""
    clock, worked = "documents_a_second", "processor_milliseconds"
    return {
        f"over {base}": {name: round(row[clock]["p50"] / rows[base][clock]["p50"], 2) for name, row in rows.items()},
        f"over {base}, processor time": {
            name: round(rows[base][worked]["p50"] / row[worked]["p50"], 2) for name, row in rows.items()
        },
    }

"""What does a training step cost with sentence-transformers' head, and what with ours? Steps a second, peak memory.

    python -m benchmarks.encoder_training CHECKPOINT --json benchmarks/results/encoder_training.json

Each head has a process of its own, so that its peak is its own; they take turns step by step over the same batches and
never compute at once. A step is: queries and their passages encoded, ranking loss over the batch and IDF-aware FLOPS,
backward, AdamW. The first round is thrown away. Processor time, summed over threads, is what stays comparable on a
machine that others use. Without a GPU the `gpu` figures are "not measured".

How fast are documents encoded: SparseEncoder in float32 against ours? Documents a second, tokenising included.

    python -m benchmarks.encoder_speed CHECKPOINT --json benchmarks/results/encoder_speed.json

All sides read the same docstrings, cut at the same number of pieces, and take turns round by round in one process. On
the CPU: sentence-transformers in float32, our head in float32, and the exported int8 graph, as the workers run it. On a
GPU: sentence-transformers in float32 and in bfloat16, our head in bfloat16. Without a GPU those are "not measured".
Processor time a document, summed over threads, is what stays comparable on a machine that others use.
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

from benchmarks.measuring import choose, make_parser, percentile_ratios, run_benchmark, summarise_durations
from benchmarks.service import read_docstrings

if TYPE_CHECKING:
    from models.training.architecture import InferenceFreeEncoder


HEADS = ("plain", "chunked")
NOT_MEASURED = "not measured"
TARGET_SPEEDUP = {"gpu": 2.0}


def step_seconds(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Figures by head on one device, and plain over ours."""
    texts = read_docstrings(given.documents * given.rounds)
    context = multiprocessing.get_context("spawn")
    sides: dict[str, tuple[BaseProcess, Connection]] = {}
    for head in HEADS:
        ours, theirs = context.Pipe()
        process: BaseProcess = context.Process(
            target=_serve_head, args=(head, device, vars(given), texts, theirs), daemon=True
        )
        process.start()
        sides[head] = process, ours
    pieces = {head: pipe.recv() for head, (_, pipe) in sides.items()}
    took: dict[str, list[float]] = {head: [] for head in HEADS}
    processor: dict[str, list[float]] = {head: [] for head in HEADS}
    for turn in range(given.rounds + 1):
        for head in HEADS if turn % 2 else reversed(HEADS):
            pipe = sides[head][1]
            pipe.send(turn % given.rounds)
            by_clock, by_processor = pipe.recv()
            if turn:
                took[head].append(by_clock)
                processor[head].append(by_processor)
    rows: dict[str, Any] = {}
    for head, (process, pipe) in sides.items():
        pipe.send(None)
        memory = pipe.recv()
        process.join(30)
        found = summarise_durations(took[head], 1)
        rows[head] = {
            "milliseconds": found,
            "processor_milliseconds": summarise_durations(processor[head], 1),
            "steps_a_second": round(1000 / found["p50"], 3),
            **memory,
        }
        print(f"{device} {head:>8}: {found['p50']:8.1f} ms a step, peak {memory['peak_mib']:7.0f} MiB", flush=True)
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
    head: str, device: str, given: Mapping[str, Any], texts: list[tuple[str, str]], pipe: Connection
) -> None:
    """One head: builds, then a step a message (the number of the batch) until None; answers with milliseconds of the
    clock and of the processor."""
    import torch
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from transformers.utils.logging import disable_progress_bar

    from models.training.architecture import build_encoder, parameter_groups
    from models.training.losses import IdfFlopsRegulariser
    from models.training.recipe import EncoderRecipe

    disable_progress_bar()
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": given["pieces"]})
    encoder = build_encoder(given["checkpoint"], recipe, device=device)
    assert encoder.idf is not None  # noqa: S101 (idf_flops needs one, so build_encoder saw to it)
    encoder.train()
    regulariser = IdfFlopsRegulariser(torch.from_numpy(encoder.idf)).to(device)
    ranking = SparseMultipleNegativesRankingLoss(encoder)
    loss = SpladeLoss(encoder, ranking, document_regularizer_weight=1e-3, document_regularizer=regulariser)
    optimiser = torch.optim.AdamW(parameter_groups(encoder, 2e-5, 1e-3, 0.01))

    def step(batch: list[tuple[str, str]]) -> None:
        features = []
        for side, task in enumerate(("query", "document")):
            found = encoder.preprocess([one[side] for one in batch], task=task)
            features.append({key: found[key].to(device) for key in ("input_ids", "attention_mask")} | {"task": task})
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            total = sum(loss(features, None).values())
        total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    batches = [texts[at : at + given["documents"]] for at in range(0, len(texts), given["documents"])]
    first = encoder.preprocess([text for _, text in batches[0]], task="document")
    pipe.send(float(first["attention_mask"].sum(dim=1).float().mean()))
    loaded = psutil.Process().memory_info().rss / 2**20
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        loaded = torch.cuda.memory_allocated() / 2**20
    while (number := pipe.recv()) is not None:
        begun, worked = time.perf_counter(), time.process_time()
        step(batches[number])
        if device == "cuda":
            torch.cuda.synchronize()
        pipe.send(((time.perf_counter() - begun) * 1000, (time.process_time() - worked) * 1000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    pipe.send({"peak_mib": round(peak), "above_loaded_mib": round(peak - loaded)})


def measure_training(given: argparse.Namespace) -> dict[str, Any]:
    """Figures by device."""
    import torch

    found: dict[str, Any] = {"cpu": step_seconds(given, "cpu"), "gpu": NOT_MEASURED, "target": TARGET_SPEEDUP}
    if torch.cuda.is_available():
        found["gpu"] = {"name": torch.cuda.get_device_name(), **step_seconds(given, "cuda")}
    return found


def encoder_training(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser("encoder_training", __doc__)
    parser.add_argument("checkpoint", type=Path, help="what build_encoder starts from, with idf.json")
    parser.add_argument("--documents", type=int, default=32, help="passages of a batch, a query each")
    parser.add_argument("--pieces", type=int, default=192, help="longest passage")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run_benchmark("encoder_training", parser, measure_training, arguments)


TARGETS = {"cpu_int8_over_sparse_encoder": 4.0, "gpu_chunked_over_sparse_encoder": 3.0}
PLAIN, OURS, INT8 = "SparseEncoder float32", "our head float32", "ONNX int8"
# Its default is 32; smaller batches hold smaller logits, and may be faster.
PLAIN_SMALL, SMALL = "SparseEncoder float32, batches of 8", 8
PLAIN_16, OURS_16 = "SparseEncoder bfloat16", "our head bfloat16"
EncodeSide = Callable[[list[str]], object]


def build_encoder(given: argparse.Namespace, head: str, device: str) -> "InferenceFreeEncoder":
    """An encoder with one of the heads, for use."""
    from models.training.architecture import build_encoder
    from models.training.recipe import EncoderRecipe

    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": given.pieces})
    encoder = build_encoder(given.checkpoint, recipe, device=device)
    encoder.eval()
    return encoder


def encode_with_torch(encoder: "InferenceFreeEncoder", batch: int, half: bool = False) -> EncodeSide:
    """Texts through `encode_document`, its results as it gives them."""
    import torch

    kind = encoder.device.type

    def encode(texts: list[str]) -> None:
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            encoder.encode_document(texts, batch_size=batch, show_progress_bar=False)
        if kind == "cuda":
            torch.cuda.synchronize()

    return encode


def encode_with_onnx(given: argparse.Namespace, directory: Path) -> EncodeSide:
    """Texts through the exported graph in int8, the first window of each."""
    from models.export.export import ExportOptions, export_encoder
    from models.registry import load_encoder

    export_encoder(ExportOptions(str(given.checkpoint), directory, precision="int8"))
    encoder = load_encoder(str(directory), threads=given.threads)

    def encode(texts: list[str]) -> None:
        encoder.encode([encoder.windows(text, given.pieces - 2, 0)[0] for text in texts])

    return encode


def documents_per_second(sides: dict[str, EncodeSide], texts: list[str], rounds: int) -> dict[str, Any]:
    """Each side's rounds; the first is thrown away, and the order turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun, worked = time.perf_counter(), time.process_time()
            sides[name](texts)
            if turn:
                found[name].append(len(texts) / (time.perf_counter() - begun))
                processor[name].append((time.process_time() - worked) * 1000 / len(texts))
    rows = {
        name: {
            "documents_a_second": summarise_durations(found[name], 1),
            "processor_milliseconds": summarise_durations(processor[name], 2),
        }
        for name in sides
    }
    for name, row in rows.items():
        print(f"{name:>24}: {row['documents_a_second']['p50']:8.1f} documents a second", flush=True)
    return rows


def measure_speed(given: argparse.Namespace) -> dict[str, Any]:
    """Documents a second by side and device, and ratios of the medians."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(given.threads)
    texts = [f"{title}\n{text}" for title, text in read_docstrings(given.documents)]
    plain = build_encoder(given, "plain", "cpu")
    lengths = plain.preprocess(texts, task="document")["attention_mask"].sum(dim=1).float()
    with tempfile.TemporaryDirectory() as work:
        sides = {
            PLAIN: encode_with_torch(plain, given.batch),
            PLAIN_SMALL: encode_with_torch(plain, SMALL),
            OURS: encode_with_torch(build_encoder(given, "chunked", "cpu"), given.batch),
            INT8: encode_with_onnx(given, Path(work) / "measured"),
        }
        rows = documents_per_second(sides, texts, given.rounds)
    found: dict[str, Any] = {
        "documents": len(texts),
        "mean_pieces": round(float(lengths.mean()), 1),
        "cpu": {**rows, **_ratios_to_base(rows, PLAIN), **_ratios_to_base(rows, PLAIN_SMALL)},
        "gpu": NOT_MEASURED,
        "target": TARGETS,
    }
    if torch.cuda.is_available():
        wide = {name: build_encoder(given, head, "cuda") for name, head in ((PLAIN, "plain"), (OURS_16, "chunked"))}
        on_gpu = {
            PLAIN: encode_with_torch(wide[PLAIN], given.gpu_batch),
            PLAIN_16: encode_with_torch(wide[PLAIN], given.gpu_batch, half=True),
            OURS_16: encode_with_torch(wide[OURS_16], given.gpu_batch, half=True),
        }
        rows = documents_per_second(on_gpu, texts, given.rounds)
        found["gpu"] = {"name": torch.cuda.get_device_name(), **rows, **_ratios_to_base(rows, PLAIN)}
    return found


def _ratios_to_base(rows: dict[str, Any], base: str) -> dict[str, Any]:
    """How many times the documents a second of the base, and how many times less processor time; both of medians."""
    clock, worked = "documents_a_second", "processor_milliseconds"
    return {
        f"over {base}": {name: round(row[clock]["p50"] / rows[base][clock]["p50"], 2) for name, row in rows.items()},
        f"over {base}, processor time": {
            name: round(rows[base][worked]["p50"] / row[worked]["p50"], 2) for name, row in rows.items()
        },
    }


def encoder_speed(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser("encoder_speed", __doc__)
    parser.add_argument("checkpoint", type=Path, help="what build_encoder and the exporter read")
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--pieces", type=int, default=192, help="longest document")
    parser.add_argument("--batch", type=int, default=32, help="documents of a batch on the CPU")
    parser.add_argument("--gpu-batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run_benchmark("encoder_speed", parser, measure_speed, arguments)


BENCHMARKS = {"encoder_speed": encoder_speed, "encoder_training": encoder_training}

if __name__ == "__main__":
    choose(BENCHMARKS)

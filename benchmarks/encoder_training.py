"""What does a training step cost with sentence-transformers' head, and what with ours? Steps a second, peak memory.

    python -m benchmarks.encoder_training CHECKPOINT --json benchmarks/results/encoder_training.json

Each head has a process of its own, so that its peak is its own; they take turns step by step over the same batches and
never compute at once. A step is: queries and their passages encoded, ranking loss over the batch and IDF-aware FLOPS,
backward, AdamW. The first round is thrown away. Processor time, summed over threads, is what stays comparable on a
machine that others use. Without a GPU the `gpu` figures are "not measured".
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from benchmarks.docstrings import passages
from benchmarks.record import command_line, run
from benchmarks.timing import ratios, spread

HEADS = ("plain", "chunked")
NOT_MEASURED = "not measured"
TARGET = {"gpu": 2.0}


def step_seconds(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Figures by head on one device, and plain over ours."""
    texts = passages(given.documents * given.rounds)
    context = multiprocessing.get_context("spawn")
    sides: dict[str, tuple[BaseProcess, Connection]] = {}
    for head in HEADS:
        ours, theirs = context.Pipe()
        process: BaseProcess = context.Process(
            target=_serve, args=(head, device, vars(given), texts, theirs), daemon=True
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
        found = spread(took[head], 1)
        rows[head] = {
            "milliseconds": found,
            "processor_milliseconds": spread(processor[head], 1),
            "steps_a_second": round(1000 / found["p50"], 3),
            **memory,
        }
        print(f"{device} {head:>8}: {found['p50']:8.1f} ms a step, peak {memory['peak_mib']:7.0f} MiB", flush=True)
    return {
        "mean_pieces_a_passage": round(pieces["plain"], 1),
        **rows,
        "plain_over_chunked_time": ratios(rows["plain"]["milliseconds"], rows["chunked"]["milliseconds"]),
        "plain_over_chunked_processor_time": ratios(
            rows["plain"]["processor_milliseconds"], rows["chunked"]["processor_milliseconds"]
        ),
        "plain_over_chunked_step_memory": round(
            rows["plain"]["above_loaded_mib"] / max(1.0, rows["chunked"]["above_loaded_mib"]), 2
        ),
    }


def _serve(head: str, device: str, given: Mapping[str, Any], texts: list[tuple[str, str]], pipe: Connection) -> None:
    """One head: builds, then a step a message (the number of the batch) until None; answers with milliseconds of the
    clock and of the processor."""
    import torch
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from transformers.utils.logging import disable_progress_bar

    from models.training.architecture import build_encoder, parameter_groups
    from models.training.recipe_encoder import EncoderRecipe
    from models.training.regularisers import IdfFlops

    disable_progress_bar()
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": given["pieces"]})
    encoder = build_encoder(given["checkpoint"], recipe, device=device)
    assert encoder.idf is not None  # noqa: S101 (idf_flops needs one, so build_encoder saw to it)
    encoder.train()
    regulariser = IdfFlops(torch.from_numpy(encoder.idf)).to(device)
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


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Figures by device."""
    import torch

    found: dict[str, Any] = {"cpu": step_seconds(given, "cpu"), "gpu": NOT_MEASURED, "target": TARGET}
    if torch.cuda.is_available():
        found["gpu"] = {"name": torch.cuda.get_device_name(), **step_seconds(given, "cuda")}
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("encoder_training", __doc__)
    parser.add_argument("checkpoint", type=Path, help="what build_encoder starts from, with idf.json")
    parser.add_argument("--documents", type=int, default=32, help="passages of a batch, a query each")
    parser.add_argument("--pieces", type=int, default=192, help="longest passage")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run("encoder_training", parser, measure, arguments)


if __name__ == "__main__":
    main()

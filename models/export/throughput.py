"""Throughput of encoders: documents a second by cores, processes and threads.

`python -m models.export.throughput ENCODER... --out FILE` takes model directories, names of shipped encoders, and
checkpoints. Every setting encodes the same windows of `--pieces` pieces for `--seconds`. Encoders and settings
alternate for `--rounds` rounds, so that other processes on the machine affect all of them alike.

The report has three figures for each: documents a second of the best round; the median over rounds of documents a
second of processor time, which other processes hardly disturb (waiting for a core does not count); and the median ratio
of that figure to the first encoder's in the same round and setting.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from models.onnx_encoder import batch_by_length
from services.encoders.manifest import has_manifest, resolve_model_directory
from services.errors import ConfigurationError

log = logging.getLogger("models.export")
BatchRunner = Callable[[np.ndarray], None]


@dataclass(frozen=True, slots=True)
class ThroughputSetting:
    """Setting of a measurement: all processes share `cores`, and each computes with `threads` threads."""

    cores: int
    processes: int
    threads: int
    batch_pieces: int
    spinning: bool = False


@dataclass(frozen=True, slots=True)
class ThroughputRound:
    """Documents a second of all processes together, by the clock and by their processor time."""

    by_clock: float
    by_processor: float


ThroughputRounds = dict[tuple[str, ThroughputSetting], list[ThroughputRound]]


def list_settings(cores: Sequence[int], batches: Sequence[int]) -> list[ThroughputSetting]:
    """List the settings: a process of one thread, of a thread a core, of spinning threads, and a process for each core.

    Twice as many processes as cores show the loss of a worker that starts too many.
    """
    settings: list[ThroughputSetting] = []
    for count in cores:
        layouts = [(1, 1, False), (1, count, False), (1, count, count > 1), (count, 1, False), (2 * count, 1, False)]
        settings += [ThroughputSetting(count, p, t, batch, spin) for batch in batches for p, t, spin in layouts]
    # with one core several layouts are the same
    return list(dict.fromkeys(settings))


def measure_round(directory: Path, setting: ThroughputSetting, pieces: int, seconds: float) -> ThroughputRound:
    """Measure one round of one setting."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(setting.processes), context.Queue()
    workers = [
        context.Process(target=run_process, args=(directory, setting, pieces, seconds, gate, results))
        for _ in range(setting.processes)
    ]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    documents = sum(done for done, _, _ in outcomes)
    return ThroughputRound(
        sum(done / clock for done, clock, _ in outcomes), documents / sum(computed for _, _, computed in outcomes)
    )


def run_process(
    directory: Path, setting: ThroughputSetting, pieces: int, seconds: float, gate: Any, results: Any
) -> None:
    """Run one process: load, warm up, wait for the others, encode for `seconds`.

    The process reports the documents, their seconds, and the processor time of all its threads.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    run = make_runner(directory, setting.threads, spinning=setting.spinning)
    rows = make_random_rows(pieces, 64)
    batches = [np.stack([rows[p] for p in batch]) for batch in batch_by_length([pieces] * 64, setting.batch_pieces)]
    run(batches[0])
    gate.wait()
    done, turn, began, computed = 0, 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        run(batches[turn % len(batches)])
        done += len(batches[turn % len(batches)])
        turn += 1
    results.put((done, time.perf_counter() - began, time.process_time() - computed))


def make_random_rows(pieces: int, count: int) -> list[np.ndarray]:
    """Return rows of random pieces; the time of the graph does not depend on the pieces."""
    generator = np.random.default_rng(11)
    return [generator.integers(1000, 20_000, pieces).astype(np.int32) for _ in range(count)]


def make_runner(directory: Path, threads: int, *, spinning: bool) -> BatchRunner:
    """Return a function that encodes int32 [documents, pieces] without padding and discards the result.

    A model directory runs as in a worker. A checkpoint runs through sentence-transformers' Transformer and
    SpladePooling in float32, as SparseEncoder does for documents, without tokenisation.
    """
    return (
        _make_onnx_runner(directory, threads, spinning=spinning)
        if has_manifest(directory)
        else _make_plain_runner(directory, threads)
    )


def _make_onnx_runner(directory: Path, threads: int, *, spinning: bool) -> BatchRunner:
    import onnxruntime

    from models.onnx_encoder import MODEL_FILE, make_session_options

    options = make_session_options(threads, spinning=spinning)
    session = onnxruntime.InferenceSession(str(directory / MODEL_FILE), options, providers=["CPUExecutionProvider"])

    def run(batch: np.ndarray) -> None:
        session.run(["ids", "weights"], {"input_ids": batch, "attention_mask": np.ones_like(batch)})

    return run


def _make_plain_runner(directory: Path, threads: int) -> BatchRunner:
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    torch.set_num_threads(threads)
    document = Transformer(str(directory), transformer_task="fill-mask").float().eval()
    pooling = SpladePooling("max").eval()

    def run(batch: np.ndarray) -> None:
        with torch.inference_mode():
            ids = torch.from_numpy(batch.astype(np.int64))
            pooling(document({"input_ids": ids, "attention_mask": torch.ones_like(ids)}))

    return run


def build_report(measured: ThroughputRounds, first: str) -> list[dict[str, Any]]:
    """Return a row for each encoder and setting."""
    return [
        {
            "encoder": name,
            **asdict(setting),
            "documents_a_second": round(max(done.by_clock for done in rounds), 1),
            "rounds": [round(done.by_clock, 1) for done in rounds],
            "documents_a_processor_second": round(median(done.by_processor for done in rounds), 1),
            f"times_{first}": round(
                median(a.by_processor / b.by_processor for a, b in zip(rounds, measured[first, setting], strict=True)),
                2,
            ),
        }
        for (name, setting), rounds in measured.items()
    ]


def cpu_name() -> str:
    """Return the processor's model as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m models.export.throughput", description=__doc__)
    parser.add_argument("encoders", nargs="+", help="the others are compared with the first")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=_parse_counts, default=[1, len(os.sched_getaffinity(0))], help="as in 1,2")
    parser.add_argument("--batch-pieces", type=_parse_counts, default=[1024], help="as in 256,1024,4096")
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    available = len(os.sched_getaffinity(0))
    if not 0 < min(arguments.cores) <= max(arguments.cores) <= available:
        raise ConfigurationError("bad_cores", f"--cores must be between 1 and {available}, the cores of this process.")
    load = round(os.getloadavg()[0], 1)
    places = [_parse_encoder(name) for name in arguments.encoders]
    every = list_settings(sorted(set(arguments.cores)), arguments.batch_pieces)
    measured: ThroughputRounds = {(name, setting): [] for name, _ in places for setting in every}
    for _ in range(arguments.rounds):
        for setting in every:
            for name, directory in places:
                measurement = measure_round(directory, setting, arguments.pieces, arguments.seconds)
                measured[name, setting].append(measurement)
                log.info("%s, %s: %s", name, setting, measurement)
    result = {
        "machine": {
            "cpu": cpu_name(),
            "cores": available,
            "load_average_before": load,
            "load_average_after": round(os.getloadavg()[0], 1),
            "onnxruntime": version("onnxruntime"),
        },
        "pieces": arguments.pieces,
        "seconds": arguments.seconds,
        "settings": build_report(measured, places[0][0]),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def _parse_counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parse_encoder(name: str) -> tuple[str, Path]:
    """Return a name for the report, and the directory."""
    path = Path(name)
    if (path / "config.json").is_file() and not (path / "manifest.json").is_file():
        return f"{path.resolve().name} (sentence-transformers, float32)", path
    directory = resolve_model_directory(name)
    return directory.name, directory


if __name__ == "__main__":
    main()

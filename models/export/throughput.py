"""`python -m models.export.throughput ENCODER`: documents a second of the bare session, by threads and processes.

Every setting encodes the same windows of `--pieces` pieces for `--seconds`; the settings take turns for `--rounds`
rounds, so that another process on the machine hurts all of them alike, and the best round of each is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from models.batching import length_batches
from models.export.machine import cpu_name
from models.onnx_encoder import MODEL, session_options
from services.manifest import resolve

log = logging.getLogger("models.export")


@dataclass(frozen=True)
class Setting:
    processes: int
    threads: int
    batch_pieces: int
    spinning: bool


def rows(vocabulary: int, pieces: int, count: int) -> list[np.ndarray]:
    """Random pieces: the time of the graph does not depend on which they are."""
    generator = np.random.default_rng(11)
    return [generator.integers(1000, vocabulary, pieces).astype(np.int32) for _ in range(count)]


def work(path: str, setting: Setting, pieces: int, seconds: float, gate: Any, results: Any) -> None:
    """One process: loads, warms up, waits for the others, encodes for `seconds`, reports documents a second."""
    options = session_options(setting.threads, spinning=setting.spinning)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    made = rows(20_000, pieces, 64)
    batches = [np.stack([made[p] for p in batch]) for batch in length_batches([pieces] * 64, setting.batch_pieces)]

    def run(batch: np.ndarray) -> int:
        session.run(["ids", "weights"], {"input_ids": batch, "attention_mask": np.ones_like(batch)})
        return len(batch)

    run(batches[0])
    gate.wait()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += run(batches[done // 64 % len(batches)])
    results.put(done / (time.perf_counter() - began))


def measure(path: str, setting: Setting, pieces: int, seconds: float) -> float:
    """Documents a second of all the setting's processes together."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(setting.processes), context.Queue()
    workers = [
        context.Process(target=work, args=(path, setting, pieces, seconds, gate, results))
        for _ in range(setting.processes)
    ]
    for worker in workers:
        worker.start()
    total = sum(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m models.export.throughput", description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    directory = resolve(arguments.encoder)
    settings = [Setting(1, 2, budget, True) for budget in (256, 512, 1024, 2048, 4096)]
    settings += [Setting(1, 2, 1024, False), Setting(1, 1, 1024, False), Setting(2, 1, 1024, False)]
    best: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for _ in range(arguments.rounds):
        for setting, found in best.items():
            found.append(measure(str(directory / MODEL), setting, arguments.pieces, arguments.seconds))
            log.info("%s: %.1f documents a second", setting, found[-1])
    report = {
        "encoder": directory.name,
        "machine": {
            "cpu": cpu_name(),
            "cores": multiprocessing.cpu_count(),
            "load_average_before": load,
            "onnxruntime": version("onnxruntime"),
        },
        "pieces": arguments.pieces,
        "settings": [
            {**asdict(setting), "documents_a_second": round(max(found), 1), "rounds": [round(x, 1) for x in found]}
            for setting, found in best.items()
        ],
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

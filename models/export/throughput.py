"""`python -m models.export.throughput ENCODER... --out FILE`: documents a second by cores, processes and threads.

Encoders are model directories (or names of shipped ones) and checkpoints, see `models.export.runners`. Every setting
encodes the same windows of `--pieces` pieces for `--seconds`; encoders and settings take turns for `--rounds` rounds,
so that another process on the machine hurts all of them alike. Three figures of each are kept: the best round's
documents a second; the median over rounds of documents a second of processor time, which other processes hardly disturb
(waiting for a core does not count); and the median ratio of that to the first encoder's in the same round and setting.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from models.batching import length_batches
from models.export.machine import cpu_name
from models.export.runners import runner
from services.errors import ConfigurationError
from services.manifest import resolve

log = logging.getLogger("models.export")


@dataclass(frozen=True, slots=True)
class Setting:
    """`cores` are all that the setting's processes share; each process computes with `threads` threads."""

    cores: int
    processes: int
    threads: int
    batch_pieces: int
    spinning: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """Documents a second of all processes together, by the clock and by the processor time that they took."""

    by_clock: float
    by_processor: float


Measured = dict[tuple[str, Setting], list[Round]]


def settings(cores: Sequence[int], batches: Sequence[int]) -> list[Setting]:
    """One process of one thread, of a thread a core, the same with spinning threads, and a process a core.

    Twice as many processes as cores are there to see what a worker loses that starts too many.
    """
    found: list[Setting] = []
    for count in cores:
        layouts = [(1, 1, False), (1, count, False), (1, count, count > 1), (count, 1, False), (2 * count, 1, False)]
        found += [Setting(count, p, t, batch, spin) for batch in batches for p, t, spin in layouts]
    # (of one core several of these are the same)
    return list(dict.fromkeys(found))


def rows(pieces: int, count: int) -> list[np.ndarray]:
    """Random pieces: the time of the graph does not depend on which they are."""
    generator = np.random.default_rng(11)
    return [generator.integers(1000, 20_000, pieces).astype(np.int32) for _ in range(count)]


def work(directory: Path, setting: Setting, pieces: int, seconds: float, gate: Any, results: Any) -> None:
    """One process: loads, warms up, waits for the others, encodes for `seconds`.

    It reports the documents, the seconds that it took for them, and the processor time of all its threads.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    run = runner(directory, setting.threads, spinning=setting.spinning)
    made = rows(pieces, 64)
    batches = [np.stack([made[p] for p in batch]) for batch in length_batches([pieces] * 64, setting.batch_pieces)]
    run(batches[0])
    gate.wait()
    done, turn, began, computed = 0, 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        run(batches[turn % len(batches)])
        done += len(batches[turn % len(batches)])
        turn += 1
    results.put((done, time.perf_counter() - began, time.process_time() - computed))


def measure(directory: Path, setting: Setting, pieces: int, seconds: float) -> Round:
    """One round of one setting."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(setting.processes), context.Queue()
    workers = [
        context.Process(target=work, args=(directory, setting, pieces, seconds, gate, results))
        for _ in range(setting.processes)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    documents = sum(done for done, _, _ in found)
    return Round(sum(done / clock for done, clock, _ in found), documents / sum(computed for _, _, computed in found))


def report(measured: Measured, first: str) -> list[dict[str, Any]]:
    """A row for each encoder and setting."""
    return [
        {
            "encoder": name,
            **asdict(setting),
            "documents_a_second": round(max(one.by_clock for one in found), 1),
            "rounds": [round(one.by_clock, 1) for one in found],
            "documents_a_processor_second": round(median(one.by_processor for one in found), 1),
            f"times_{first}": round(
                median(a.by_processor / b.by_processor for a, b in zip(found, measured[first, setting], strict=True)), 2
            ),
        }
        for (name, setting), found in measured.items()
    ]


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _place(name: str) -> tuple[str, Path]:
    """A name for the report, and the directory."""
    path = Path(name)
    if (path / "config.json").is_file() and not (path / "manifest.json").is_file():
        return f"{path.resolve().name} (sentence-transformers, float32)", path
    found = resolve(name)
    return found.name, found


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m models.export.throughput", description=__doc__)
    parser.add_argument("encoders", nargs="+", help="the first is what the others are compared with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=_counts, default=[1, len(os.sched_getaffinity(0))], help="as in 1,2")
    parser.add_argument("--batch-pieces", type=_counts, default=[1024], help="as in 256,1024,4096")
    parser.add_argument("--pieces", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    available = len(os.sched_getaffinity(0))
    if not 0 < min(arguments.cores) <= max(arguments.cores) <= available:
        raise ConfigurationError("bad_cores", f"--cores are between 1 and the {available} that this process may use.")
    load = round(os.getloadavg()[0], 1)
    places = [_place(name) for name in arguments.encoders]
    every = settings(sorted(set(arguments.cores)), arguments.batch_pieces)
    measured: Measured = {(name, setting): [] for name, _ in places for setting in every}
    for _ in range(arguments.rounds):
        for setting in every:
            for name, directory in places:
                found = measure(directory, setting, arguments.pieces, arguments.seconds)
                measured[name, setting].append(found)
                log.info("%s, %s: %s", name, setting, found)
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
        "settings": report(measured, places[0][0]),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

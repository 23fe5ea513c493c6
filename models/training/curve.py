"""The learning curve of a run, and the best checkpoint by it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sentence_transformers import SparseEncoder
from sentence_transformers.base.evaluation import BaseEvaluator

from models.training.device import out_of_memory
from models.training.evaluation import Judged, figures

log = logging.getLogger("models.training")
CURVE, BEST, EVALUATION = "curve.jsonl", "best", "evaluation.json"
_BATCH = 32


def vectors(encode: Callable[..., Any], texts: Sequence[str]) -> list[dict[int, float]]:
    """Vocabulary id to weight of each text, by one of SparseEncoder's encode methods.

    Where memory runs out it is done again with half as many at once; for one text the error goes on.
    """
    if not texts:
        return []
    found, batch = None, _BATCH
    while found is None:
        try:
            found = encode(
                list(texts), batch_size=batch, convert_to_sparse_tensor=True, save_to_cpu=True, show_progress_bar=False
            ).coalesce()
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not out_of_memory(error):
                raise
            batch //= 2
            log.warning("memory ran out in an evaluation: going on with %d texts at once", batch)
    result: list[dict[int, float]] = [{} for _ in texts]
    rows, pieces = found.indices().tolist()
    for row, piece, weight in zip(rows, pieces, found.values().tolist(), strict=True):
        if weight > 0:
            result[row][piece] = weight
    return result


def read_curve(out: Path) -> list[dict[str, Any]]:
    """The evaluations so far, one a step: a run that was killed before its next checkpoint makes some again. A last
    line that a killed process left half written is passed over."""
    path = out / CURVE
    if not path.is_file():
        return []
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        steps[entry["step"]] = entry
    return list(steps.values())


def read_best(out: Path) -> dict[str, Any] | None:
    """The evaluation of the encoder in OUT/best, which may be an earlier one than the curve's best line."""
    best = out / BEST
    if not best.is_dir() and best.with_name(f"{BEST}.old").is_dir():
        with suppress(OSError):  # (another device of the run was first)
            best.with_name(f"{BEST}.old").rename(best)  # (a run was killed between the two renames of `_put`)
    try:
        found: dict[str, Any] = json.loads((best / EVALUATION).read_bytes())
    except (OSError, ValueError):
        return None
    return found


class CurveEvaluator(BaseEvaluator):
    """Evaluates on each collection, writes curve.jsonl, keeps the best encoder in `best`, copies both out.

    The best has the highest mean NDCG@10 of the encoder alone over `judged`; `reported` are only shown.
    `save(model, directory)` writes an exportable checkpoint. A machine that is lost takes its checkpoints along, so
    everything goes to `copy_to` each time.
    """

    def __init__(
        self,
        judged: Sequence[Judged],
        out: Path,
        save: Callable[[SparseEncoder, Path], None],
        *,
        reported: Sequence[Judged] = (),
        copy_to: Path | None = None,
        report: Callable[[dict[str, Any]], None] = lambda entry: None,
    ) -> None:
        super().__init__()
        self.primary_metric = "mean"
        self._judged, self._reported, self._out, self._save = judged, reported, out, save
        self._copy_to, self._report = copy_to, report
        self._begun = time.monotonic()
        earlier = read_curve(out)
        self._seconds = max((entry["seconds"] for entry in earlier), default=0.0)
        kept = read_best(out)
        self.best = -1.0 if kept is None else float(kept["mean"])
        if copy_to is not None:
            copy_to.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, model: SparseEncoder, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found = {
            judged.name: figures(
                judged,
                lambda texts: vectors(model.encode_document, texts),
                lambda texts: vectors(model.encode_query, texts),
            )
            for judged in (*self._judged, *self._reported)
        }
        mean = sum(found[judged.name]["sparse"] for judged in self._judged) / len(self._judged)
        mean = round(mean, 4)
        entry = {
            "step": steps,
            "seconds": round(self._seconds + time.monotonic() - self._begun, 1),
            "mean": mean,
            "collections": found,
        }
        # the encoder before its line: killed in between, a run evaluates again instead of trusting a line about nothing
        better = mean > self.best
        if better:
            self.best = mean
            self._keep(model, entry)
        with (self._out / CURVE).open("a+b") as file:
            # (behind half a line, which a full disk leaves, this one would not be read either)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            begin = b"" if file.read() in (b"", b"\n") else b"\n"
            file.write(begin + json.dumps(entry).encode() + b"\n")
        if self._copy_to is not None:
            self._copy_out(self._copy_to, better)
        self._report(entry)
        return {"mean": mean}

    def _keep(self, model: SparseEncoder, entry: dict[str, Any]) -> None:
        """Written beside the old one and then put in its place: a kill in between leaves one of them whole."""
        new = self._out / f"{BEST}.new"
        shutil.rmtree(new, ignore_errors=True)
        self._save(model, new)
        (new / EVALUATION).write_text(json.dumps(entry, indent=2) + "\n")
        _put(new, self._out / BEST)
        shutil.rmtree(new)

    def _copy_out(self, to: Path, better: bool) -> None:
        """A copy that fails (a disk that went away) costs the copy, not the run."""
        try:
            shutil.copy2(self._out / CURVE, to / CURVE)
            if better or not (to / BEST / EVALUATION).is_file():
                _put(self._out / BEST, to / BEST)
        except OSError as error:
            log.warning("nothing was copied to %s (%s); the run goes on", to, error.strerror or error)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    made, old = target.with_name(target.name + ".put"), target.with_name(target.name + ".old")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source, made)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    made.rename(target)
    shutil.rmtree(old, ignore_errors=True)

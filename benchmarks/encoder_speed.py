"""How fast are documents encoded: SparseEncoder in float32 against ours? Documents a second, tokenising included.

    python -m benchmarks.encoder_speed CHECKPOINT --json benchmarks/results/encoder_speed.json

All sides read the same docstrings, cut at the same number of pieces, and take turns round by round in one process. On
the CPU: sentence-transformers in float32, our head in float32, and the exported int8 graph, as the workers run it. On a
GPU: sentence-transformers in float32 and in bfloat16, our head in bfloat16. Without a GPU those are "not measured".
Processor time a document, summed over threads, is what stays comparable on a machine that others use.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.docstrings import passages
from benchmarks.encoder_training import NOT_MEASURED
from benchmarks.record import command_line, run
from benchmarks.timing import spread

if TYPE_CHECKING:
    from models.training.portable import InferenceFreeEncoder

TARGETS = {"cpu_int8_over_sparse_encoder": 4.0, "gpu_chunked_over_sparse_encoder": 3.0}
PLAIN, OURS, INT8 = "SparseEncoder float32", "our head float32", "ONNX int8"
# Its default is 32; smaller batches hold smaller logits, and may be faster.
PLAIN_SMALL, SMALL = "SparseEncoder float32, batches of 8", 8
PLAIN_16, OURS_16 = "SparseEncoder bfloat16", "our head bfloat16"
Side = Callable[[list[str]], object]


def built(given: argparse.Namespace, head: str, device: str) -> "InferenceFreeEncoder":
    """An encoder with one of the heads, for use."""
    from models.training.architecture import build_encoder
    from models.training.recipe_encoder import EncoderRecipe

    recipe = EncoderRecipe.model_validate({"head": head, "passage_pieces": given.pieces})
    encoder = build_encoder(given.checkpoint, recipe, device=device)
    encoder.eval()
    return encoder


def by_torch(encoder: "InferenceFreeEncoder", batch: int, half: bool = False) -> Side:
    """Texts through `encode_document`, its results as it gives them."""
    import torch

    kind = encoder.device.type

    def encode(texts: list[str]) -> None:
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            encoder.encode_document(texts, batch_size=batch, show_progress_bar=False)
        if kind == "cuda":
            torch.cuda.synchronize()

    return encode


def by_onnx(given: argparse.Namespace, directory: Path) -> Side:
    """Texts through the exported graph in int8, the first window of each."""
    from models.export.order import Order, carry_out
    from models.registry import load_encoder

    carry_out(Order(str(given.checkpoint), directory, precision="int8"))
    encoder = load_encoder(str(directory), threads=given.threads)

    def encode(texts: list[str]) -> None:
        encoder.encode([encoder.windows(text, given.pieces - 2, 0)[0] for text in texts])

    return encode


def documents_a_second(sides: dict[str, Side], texts: list[str], rounds: int) -> dict[str, Any]:
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
        name: {"documents_a_second": spread(found[name], 1), "processor_milliseconds": spread(processor[name], 2)}
        for name in sides
    }
    for name, row in rows.items():
        print(f"{name:>24}: {row['documents_a_second']['p50']:8.1f} documents a second", flush=True)
    return rows


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Documents a second by side and device, and ratios of the medians."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(given.threads)
    texts = [f"{title}\n{text}" for title, text in passages(given.documents)]
    plain = built(given, "plain", "cpu")
    lengths = plain.preprocess(texts, task="document")["attention_mask"].sum(dim=1).float()
    with tempfile.TemporaryDirectory() as work:
        sides = {
            PLAIN: by_torch(plain, given.batch),
            PLAIN_SMALL: by_torch(plain, SMALL),
            OURS: by_torch(built(given, "chunked", "cpu"), given.batch),
            INT8: by_onnx(given, Path(work) / "measured"),
        }
        rows = documents_a_second(sides, texts, given.rounds)
    found: dict[str, Any] = {
        "documents": len(texts),
        "mean_pieces": round(float(lengths.mean()), 1),
        "cpu": {**rows, **_over(rows, PLAIN), **_over(rows, PLAIN_SMALL)},
        "gpu": NOT_MEASURED,
        "target": TARGETS,
    }
    if torch.cuda.is_available():
        wide = {name: built(given, head, "cuda") for name, head in ((PLAIN, "plain"), (OURS_16, "chunked"))}
        on_gpu = {
            PLAIN: by_torch(wide[PLAIN], given.gpu_batch),
            PLAIN_16: by_torch(wide[PLAIN], given.gpu_batch, half=True),
            OURS_16: by_torch(wide[OURS_16], given.gpu_batch, half=True),
        }
        rows = documents_a_second(on_gpu, texts, given.rounds)
        found["gpu"] = {"name": torch.cuda.get_device_name(), **rows, **_over(rows, PLAIN)}
    return found


def _over(rows: dict[str, Any], base: str) -> dict[str, Any]:
    """How many times the documents a second of the base, and how many times less processor time; both of medians."""
    clock, worked = "documents_a_second", "processor_milliseconds"
    return {
        f"over {base}": {name: round(row[clock]["p50"] / rows[base][clock]["p50"], 2) for name, row in rows.items()},
        f"over {base}, processor time": {
            name: round(rows[base][worked]["p50"] / row[worked]["p50"], 2) for name, row in rows.items()
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("encoder_speed", __doc__)
    parser.add_argument("checkpoint", type=Path, help="what build_encoder and the exporter read")
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--pieces", type=int, default=192, help="longest document")
    parser.add_argument("--batch", type=int, default=32, help="documents of a batch on the CPU")
    parser.add_argument("--gpu-batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count() or 1)
    run("encoder_speed", parser, measure, arguments)


if __name__ == "__main__":
    main()

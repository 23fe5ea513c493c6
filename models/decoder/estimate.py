"""Memory and time of training a decoder, computed from its configuration and not measured.

    python -m models.decoder.estimate mistral-7b --recipe examples/mistral-7b.json --tflops 400

The estimate counts frozen weights in the recipe's precision; adapters, their gradients and AdamW's two moments in
float32; activations that are alive at the same time; and operations: 2 x parameters x positions for a forward pass, the
same for the gradients of activations (frozen weights have none), and once more when activations are computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.decoder.recipe import DecoderRecipe, read_decoder_recipe

BYTES_PER_GB = 1e9
# From config.json of mistralai/Mistral-7B-v0.1.
MISTRAL_7B_CONFIG: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """A computed estimate: bytes of device memory, floating-point operations, hours."""

    body_parameters: int
    parameters: int
    adapter_parameters: int
    weights: float
    adapters_and_optimiser: float
    activations: float
    document_weights: float
    memory: float
    positions_a_step: int
    operations_a_step: float
    hours: float

    def table(self) -> str:
        """Format the estimate as a table."""
        rows = [
            ("parameters", f"{self.parameters / 1e9:.2f} billion"),
            ("adapters", f"{self.adapter_parameters / 1e6:.1f} million"),
            ("frozen weights", f"{self.weights / BYTES_PER_GB:.2f} GB"),
            ("adapters, gradients, AdamW", f"{self.adapters_and_optimiser / BYTES_PER_GB:.2f} GB"),
            ("activations", f"{self.activations / BYTES_PER_GB:.2f} GB"),
            ("document weights and arg-max", f"{self.document_weights / BYTES_PER_GB:.2f} GB"),
            ("together", f"{self.memory / BYTES_PER_GB:.1f} GB"),
            ("positions a step", f"{self.positions_a_step:,}"),
            ("work a step", f"{self.operations_a_step / 1e12:.0f} TFLOP"),
            ("time", f"{self.hours:.1f} h"),
        ]
        return "\n".join(f"{name:<30}{value:>16}" for name, value in rows) + "\n(computed, not measured)"


def estimate_training(
    config: dict[str, Any], recipe: DecoderRecipe, *, tflops: float, bytes_a_weight: int = 2, bytes_a_mask: int = 1
) -> TrainingEstimate:
    """Estimate a recipe on a device that reaches `tflops` (40 % of its peak is usual).

    `config`: a config.json. Passages are counted at their full length. `bytes_a_mask`: torch's dropout keeps one byte
    an element on a GPU and four on a CPU.
    """
    width, wide, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = [
        (width, queries),
        (width, keys),
        (width, keys),
        (queries, width),
        (width, wide),
        (width, wide),
        (wide, width),
    ]
    body = layers * (sum(rows * columns for rows, columns in shapes) + 2 * width) + width
    table = config["vocab_size"] * width
    parameters = body + table * (1 if config["tie_word_embeddings"] else 2)
    adapters = layers * recipe.rank * sum(rows + columns for rows, columns in shapes)
    length = 2 * recipe.passage_pieces + 2
    # The own passages and each negative are a column of their own, computed one after the other.
    passages, at_once = recipe.batch * (1 + recipe.negatives), recipe.mini_batch or recipe.batch
    # Activations of a position in a layer that the backward pass needs. Frozen weights need no inputs. The rest are
    # queries, keys, values and attention output; gate, up and their product; the inputs of both norms in float32; and
    # for each adapter its input in float32, a dropout mask, and `rank` numbers between its two matrices.
    inputs = sum(rows for rows, _ in shapes)
    layer = bytes_a_weight * (2 * queries + 2 * keys + 3 * wide) + 4 * 2 * width
    layer += 4 * inputs + (bytes_a_mask * inputs if recipe.dropout else 0) + 4 * len(shapes) * recipe.rank
    kept = layers * bytes_a_weight * width + layer if recipe.checkpoint_layers else layers * layer
    activations = float(at_once * length * kept)
    # Weights and gradients of the whole batch (float32), and arg-max positions of one mini batch (int32).
    document_weights = float(config["vocab_size"] * (2 * 4 * passages + 4 * at_once))
    positions = passages * length
    forward = 2.0 * body * positions + 2.0 * table * passages * recipe.passage_pieces
    attention = 4.0 * layers * queries * positions * length / 2  # the causal half of the matrix
    passes = 2 + (1 if recipe.checkpoint_layers else 0) + (1 if at_once < recipe.batch else 0)
    work = passes * (forward + attention)
    weights = float(parameters * bytes_a_weight)
    state = float(adapters * 4 * 4)
    return TrainingEstimate(
        body_parameters=body,
        parameters=parameters,
        adapter_parameters=adapters,
        weights=weights,
        adapters_and_optimiser=state,
        activations=activations,
        document_weights=document_weights,
        memory=weights + state + activations + document_weights,
        positions_a_step=positions,
        operations_a_step=work,
        hours=recipe.steps * work / (tflops * 1e12) / 3600,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m models.decoder.estimate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("decoder", help="mistral-7b, or a directory with a config.json")
    parser.add_argument(
        "--tflops",
        type=float,
        default=400.0,
        help="reached, not peak; H100 in bf16: about 400",
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recipe", type=Path, help="JSON of a recipe; the options below override it")
    options = ("steps", "batch", "mini_batch", "negatives", "passage_pieces", "rank", "checkpoint_layers")
    for name in options:
        default = DecoderRecipe.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=str(default))
    arguments = parser.parse_args(argv)
    chosen = {name: value for name in options if (value := getattr(arguments, name)) is not None}
    published = arguments.decoder == "mistral-7b"
    try:
        config = MISTRAL_7B_CONFIG if published else json.loads((Path(arguments.decoder) / "config.json").read_bytes())
        estimate = estimate_training(config, read_decoder_recipe(arguments.recipe, chosen), tflops=arguments.tflops)
    except KeyError as error:
        raise SystemExit(f"{arguments.decoder}: config.json does not describe a decoder, it lacks {error}") from None
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(asdict(estimate), indent=2) if arguments.json else estimate.table())  # noqa: T201 (its output)


if __name__ == "__main__":
    main()

"""The document side of Mistral-SPLADE as a module of sentence-transformers.

A decoder reads the text twice, the vocabulary head is pooled over the second copy by its maximum, log(1 + relu)
(arXiv 2408.11119). The head is the one that the checkpoint has: its input embeddings where they are tied, as in the
paper, otherwise its own. To a piece's largest logit a bias is added, which the published models do not have: a language
model's logits have no zero of their own (softmax does not see a shift), and ReLU needs one (see `calibration`).

Echo input: a decoder reads the text twice and only the second copy is pooled (arXiv 2408.11119, 2402.15449).

Under a causal mask a position sees what stands before it. In the second copy every position has seen the whole text.

Low-rank adapters on a decoder's projections (LoRA, arXiv 2106.09685) by peft, and weights with them merged.

A decoder on the document side and a table on the query side: one SparseEncoder of sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import InputModule, Router
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import MistralForCausalLM, PreTrainedTokenizerFast

from models.decoder.checkpoint import DecoderCheckpoint, refuse_adapters
from models.decoder.vocabulary import make_matching_tokenizer, read_tokenizer, unsearchable_ids, vocabulary_too_large
from models.training.idf import read_weights
from models.training.max_head import max_head
from models.training.modules import QueryTableEmbedding
from services.encoders.manifest import MAX_VOCABULARY
from services.encoders.query_table import QUERY_WEIGHTS_FILE
from services.errors import ConfigurationError

IdMatrix = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EchoFormat:
    """Vocabulary ids that stand before the first copy (the model's beginning of sequence) and between the copies."""

    before: tuple[int, ...]
    between: tuple[int, ...]

    def positions(self, pieces: int) -> int:
        """How many positions of the model a window of so many pieces takes."""
        return len(self.before) + len(self.between) + 2 * pieces

    def room(self, positions: int) -> int:
        """The longest window, in pieces, for a model of so many positions."""
        return (positions - self.positions(0)) // 2

    def row(self, pieces: Sequence[int]) -> list[int]:
        """What the model reads for one window."""
        return [*self.before, *pieces, *self.between, *pieces]


@dataclass(frozen=True, slots=True)
class EchoBatch:
    """int64 [rows, length], padded on the right; `pooling_mask` is 1 on the second copies and nowhere else."""

    input_ids: IdMatrix
    attention_mask: IdMatrix
    pooling_mask: IdMatrix


def build_echo_batch(rows: Sequence[Sequence[int]], echo: EchoFormat) -> EchoBatch:
    """The batch of windows given as piece ids. A window without pieces has nothing to pool.

    Padding needs no id of its own: under a causal mask no position sees what stands to its right.
    """
    length = max((echo.positions(len(row)) for row in rows), default=0)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    pooling_mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        ids = echo.row(row)
        input_ids[index, : len(ids)] = ids
        attention_mask[index, : len(ids)] = 1
        pooling_mask[index, len(ids) - len(row) : len(ids)] = 1
    return EchoBatch(input_ids, attention_mask, pooling_mask)


# Attention and feed-forward projections: arXiv 2408.11119, section 4.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER_NAME = "default"


def add_adapters(decoder: Any, *, rank: int, alpha: int, dropout: float) -> int:
    """Puts adapters on the projections of a decoder, in place, and freezes all else; how many parameters they have."""
    decoder.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(PROJECTIONS)), decoder
    )
    added = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    for parameter in added:
        # peft gives them the type of the layer. A step of 1e-4 on a weight of 0.1 is less than bfloat16 can add.
        parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in added)


@torch.no_grad()
def merged_state_dict(decoder: Any) -> dict[str, Tensor]:
    """The decoder's tensors under the names of a decoder without adapters, with the adapters added in.

    The live decoder is left as it is; tensors without an adapter are not copied. Sums are on the processor: all of them
    at once on a GPU would take the decoder's size again there, after a training that just fitted.
    """
    layers = {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)}
    state: dict[str, Tensor] = {}
    for name, tensor in decoder.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, rest = name.partition(".base_layer.")
        if not rest:
            state[name] = tensor
            continue
        delta = layers[owner].get_delta_weight(ADAPTER_NAME)
        state[f"{owner}.{rest}"] = (tensor.float() + delta.float()).to("cpu", tensor.dtype)
    return state


DOCUMENT_SIDE_FILE = "document_side.json"
BIAS_FILE = "sparse_bias.safetensors"
DECODER_FILES = ("config.json", "model.safetensors", "tokenizer.json", DOCUMENT_SIDE_FILE, BIAS_FILE)


class EchoSplade(InputModule):
    """`sentence_embedding` float32 [rows, vocabulary]: log(1 + relu(largest logit + bias)), 0 for excluded ids.

    `longest` is how many pieces of a text `preprocess` keeps; whoever serves cuts windows instead.
    """

    save_in_root = False

    def __init__(
        self, causal_lm: Any, tokenizer: Tokenizer, echo: EchoFormat, bias: Tensor, longest: int = 256
    ) -> None:
        """`causal_lm` is a MistralForCausalLM, `bias` float32 [vocabulary] with -inf for excluded ids."""
        super().__init__()
        self.decoder = causal_lm.model
        tied = causal_lm.config.tie_word_embeddings
        self.output = None if tied else causal_lm.lm_head
        self.tokenizer = tokenizer
        self.echo = echo
        self.max_seq_length = longest
        excluded = torch.isneginf(bias)
        self.bias = nn.Parameter(bias.float().masked_fill(excluded, 0.0))
        self.register_buffer("excluded", excluded)

    @classmethod
    def from_checkpoint(cls, checkpoint: DecoderCheckpoint, *, lowercase: bool = True, longest: int = 256) -> Self:
        """An untrained document side: no bias yet, what no query can ask for is excluded.

        Raises ConfigurationError (`vocabulary_too_large`, `bad_checkpoint`).
        """
        tokenizer = make_matching_tokenizer(checkpoint.tokenizer, lowercase=lowercase)
        width = int(checkpoint.model.config.vocab_size)
        if width > MAX_VOCABULARY:
            # (some models pad their embeddings beyond their pieces)
            raise vocabulary_too_large(width)
        if tokenizer.get_vocab_size() > width:
            raise ConfigurationError(
                "bad_checkpoint",
                f"{checkpoint.source} has {tokenizer.get_vocab_size():,} pieces in its tokeniser and {width:,} "
                "embeddings: they do not belong together.",
            )
        bias = torch.zeros(width)
        # embeddings beyond the vocabulary, that some models pad with, have no piece
        bias[[*unsearchable_ids(tokenizer), *range(tokenizer.get_vocab_size(), width)]] = -torch.inf
        echo = make_echo_format(tokenizer, checkpoint.model.config.bos_token_id)
        longest = min(longest, echo.room(checkpoint.positions))
        return cls(checkpoint.model, tokenizer, echo, bias, longest)

    @property
    def head(self) -> Tensor:
        """[vocabulary, width]"""
        return self.decoder.get_input_embeddings().weight if self.output is None else self.output.weight

    def excluded_ids(self) -> Collection[int]:
        return set(self.excluded.nonzero().flatten().tolist())

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """What `forward` takes, of the first `max_seq_length` pieces of each text."""
        texts = [(prompt or "") + text for text in inputs]
        rows = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return self.features([row.ids[: self.max_seq_length] for row in rows])

    def features(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What `forward` takes, of windows given as piece ids."""
        batch = build_echo_batch(rows, self.echo)
        return {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
            "pooling_mask": torch.from_numpy(batch.pooling_mask),
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        # No attention mask: what stands right of a position is hidden by the causal mask anyway, and without one the
        # same kernel runs with and without padding, so a row's numbers do not depend on its neighbours' lengths.
        hidden = self.decoder(input_ids=features["input_ids"], use_cache=False).last_hidden_state
        weights = max_head(hidden, features["pooling_mask"], self.head, self.bias)
        features["sentence_embedding"] = weights.masked_fill(self.excluded, 0.0)
        return features

    def get_embedding_dimension(self) -> int:
        return int(self.bias.shape[0])

    def save(
        self, output_path: str, *_: Any, safe_serialization: bool = True, dtype: torch.dtype | None = None, **__: Any
    ) -> None:
        """Writes `FILES`: a plain checkpoint with the adapters merged, and what makes it a document side."""
        # Only here: who serves needs no peft.

        out = Path(output_path)
        out.mkdir(parents=True, exist_ok=True)
        state = {f"model.{name}": tensor for name, tensor in merged_state_dict(self.decoder).items()}
        if self.output is not None:
            state["lm_head.weight"] = self.output.weight.detach()
        state = {name: tensor.to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in state.items()}
        _write_tensors(state, out / "model.safetensors")
        config = self.decoder.config.to_dict()
        config["architectures"] = ["MistralForCausalLM"]
        config["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
        config["tie_word_embeddings"] = self.output is None
        (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        bias = self.bias.detach().float().masked_fill(self.excluded, -torch.inf).cpu()
        _write_tensors({"bias": bias}, out / BIAS_FILE)
        self.tokenizer.save(str(out / "tokenizer.json"))
        side = {"before": self.echo.before, "between": self.echo.between, "longest": self.max_seq_length}
        (out / DOCUMENT_SIDE_FILE).write_text(json.dumps(side, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, model_name_or_path: str, subfolder: str = "", *, dtype: torch.dtype | None = None, **options: Any
    ) -> Self:
        """Reads what `save` wrote. Raises ConfigurationError (`bad_model`, `bad_tokenizer`).

        `options` are those by which sentence-transformers finds a directory on a hub.
        """
        known = ("token", "cache_folder", "revision", "local_files_only")
        where = {name: options[name] for name in known if name in options}
        directory = Path(cls.load_dir_path(model_name_or_path, subfolder, **where) or model_name_or_path)
        refuse_adapters(directory, "bad_model")
        try:
            side = json.loads((directory / DOCUMENT_SIDE_FILE).read_bytes())
            bias = load_file(directory / BIAS_FILE)["bias"]
            model = MistralForCausalLM.from_pretrained(
                str(directory), dtype=dtype or "auto", use_safetensors=True, local_files_only=True
            )
            echo = EchoFormat(tuple(side["before"]), tuple(side["between"]))
            return cls(model.eval(), read_tokenizer(directory), echo, bias, side["longest"])
        except ConfigurationError:
            raise
        except Exception as error:  # safetensors, transformers and json have no common base
            raise ConfigurationError("bad_model", f"{directory} cannot be loaded: {error}") from None


def make_echo_format(tokenizer: Tokenizer, begin: int | None) -> EchoFormat:
    """The model's own beginning of sequence before the first copy, a line break between the copies."""
    line_break = next((i for i in map(tokenizer.token_to_id, ("Ċ", "<0x0A>", "▁", "Ġ")) if i is not None), None)
    before = () if begin is None else (int(begin),)
    return EchoFormat(before, before if line_break is None else (line_break,))


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors lets nobody else read, a worker may be another user


# Longer queries are cut in training; serving has its own limit.
MAX_QUERY_PIECES = 512


def assemble_encoder(
    document: EchoSplade, weights: Tensor, *, learn: bool = False, device: str | None = None
) -> SparseEncoder:
    """`weights` float32 [vocabulary] are the query table's; with `learn` they are trained along.

    Published models encode queries with the decoder too (arXiv 2408.11119, 2504.10816); a table is our extension.
    """
    query = QueryTableEmbedding(make_query_tokenizer(document), weights.float(), not learn, document.excluded_ids())
    return SparseEncoder(modules=[Router.for_query_document([query], [document])], device=device)


def load_sparse_encoder(
    directory: Path, *, dtype: torch.dtype | None = None, device: str | None = None
) -> SparseEncoder:
    """The encoder of a model directory, with its query table.

    Raises ConfigurationError (`bad_model`, `bad_tokenizer`, `bad_query_table`).
    """
    document = EchoSplade.load(str(directory), dtype=dtype)
    table = torch.from_numpy(read_weights(directory / QUERY_WEIGHTS_FILE, document.tokenizer.get_vocab()))
    weights = torch.zeros(document.get_embedding_dimension())
    weights[: table.numel()] = table
    return assemble_encoder(document, weights, device=device)


def make_query_tokenizer(document: EchoSplade) -> Any:
    """The document side's tokeniser in the class that sentence-transformers' query side wants.

    It pads with an id that never counts: padding writes 0 over the id's place in the bag of pieces.
    """
    added = document.tokenizer.get_added_tokens_decoder()
    padding = next((token.content for token in added.values() if token.special), None)
    own = Tokenizer.from_str(document.tokenizer.to_str())
    if padding is None:
        padding = own.id_to_token(min(document.excluded_ids()))
    return PreTrainedTokenizerFast(tokenizer_object=own, pad_token=padding, model_max_length=MAX_QUERY_PIECES)

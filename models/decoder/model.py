"""Mistral-SPLADE model: a decoder on the document side and a table on the query side.

A decoder reads the text twice; the logits of the second copy are pooled by their maximum, log(1 + relu) (arXiv
2408.11119). The head is the checkpoint's: its input embeddings when tied, as in the paper, else its own. `EchoSplade`
adds a bias to each piece's largest logit, which published models do not have: softmax ignores a shift of all logits,
and ReLU needs a zero (`docs/decisions/0122`). Adapters are LoRA (arXiv 2106.09685). `assemble_encoder` makes the
SparseEncoder of sentence-transformers. `calibrate_bias` sets the bias before a training. peft is imported only for
adapters, which serving does not have.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import InputModule, Router
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import MistralForCausalLM, PreTrainedTokenizerFast

from models.decoder.checkpoint import DecoderCheckpoint, refuse_adapters
from models.decoder.tokenisation import (
    EchoFormat,
    build_echo_batch,
    make_echo_format,
    make_matching_tokenizer,
    read_tokenizer,
    unsearchable_ids,
    vocabulary_too_large,
)
from models.idf import read_weights
from models.onnx_encoder import batch_by_length
from models.training.max_head import largest_logits, max_head
from models.training.modules import QueryTableEmbedding
from services.encoders.manifest import MAX_VOCABULARY
from services.encoders.query_table import QUERY_WEIGHTS_FILE
from services.errors import ConfigurationError, InvalidInput

DOCUMENT_SIDE_FILE = "document_side.json"
BIAS_FILE = "sparse_bias.safetensors"
DECODER_FILES = ("config.json", "model.safetensors", "tokenizer.json", DOCUMENT_SIDE_FILE, BIAS_FILE)
# Attention and feed-forward projections: arXiv 2408.11119, section 4.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER_NAME = "default"
# Training truncates longer queries; serving has its own limit.
MAX_QUERY_PIECES = 512


class EchoSplade(InputModule):
    """The document side as a module of sentence-transformers.

    `sentence_embedding` is float32 [rows, vocabulary]: log(1 + relu(largest logit + bias)), 0 for excluded ids.
    `preprocess` truncates texts at `longest` pieces; serving cuts windows instead.
    """

    save_in_root = False

    def __init__(
        self, causal_lm: Any, tokenizer: Tokenizer, echo: EchoFormat, bias: Tensor, longest: int = 256
    ) -> None:
        """Take the decoder of a MistralForCausalLM. `bias`: float32 [vocabulary], -inf for excluded ids."""
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
        """Make an untrained document side: the bias is 0, and ids that no query can contain are excluded.

        Raises ConfigurationError (`vocabulary_too_large`, `bad_checkpoint`).
        """
        tokenizer = make_matching_tokenizer(checkpoint.tokenizer, lowercase=lowercase)
        width = int(checkpoint.model.config.vocab_size)
        if width > MAX_VOCABULARY:
            # Some models pad their embeddings beyond their pieces.
            raise vocabulary_too_large(width)
        if tokenizer.get_vocab_size() > width:
            raise ConfigurationError(
                "bad_checkpoint",
                f"The tokeniser of {checkpoint.source} has {tokenizer.get_vocab_size():,} pieces, and the model has "
                f"only {width:,} embeddings.",
            )
        bias = torch.zeros(width)
        # Padding embeddings have no piece.
        bias[[*unsearchable_ids(tokenizer), *range(tokenizer.get_vocab_size(), width)]] = -torch.inf
        echo = make_echo_format(tokenizer, checkpoint.model.config.bos_token_id)
        longest = min(longest, echo.room(checkpoint.positions))
        return cls(checkpoint.model, tokenizer, echo, bias, longest)

    @property
    def head(self) -> Tensor:
        """Return the head, [vocabulary, width]."""
        return self.decoder.get_input_embeddings().weight if self.output is None else self.output.weight

    def excluded_ids(self) -> Collection[int]:
        return set(self.excluded.nonzero().flatten().tolist())

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Return the features of the first `max_seq_length` pieces of each text."""
        texts = [(prompt or "") + text for text in inputs]
        rows = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return self.features([row.ids[: self.max_seq_length] for row in rows])

    def features(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return the features of windows of piece ids, as `forward` takes them."""
        batch = build_echo_batch(rows, self.echo)
        return {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
            "pooling_mask": torch.from_numpy(batch.pooling_mask),
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        # No attention mask is needed: the causal mask hides padding, which is on the right. Without a mask the same
        # kernel runs with and without padding, so a row's numbers do not depend on the lengths of its neighbours.
        hidden = self.decoder(input_ids=features["input_ids"], use_cache=False).last_hidden_state
        weights = max_head(hidden, features["pooling_mask"], self.head, self.bias)
        features["sentence_embedding"] = weights.masked_fill(self.excluded, 0.0)
        return features

    def get_embedding_dimension(self) -> int:
        return int(self.bias.shape[0])

    def save(
        self, output_path: str, *_: Any, safe_serialization: bool = True, dtype: torch.dtype | None = None, **__: Any
    ) -> None:
        """Write `DECODER_FILES`: a plain checkpoint with merged adapters, the bias and the echo format."""
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
        """Load a directory that `save` wrote. Raises ConfigurationError (`bad_model`, `bad_tokenizer`).

        `options`: how sentence-transformers finds a directory on a hub.
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


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600, and workers may run as another user


def assemble_encoder(
    document: EchoSplade, weights: Tensor, *, learn: bool = False, device: str | None = None
) -> SparseEncoder:
    """Assemble a SparseEncoder of a document side and a query table (`weights`, float32 [vocabulary]).

    `learn`: training also changes the table. Published models encode queries with the decoder (arXiv 2408.11119,
    2504.10816); the table is an extension.
    """
    query = QueryTableEmbedding(make_query_tokenizer(document), weights.float(), not learn, document.excluded_ids())
    return SparseEncoder(modules=[Router.for_query_document([query], [document])], device=device)


def make_query_tokenizer(document: EchoSplade) -> Any:
    """Wrap the document side's tokeniser in the class that sentence-transformers' query side takes.

    The tokeniser pads with an id without weight, because padding overwrites the id's entry in the bag of pieces with 0.
    """
    added = document.tokenizer.get_added_tokens_decoder()
    padding = next((token.content for token in added.values() if token.special), None)
    copy = Tokenizer.from_str(document.tokenizer.to_str())
    if padding is None:
        padding = copy.id_to_token(min(document.excluded_ids()))
    return PreTrainedTokenizerFast(tokenizer_object=copy, pad_token=padding, model_max_length=MAX_QUERY_PIECES)


def load_sparse_encoder(
    directory: Path, *, dtype: torch.dtype | None = None, device: str | None = None
) -> SparseEncoder:
    """Load a model directory with its query table.

    Raises ConfigurationError (`bad_model`, `bad_tokenizer`, `bad_query_table`).
    """
    document = EchoSplade.load(str(directory), dtype=dtype)
    table = torch.from_numpy(read_weights(directory / QUERY_WEIGHTS_FILE, document.tokenizer.get_vocab()))
    weights = torch.zeros(document.get_embedding_dimension())
    weights[: table.numel()] = table
    return assemble_encoder(document, weights, device=device)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The outcome of a calibration.

    `before`, `after`: mean number of pieces with a weight a text. `alive`: share of pieces with a weight in any text.
    """

    texts: int
    before: float
    after: float
    alive: float


def calibrate_bias(
    document: EchoSplade, texts: Sequence[str], *, active: int, batch_positions: int = 2048
) -> Calibration:
    """Set the bias so that texts weigh `active` pieces on average.

    Each piece's mean logit over `texts` is subtracted, so a weight says how much more than usual a text calls for the
    piece; a common threshold then leaves `active` pieces. Raises InvalidInput (`empty_collection`) when no text has
    pieces.
    """
    logits = max_text_logits(document, texts, batch_positions)
    if logits.shape[0] == 0:
        raise InvalidInput("empty_collection", "No text has a known piece to calibrate the logits on.")
    searchable = (~document.excluded).cpu()
    before = (logits + document.bias.detach().cpu() > 0)[:, searchable].sum(dim=1).float().mean()
    centred = logits - logits.mean(dim=0)
    share = min(1.0, active / int(searchable.sum()))
    heights = centred[:, searchable].flatten()
    rank = max(1, heights.numel() - int(share * heights.numel()))
    threshold = heights.kthvalue(rank).values
    bias = -(logits.mean(dim=0) + threshold)
    with torch.no_grad():
        document.bias.copy_(bias.masked_fill(~searchable, 0.0))
    above = (logits + bias > 0)[:, searchable]
    return Calibration(
        logits.shape[0], float(before), float(above.sum(dim=1).float().mean()), float(above.any(dim=0).float().mean())
    )


@torch.inference_mode()
def max_text_logits(document: EchoSplade, texts: Sequence[str], batch_positions: int) -> Tensor:
    """Compute each piece's largest logit without bias, float32 [texts with pieces, vocabulary], on the CPU."""
    rows = [encoding.ids[: document.max_seq_length] for encoding in document.tokenizer.encode_batch_fast(list(texts))]
    rows = [row for row in rows if row]
    logits = torch.empty(len(rows), document.get_embedding_dimension())
    for batch in batch_by_length([document.echo.positions(len(row)) for row in rows], batch_positions):
        features = {name: tensor.to(document.bias.device) for name, tensor in
                    document.features([rows[index] for index in batch]).items()}  # fmt: skip
        states = document.decoder(input_ids=features["input_ids"], use_cache=False).last_hidden_state
        mask = features["pooling_mask"].bool()
        offsets = F.pad(mask.sum(dim=1).cumsum(0), (1, 0))
        logits[batch] = largest_logits(states[mask], document.head, offsets, places=False)[0].cpu()
    return logits


def add_adapters(decoder: Any, *, rank: int, alpha: int, dropout: float) -> int:
    """Add adapters to the projections of a decoder in place, freeze the rest, and return their number of parameters."""
    from peft import LoraConfig, inject_adapter_in_model

    decoder.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(PROJECTIONS)), decoder
    )
    adapters = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    for parameter in adapters:
        # peft gives adapters the type of the layer, and bfloat16 cannot add a step of 1e-4 to a weight of 0.1.
        parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in adapters)


@torch.no_grad()
def merged_state_dict(decoder: Any) -> dict[str, Tensor]:
    """Return the decoder's tensors with adapters merged, under the names of a decoder without adapters.

    The decoder does not change, and tensors without an adapter are not copied. Sums are on the CPU: on a GPU they would
    take the decoder's size again, after a training that just fitted.
    """
    from peft.tuners.lora import LoraLayer

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

"""Modules of an encoder in training: query table, and document side on packed tokens.

Each class replaces a module of sentence-transformers, holds the same parameters under the same names and gives the same
vectors; saved encoders name the replaced modules (`models.training.architecture`, docs/decisions/0100).

- `QueryTableEmbedding` is the query side: a table of weights, no model. Distinct pieces count once (arXiv 2411.04403).
- `StatesTransformer` and `MaxHeadPooling` are the document side. They pass hidden states of packed tokens, [1, tokens]
  without padding, to `models.training.max_head`, and never compute all logits.
- `ClsHeadPooling`, `TokenWeightPooling` and `HeaviestWeights` are components of the unified framework (arXiv
  2303.13416) that only ablations have. The library has no such modules, so no encoder with them is published.

The transformer's body stays that of transformers; only its attention function is replaced, through transformers'
attention interface (docs/decisions/0103). On CUDA in half precision that is PyTorch's variable-length attention.
Elsewhere only the attention sees padded tokens; the linear layers, nearly all of the work, see no padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from models.training.max_head import max_head_packed
from models.training.recipe import Activation
from services.errors import ConfigurationError

PACKED_ATTENTION = "packed"
# SpladePooling of sentence-transformers names the function before its log1p.
POOLING_ACTIVATIONS: dict[Activation, str] = {"log1p_relu": "relu", "log1p_log1p_relu": "log1p_relu"}
ACTIVATIONS: dict[str, Activation] = {name: activation for activation, name in POOLING_ACTIVATIONS.items()}


class QueryTableEmbedding(SparseStaticEmbedding):
    """SparseStaticEmbedding whose weights stay at 0 or above, and at 0 for excluded pieces.

    The optimiser may move weights anywhere; they are projected back before the next use and before they are saved (a
    projected gradient step). Clamping inside the forward pass would leave a weight without a gradient once it fell
    below 0. The table is saved as a plain SparseStaticEmbedding, which gives the same vectors.

    A trained table keeps the mean that its start has over the pieces of the training queries, each counted as often as
    it occurs. A table twice as heavy gives the same ranking with half the document weights, at a fourth of their FLOPS,
    so the regulariser would move the scale to the table. The mean of the whole vocabulary would hardly stop that: the
    queries of a judged collection use 1 to 3 % of it, and other pieces have no gradient.
    """

    def __init__(self, tokenizer: Any, weight: Tensor, frozen: bool, excluded: Collection[int] = ()) -> None:
        super().__init__(tokenizer=tokenizer, weight=weight, frozen=frozen)
        # a query is a bag of pieces, so positions do not limit its length
        self.max_seq_length = None
        self.register_buffer("_excluded", torch.tensor(sorted(excluded), dtype=torch.long), persistent=False)
        # The library loads a saved table without `weight`, and its values afterwards.
        self.register_buffer("_counts", torch.zeros_like(self.weight.detach()), persistent=False)
        self._kept_sum = 0.0
        self.project()

    def project(self) -> None:
        """Set weights below 0 and of excluded pieces to 0, and restore the mean of the counted pieces. NaN stays."""
        with torch.no_grad():
            self.weight.clamp_(min=0.0)
            self.weight[self._excluded] = 0.0
            if self._kept_sum and (total := self._counts @ self.weight) != 0:
                # Pieces that no query has keep the weights of the start, so they are not scaled.
                self.weight[self._counts > 0] *= self._kept_sum / total

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` [queries, vocabulary]."""
        if self.training and self.weight.requires_grad:
            self.project()
        output: dict[str, Any] = super().forward(features)
        return output

    def keep_mean_of(self, counts: Tensor) -> None:
        """Keep the present mean over the pieces of queries; `counts` [vocabulary] says how often each occurs."""
        self._counts.copy_(counts)
        self._kept_sum = float(self._counts @ self.weight.detach())

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write weights, tokeniser and config in sentence-transformers' layout."""
        self.project()
        super().save(output_path, *args, safe_serialization=True, **kwargs)


class StatesTransformer(Transformer):
    """Transformer for the task `fill-mask` that stops before the vocabulary product.

    Adds `token_states` [tokens, width] (packed; the head multiplies them by the embeddings), `offsets` [documents + 1],
    `head_weight` [vocabulary, width] and `head_bias` [vocabulary] to the features.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Load the model. Raises ConfigurationError (`checkpoint_unsupported`) for models other than BERT and
        DistilBERT.
        """
        super().__init__(*args, **{**kwargs, "transformer_task": "fill-mask"})
        split_head(self.model)
        self.model.set_attn_implementation(PACKED_ATTENTION)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        body, transform = split_head(self.model)
        packing = PackedTokens.of(features["attention_mask"])
        decoder = self.model.get_output_embeddings()
        features["token_states"] = transform(packed_states(body, features["input_ids"], packing))
        features["token_ids"] = features["input_ids"][packing.counted]
        features["offsets"] = packing.offsets
        features["head_weight"], features["head_bias"] = decoder.weight, decoder.bias
        return features


class MaxHeadPooling(SpladePooling):
    """SpladePooling (`max`) over the states of StatesTransformer, without a tensor of all logits."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` [documents, vocabulary], float32."""
        features["sentence_embedding"] = max_head_packed(
            features.pop("token_states"),
            features.pop("offsets"),
            features.pop("head_weight"),
            features.pop("head_bias"),
            activation=ACTIVATIONS[self.activation_function],
        )
        return features


class ClsHeadPooling(MaxHeadPooling):
    """Weights from the logits of the first token, [CLS], alone: clsMLM of arXiv 2303.13416."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` [texts, vocabulary], float32."""
        begins = features["offsets"][:-1]
        features["token_states"] = features["token_states"][begins]
        features["offsets"] = torch.arange(len(begins) + 1, device=begins.device)
        return super().forward(features)


class TokenWeightPooling(Module):
    """Pooling that weighs each token of a text by its state: MLP of arXiv 2303.13416, as in uniCOIL (arXiv 2106.14807).

    The weight is activation(relu(a . state + b)); a piece that occurs several times has its largest weight. It begins
    as 1 for every token, the binary weighting, so every run has the same beginning.
    """

    config_keys: ClassVar[list[str]] = ["width", "size", "activation"]
    INITIAL_LOGIT = math.e - 1  # log1p of it is 1

    def __init__(self, width: int, size: int, activation: Activation = "log1p_relu") -> None:
        super().__init__()
        self.width, self.size, self.activation = width, size, activation
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, self.INITIAL_LOGIT)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` [texts, vocabulary], float32."""
        states, offsets = features.pop("token_states"), features.pop("offsets")
        with torch.autocast(states.device.type, enabled=False):
            weights = self.linear(states.float()).squeeze(1).relu().log1p()
            if self.activation == "log1p_log1p_relu":
                weights = weights.log1p()
        rows = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())
        flat = torch.zeros((len(offsets) - 1) * self.size, device=weights.device)
        flat = flat.scatter_reduce(0, rows * self.size + features.pop("token_ids"), weights, "amax")
        features["sentence_embedding"] = flat.view(-1, self.size)
        return features

    def get_embedding_dimension(self) -> int:
        return self.size

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        config = cls.load_config(model_name_or_path, subfolder=subfolder)
        module = cls(**config)
        cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module)
        return module


class HeaviestWeights(Module):
    """Keep the `count` heaviest weights of each text: the regulariser top-k of arXiv 2303.13416."""

    config_keys: ClassVar[list[str]] = ["count"]

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Replace `sentence_embedding` [texts, vocabulary]."""
        weights = features["sentence_embedding"]
        heaviest = weights.topk(min(self.count, weights.shape[1]), dim=1).indices
        features["sentence_embedding"] = weights * torch.zeros_like(weights).scatter_(1, heaviest, 1.0)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        return cls(**cls.load_config(model_name_or_path, subfolder=subfolder))


def split_head(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return the transformer without its head, and the part of the head before the vocabulary product.

    Raises ConfigurationError (`checkpoint_unsupported`) for models other than BERT and DistilBERT.
    """
    kind = model.config.model_type
    if kind == "bert":
        return model.bert, model.cls.predictions.transform
    if kind == "distilbert":
        return model.distilbert, lambda states: model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
    raise ConfigurationError(
        "checkpoint_unsupported", f"The head `chunked` supports BERT and DistilBERT, not {kind}: set head = plain."
    )


@dataclass(frozen=True)
class PackedTokens:
    """Packing of a batch [documents, length], in which `counted` marks the tokens.

    `offsets` int64 [documents + 1]: document i has the tokens from offsets[i] to offsets[i + 1]. `positions` [tokens]:
    the position of each token in its row. `rows` [documents, longest]: the tokens of each document, the last one
    repeated; `real` is false for the repetitions.
    """

    counted: Tensor
    offsets: Tensor
    positions: Tensor
    rows: Tensor
    real: Tensor
    longest: int

    @classmethod
    def of(cls, mask: Tensor) -> PackedTokens:
        """Pack a mask [documents, length], which is non-zero for tokens."""
        counted = mask.bool()
        lengths = counted.sum(dim=1)
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        longest = int(lengths.max()) if len(lengths) else 0
        steps = torch.arange(longest, device=mask.device)[None]
        last = (lengths - 1).clamp(min=0)[:, None]
        rows = (offsets[:-1, None] + torch.minimum(steps, last)).clamp(max=max(int(offsets[-1]) - 1, 0))
        positions = torch.arange(mask.shape[1], device=mask.device).expand_as(counted)[counted]
        return cls(counted, offsets, positions, rows, steps < lengths[:, None], longest)


def packed_states(body: nn.Module, input_ids: Tensor, packing: PackedTokens) -> Tensor:
    """Return the last hidden states of the tokens, [tokens, width], of a body with the attention `packed`."""
    ids = input_ids[packing.counted]
    if len(ids) == 0:
        return torch.zeros(0, body.config.hidden_size, device=input_ids.device)
    states: Tensor = body(
        input_ids=ids[None], attention_mask=None, position_ids=packing.positions[None], packing=packing
    )[0][0]
    return states


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: PackedTokens | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention within each document.

    `query`, `key`, `value` are [1, heads, tokens, channels]; the result is [1, tokens, heads, channels]. Without
    `packing`, transformers' own attention runs on padded batches.
    """
    if packing is None:
        mixed: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return mixed
    scaling, dropout = kwargs.get("scaling"), kwargs.get("dropout", 0.0)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    # the fused kernel has no dropout
    if query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = packing.offsets.to(torch.int32), packing.longest
        out = varlen_attn(
            queries.contiguous(), keys.contiguous(), values.contiguous(), ends, ends, longest, longest, scale=scaling
        )
        return out[None], None
    out = F.scaled_dot_product_attention(
        queries[packing.rows].transpose(1, 2),
        keys[packing.rows].transpose(1, 2),
        values[packing.rows].transpose(1, 2),
        attn_mask=packing.real[:, None, None, :],
        dropout_p=dropout,
        scale=scaling,
    )
    return out.transpose(1, 2)[packing.real][None], None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)

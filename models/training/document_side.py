"""The document side with the cheap head: hidden states of packed tokens instead of logits, pooled as they are made.

Both modules stand in for those of sentence-transformers, hold the same parameters under the same names and give the
same vectors; saved encoders name those (`models.training.portable`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn

from models.training.max_head import max_head_packed
from models.training.packed import PACKED, Packing, packed_states
from models.training.recipe_encoder import Activation
from services.errors import ConfigurationError

# How sentence-transformers' SpladePooling calls them: it names what comes before its log1p.
POOLED_AS: dict[Activation, str] = {"log1p_relu": "relu", "log1p_log1p_relu": "log1p_relu"}
ACTIVATIONS: dict[str, Activation] = {theirs: ours for ours, theirs in POOLED_AS.items()}


class StatesTransformer(Transformer):
    """Transformer for the task `fill-mask` that stops before the vocabulary product.

    Adds `token_states` [tokens, width] (packed, what the head multiplies with the embeddings), `offsets`
    [documents + 1], `head_weight` [vocabulary, width] and `head_bias` [vocabulary] to the features.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ConfigurationError (`checkpoint_unsupported`) for another model than BERT or DistilBERT."""
        super().__init__(*args, **{**kwargs, "transformer_task": "fill-mask"})
        body_and_transform(self.model)
        self.model.set_attn_implementation(PACKED)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        body, transform = body_and_transform(self.model)
        packing = Packing.of(features["attention_mask"])
        decoder = self.model.get_output_embeddings()
        features["token_states"] = transform(packed_states(body, features["input_ids"], packing))
        features["offsets"] = packing.offsets
        features["head_weight"], features["head_bias"] = decoder.weight, decoder.bias
        return features


class MaxHeadPooling(SpladePooling):
    """SpladePooling (`max`) that takes the states of StatesTransformer and never sees all logits."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Adds `sentence_embedding` [documents, vocabulary], float32."""
        features["sentence_embedding"] = max_head_packed(
            features.pop("token_states"),
            features.pop("offsets"),
            features.pop("head_weight"),
            features.pop("head_bias"),
            activation=ACTIVATIONS[self.activation_function],
        )
        return features


def body_and_transform(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The transformer without its head, and what the head does before the vocabulary product."""
    kind = model.config.model_type
    if kind == "bert":
        return model.bert, model.cls.predictions.transform
    if kind == "distilbert":
        return model.distilbert, lambda states: model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
    raise ConfigurationError(
        "checkpoint_unsupported", f"The head `chunked` knows BERT and DistilBERT, not {kind}: say head = plain."
    )

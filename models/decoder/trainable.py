"""The parameters that training changes, as a file: adapters, bias, a learned table. The frozen decoder is not in it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from services.errors import ConfigurationError, InvalidInput

TRAINABLE = "trainable.safetensors"
STATE = "trainer_state.json"


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Names to detached tensors on the CPU."""
    return {
        name: parameter.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_trainable(model: nn.Module, directory: Path) -> None:
    """Writes `TRAINABLE`. Raises InvalidInput (`not_finite_weights`) and writes nothing for NaN or infinity."""
    state = trainable_state(model)
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InvalidInput("not_finite_weights", f"The parameter {name} holds NaN or infinity: it is not saved.")
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / TRAINABLE)
    (directory / TRAINABLE).chmod(0o644)  # safetensors lets nobody else read


def load_trainable(model: nn.Module, directory: Path) -> None:
    """Puts a file's tensors into the model.

    Raises ConfigurationError (`bad_training_state`) for a file that is missing, damaged or of another model.
    """
    path = directory / TRAINABLE
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError("bad_training_state", f"{path} cannot be read: {error}") from None
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in wanted.items()}:
        raise ConfigurationError(
            "bad_training_state", f"{path} is of another model or recipe: its parameters have other names or shapes."
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that is whole: a run that was killed while it wrote one leaves an unfinished one."""
    found = [path for path in directory.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda path: -int(path.name.removeprefix("checkpoint-"))):
        try:
            # (written last)
            json.loads((path / STATE).read_bytes())
            load_file(path / TRAINABLE)
        except (OSError, ValueError, SafetensorError):
            continue
        return path
    return None

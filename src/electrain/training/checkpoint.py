"""Checkpoints: everything that resuming needs, whole or absent at any moment, verified before it is used."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from electrain.foundation.errors import CheckpointError
from electrain.foundation.output_folder import file_hash, replaced_directory
from electrain.training.optimizer import optimizer_tensors, restore_optimizers

# The newest may be damaged: the one before it is kept too.
KEPT_CHECKPOINTS = 2
STATE_NAME = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        directory: `step-N`.
        step: finished optimizer updates.
        state: small facts: refused updates, seconds trained, health.
    """

    directory: Path
    step: int
    state: dict[str, Any]


def save_checkpoint(
    root: Path, step: int, model: nn.Module, optimizers: list[Optimizer], state: dict[str, Any]
) -> Path:
    """Writes `root/step-N` under a temporary name, syncs it, renames it, and removes all but the newest two.

    Raises: CheckpointError: the disk is full or not writable; earlier checkpoints stay.
    """
    directory = root / f"step-{step}"
    try:
        with replaced_directory(directory) as temporary:
            save_file(_model_tensors(model), temporary / "model.safetensors")
            save_file(_contiguous(optimizer_tensors(optimizers, model)), temporary / "optimizer.safetensors")
            hashes = {path.name: file_hash(path) for path in sorted(temporary.glob("*.safetensors"))}
            content = json.dumps({"step": step, "hashes": hashes, "state": state}, indent=2)
            (temporary / STATE_NAME).write_text(content, "utf-8")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(directory.with_name(f".{directory.name}.writing"), ignore_errors=True)
        raise CheckpointError(
            f"{directory}: cannot be written ({error}); free some space, or mend its permissions, then go on with "
            "--resume from the one before"
        ) from error
    for old in _newest_first(root)[KEPT_CHECKPOINTS:]:
        os.replace(old, old.with_name(f".{old.name}.removed"))
    for leftover in root.glob(".step-*"):  # also those of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    return directory


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    # named_parameters gives a shared tensor once; buffers here are computed, not learned
    return _contiguous(dict(model.named_parameters()))


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _newest_first(root: Path) -> list[Path]:
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.removeprefix("step-")))


def find_checkpoint(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest good checkpoint below `root`; None when there is none at all. Damaged ones are named to `say`.

    Raises: CheckpointError: there are checkpoints and all are damaged.
    """
    candidates = _newest_first(root)
    for directory in candidates:
        try:
            content = json.loads((directory / STATE_NAME).read_text("utf-8"))
            for name, expected in content["hashes"].items():
                if file_hash(directory / name) != expected:
                    raise ValueError(f"{name} does not have the hash it was written with")
            return Checkpoint(directory, content["step"], content["state"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            say(f"{directory}: damaged ({error}); the checkpoint before it is used")
    if candidates:
        raise CheckpointError(f"{root}: every checkpoint is damaged; start again in a new folder")
    return None


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Puts a checkpoint's tensors into the model and its optimizers.

    Raises: CheckpointError: it belongs to another model.
    """
    saved = load_file(checkpoint.directory / "model.safetensors")
    parameters = dict(model.named_parameters())
    if saved.keys() != parameters.keys():
        raise CheckpointError(f"{checkpoint.directory}: belongs to another model; resume with the run's configuration")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    restore_optimizers(optimizers, model, load_file(checkpoint.directory / "optimizer.safetensors"))

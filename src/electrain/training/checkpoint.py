"""Checkpoints hold all that resuming needs. At any moment one is complete or absent, and it is verified before use."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from electrain.foundation.errors import CheckpointError, first_line
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import as_kind, parse_json_file, sealed, unsealed
from electrain.foundation.output_folder import file_hash, replaced_directory
from electrain.training.optimizer import optimizer_tensors, restore_optimizers
from electrain.training.sharding import copy_weights, gathered

# The newest may turn out to be damaged, so the one before it is kept too.
KEPT_CHECKPOINTS = 2
STATE_NAME = "state.json"
TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    directory: Path  # `step-N`
    step: int  # number of finished optimizer updates
    state: dict[str, Any]  # everything but tensors: progress of the run, refused updates, health


def save_checkpoint(
    root: Path,
    step: int,
    model: nn.Module,
    optimizers: list[Optimizer],
    state: dict[str, Any],
    *,
    is_first: bool = True,
    kept_steps: Collection[int] = (),
) -> Path:
    """Writes `root/step-N` under a temporary name, syncs it, renames it, and removes all but the newest two.

    Args:
        is_first: False in the processes that only take part in gathering weights that are divided.
        kept_steps: whose checkpoints stay, too.
    Raises: CheckpointError: the disk is full or not writable. Earlier checkpoints stay.
    """
    directory = checkpoint_folder(root, step)
    # `named_parameters` lists a shared tensor once. Buffers are left out: they are computed, not learned.
    weights = gathered(dict(model.named_parameters()), is_kept=is_first)
    states = gathered(optimizer_tensors(optimizers, model), is_kept=is_first)
    if not is_first:
        return directory
    try:
        with replaced_directory(directory) as temporary:
            for name, tensors in zip(TENSOR_FILES, (weights, states), strict=True):
                save_file(tensors, temporary / name)
            hashes = {name: file_hash(temporary / name) for name in TENSOR_FILES}
            content = sealed({"step": step, "hashes": hashes, "state": state})
            (temporary / STATE_NAME).write_text(to_json(content, indent=2), "utf-8", newline="\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory}: cannot be written ({error}); free some space or correct the permissions, then "
            "continue from the checkpoint before it with --resume"
        ) from error
    kept = {checkpoint_folder(root, number) for number in kept_steps}
    for old in filter(lambda path: path not in kept, _newest_first(root)[KEPT_CHECKPOINTS:]):
        # Deleting takes time. A folder that is half deleted must not look like a checkpoint, so it is renamed first.
        os.replace(old, old.with_name(f".{old.name}.removed"))
    for leftover in root.glob(".step-*"):  # also what a killed process left
        shutil.rmtree(leftover, ignore_errors=True)
    return directory


def checkpoint_folder(root: Path, step: int) -> Path:
    """The folder of the checkpoint after a step, which need not exist."""
    return root / f"step-{step}"


def _newest_first(root: Path) -> list[Path]:
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.removeprefix("step-")))


def find_checkpoint(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint below `root`; None if there is no checkpoint. `say` is told of damaged ones.

    Raises: CheckpointError: there are checkpoints, and all are damaged.
    """
    candidates = _newest_first(root)
    for directory in candidates:
        try:
            return read_checkpoint(directory)
        except (OSError, CheckpointError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{directory}/")
            say(f"{directory}: damaged ({reason}); the checkpoint before it is used")
    if candidates:
        raise CheckpointError(f"{root}: every checkpoint is damaged; start again in a new folder")
    return None


@dataclass(frozen=True)
class _Written:
    """The form of `state.json`."""

    step: int
    hashes: dict[str, str]
    state: dict[str, dict[str, Any]]


def read_checkpoint(directory: Path) -> Checkpoint:
    """The checkpoint in a folder `step-N`, verified but for what its tensors mean.

    Raises: CheckpointError: a file is damaged, or belongs elsewhere; the message begins with its path.
    """
    path, way_out = directory / STATE_NAME, "copy the checkpoint again"
    value = parse_json_file(path, CheckpointError, way_out=way_out)
    content = unsealed(value, str(path), CheckpointError, way_out=way_out)
    written = as_kind(content, _Written, str(path), CheckpointError, way_out=way_out)
    steps = {written.step, written.state.get("run", {}).get("step"), int(directory.name.removeprefix("step-"))}
    if len(steps) != 1:
        raise CheckpointError(f"{path}: damaged (it does not hold the state after the step of its folder); {way_out}")
    if written.hashes.keys() != set(TENSOR_FILES):
        raise CheckpointError(f"{path}: damaged (it lacks the hash of a file); {way_out}")
    for name, expected in written.hashes.items():
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / name}: missing; {way_out}")
        if file_hash(directory / name) != expected:
            raise CheckpointError(f"{directory / name}: damaged (not the SHA-256 it was written with); {way_out}")
    return Checkpoint(directory, written.step, written.state)


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Loads a checkpoint's tensors into the model and its optimizers.

    Raises: CheckpointError: it belongs to another model.
    """
    saved = load_file(checkpoint.directory / "model.safetensors")
    parameters = dict(model.named_parameters())
    if saved.keys() != parameters.keys():
        raise CheckpointError(f"{checkpoint.directory}: belongs to another model; resume with the run's configuration")
    copy_weights(saved, model)
    restore_optimizers(optimizers, model, load_file(checkpoint.directory / "optimizer.safetensors"))


@contextmanager
def one_line_of(checkpoint: Checkpoint) -> Iterator[None]:
    """Raises: CheckpointError: the block finds the checkpoint's state in another form than it needs."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        path = checkpoint.directory / STATE_NAME
        reason = first_line(error) or type(error).__name__
        raise CheckpointError(
            f"{path}: damaged ({reason}); remove {path.parent}, then resume from the one before"
        ) from error

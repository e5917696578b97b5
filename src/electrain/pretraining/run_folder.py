"""Reads a run folder once: the run's configuration, and the folder of each of its networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from electrain.foundation.configuration import read_configuration, read_toml
from electrain.foundation.errors import CheckpointError
from electrain.foundation.hub import require_name, require_source
from electrain.foundation.output_folder import CONFIGURATION_NAME, EXPORT_NAME
from electrain.foundation.sums import require_as_written
from electrain.models.discriminator import Head
from electrain.pretraining.configuration import PretrainConfig

Kind = Literal["detection", "masked-language-model", "causal-language-model"]
# The class of the network that holds each head, and its folder in a run.
HEAD_KINDS: dict[Head, Kind] = {
    "detection": "detection",
    "correction": "masked-language-model",
    "electric": "detection",
}
HEAD_FOLDERS: dict[Head, str] = {"detection": "detector", "correction": "correction", "electric": "electric"}


@dataclass(frozen=True)
class RunFolder:
    """What the user gave as a model: a run folder, one model's folder, or a model's name on the Hugging Face hub."""

    path: str  # the path or name as the user gave it, for messages
    model: str  # folder or hub name of the network to fine-tune
    config: PretrainConfig | None = None  # the resolved configuration of a pretraining run; None for anything else
    # the heads that the discriminator was trained with, and the folder of the network that holds each; empty for
    # anything but a run of replaced token detection
    heads: Mapping[Head, str] = field(default_factory=dict)
    generator: str | None = None  # folder of the run's generator; None if there is none

    def __str__(self) -> str:
        return self.path

    @property
    def is_baseline(self) -> bool:
        """True for a run of the masked-language-modelling baseline."""
        return self.config is not None and self.config.training.objective == "masked-language-modelling"

    @property
    def restores_missing_words(self) -> bool:
        """True for a run that trained its correction head at [MASK] only."""
        return self.config is not None and self.config.discriminator.correction_at == "missing"

    @property
    def saw_missing_words(self) -> bool:
        """True for a run whose discriminator saw [MASK] at some selected positions."""
        return self.config is not None and self.config.corruption.missing_fraction > 0

    @property
    def trained_length(self) -> int | None:
        """Length of the training rows, in tokens; None for anything but a pretraining run."""
        return None if self.config is None else self.config.data.sequence_length


def open_run_folder(path: "Path | str | RunFolder") -> RunFolder:
    """Reads `config.toml` and looks which folders exist, but opens no network. A `RunFolder` is returned unchanged.

    Raises: CheckpointError: there is no such folder, or it holds no model. ConfigurationError: `config.toml` is
        damaged.
    """
    if isinstance(path, RunFolder):
        return path
    require_name(path)
    folder = Path(path)
    require_as_written(folder, (CONFIGURATION_NAME,))
    model = _model_folder(folder, str(path))
    config = _configuration(folder / CONFIGURATION_NAME)
    generator = folder / "generator"
    return RunFolder(
        path=str(path),
        model=model,
        config=config,
        heads={} if config is None else _heads(folder, model, config),
        generator=str(generator) if generator.is_dir() else None,
    )


def _model_folder(folder: Path, given: str) -> str:
    if (folder / "model").is_dir():
        return str(folder / "model")
    if folder.is_file():
        raise CheckpointError(f"{given}: is a file; give the folder of a run or of a model")
    if (folder / EXPORT_NAME).is_file():
        fault = "an exported folder can be asked, but not scored or trained"
        raise CheckpointError(f"{given}: {fault}; give the folder that it was exported from")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{given}: holds neither model/ nor config.json; give the folder of a finished run")
    require_source(given)
    return given


def _configuration(path: Path) -> PretrainConfig | None:
    """The configuration of a pretraining run; None if there is no file, or it is of a fine-tuning run."""
    if not path.is_file() or "encoder" not in read_toml(path):
        return None
    return read_configuration(PretrainConfig, path)


def _heads(folder: Path, model: str, config: PretrainConfig) -> dict[Head, str]:
    """The folder of each head. In older runs the first head has no folder of its own and lies in `model/`."""
    if config.training.objective == "masked-language-modelling":
        return {}
    places = {head: folder / HEAD_FOLDERS[head] for head in config.discriminator.heads}
    return {head: str(place) if place.is_dir() else model for head, place in places.items()}


def head_beside(source: str, head: Head) -> str | None:
    """For the `model/` of a run, the folder beside it that holds a head; None where there is none."""
    beside = Path(source).parent / HEAD_FOLDERS[head]
    return str(beside) if Path(source).name == "model" and beside.is_dir() else None


def how_to_train_longer(config: PretrainConfig, output: Path) -> str:
    """What to say to somebody who gives a run more steps."""
    starts = f"--start.discriminator {output / 'model'}"
    if config.trains_generator:
        starts += f" --start.generator {output / 'generator'}"
    return (
        "the learning rate falls to its end with the last step, so a run cannot be prolonged; to train longer, begin a "
        f"new run with {starts}"
    )

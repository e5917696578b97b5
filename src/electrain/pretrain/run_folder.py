"""A run folder, read once: the run's configuration, and where each of its networks lies."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from electrain.foundation.configuration import Tables, build_configuration, read_toml
from electrain.foundation.errors import CheckpointError
from electrain.foundation.hub import require_source
from electrain.foundation.output_folder import CONFIGURATION_NAME
from electrain.models.discriminator import Head
from electrain.pretrain.configuration import PretrainConfig

Kind = Literal["detection", "masked-language-model", "causal-language-model"]
# The class of network that holds each head, and the folder of a run that it lies in.
HEAD_KINDS: dict[Head, Kind] = {
    "detection": "detection",
    "correction": "masked-language-model",
    "electric": "detection",
}
HEAD_FOLDERS: dict[Head, str] = {"detection": "detector", "correction": "correction", "electric": "electric"}


@dataclass(frozen=True)
class RunFolder:
    """What the user gave as a model: a run folder, one model's folder, or a model's name on the Hugging Face hub.

    Attributes:
        path: as the user gave it; messages quote it.
        model: folder or hub name of the network that people fine-tune.
        config: the resolved configuration of a pretraining run; None for anything else.
        heads: the heads that the discriminator was trained with, each with the folder of the network that holds it;
            empty for anything but a run of replaced token detection.
        generator: the folder of the run's generator; None where there is none.
    """

    path: str
    model: str
    config: PretrainConfig | None = None
    heads: Mapping[Head, str] = field(default_factory=dict)
    generator: str | None = None

    def __str__(self) -> str:
        return self.path

    @property
    def is_baseline(self) -> bool:
        """True for a run of the masked-language-modelling baseline."""
        return self.config is not None and self.config.training.objective == "masked-language-modelling"

    @property
    def restores_missing_words(self) -> bool:
        """True for a run whose correction head was trained at [MASK] only."""
        return self.config is not None and self.config.discriminator.correction_at == "missing"

    @property
    def trained_length(self) -> int | None:
        """The length in tokens of the rows that the run was trained on; None where no run's configuration says it."""
        return None if self.config is None else self.config.data.sequence_length


def open_run_folder(path: "Path | str | RunFolder") -> RunFolder:
    """Reads a run folder; a value that was read before is returned as it is.

    Reads `config.toml` and looks which folders exist; opens no network.
    Raises: CheckpointError: no such folder, or one that holds no model. ConfigurationError: a damaged `config.toml`.
    """
    if isinstance(path, RunFolder):
        return path
    folder = Path(path)
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
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{given}: holds neither model/ nor config.json; give the folder of a finished run")
    require_source(given)
    return given


def _configuration(path: Path) -> PretrainConfig | None:
    """The configuration of a pretraining run; None where there is no file, or it is a fine-tuning run's."""
    if not path.is_file():
        return None
    tables = read_toml(path)
    if "encoder" not in tables:
        return None
    return build_configuration(PretrainConfig, _known(tables), str(path))


def _known(tables: Tables) -> Tables:
    """The fields that this version still has: the file was complete when the run wrote it, and a field can go."""
    sections = typing.get_type_hints(PretrainConfig)
    fields = {name: {one.name for one in dataclasses.fields(kind)} for name, kind in sections.items()}
    return {
        section: {name: value for name, value in table.items() if name in fields[section]}
        for section, table in tables.items()
        if section in fields
    }


def _heads(folder: Path, model: str, config: PretrainConfig) -> dict[Head, str]:
    """Where each head lies. A head without a folder of its own lies in `model/`, as the first one did in older runs."""
    if config.training.objective == "masked-language-modelling":
        return {}
    places = {head: folder / HEAD_FOLDERS[head] for head in config.discriminator.heads}
    return {head: str(place) if place.is_dir() else model for head, place in places.items()}


def with_detection_head(source: str) -> str:
    """For the `model/` of a run, the folder beside it that holds the detection head too; else `source` itself."""
    beside = Path(source).parent / HEAD_FOLDERS["detection"]
    return str(beside) if Path(source).name == "model" and beside.is_dir() else source

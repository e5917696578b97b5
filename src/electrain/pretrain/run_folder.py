"""A run folder read: what was trained, and where each network lies."""

import re
from pathlib import Path
from typing import Literal

from electrain.foundation.configuration import read_toml
from electrain.foundation.errors import CheckpointError
from electrain.foundation.output_folder import CONFIGURATION_NAME

Kind = Literal["detection", "masked-language-model", "causal-language-model"]


# Further heads of a discriminator, each in a folder of its own, with the class that holds it.
HEAD_FOLDERS: dict[str, Kind] = {"correction": "masked-language-model", "electric": "detection"}


_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def restores_missing_words(folder: Path | str) -> bool:
    """True for a run whose correction head was trained at [MASK] only."""
    judge = read_toml(Path(folder) / CONFIGURATION_NAME).get("discriminator", {})
    return bool(judge.get("correction_at") == "missing")


def heads_of(folder: Path | str) -> tuple[str, ...]:
    """The heads that the discriminator of a run was trained with; empty where `folder` is no run of that kind."""
    path = Path(folder) / CONFIGURATION_NAME
    if not path.is_file():
        return ()
    return () if is_baseline(folder) else tuple(read_toml(path).get("discriminator", {}).get("heads", ["detection"]))


def is_baseline(folder: Path | str) -> bool:
    """True for a run of the masked-language-modelling baseline."""
    path = Path(folder) / CONFIGURATION_NAME
    return path.is_file() and read_toml(path).get("training", {}).get("objective") == "masked-language-modelling"


def model_folder(folder: Path | str) -> str:
    """The Hugging Face folder in a run folder, the folder itself, or the hub's name for a model."""
    path = Path(folder)
    if (path / "model").is_dir():
        return str(path / "model")
    if path.is_file():
        raise CheckpointError(f"{folder}: is a file; give the folder of a run or of a model")
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(f"{folder}: holds neither model/ nor config.json; give the folder of a finished run")
    if not path.exists() and not _HUB_NAME.fullmatch(str(folder)):
        raise CheckpointError(f"{folder}: no such folder; give the folder of a run or of a model")
    return str(folder)


def _trained_length(folder: Path | str) -> int | None:
    """The length of the rows that a run was trained on, in tokens; None where `folder` is no run folder."""
    path = Path(folder) / CONFIGURATION_NAME
    if not path.is_file():
        return None
    length = read_toml(path).get("data", {}).get("sequence_length")
    return length if isinstance(length, int) else None

"""Checks every file of a folder that electrain wrote; a line for each that is missing, damaged or of another form."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from electrain.data.shards.prepare import COUNTS_NAME
from electrain.data.shards.shards import facts_of, read_counts
from electrain.data.tokenizer.tokenizer import load_tokenizer, tokenizer_hash
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.run import KIND as FINE_TUNING
from electrain.finetuning.tasks.settings import TASK_FILE_NAME, read_task_settings
from electrain.finetuning.tasks.task_folder import load_task_settings
from electrain.foundation.configuration import read_configuration, read_toml
from electrain.foundation.errors import CheckpointError, DataError, ElectrainError, RunDirectoryError, TokenizerError
from electrain.foundation.json_reading import parse_json, parse_json_file
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    EXPORT_NAME,
    MANIFEST_NAME,
    Manifest,
    read_any_manifest,
)
from electrain.foundation.report_page import REPORT_NAME
from electrain.foundation.sums import SUMS_NAME, fault_of, read_sums
from electrain.inference.export.folder import is_exported, read_export
from electrain.models.folders import configuration_of
from electrain.models.sentence_vectors import POOLING_FOLDER
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.run import KIND as PRETRAINING
from electrain.training.checkpoint import STATE_NAME, read_checkpoint
from electrain.training.sitting import CHECKPOINTS

_TOKENIZER, _MODEL, _SCORES = "tokenizer.json", "config.json", "scores.json"
# The files by which a folder of ours is known.
_SIGNS = (MANIFEST_NAME, STATE_NAME, EXPORT_NAME, _TOKENIZER, _MODEL, _SCORES, CONFIGURATION_NAME)
_COPY = "copy the folder again"


@dataclass
class Findings:
    """What was found so far.

    Attributes:
        faults: a line for each damaged or missing file, which begins with its path.
        files: number of files that were looked at.
        unfinished: the folders whose work was not finished, or is going on.
    """

    faults: list[str] = field(default_factory=list)
    files: int = 0
    unfinished: list[Path] = field(default_factory=list)

    def attempt(self, path: Path, action: Callable[[], object]) -> None:
        """Notes what an action finds wrong with a file, unless a fault of that file is known."""
        try:
            action()
        except ElectrainError as error:
            self.note(path, str(error))
        except OSError as error:
            self.note(path, f"{path}: cannot be read ({error.strerror})")

    def note(self, path: Path, fault: str) -> None:
        if not any(line.startswith((f"{path}:", f"{path} ")) for line in self.faults):
            self.faults.append(fault if fault.startswith(str(path.parent)) else f"{path}: {fault}")


def check_folder(folder: Path) -> Findings:
    """Checks a folder and the folders of ours in it: a tokenizer, shards, a run, a model or a checkpoint.

    Raises: RunDirectoryError: there is no such folder, or it holds nothing that electrain writes.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: no such folder; give one that electrain wrote")
    findings = Findings()
    for part in _parts(folder):
        _check(part, findings)
    if not findings.files:
        raise RunDirectoryError(f"{folder}: holds nothing that electrain writes; give a run, a model, shards ...")
    return findings


def _parts(folder: Path) -> Iterator[Path]:
    is_ours = any((folder / sign).is_file() for sign in _SIGNS) or _is_checkpoint(folder)
    if is_ours:
        yield folder
    if is_ours or folder.name == CHECKPOINTS:
        for inside in sorted(folder.iterdir()):
            # A folder of the model's own, whose file is among the hashes of the model.
            is_part = inside.name == POOLING_FOLDER
            if inside.is_dir() and not is_part and not inside.name.startswith("."):
                yield from _parts(inside)


def _is_checkpoint(folder: Path) -> bool:
    return folder.parent.name == CHECKPOINTS and folder.name.startswith("step-")


def _check(folder: Path, findings: Findings) -> None:
    """First each file by itself; what they mean together is asked only where all of them can be read."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    findings.files += sum(path.name != REPORT_NAME for path in files)
    known = len(findings.faults)
    _check_hashes(folder, findings)
    manifest = None
    if (folder / MANIFEST_NAME).is_file():
        manifest = _check_manifest(folder, findings)
    elif (folder / CONFIGURATION_NAME).is_file():  # of a run, which writes its manifest before its first step
        findings.note(folder / MANIFEST_NAME, f"{folder / MANIFEST_NAME}: missing; {_COPY}")
    if _is_checkpoint(folder) and not (folder / STATE_NAME).is_file():
        findings.note(folder / STATE_NAME, f"{folder / STATE_NAME}: missing; {_COPY}")
    is_going_on = manifest is not None and not manifest.finished
    for path in files:
        if path.name == CONFIGURATION_NAME:
            findings.attempt(path, partial(_require_configuration, path))
        elif path.name == COUNTS_NAME:
            findings.attempt(path, partial(_require_counts, path))
        elif path.suffix == ".json":
            findings.attempt(path, partial(_require_json, path))
        elif path.suffix == ".jsonl":
            findings.attempt(path, partial(_require_lines, path, may_be_cut=is_going_on))
        elif path.suffix == ".safetensors":
            findings.attempt(path, partial(_require_tensors, path))
    if len(findings.faults) > known:
        return
    for name, read in _READERS.items():
        if (folder / name).is_file():
            findings.attempt(folder / name, partial(read, folder))


def _check_hashes(folder: Path, findings: Findings) -> None:
    hashes: dict[str, str] = {}
    findings.attempt(folder / SUMS_NAME, lambda: hashes.update(read_sums(folder)))
    _compare(folder, hashes, findings)


def _compare(folder: Path, hashes: Mapping[str, str], findings: Findings) -> None:
    """Compares files of a folder with their hashes, by name."""
    for name, expected in hashes.items():
        fault = fault_of(folder / name, expected)
        if fault:
            findings.note(folder / name, f"{fault}; {_COPY}")


def _check_manifest(folder: Path, findings: Findings) -> Manifest | None:
    path = folder / MANIFEST_NAME
    try:
        manifest = read_any_manifest(folder)
    except ElectrainError as error:
        findings.note(path, str(error))
        return None
    if not manifest.finished:
        findings.unfinished.append(folder)
    _compare(folder, manifest.hashes, findings)
    if manifest.kind == "shards" and manifest.finished:
        findings.attempt(path, lambda: _check_shards(folder, manifest, findings))
    tokenizer = folder if manifest.kind == "tokenizer" else folder / "tokenizer"
    if "tokenizer" in manifest.inputs and tokenizer.is_dir() and manifest.finished:
        path = tokenizer / _TOKENIZER
        findings.attempt(path, lambda: _require_tokenizer(tokenizer, manifest.inputs["tokenizer"]))
    if manifest.kind in (PRETRAINING, FINE_TUNING) and manifest.finished and not (folder / "model").is_dir():
        findings.note(folder / "model", f"{folder / 'model'}: missing; {_COPY}")
    return manifest


def _check_shards(folder: Path, manifest: Manifest, findings: Findings) -> None:
    for file in facts_of(manifest, folder).files:
        hashes = {"": file.sha256, ".index": file.index_sha256, ".words": file.words_sha256}
        taken = {file.name + ending: expected for ending, expected in hashes.items() if expected}
        _compare(folder, taken, findings)


def _require_configuration(path: Path) -> None:
    kind: type[object] = PretrainConfig if "encoder" in read_toml(path) else FinetuneConfig
    read_configuration(kind, path)


def _require_counts(path: Path) -> None:
    try:
        read_counts(path)
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); {_COPY}") from error


def _require_tokenizer(folder: Path, expected: str) -> None:
    try:
        found = tokenizer_hash(folder)
    except ElectrainError:  # its own folder tells
        return
    if found != expected:
        raise TokenizerError(f"{folder / _TOKENIZER}: not the tokenizer that the manifest names; {_COPY}")


def _require_json(path: Path) -> None:
    parse_json_file(path, way_out=_COPY)


def _require_lines(path: Path, *, may_be_cut: bool) -> None:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if may_be_cut and not line.endswith(b"\n"):
                return
            value: object = parse_json(line, f"{path}:{number}", way_out=_COPY)
            if not isinstance(value, dict):
                raise DataError(f"{path}:{number}: damaged (not a JSON object); {_COPY}")


def _require_tensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise CheckpointError(f"{path}: holds numbers that are not finite ({name}); {_COPY}")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); {_COPY}") from error


def _require_task(folder: Path) -> None:
    if is_exported(folder):
        read_task_settings(folder / TASK_FILE_NAME)
    else:
        load_task_settings(str(folder), configuration_of(str(folder)))


# What the files of a folder mean together, by the file that says so.
_READERS: dict[str, Callable[[Path], object]] = {
    STATE_NAME: read_checkpoint,
    _TOKENIZER: load_tokenizer,
    _MODEL: lambda folder: configuration_of(str(folder)),
    TASK_FILE_NAME: _require_task,
    EXPORT_NAME: read_export,
}

"""Output folders: their manifests, replacing files and folders safely, and beginning or resuming a run in one."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electrain import __version__
from electrain.foundation.configuration import build_configuration, differences, read_toml, to_toml
from electrain.foundation.errors import ElectrainError, RunDirectoryError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
CONFIGURATION_NAME = "config.toml"
# They change only memory, speed and rounding and, the first one, the draws of dropout. A run whose memory was full can
# resume with less. The last one only lets a run begin.
MAY_CHANGE = ("micro_batch_rows", "gradient_checkpointing", "rows_on_device", "sharding", "allow_unknown")


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    kind: str  # tokenizer | shards | run | fine-tuning
    finished: bool  # False while the stage is still writing
    inputs: dict[str, str]  # hashes of the stage's inputs, by name
    facts: dict[str, Any]  # further numbers and settings, by name


def write_text_durably(path: Path, text: str) -> None:
    """Replaces the content of a file by `text`. A crash leaves either the old content or the new one."""
    write_bytes_durably(path, text.encode("utf-8"))


def write_bytes_durably(path: Path, content: bytes) -> None:
    """As `write_text_durably`, for bytes. Raises: OSError: the disk is full; the old file stays."""
    temporary = path.with_name(f".{path.name}.writing")
    # A rename is atomic, but without the sync the new name could reach the disk before the content does.
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes the renames inside a folder survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which takes the place of `directory` if the block ends without an exception.

    At any moment `directory` is complete, new or old, or it is absent. Every file gets the umask's permissions.
    """
    temporary = directory.with_name(f".{directory.name}.writing")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    # safetensors makes files that only their owner can read, so that the user of a service could not read a model. The
    # new folder shows what the umask grants. Reading the umask itself means changing it, also for other threads.
    granted = temporary.stat().st_mode & 0o666
    yield temporary
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(granted)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_directory(path)
    sync_directory(temporary)
    # A rename cannot replace a folder that is not empty, so the old one is moved aside and removed last.
    if directory.exists():
        old = directory.with_name(f".{directory.name}.old")
        if old.exists():
            shutil.rmtree(old)
        os.replace(directory, old)
        os.replace(temporary, directory)
        shutil.rmtree(old)
    else:
        os.replace(temporary, directory)
    sync_directory(directory.parent)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` into `directory`, replacing an earlier one."""
    content = {
        "format_version": FORMAT_VERSION,
        "made_by": f"electrain {__version__}",
        "kind": manifest.kind,
        "finished": manifest.finished,
        "inputs": manifest.inputs,
        "facts": manifest.facts,
    }
    write_text_durably(directory / MANIFEST_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_manifest(directory: Path, kind: str) -> Manifest:
    """Reads the manifest of a finished or unfinished folder of the given kind.

    Raises: RunDirectoryError: the folder or its manifest is missing, damaged, of another kind or of a newer format.
    """
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory}: no such folder; give a folder of {kind} that electrain made")
    if not path.is_file():
        raise RunDirectoryError(f"{directory}: has no {MANIFEST_NAME}; give a folder of {kind} that electrain made")
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format_version"] > FORMAT_VERSION:
            raise RunDirectoryError(
                f"{path}: format {content['format_version']} is newer than this electrain reads ({FORMAT_VERSION}); "
                "update electrain"
            )
        manifest = Manifest(content["kind"], content["finished"], content["inputs"], content["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path}: damaged ({error}); make the folder again") from error
    if manifest.kind != kind:
        raise RunDirectoryError(f"{directory}: holds {manifest.kind}, not {kind}; give a folder of {kind}")
    return manifest


def require_empty(directory: Path) -> None:
    """Creates `directory`, or accepts an empty one. Raises: RunDirectoryError: it is a file, or is not empty."""
    if directory.exists() and not directory.is_dir():
        raise RunDirectoryError(f"{directory}: is a file; give the name of a new folder")
    if directory.is_dir() and any(directory.iterdir()):
        raise RunDirectoryError(f"{directory}: is not empty; give a new folder, or remove this one")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be created ({error.strerror}); give another folder") from error


def begins(
    directory: Path,
    kind: str,
    inputs: dict[str, str],
    config: Any,
    first_files: set[str],
    hints: Mapping[str, str],
    *,
    resume: bool,
) -> bool:
    """True if the run is new, and its configuration is now written; False if `directory` holds it, to be resumed.

    A resumed run must have the configuration that it began with, except for `MAY_CHANGE`.

    Args:
        inputs: see `Manifest`.
        config: the run's configuration, a dataclass.
        first_files: names of the files that a run writes before it trains, with the manifest last.
        hints: advice for changed fields, by "[section] field".
    Raises: RunDirectoryError: the folder holds another run or, without `resume`, anything at all.
    """
    if not resume and directory.is_dir() and any(directory.iterdir()):
        raise RunDirectoryError(f"{directory}: is not empty; give a new folder, or --resume to continue the run in it")
    path = directory / CONFIGURATION_NAME
    # The manifest is the last of the first files: without it, the run was stopped before it began.
    if not (directory / MANIFEST_NAME).exists():
        if _is_as_written(path, type(config)):
            _remove_first_files(directory, first_files)
        require_empty(directory)
        write_text_durably(path, to_toml(config))
        return True
    manifest = read_manifest(directory, kind)
    for name, value in inputs.items():
        if manifest.inputs.get(name) != value:
            raise RunDirectoryError(f"{directory}: {name} changed since the run began; resume with the same {name}")
    earlier = build_configuration(type(config), read_toml(path), str(path))
    for difference in differences(earlier, config, but=MAY_CHANGE):
        field = " ".join(difference.split()[:2])
        hint = hints.get(field, f"resume with the run's own configuration, {path}")
        raise RunDirectoryError(f"{directory}: {difference}; {hint}")
    if earlier != config:
        write_text_durably(path, to_toml(config))
    return False


def _is_as_written(path: Path, kind: type[Any]) -> bool:
    """True if a run wrote the configuration. Beside one that somebody wrote by hand, other files may be theirs too."""
    if not path.exists():
        return path.with_name(f".{path.name}.writing").exists()
    try:
        return path.read_text("utf-8") == to_toml(build_configuration(kind, read_toml(path), str(path)))
    except (ElectrainError, ValueError):
        return False


@contextmanager
def emptied_on_error(directory: Path, first_files: set[str], *, is_first: bool) -> Iterator[None]:
    """If the run cannot be built, the first process removes its first files, so that a corrected command can follow."""
    try:
        yield
    except ElectrainError:
        if is_first:
            _remove_first_files(directory, first_files)
        raise


def _remove_first_files(directory: Path, names: set[str]) -> None:
    """Empties a folder that holds only the files of these names, complete or partly written."""
    ours = names | {f".{name}.writing" for name in names}
    found = list(directory.iterdir()) if directory.is_dir() else []
    if any(path.name not in ours for path in found):
        return
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def one_line_when_full(output: Path) -> Iterator[None]:
    """Raises: RunDirectoryError: the disk, the quota or the file size limit was reached while writing `output`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RunDirectoryError(
            f"{output}: cannot be written ({error.strerror}); free some space, or give another folder, and run the "
            "same command again"
        ) from error

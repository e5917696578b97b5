"""Output folders: their manifests, replacing files and folders safely, and beginning or resuming a run in one."""

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from electrain import __version__
from electrain.foundation.configuration import differences, read_configuration, to_toml
from electrain.foundation.errors import ElectrainError, RunDirectoryError, first_line
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import as_kind, parse_json_file, sealed, unsealed
from electrain.foundation.progress import say
from electrain.foundation.system import sync_directory

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
CONFIGURATION_NAME = "config.toml"
JOURNAL_NAME = "metrics.jsonl"
EXAMPLES_NAME = "examples.jsonl"
EXPORT_NAME = "electrain-export.json"  # of a folder that `electrain export` wrote
LOCK_NAME = ".electrain.lock"
HASHES = "hashes"  # the fact of a manifest that holds the hashes of files beside it
# They change only memory, speed and rounding and, the first one, the draws of dropout. A run whose memory was full can
# resume with less. The last three change nothing that is trained.
MAY_CHANGE = (
    "micro_batch_rows",
    "gradient_checkpointing",
    "rows_on_device",
    "sharding",
    "allow_unknown",
    "report_to",
    "card",
    "probe",  # `inputs` tell the texts apart, wherever they lie
)


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    kind: str  # tokenizer | shards | run | fine-tuning
    finished: bool  # False while the stage is still writing
    inputs: dict[str, str]  # hashes of the stage's inputs, by name
    facts: dict[str, Any]  # further numbers and settings, by name

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes of files beside the manifest, by their names, as far as they were taken."""
        hashes: dict[str, str] = self.facts.get(HASHES, {})
        return hashes


@dataclass(frozen=True)
class _Written:
    """The form of `manifest.json`."""

    format_version: int
    kind: str
    finished: bool
    inputs: dict[str, str]
    facts: dict[str, Any]
    made_by: str = ""


def write_text_durably(path: Path, text: str) -> None:
    """Replaces the content of a file by `text`. A crash leaves either the old content or the new one."""
    write_bytes_durably(path, text.encode("utf-8", "backslashreplace"))


def write_bytes_durably(path: Path, content: bytes) -> None:
    """As `write_text_durably`, for bytes. Raises: OSError: the disk is full; the old file stays."""
    with replaced_file(path) as file:
        file.write(content)
    sync_directory(path.parent)


@contextmanager
def replaced_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields an empty temporary file, which takes the place of `path` if the block ends without an exception.

    Its name cannot be guessed, and it is opened only if it is new: a link that somebody laid there is never followed.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            # A rename is atomic, but without the sync the new name could reach the disk before the content does.
            os.fsync(file.fileno())
        os.replace(temporary, path)  # closed before, since Windows renames no open file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_beside(path: Path) -> Path:
    """A hidden name beside `path` that cannot be guessed. What it names must be made new: "x", or `mkdir`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")


def is_temporary(path: Path) -> bool:
    """True for what an interrupted writer left, of this version or an older one."""
    return path.name.startswith(".") and path.name.endswith(".writing")


@contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which takes the place of `directory` if the block ends without an exception.

    At any moment `directory` is complete, new or old, or it is absent. Every file gets the umask's permissions.
    """
    for left in directory.parent.glob(f".{glob.escape(directory.name)}.*writing"):  # by a process that was killed
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    temporary = temporary_beside(directory)
    temporary.mkdir(parents=True)
    try:
        # safetensors makes files that only their owner can read, so that the user of a service could not read a model.
        # The new folder shows what the umask grants. Reading the umask means changing it, also for other threads.
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
        _take_place(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(directory.parent)


def _take_place(temporary: Path, directory: Path) -> None:
    """Renames a folder to the name of another one, which is removed."""
    # A rename cannot replace a folder that is not empty, so the old one is moved aside and removed last.
    if not directory.exists():
        os.replace(temporary, directory)
        return
    old = temporary_beside(directory)
    os.replace(directory, old)
    os.replace(temporary, directory)
    shutil.rmtree(old)


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
    write_text_durably(directory / MANIFEST_NAME, to_json(sealed(content), indent=2) + "\n")


def hashes_of(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """The hashes of those of the named files that are there, for the facts of a manifest."""
    return {name: file_hash(directory / name) for name in names if (directory / name).is_file()}


def read_manifest(directory: Path, kind: str) -> Manifest:
    """Reads the manifest of a finished or unfinished folder of the given kind.

    Raises: RunDirectoryError: the folder or its manifest is missing, damaged, of another kind or of a newer format.
    """
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory}: no such folder; give a folder of {kind} that electrain made")
    if not path.is_file():
        raise RunDirectoryError(f"{directory}: has no {MANIFEST_NAME}; give a folder of {kind} that electrain made")
    manifest = read_any_manifest(directory)
    if manifest.kind != kind:
        raise RunDirectoryError(f"{directory}: holds {manifest.kind}, not {kind}; give a folder of {kind}")
    return manifest


def read_any_manifest(directory: Path) -> Manifest:
    """The manifest of a folder of any kind. Raises: RunDirectoryError: it is missing, damaged or of a newer format."""
    path, way_out = directory / MANIFEST_NAME, "copy the folder again, or make it again"
    fault = RunDirectoryError
    value = parse_json_file(path, fault, way_out=way_out)
    content = unsealed(value, str(path), fault, way_out=way_out)
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise RunDirectoryError(
            f"{path}: format {version} is newer than this electrain reads ({FORMAT_VERSION}); update electrain"
        )
    written = as_kind(content, _Written, str(path), fault, way_out=way_out)
    as_kind(written.facts.get(HASHES, {}), dict[str, str], f"{path}: {HASHES}", fault, way_out=way_out)
    return Manifest(written.kind, written.finished, written.inputs, written.facts)


def contents_of(directory: Path) -> list[Path]:
    """The files and folders in a folder, but for the lock of whoever writes it; none if there is no such folder."""
    return [path for path in directory.iterdir() if path.name != LOCK_NAME] if directory.is_dir() else []


def require_empty(directory: Path) -> None:
    """Creates `directory`, or accepts an empty one. Raises: RunDirectoryError: it is a file, or is not empty."""
    if directory.exists() and not directory.is_dir():
        raise RunDirectoryError(f"{directory}: is a file; give the name of a new folder")
    if contents_of(directory):
        raise RunDirectoryError(f"{directory}: is not empty; give a new folder, or remove this one")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be created ({error.strerror}); give another folder") from error


def begin_anew(directory: Path, kind: str, names: Sequence[str]) -> None:
    """Begins work that cannot be resumed, in a new or empty folder or over what the same work left when interrupted.

    The unfinished manifest comes first and the finished one last. So whatever interrupts the work, the folder is
    recognised, and no later stage takes it for complete.

    Args:
        kind: see `Manifest`.
        names: globs of the files and folders that the work leaves, but for the manifest.
    Raises: RunDirectoryError: the folder holds anything else.
    """
    if (directory / MANIFEST_NAME).is_file():
        if read_manifest(directory, kind).finished:
            article = "" if kind.endswith("s") else "a "
            raise RunDirectoryError(
                f"{directory}: holds {article}finished {kind} already; give a new folder, or remove this one"
            )
        remove_work(directory, names)
        left = [path.name for path in contents_of(directory) if path.name != MANIFEST_NAME]
        if left:
            raise RunDirectoryError(f"{directory}: holds interrupted work and also {left[0]}; move that elsewhere")
        (directory / MANIFEST_NAME).unlink()
        say(f"{directory} holds interrupted work; starting over")
    elif all(map(is_temporary, contents_of(directory))):
        remove_work(directory, names)
    require_empty(directory)
    write_manifest(directory, Manifest(kind, False, {}, {}))


def abandon_work(directory: Path, names: Sequence[str], *, existed: bool) -> None:
    """Undoes `begin_anew` and what followed. Args: existed: the folder was there before, and stays."""
    with suppress(OSError):
        remove_work(directory, names)
        (directory / MANIFEST_NAME).unlink(missing_ok=True)
        if not existed:
            directory.rmdir()


def remove_work(directory: Path, names: Sequence[str]) -> None:
    """Removes what interrupted work left: files and folders by globs of their names, and temporary ones."""
    for path in [path for name in (*names, ".*.writing") for path in directory.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


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
        hints: advice for changed fields, by "[section] field", and for changed inputs, by name.
    Raises: RunDirectoryError: the folder holds another run or, without `resume`, anything at all.
    """
    if not resume and contents_of(directory):
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
    earlier = read_configuration(type(config), path, resumes=True)
    for difference in differences(earlier, config, but=MAY_CHANGE):
        field = " ".join(difference.split()[:2])
        hint = hints.get(field, f"resume with the run's own configuration, {path}")
        raise RunDirectoryError(f"{directory}: {difference}; {hint}")
    for name, value in inputs.items():
        if manifest.inputs.get(name, "") != value:
            hint = hints.get(name, f"resume with the same {name}")
            raise RunDirectoryError(f"{directory}: {name} changed since the run began; {hint}")
    if earlier != config:
        write_text_durably(path, to_toml(config))
    # What follows changes the other files.
    kept = {name: value for name, value in manifest.hashes.items() if name in first_files - {CONFIGURATION_NAME}}
    if kept != manifest.hashes:
        write_manifest(directory, Manifest(kind, manifest.finished, manifest.inputs, manifest.facts | {HASHES: kept}))
    return False


def _is_as_written(path: Path, kind: type[Any]) -> bool:
    """True if a run wrote the configuration. Beside one that somebody wrote by hand, other files may be theirs too."""
    if not path.exists():
        return any(map(is_temporary, contents_of(path.parent)))
    try:
        return path.read_text("utf-8") == to_toml(read_configuration(kind, path))
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
    found = contents_of(directory)
    if any(path.name not in names and not is_temporary(path) for path in found):
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
# numpy counts what was not written, and libraries in Rust end their message with the system's number.
_FULL_MESSAGE = re.compile(rf"\d requested and \d+ written|\(os error ({'|'.join(map(str, _FULL))})\)")


def is_disk_full(error: BaseException) -> bool:
    """True where the disk, the quota or the file size limit was reached, whichever library says so."""
    return (isinstance(error, OSError) and error.errno in _FULL) or bool(_FULL_MESSAGE.search(str(error)))


GO_ON = "give the same command with --resume"


@contextmanager
def one_line_when_full(output: Path, remedy: str = "run the same command again") -> Iterator[None]:
    """Raises: RunDirectoryError: the disk, the quota or the file size limit was reached while writing `output`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ElectrainError) or not is_disk_full(error):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunDirectoryError(f"{output}: cannot be written ({reason}); free some space, then {remedy}") from error

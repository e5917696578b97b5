"""Hashes by which a damaged file is found: `SHA256SUMS` in folders of models and tokenizers, and the manifest of a run.

A folder without them, from the hub or an older version, is read as before.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from electrain.foundation.errors import CheckpointError, ElectrainError, RunDirectoryError
from electrain.foundation.output_folder import (
    MANIFEST_NAME,
    file_hash,
    read_any_manifest,
    write_text_durably,
)

SUMS_NAME = "SHA256SUMS"
# Whoever owns a folder may edit its description, so that no hash is taken of it, and none of an older version counts.
_DESCRIPTION = "README.md"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\0]+)")


def write_sums(directory: Path) -> None:
    """Writes the hash of every file in a folder and below it, in the form that `sha256sum -c` reads.

    The manifest, which has a hash of its own, is left out: it changes when the work is finished. So is README.md, which
    people edit.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    named = [path for path in files if path.name not in (SUMS_NAME, MANIFEST_NAME, _DESCRIPTION)]
    write_hashes(directory, {path.relative_to(directory).as_posix(): file_hash(path) for path in named})


def write_hashes(directory: Path, hashes: Mapping[str, str]) -> None:
    """Writes `SHA256SUMS` with these hashes, by the names of the files."""
    write_text_durably(directory / SUMS_NAME, "".join(f"{value}  {name}\n" for name, value in hashes.items()))


def read_sums(directory: Path, kind: type[ElectrainError] = CheckpointError) -> dict[str, str]:
    """The hash of each file that `SHA256SUMS` names; empty if there is no such file. Raises: `kind`: it is damaged."""
    path = directory / SUMS_NAME
    if not path.is_file():
        return {}
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        lines = [""]
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise kind(f"{path}: damaged (a line is not a hash and a name); copy the folder again")
    return {match[2]: match[1] for match in found if match and Path(match[2]).name != _DESCRIPTION}


def verify_sums(
    directory: Path, is_wanted: Callable[[str], bool], kind: type[ElectrainError] = CheckpointError
) -> None:
    """Compares the files of a folder with its `SHA256SUMS`, if it has one.

    Args: is_wanted: given the name of a file, whether it is compared.
    Raises: `kind`: a file is missing, or is not what was written.
    """
    for name, expected in read_sums(directory, kind).items():
        if is_wanted(name):
            fault = fault_of(directory / name, expected)
            if fault:
                raise kind(f"{fault}; copy it again or, if you changed it yourself, remove {SUMS_NAME} beside it")


def fault_of(path: Path, expected: str) -> str:
    """What is wrong with a file that must have this hash, beginning with its path; "" if nothing is."""
    if not path.is_file():
        return f"{path}: missing"
    return "" if file_hash(path) == expected else f"{path}: damaged (not the SHA-256 that it was written with)"


def require_as_written(
    directory: Path,
    names: Iterable[str],
    kind: type[ElectrainError] = RunDirectoryError,
    *,
    may_be_missing: bool = False,
) -> None:
    """Compares files of a run's folder, or of shards, with the hashes in its manifest, where those are given.

    Raises: RunDirectoryError: the manifest is damaged. `kind`: a file is damaged, or is missing and may not be.
    """
    if not (directory / MANIFEST_NAME).is_file():
        return
    hashes = read_any_manifest(directory).hashes
    for name in names:
        is_compared = name in hashes and ((directory / name).exists() or not may_be_missing)
        fault = fault_of(directory / name, hashes[name]) if is_compared else ""
        if fault:
            raise kind(f"{fault}; copy the folder again")

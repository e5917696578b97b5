"""Finds the files that a name on the command line stands for."""

import glob
from collections.abc import Sequence
from pathlib import Path

from electrain.data.text.compression import COMPRESSIONS, uncompressed_suffix
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say

_NO_COLUMNS = (".json", ".csv", ".xlsx", ".xml")  # formats of labelled sentences that are not in columns


def source_files(source: str, formats: Sequence[str]) -> list[Path]:
    """The files that a file name, a folder (with the folders inside) or a glob stands for, in order of name.

    Args: formats: the suffixes to look for, such as ".tsv"; compressed files count too.
    Raises: DataError: there is no such file, or the one named has another format.
    """
    path = Path(source)
    if path.is_dir():
        _say_links(path)
        files = (file for file in path.rglob("*") if file.is_file())
        found = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif path.exists():
        if uncompressed_suffix(path) not in formats:
            known = f"{' '.join(formats)}, each also {' '.join(COMPRESSIONS)}"
            if ".conll" in formats and uncompressed_suffix(path) not in _NO_COLUMNS:
                known += "; a file with a word and its tag on each line needs only another name, ending in .conll"
            raise DataError(f"{source}: unknown format; convert it to one of {known}")
        return [path]
    else:
        found = [file for file in map(Path, glob.glob(source, recursive=True)) if file.is_file()]
    found = sorted(file for file in found if uncompressed_suffix(file) in formats)
    if not found:
        problem = f"no {' '.join(formats)} file in this folder; give another"
        raise DataError(f"{source}: {problem if path.is_dir() else 'no such file, folder or glob; check the name'}")
    return found


def _say_links(folder: Path) -> None:
    """Says which links to folders are left out, since a link may lead back to where it stands."""
    links = [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]
    shown = [path for path in links if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if shown:
        more = f" and {len(shown) - 1:,} more" if len(shown) > 1 else ""
        say(f"{shown[0]}{more}: a link to a folder, which is left out; name it as well to read it")

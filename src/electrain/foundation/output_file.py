"""The file that a user names for results: checked before the work, and written so that nothing is lost."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from electrain.foundation.errors import DataError
from electrain.foundation.output_folder import temporary_beside
from electrain.foundation.process import require_standard_output


def require_writable(output: Path | None) -> None:
    """Raises DataError if no file can be written there. Call it before the work whose result the file will hold.

    Args: output: None stands for standard output.
    """
    if output is None:
        require_standard_output()
        return
    reason = None
    if output.is_dir():
        reason = "is a folder"
    elif not output.parent.is_dir():
        reason = f"there is no folder {output.parent}"
    elif _is_file(output) and not os.access(output.parent, os.W_OK):
        reason = f"the folder {output.parent} is read-only"
    elif output.exists() and not os.access(output, os.W_OK):
        reason = "is read-only"
    if reason:
        raise DataError(f"{output}: {reason}; give the path of a file in a folder that you can write")


def _is_file(output: Path) -> bool:
    """True for a file that exists or could be made; False for a pipe or a device, such as /dev/stdout."""
    return output.is_file() or not output.exists()


@contextmanager
def written_output(output: Path) -> Iterator[TextIO]:
    """Yields a text file in UTF-8, which takes the place of `output` if the block ends without an exception.

    So a failure keeps the old file, and `output` may be the file that the results are made from. If another process
    wrote `output` meanwhile, both results are kept.

    Raises: DataError: the file cannot be written, or another process wrote it.
    """
    require_writable(output)
    if not _is_file(output):  # nothing may take the place of a pipe or a device
        with open(output, "w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    before, temporary = _identity(output), temporary_beside(output)
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            yield file
        if _identity(output) != before:
            free = next(path for number in itertools.count(2) if not (path := _numbered(output, number)).exists())
            os.replace(temporary, free)
            raise DataError(f"{output}: another process wrote it meanwhile; the results of this one are in {free}")
        os.replace(temporary, output)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}); give another") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _numbered(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}-{number}{output.suffix}")


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns

"""A full disk told in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from electrain.foundation.errors import RunDirectoryError

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

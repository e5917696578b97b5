"""Opens files for reading, compressed or not, with one-line errors for those that cannot be read.

Why not fsspec: docs/decisions/0007-processes-and-compressed-files.md.
"""

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from electrain.foundation.errors import DataError

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


def uncompressed_suffix(path: Path) -> str:
    """The suffix that names the format: `.jsonl` for `news.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Opens `path` for reading its uncompressed bytes from first to last.

    Raises: DataError: the file is missing, unreadable or truncated; this may come only while it is read.
    """
    try:
        with _open(path) as stream:
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the compressed file is truncated or damaged ({_line(error)}); copy it again"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the name") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder; give a file") from error
    except OSError as error:
        if error.errno is None:  # raised by a decompressor, not by the operating system
            raise DataError(f"{path}: truncated or damaged ({_line(error)}); copy it again") from error
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


@contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """As `open_stream`, for formats that are read out of order: compressed files are unpacked to a temporary file."""
    with open_stream(path) as stream:
        if path.suffix.lower() not in COMPRESSIONS:
            yield stream
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield unpacked


def _open(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix != ".zst":
        openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
        return cast(IO[bytes], openers[suffix](path) if suffix in openers else open(path, "rb"))
    import pyarrow  # comes with datasets; reads several frames, and notices truncation, unlike zstandard's reader

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), "rb"), "zstd"))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

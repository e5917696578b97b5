"""A row, a question, or a sentence of labelled data as it stands in its file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from electrain.data.text.cleaning import has_invalid_bytes
from electrain.data.text.encodings import conversion
from electrain.foundation.errors import DataError

Broken = Callable[[DataError], None]


@dataclass(frozen=True)
class Record:
    """One row, sentence or question of a file, before cleaning.

    `source` is "file:line" (the line where the sentence or row begins), "file: row N" for files without lines, counted
    from 0, or "file: question ID".
    """

    values: dict[str, object]  # by column; JSON, Parquet and Arrow give lists and numbers too, .tsv and .csv only text
    source: str


def valid_text(text: str, source: str, path: Path) -> str:
    """The text of a record of a file. Raises: DataError: bytes of it were not UTF-8."""
    if has_invalid_bytes(text):
        raise not_utf8(source, path)
    return text


def not_utf8(source: str, path: Path) -> DataError:
    """The error for a record that is not UTF-8; it names the encoding that the file seems to have."""
    return DataError(f"{source}: bytes that are not UTF-8; {conversion(path)}")

"""Readers of Parquet and Arrow files and of Hugging Face data sets: rows in order, one batch in memory at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from electrain.data.text.compression import open_seekable, uncompressed_suffix
from electrain.data.text.text_files import RawText, as_text, in_pieces, missing_column
from electrain.foundation.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 64  # a row may hold a whole book


class HubRows(Protocol):
    """The rows of a data set of the library `datasets`, streamed or in memory."""

    features: Mapping[str, object] | None  # the type of each column; None where a streamed data set does not say

    def __iter__(self) -> Iterator[dict[str, object]]:
        """One dict for each row."""


def read_table(path: Path, column: str) -> Iterator[RawText]:
    """One document per row of a Parquet or Arrow file. Raises: DataError: damaged file, or no such column."""
    number = 0
    for batch in table_batches(path, column):
        for value in batch.column(batch.schema.get_field_index(column)):
            source = f"{path}: row {number}"
            yield from in_pieces(as_text(value.as_py(), source, column), source)
            number += 1


def table_batches(path: Path, column: str | None = None) -> Iterator["pyarrow.RecordBatch"]:
    """The record batches, in order, of a Parquet file, or of an Arrow file in the file format or the stream format.

    Args: column: must be there; of a Parquet file it alone is read.
    Raises: DataError: damaged file, or no such column.
    """
    import pyarrow
    import pyarrow.parquet

    with open_seekable(path) as file:
        try:
            if uncompressed_suffix(path) == ".parquet":
                # Without pre_buffer, which would hold whole row groups in memory.
                table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
                _require_column(path, column, table.schema_arrow.names)
                yield from table.iter_batches(_BATCH_ROWS, columns=None if column is None else [column])
                return
            is_stream = file.read(6) != b"ARROW1"  # what `datasets` writes
            file.seek(0)
            reader = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
            for batch in reader if is_stream else map(reader.get_batch, range(reader.num_record_batches)):
                _require_column(path, column, batch.schema.names)
                yield batch
        except pyarrow.ArrowException as error:
            raise DataError(f"{path}: truncated or damaged ({_line(error)}); copy it again") from error


def _require_column(path: Path, column: str | None, names: list[str]) -> None:
    if column is not None and column not in names:
        raise missing_column(str(path), column, names)


def read_hub(source: str, column: str) -> Iterator[RawText]:
    """One document per row of a Hugging Face data set, streamed.

    Args: source: `hub:NAME[/CONFIG][:SPLIT]`; NAME may be a folder; the default split is "train".
    Raises: DataError: no such data set, configuration, split or column.
    """
    for number, row in enumerate(hub_rows(source)):
        place = f"{source}: row {number}"
        if column not in row:
            raise missing_column(place, column, list(row))
        yield from in_pieces(as_text(row[column], place, column), place)


def hub_rows(source: str) -> HubRows:
    """The rows of the data set `source`, as in `read_hub`. Raises: DataError: no such set, configuration or split."""
    location, _, split = source.removeprefix("hub:").partition(":")
    try:
        return _load(location, split or "train")
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise DataError(f"{source}: cannot be opened ({_line(error)}); check name, configuration and split") from error


def _load(location: str, split: str) -> HubRows:
    import datasets

    folder = Path(location)
    # What `save_to_disk` wrote needs `load_from_disk`; `load_dataset` would read its files as a data set of its own.
    rows: HubRows | dict[str, HubRows]
    if (folder / "dataset_dict.json").is_file():
        rows = datasets.load_from_disk(location)[split]
    elif (folder / "state.json").is_file():
        rows = datasets.load_from_disk(location)
    else:
        parts = [location] if folder.is_dir() else location.split("/", 2)
        name, configuration = ("/".join(parts[:2]), parts[2]) if len(parts) > 2 else (location, None)
        rows = datasets.load_dataset(name, configuration, split=split, streaming=True)
    if isinstance(rows, dict):
        raise ValueError(f"it has the splits {', '.join(rows)}")
    return rows


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

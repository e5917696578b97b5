"""Readers of Parquet and Arrow files and of Hugging Face data sets: rows in order, one batch in memory at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from electrain.data.text.table_process import table_batches
from electrain.data.text.text_files import RawText, as_text, in_pieces, missing_column
from electrain.foundation.errors import DataError


class HubRows(Protocol):
    """The rows of a data set of the library `datasets`, streamed or in memory."""

    features: Mapping[str, object] | None  # the type of each column; None where a streamed data set does not say

    def __iter__(self) -> Iterator[dict[str, object]]:
        """One dict for each row."""


def read_table(path: Path, column: str) -> Iterator[RawText]:
    """One document per row of a Parquet or Arrow file. Raises: DataError: damaged file, or no such column."""
    number = 0
    for batch in table_batches(path, column):
        for row in batch.rows:
            source = f"{path}: row {number}"
            yield from in_pieces(as_text(row[column], source, column), source)
            number += 1


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


def _require_sound(folder: Path) -> None:
    """Reads the Arrow files of a folder once, since `datasets` maps them into memory, where a damaged one is the end.

    Raises: DataError: one is damaged.
    """
    for path in sorted(folder.rglob("*.arrow")):
        for _ in table_batches(path):
            pass


def _load(location: str, split: str) -> HubRows:
    import datasets

    folder = Path(location)
    # What `save_to_disk` wrote needs `load_from_disk`; `load_dataset` would read its files as a data set of its own.
    rows: HubRows | dict[str, HubRows]
    if folder.is_dir():
        _require_sound(folder)
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

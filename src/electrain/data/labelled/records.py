"""Labelled data as records: rows of tables, sentences in columns of words and tags, questions about texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from electrain.data.labelled.formats import (
    Broken,
    Found,
    arrow_rows,
    conll_sentences,
    delimited_rows,
    hub_table_rows,
    jsonl_rows,
    parquet_rows,
    refuse,
    squad_questions,
)
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.source_files import source_files

RecordKind = Literal["table", "tagging", "question-answering"]
COLUMN_FORMATS = (".conll", ".txt", ".bio", ".iob")  # a word and its tag on each line, an empty line after a sentence
FORMATS: dict[RecordKind, tuple[str, ...]] = {
    "table": (".tsv", ".csv", ".jsonl", ".parquet", ".arrow"),
    "tagging": (*COLUMN_FORMATS, ".jsonl", ".parquet", ".arrow"),
    "question-answering": (".json", ".jsonl", ".parquet", ".arrow"),
}


@dataclass(frozen=True)
class Record:
    """One row, sentence or question of a file, before cleaning.

    Attributes:
        values: the values by column; JSON, Parquet and Arrow give lists and numbers too, .tsv and .csv only text.
        source: "file:line" (the line where the sentence or row begins), "file: row N" for files without lines, counted
            from 0, or "file: question ID".
    """

    values: dict[str, object]
    source: str


def read_records(sources: Sequence[str], *, kind: RecordKind, broken: Broken = refuse) -> Iterator[Record]:
    """The records of `sources`, in order.

    Args:
        sources: files, folders, globs or `hub:NAME[/CONFIG][:SPLIT]`; every format also as .gz, .xz, .bz2 or .zst.
        kind: "table": .tsv (no quoting), .csv, .jsonl, .parquet, .arrow or hub rows. "tagging": columns of words and
            tags as `words` and `tags` (no `tags` where the file has one column), or such rows. "question-answering":
            SQuAD's .json as `id`, `question`, `context` and `answers`, a list of `text` and `answer_start` (empty
            where unanswerable, missing where not given), or such rows.
        broken: gets the error of a record that cannot be read; if it returns, the record is left out.
    Raises: DataError: a source cannot be read. Also whatever `broken` raises.
    """
    for source in sources:
        if source.startswith("hub:"):
            for values, place in hub_table_rows(source):
                yield Record(values, place)
        else:
            for path in source_files(source, FORMATS[kind]):
                for values, place in _reader(path)(path, broken):
                    yield Record(values, place)


def _reader(path: Path) -> Callable[[Path, Broken], Iterator[Found]]:
    suffix = uncompressed_suffix(path)
    if suffix in COLUMN_FORMATS:
        return conll_sentences
    readers: dict[str, Callable[[Path, Broken], Iterator[Found]]] = {
        ".tsv": delimited_rows,
        ".csv": delimited_rows,
        ".jsonl": jsonl_rows,
        ".parquet": parquet_rows,
        ".arrow": arrow_rows,
        ".json": squad_questions,
    }
    return readers[suffix]

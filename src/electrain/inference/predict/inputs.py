"""What `predict` reads from files other than one text per line: tables, JSON lines, sentences in columns of words."""

import os.path
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from electrain.data.labelled.columns import Columns, choose_columns
from electrain.data.labelled.conll import COLUMN_FORMATS, has_counted_words
from electrain.data.labelled.record import Record
from electrain.data.labelled.records import FORMATS, read_records
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.options import options_called
from electrain.data.text.text_files import JSON_LINES, open_text, parse_object
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say
from electrain.inference.asked import Input
from electrain.inference.predict.pretrained import read_texts

# Rows from which the column of the text is chosen, so that a file larger than memory can be read.
_LOOKED_AT_ROWS = 1000
_LOOKED_AT_LINES = 200
_LEAST_LINES = 3  # fewer lines are too few to call a text file a table of words and tags
_ENTITY_TAG = re.compile(r"O|[BIESLUM]-\S+")
_TAG = re.compile(r"[A-Z][A-Z0-9$:_|=+-]*|[^\w\s]+")  # NOUN, VBZ, NN$, and the punctuation that is its own tag
_COLUMNS = re.compile(r"[ \t]+")


def holds_examples(path: Path | None, verb: str = "") -> bool:
    """True for an input file of labelled examples, False for one text or JSON object per line.

    A text file that looks like CoNLL holds examples of `tag`, which is said on stderr.
    Raises: DataError: such a file for another verb.
    """
    suffix = "" if path is None else uncompressed_suffix(path)
    if path is not None and suffix == ".txt" and holds_words_and_tags(path):
        if verb != "tag":
            raise _words_not_texts(path)
        say(f"{path}: read as words and tags in columns (CoNLL), of which the words are tagged")
        return True
    return suffix in {name for names in FORMATS.values() for name in names} - {".txt", *JSON_LINES}


def texts_of(texts: Sequence[str], path: Path | None, columns: Columns) -> Iterator[str]:
    """The texts that a pretrained model is asked about: as `read_texts` reads them, or one column of a table.

    Args: columns: `text` is the column of a table or of JSON lines; "" takes one by its usual names, and "text" in
        JSON lines. `separator` and `quoting` are read too.
    Raises: DataError: see `read_texts`; a file of words and tags, or of JSON that is not lines; no such column.
    """
    if texts or path is None or not holds_examples(path):
        require_columns(texts, path, columns)
        return read_texts(texts, path, field=columns.text or "text")
    suffix = uncompressed_suffix(path)
    if suffix == ".json":
        raise DataError(f"{path}: is JSON, but not one object per line; write such lines into a .jsonl file")
    if suffix in COLUMN_FORMATS:
        raise _words_not_texts(path)
    return _column_of(path, columns)


def read_inputs(lines: Iterable[str], path: Path | None) -> Iterator[Input]:
    """The lines as inputs; those of a .jsonl file are parsed. Raises: DataError: a line is no JSON object."""
    is_jsonl = path is not None and uncompressed_suffix(path) in JSON_LINES
    for number, line in enumerate(lines, start=1):
        where = f"input {number}" if path is None else f"{path}:{number}"
        yield Input(parse_object(line, where, "text") if is_jsonl and line.strip() else line, number, where)


def say_names_of_files(texts: Sequence[str]) -> None:
    """Says on stderr which of the texts is the name of a file, the first time: its content was meant more often."""
    name = next((text for text in texts if Path(text).suffix and os.path.isfile(text)), None)
    if name is not None:
        say(f"{name}: read as a text; to read the file of this name, give --input {shlex.quote(name)}")


def require_columns(texts: Sequence[str], path: Path | None, columns: Columns) -> None:
    """Raises DataError if a column is named for input that has none: texts, and files that are no JSON lines."""
    if (columns.text or columns.pair) and (texts or path is None or uncompressed_suffix(path) not in JSON_LINES):
        raise DataError("--text-column and --pair-column name columns of a table or of JSON lines; give one by --input")


def _column_of(path: Path, columns: Columns) -> Iterator[str]:
    """The texts in a column of a table; "" where a cell is empty."""
    separator, quoting = columns.separator, columns.quoting
    records = read_records([str(path)], kind="table", separator=separator, quoting=quoting, keeps_blank=True)
    with options_called("--"):
        first = list(islice(records, _LOOKED_AT_ROWS))
        if not first:
            raise DataError(f"{path}: no row in it; give a file that holds some")
        found = choose_columns("classification", first, Columns(columns.text), str(path), with_targets=False)
    if found.pair:
        raise DataError(f"{path}: {found.text} or {found.pair} could be the text; choose one with --text-column")
    if not columns.text and found.text != "text":
        say(f'{path}: the texts are read from the column "{found.text}"')
    for record in chain(first, records):
        yield _cell(record, found.text)


def _words_not_texts(path: Path) -> DataError:
    return DataError(
        f"{path}: holds words and tags in columns (CoNLL), not texts; pass lines that are texts by standard input"
    )


def _cell(record: Record, column: str) -> str:
    value = record.values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f'{record.source}: "{column}" holds {kind}, not text; choose another with --text-column')
    return value


def holds_words_and_tags(path: Path) -> bool:
    """True if a text file looks like CoNLL: on each line as many columns, the last of them a tag.

    Tags of entities are certain, and counted words; other tags count only where an empty line ends a sentence.
    """
    if not path.is_file() or not path.stat().st_size:
        return False
    with open_text(path, newline=None) as file:
        lines = [line.strip() for line in islice(file, _LOOKED_AT_LINES)]
    if has_counted_words(lines):
        return True
    rows = [_COLUMNS.split(line) for line in lines if line and not line.startswith(("# ", "-DOCSTART-"))]
    if len(rows) < _LEAST_LINES or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return False
    tags = [row[-1] for row in rows]
    if all(map(_ENTITY_TAG.fullmatch, tags)):
        return True
    has_sentences = "" in lines[lines.index(next(filter(None, lines))) : -1]
    return has_sentences and all(map(_TAG.fullmatch, tags)) and not all(row[0].isupper() for row in rows)

"""Labelled data as records: rows of tables, sentences in columns of words and tags, questions about texts."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from electrain.data.text.cleaning import has_invalid_bytes
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.encodings import conversion
from electrain.data.text.source_files import source_files
from electrain.data.text.tables import hub_rows, table_batches
from electrain.data.text.text_files import JSON_LINES, csv_rows, filled_lines, open_text, parse_object
from electrain.foundation.errors import DataError
from electrain.foundation.json_reading import parse_json

if TYPE_CHECKING:
    from pyarrow import Schema

RecordKind = Literal["table", "tagging", "question-answering"]
COLUMN_FORMATS = (".conll", ".txt", ".bio", ".iob")  # a word and its tag on each line, an empty line after a sentence
FORMATS: dict[RecordKind, tuple[str, ...]] = {
    "table": (".tsv", ".csv", *JSON_LINES, ".parquet", ".arrow"),
    "tagging": (*COLUMN_FORMATS, *JSON_LINES, ".parquet", ".arrow"),
    "question-answering": (".json", *JSON_LINES, ".parquet", ".arrow"),
}


Broken = Callable[[DataError], None]
_Line = tuple[int, str]
_SPACES = re.compile("[ \t]+")  # not \s: an ideographic space can be a word
_TABS = re.compile("\t+")
_WHITE = " \t\r\n"


@dataclass(frozen=True)
class Record:
    """One row, sentence or question of a file, before cleaning.

    `source` is "file:line" (the line where the sentence or row begins), "file: row N" for files without lines, counted
    from 0, or "file: question ID".
    """

    values: dict[str, object]  # by column; JSON, Parquet and Arrow give lists and numbers too, .tsv and .csv only text
    source: str


def refuse(error: DataError) -> NoReturn:
    """Raises `error`: the default treatment of a broken record."""
    raise error


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
            yield from hub_records(source)
        else:
            for path in source_files(source, FORMATS[kind]):
                yield from _READERS[uncompressed_suffix(path)](path, broken)


def jsonl_rows(path: Path, broken: Broken) -> Iterator[Record]:
    """One row per line that is not blank."""
    for line, source in filled_lines(path):
        try:
            yield Record(parse_object(_valid(line, source, path), source, "text"), source)
        except DataError as error:
            broken(error)


def delimited_rows(path: Path, broken: Broken) -> Iterator[Record]:
    """One row per row of a .csv file (with quoting) or .tsv file (without), except the header and blank rows."""
    rows = csv_rows(path, "\t" if uncompressed_suffix(path) == ".tsv" else ",")
    filled = ((number, row) for number, row in rows if len(row) > 1 or "".join(row).strip())
    number, header = next(filled, (1, []))
    header = [_valid(name, f"{path}:{number}", path).strip() for name in header]
    _require_distinct(header, f"{path}:{number}")
    for number, row in filled:
        source = f"{path}:{number}"
        if len(row) != len(header):
            broken(DataError(f"{source}: {len(row)} fields, but the header has {len(header)}; fix this row"))
        elif any(map(has_invalid_bytes, row)):
            broken(_not_utf8(source, path))
        else:
            yield Record(dict(zip(header, row, strict=True)), source)


def hub_records(source: str) -> Iterator[Record]:
    """One row per row of a Hugging Face data set; labels stored as numbers of named classes become these names."""
    rows = hub_rows(source)
    names = _class_names(rows.features or {})
    for number, row in enumerate(rows):
        yield Record(_named(row, names), f"{source}: row {number}")


def conll_sentences(path: Path, broken: Broken) -> Iterator[Record]:
    """The sentences of a file that has on each line a word, perhaps more columns, and a tag.

    Columns are separated by tabs if the first row has one, otherwise by white space. Lines before a sentence that begin
    with "# " are comments, unless they have a row's number of columns and a tag that occurs elsewhere in the file.
    """
    with open_text(path, newline=None) as file:
        sentences = list(_sentences(file))
    # A comment and a word "#" with its tag look alike, so the form of the file follows from lines that are certainly
    # no comments, and each doubtful line is then compared with that form.
    heads_off = (dropwhile(lambda line: line[1].startswith("# "), sentence) for sentence in sentences)
    rows = [line for sentence in heads_off for line in sentence]
    rows = rows or [line for sentence in sentences for line in sentence]
    if not rows:
        return
    separator = _TABS if "\t" in rows[0][1] else _SPACES
    width = len(separator.split(rows[0][1]))
    form = _Form(separator, width, {separator.split(text)[-1] for _, text in rows})
    for sentence in sentences:
        while sentence and sentence[0][1].startswith("# ") and not form.is_row(sentence[0][1]):
            sentence = sentence[1:]
        if not sentence:
            continue
        try:
            columns = [form.columns(line, path) for line in sentence]
        except DataError as error:
            broken(error)
            continue
        values: dict[str, object] = {"words": [row[0] for row in columns]}
        if form.width > 1:
            values["tags"] = [row[-1] for row in columns]
        yield Record(values, f"{path}:{sentence[0][0]}")


def squad_questions(path: Path, broken: Broken) -> Iterator[Record]:
    """The questions of a file in the form of SQuAD 1.1 or 2; those without an answer have an empty list of answers.

    Source: Rajpurkar et al. 2016 and 2018, as published at rajpurkar.github.io/SQuAD-explorer.
    """
    with open_text(path, newline=None) as file:
        text = file.read()
    if has_invalid_bytes(text):
        number = next(number for number, line in enumerate(text.split("\n"), 1) if has_invalid_bytes(line))
        raise _not_utf8(f"{path}:{number}", path)
    content: Any = parse_json(text, str(path), way_out="fix the file")
    try:
        articles = content["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        questions = [(paragraph["context"], question) for paragraph in paragraphs for question in paragraph["qas"]]
        found = [(context, question["id"], question["question"], question) for context, question in questions]
    except (KeyError, TypeError) as error:
        shape = "{data: [{paragraphs: [{context, qas: [{id, question, answers}]}]}]}"
        raise DataError(f"{path}: not in SQuAD's form ({error}); it must look like {shape}, or be .jsonl") from error
    for context, identifier, question, fields in found:
        values = {"id": identifier, "question": question, "context": context}
        if fields.get("is_impossible"):
            values["answers"] = []
        elif "answers" in fields:
            values["answers"] = fields["answers"]
        if isinstance(fields.get("is_impossible"), bool):
            values["is_impossible"] = fields["is_impossible"]
        yield Record(values, f"{path}: question {identifier}")


def table_rows(path: Path, broken: Broken) -> Iterator[Record]:
    """One row per row of a Parquet file, or of a file in either Arrow format."""
    number, names = 0, None
    for batch in table_batches(path):
        if names is None:
            _require_distinct(batch.schema.names, str(path))
            names = _class_names_of_schema(batch.schema)
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: rows from {number}: bytes that are not UTF-8; write the file anew") from error
        for row in rows:
            yield Record(_named(row, names), f"{path}: row {number}")
            number += 1


def _class_names_of_schema(schema: "Schema") -> dict[str, list[str]]:
    """The names of numbered labels, which `datasets` stores in the files that it writes."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    return _class_names(datasets.Features.from_arrow_schema(schema))


def _class_names(features: Mapping[str, object]) -> dict[str, list[str]]:
    """For each column of numbered labels, their names."""
    names = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        if class_names := getattr(inner, "names", None):
            names[column] = list(class_names)
    return names


def _named(row: dict[str, object], names: Mapping[str, list[str]]) -> dict[str, object]:
    return {column: _name(value, names[column]) if column in names else value for column, value in row.items()}


def _name(value: object, names: list[str]) -> object:
    if isinstance(value, list):
        return [_name(element, names) for element in value]
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None  # -1 stands for an unknown label in published test sets


def _sentences(lines: Iterable[str]) -> Iterator[list[_Line]]:
    numbered = ((number, line.rstrip(_WHITE)) for number, line in enumerate(lines, 1))
    for is_between, group in groupby(numbered, lambda line: not line[1] or line[1].startswith("-DOCSTART-")):
        if not is_between:
            yield list(group)


class _Form(NamedTuple):
    """The form of a file in columns."""

    separator: re.Pattern[str]
    width: int
    tags: set[str]

    def is_row(self, text: str) -> bool:
        """True for a line with a tag that occurs elsewhere. The number of columns may be a comment's by chance."""
        columns = self.separator.split(text)
        return len(columns) == self.width and columns[-1] in self.tags

    def columns(self, line: _Line, path: Path) -> list[str]:
        """The columns of a line. Raises: DataError: no word, or another number of columns than the first row."""
        number, text = line
        source = f"{path}:{number}"
        columns = self.separator.split(_valid(text, source, path))
        if not columns[0]:
            raise DataError(f"{source}: begins with white space, so that there is no word; fix this line")
        if len(columns) != self.width:
            what = "column" if len(columns) == 1 else "columns"
            hint = "each line needs a word and its tag, an empty line ends a sentence"
            raise DataError(f"{source}: {len(columns)} {what}, but the file's first row has {self.width}; {hint}")
        return columns


def _valid(text: str, source: str, path: Path) -> str:
    if has_invalid_bytes(text):
        raise _not_utf8(source, path)
    return text


def _not_utf8(source: str, path: Path) -> DataError:
    return DataError(f"{source}: bytes that are not UTF-8; {conversion(path)}")


def _require_distinct(names: list[str], source: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f'{source}: the column "{repeated[0]}" is there twice; rename one of them')


_READERS: dict[str, Callable[[Path, Broken], Iterator[Record]]] = {
    **dict.fromkeys(COLUMN_FORMATS, conll_sentences),
    **dict.fromkeys((".tsv", ".csv"), delimited_rows),
    **dict.fromkeys((".parquet", ".arrow"), table_rows),
    **dict.fromkeys(JSON_LINES, jsonl_rows),
    ".json": squad_questions,
}

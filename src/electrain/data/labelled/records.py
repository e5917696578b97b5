"""Labelled data as records: rows of tables, sentences in columns of words and tags, questions about texts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from electrain.data.labelled.conll import COLUMN_FORMATS, conll_sentences
from electrain.data.labelled.record import Broken, Record, not_utf8, valid_text
from electrain.data.text.cleaning import has_invalid_bytes
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.delimited import csv_rows
from electrain.data.text.source_files import source_files
from electrain.data.text.table_process import table_batches
from electrain.data.text.tables import hub_rows
from electrain.data.text.text_files import JSON_LINES, filled_lines, open_text, parse_object
from electrain.foundation.errors import DataError, first_line
from electrain.foundation.json_reading import parse_json
from electrain.foundation.progress import counted

if TYPE_CHECKING:
    from pyarrow import Schema

RecordKind = Literal["table", "tagging", "question-answering"]
DELIMITED = (".tsv", ".csv")
FORMATS: dict[RecordKind, tuple[str, ...]] = {
    "table": (*DELIMITED, *JSON_LINES, ".parquet", ".arrow"),
    "tagging": (*COLUMN_FORMATS, *JSON_LINES, ".parquet", ".arrow"),
    "question-answering": (".json", *JSON_LINES, ".parquet", ".arrow"),
}


def refuse(error: DataError) -> NoReturn:
    """Raises `error`: the default treatment of a broken record."""
    raise error


def read_records(
    sources: Sequence[str],
    *,
    kind: RecordKind,
    broken: Broken = refuse,
    separator: str = "",
    quoting: str = "",
    keeps_blank: bool = False,
) -> Iterator[Record]:
    """The records of `sources`, in order.

    Args:
        sources: files, folders, globs or `hub:NAME[/CONFIG][:SPLIT]`; every format also as .gz, .xz, .bz2 or .zst.
        kind: "table": .tsv, .csv, .jsonl, .parquet, .arrow or hub rows. "tagging": files in columns as
            `electrain.data.labelled.conll.Sentence`, or such rows. "question-answering": SQuAD's .json as `id`,
            `question`, `context` and `answers`, a list of `text` and `answer_start` (empty where unanswerable, missing
            where not given), or such rows.
        broken: gets the error of a record that cannot be read; if it returns, the record is left out.
        separator, quoting: of .csv and .tsv, as in `csv_rows`; "" goes by the name of the file.
        keeps_blank: a blank line of a .csv or .tsv file with one column is an empty cell, as spreadsheets write it.
    Raises: DataError: a source cannot be read. Also whatever `broken` raises.
    """
    for source in sources:
        if source.startswith("hub:"):
            yield from hub_records(source)
        else:
            for path in source_files(source, FORMATS[kind]):
                suffix = uncompressed_suffix(path)
                if suffix in DELIMITED:
                    yield from delimited_rows(path, broken, separator, quoting, keeps_blank=keeps_blank)
                else:
                    yield from _READERS[suffix](path, broken)


def jsonl_rows(path: Path, broken: Broken) -> Iterator[Record]:
    """One row per line that is not blank."""
    for line, source in filled_lines(path):
        try:
            yield Record(parse_object(valid_text(line, source, path), source, "text"), source)
        except DataError as error:
            broken(error)


def delimited_rows(
    path: Path, broken: Broken, separator: str = "", quoting: str = "", *, keeps_blank: bool = False
) -> Iterator[Record]:
    """One row per row of a .csv or .tsv file, as `csv_rows` reads it, except the header and blank rows.

    Args: keeps_blank: see `read_records`.
    """
    rows = csv_rows(path, separator, quoting or "auto")
    number, header = next(((number, row) for number, row in rows if "".join(row).strip()), (1, []))
    if keeps_blank and len(header) == 1:
        rows = ((number, row or [""]) for number, row in rows)
    # A row of one empty cell is no blank line where there is only one column.
    filled = ((number, row) for number, row in rows if len(row) > 1 or (row and (row[0].strip() or len(header) == 1)))
    header = [valid_text(name, f"{path}:{number}", path).replace("\ufeff", "").strip() for name in header]
    _require_distinct(header, f"{path}:{number}")
    for number, row in filled:
        source = f"{path}:{number}"
        if len(row) != len(header):
            broken(DataError(f"{source}: {counted(len(row), 'field')}, but the header has {len(header)}; fix this row"))
        elif len(header) > 1 and [name.replace("\ufeff", "").strip() for name in row] == header:
            broken(DataError(f"{source}: the header once more, as where files are put together; remove this row"))
        elif any(map(has_invalid_bytes, row)):
            broken(not_utf8(source, path))
        else:
            yield Record(dict(zip(header, row, strict=True)), source)


def hub_records(source: str) -> Iterator[Record]:
    """One row per row of a Hugging Face data set; labels stored as numbers of named classes become these names."""
    rows = hub_rows(source)
    names = _class_names(rows.features or {})
    for number, row in enumerate(rows):
        yield Record(_named(row, names), f"{source}: row {number}")


def squad_questions(path: Path, broken: Broken) -> Iterator[Record]:
    """The questions of a file in the form of SQuAD 1.1 or 2; those without an answer have an empty list of answers.

    Source: Rajpurkar et al. 2016 and 2018, as published at rajpurkar.github.io/SQuAD-explorer.
    """
    with open_text(path, newline=None) as file:
        text = file.read()
    if has_invalid_bytes(text):
        number = next(number for number, line in enumerate(text.split("\n"), 1) if has_invalid_bytes(line))
        raise not_utf8(f"{path}:{number}", path)
    content: Any = parse_json(text, str(path), way_out="fix the file")
    try:
        articles = content["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        questions = [(paragraph["context"], question) for paragraph in paragraphs for question in paragraph["qas"]]
        found = [(context, question["id"], question["question"], question) for context, question in questions]
    except (KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else "it begins with a list"
        if not isinstance(content, list) and isinstance(error, TypeError):
            reason = "a part of it is no list or object, and should be one"
        shape = "{data: [{paragraphs: [{context, qas: [{id, question, answers}]}]}]}"
        raise DataError(f"{path}: not in SQuAD's form ({reason}); it must look like {shape}, or be .jsonl") from error
    for context, identifier, question, fields in found:
        values = {"id": identifier, "question": question, "context": context}
        if "answers" in fields or fields.get("is_impossible"):
            values["answers"] = fields.get("answers", [])
        if "is_impossible" in fields:
            values["is_impossible"] = fields["is_impossible"]
        yield Record(values, f"{path}: question {identifier}")


def table_rows(path: Path, broken: Broken) -> Iterator[Record]:
    """One row per row of a Parquet file, or of a file in either Arrow format."""
    number, names = 0, None
    for batch in table_batches(path):
        if names is None:
            _require_distinct(batch.schema.names, str(path))
            names = _class_names_of_schema(batch.schema, path)
        for row in batch.rows:
            yield Record(_named(row, names), f"{path}: row {number}")
            number += 1


def _class_names_of_schema(schema: "Schema", path: Path) -> dict[str, list[str]]:
    """The names of numbered labels, which `datasets` stores in the files that it writes. Raises: DataError: damaged."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    try:
        return _class_names(datasets.Features.from_arrow_schema(schema))
    except Exception as error:  # whatever the library makes of damaged metadata
        raise DataError(f"{path}: damaged metadata ({first_line(error)[:200]}); copy it again") from error


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


def _require_distinct(names: list[str], source: str) -> None:
    repeated = [name for name, count in Counter(names).items() if name and count > 1]  # spreadsheets add nameless ones
    if repeated:
        raise DataError(f'{source}: the column "{repeated[0]}" is there twice; rename one of them')


_READERS: dict[str, Callable[[Path, Broken], Iterator[Record]]] = {
    **dict.fromkeys(COLUMN_FORMATS, conll_sentences),
    **dict.fromkeys((".parquet", ".arrow"), table_rows),
    **dict.fromkeys(JSON_LINES, jsonl_rows),
    ".json": squad_questions,
}

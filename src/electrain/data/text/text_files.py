"""Readers of text and JSON lines: one record after another, in constant memory."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, AnyStr, NamedTuple

from electrain.data.text.compression import open_stream
from electrain.data.text.encodings import conversion
from electrain.foundation.errors import DataError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import parse_json

JSON_LINES = (".jsonl", ".ndjson")  # one JSON object on each line
# A whole library has fewer. In a longer line, line breaks or quotes were lost, and reading it would fill the memory.
MOST_LINE_CHARACTERS = 1 << 28
PIECE_CHARACTERS = 1 << 16  # a longer text is passed on in pieces; docs/experiments.md has the measurement
_BLOCK_CHARACTERS = 1 << 20
PROBE_BYTES = 1 << 16
_SHOWN_CHARACTERS = 40
# How formats begin that are no text, and what to do about each. The second is that of .xls and .doc (OLE).
_SIGNATURES = {
    b"PK\x03\x04": "a spreadsheet, a document or an archive; save it as .csv, .tsv or plain text",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old spreadsheet or document (.xls, .doc); save it as .csv or plain text",
    b"\x1f\x8b": "compressed; add .gz to its name",
    b"\xfd7zXZ\x00": "compressed; add .xz to its name",
    b"BZh91AY&SY": "compressed; add .bz2 to its name",
    b"\x28\xb5\x2f\xfd": "compressed; add .zst to its name",
}
_BINARY_FRACTION = 0.1  # of control and undecodable bytes; UTF-8 text with a few faults has fewer
_CUT_AFTER = re.compile(r"[\s\u3000-\u303f\u3400-\u9fff\uff00-\uff0f]")


class RawText(NamedTuple):
    """A record as it stands in the file, before cleaning."""

    text: str  # bytes that are not UTF-8 appear as lone surrogates (Python's "surrogateescape")
    source: str  # the place that it was read from, for messages
    continues: bool  # True if the next `RawText` is a further piece of the same document


def read_txt(path: Path, separator: str | None) -> Iterator[RawText]:
    """One document per file, or one between each two occurrences of `separator`; long ones in pieces.

    Nothing but white space after the last separator, as at the end of a file of lines, is no document.
    """
    number, held, is_begun = 1, "", False
    with open_text(path, newline=None) as file:
        while block := file.read(_BLOCK_CHARACTERS):
            held += block
            if separator:
                *whole, held = held.split(separator)
                for text in whole:
                    yield from in_pieces(text, f"{path}: document {number}")
                    number, is_begun = number + 1, False
            source = f"{path}: document {number}" if separator else str(path)
            # A separator may be cut by the end of this block, so its length stays unread until the next block is there.
            keep = PIECE_CHARACTERS + len(separator or "")
            while len(held) > keep:
                cut = cut_position(held)
                yield RawText(held[:cut], source, True)
                held, is_begun = held[cut:], True
        if number == 1 or is_begun or held.strip():
            yield from in_pieces(held, f"{path}: document {number}" if separator else str(path))


def read_jsonl(path: Path, column: str) -> Iterator[RawText]:
    """One document per line. Raises: DataError: a line is not a JSON object, or lacks the field `column`."""
    for line, source in filled_lines(path):
        record = parse_object(line, source, column)
        if column not in record:
            raise missing_column(source, column, record)
        yield from in_pieces(as_text(record[column], source, column), source)


def filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, and its place for messages."""
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(lines_of(file, str(path)), 1):
            if not line.isspace():
                yield line, f"{path}:{number}"


def parse_object(line: str, source: str, field: str) -> dict[str, object]:
    """The JSON object on a line. Raises: DataError: it is none; the message shows one with the field `field`."""
    shape = f'write one object per line, like {{"{field}": "..."}}'
    if line.strip() == "{" or line.lstrip()[:1] == "[":
        found = "a JSON array" if "[" in line else "JSON that goes over several lines"
        raise DataError(f"{source}: not a JSON object, but the beginning of {found}; {shape}")
    record: object = parse_json(line, source, way_out="fix or remove this line")
    if not isinstance(record, dict):
        raise DataError(f"{source}: not a JSON object; {shape}")
    return record


def shown_value(value: object) -> str:
    """A value of a JSON object as it stands there, for messages; its beginning where it is long."""
    text = to_json(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def in_pieces(text: str, source: str) -> Iterator[RawText]:
    """`text` as one record, or as several that continue each other if it is long."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        cut = start + cut_position(text[start : start + PIECE_CHARACTERS])
        yield RawText(text[start:cut], source, True)
        start = cut
    yield RawText(text[start:] if start else text, source, False)


def cut_position(text: str) -> int:
    """Where to cut, at most PIECE_CHARACTERS from the start: after white space or a Chinese character if there is one.

    Word-piece tokenizers begin a new word at both, so the pieces together have the same tokens as the whole.
    """
    limit = min(len(text), PIECE_CHARACTERS)
    tail = text[max(0, limit - 4096) : limit][::-1]
    found = _CUT_AFTER.search(tail)
    return limit - found.start() if found and found.start() < limit else limit


def as_text(value: object, source: str, column: str) -> str:
    """The text in a field; "" for a missing value. Raises: DataError: it holds something else than text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f'{source}: "{column}" holds {type(value).__name__}, not text; give another --text-column')
    return value


def missing_column(source: str, column: str, existing: Iterable[str]) -> DataError:
    """The error for a record without the column; it names the columns that exist."""
    return DataError(f'{source}: no column "{column}"; give one of these with --text-column: {", ".join(existing)}')


def lines_of(file: IO[AnyStr], name: str, number: int = 1) -> Iterator[AnyStr]:
    """The lines of a file, of which the first has the given number.

    Raises: DataError: one is longer than any record; reading on would fill the memory.
    """
    while line := file.readline(MOST_LINE_CHARACTERS + 1):
        if len(line) > MOST_LINE_CHARACTERS:
            raise DataError(f"{name}:{number}: longer than {MOST_LINE_CHARACTERS:,} characters; divide this line")
        yield line
        number += 1


@contextmanager
def open_text(path: Path, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """Opens `path`, compressed or not, as UTF-8; other bytes become lone surrogates (Python's "surrogateescape").

    Raises: DataError: the file is empty, binary, in another encoding, or cannot be read.
    """
    # Opened twice, because a stream that decompresses cannot be rewound cheaply.
    with open_stream(path) as stream:
        probe = stream.read(PROBE_BYTES)
        if not probe:
            raise DataError(f"{path}: is empty; remove it, or give another")
        refuse_binary(path, probe)
    with open_stream(path) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def refuse_binary(path: Path, probe: bytes) -> None:
    """Raises DataError if the first bytes of the file are binary, or text in another encoding."""
    found = next((what for start, what in _SIGNATURES.items() if probe.startswith(start)), None)
    if found is not None:
        raise DataError(f"{path}: is {found}")
    text = probe.decode("utf-8", "surrogateescape")[:-3]  # the probe may end within a character of up to 4 bytes
    odd = len(re.findall("[\x00-\x08\x0e-\x1a\x1c-\x1f\udc80-\udcff]", text))
    if odd > _BINARY_FRACTION * len(text) and odd > 3:
        raise DataError(f"{path}: not UTF-8 text (binary, or another encoding); {conversion(path)}, or remove it")

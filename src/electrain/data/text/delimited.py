"""Reads rows of .csv and .tsv files, and finds out when they are written otherwise than their name says."""

import contextlib
import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.options import option, options_called
from electrain.data.text.text_files import (
    MOST_LINE_CHARACTERS,
    RawText,
    in_pieces,
    lines_of,
    missing_column,
    open_text,
)
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted, say

Quoting = Literal["auto", "csv", "none"]
Row = tuple[int, list[str]]  # the number of the row's first line, and its fields
REWRITE = "write it as .csv with commas, or as .jsonl"
_SEPARATORS = ";\t,|"  # what spreadsheets and databases put between fields
_SEPARATOR_LINE = re.compile('"?sep=(.)"?\r?\n?')  # Excel's own first line, which is no row
_LOOKED_AT_ROWS = 20
_SPACED_QUOTE = re.compile(' +"')


class DialectError(DataError):
    """A file is written otherwise than it would be read; the message says how to have it read."""

    def __init__(self, found: str, name: str, value: str) -> None:
        super().__init__(f"{found}; {f'give {option(name)} {value}' if option(name) else REWRITE}")


def read_csv(path: Path, column: str) -> Iterator[RawText]:
    """One document per row, from the field `column` of the header. Raises: DataError: no such column; as `csv_rows`."""
    rows = csv_rows(path)
    with options_called("--", lacking=("separator", "quoting")):
        _, header = next(rows, (1, []))
    if column not in header:
        raise missing_column(str(path), column, header)
    place = header.index(column)
    for number, row in rows:
        if row:
            source = f"{path}:{number}"
            if place >= len(row):
                fields = counted(len(row), "field")
                raise DataError(f"{source}: {fields}, but the header has {len(header)}; fix this row")
            yield from in_pieces(row[place], source)


def csv_rows(path: Path, separator: str = "", quoting: str = "auto") -> Iterator[Row]:
    """Each row with the number of its first line, the header first; blank lines are rows without fields.

    Args:
        separator: one character, or "tab"; "" is what Excel's line "sep=;" says, else a tab in .tsv, a comma in .csv.
        quoting: "csv" reads quotes as CSV has them and "none" as characters; "auto" goes by the name of the file, and
            refuses a .tsv file that is quoted as CSV is.
    Raises: DialectError: the header has one column and another separator in it, or a .tsv file is quoted.
        DataError: the file breaks the rules of CSV.
    """
    if quoting not in get_args(Quoting):
        raise DataError(f"quoting = {quoting}: must be one of {', '.join(get_args(Quoting))}")
    given = _character(separator)
    if len(given) > 1 or given in ("\n", "\r", '"'):
        raise DataError(f"separator = {separator}: must be one character, or tab")
    is_tsv = uncompressed_suffix(path) == ".tsv"
    own = _own_separator(path)
    used = given or own or ("\t" if is_tsv else ",")
    is_quoted = quoting == "csv" or (quoting == "auto" and not is_tsv)
    if not own:
        _require_separator(path, used, is_quoted)
    if is_tsv and quoting == "auto":
        _require_no_quoting(path, used, skips_first=bool(own))
    yield from _rows(path, used, is_quoted, skips_first=bool(own))


def goes_by_its_kind(path: Path, separator: str) -> bool:
    """True for a file whose header has not the given separator, but that of its suffix; or whose first line says so."""
    is_tsv = uncompressed_suffix(path) == ".tsv"
    if _own_separator(path):
        return True
    given = _first_rows(path, _character(separator), not is_tsv)
    if not given or len(given[0][1]) > 1:
        return False
    own = _first_rows(path, "\t" if is_tsv else ",", not is_tsv)
    return is_tsv or (bool(own) and len(own[0][1]) > 1)


def _character(separator: str) -> str:
    return {"tab": "\t", "\\t": "\t"}.get(separator, separator)


def _rows(path: Path, separator: str, is_quoted: bool, *, skips_first: bool = False) -> Iterator[Row]:
    csv.field_size_limit(MOST_LINE_CHARACTERS)  # the library's 128 KiB are less than a long article
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    with open_text(path, newline="") as file:
        number = 1
        if skips_first:
            file.readline(MOST_LINE_CHARACTERS)
            number = 2
        # strict: a quote that is never closed would swallow the rest of the file
        lines: list[str] = []  # of the row
        remembered = _remembered(lines_of(file, str(path), number), lines)
        rows = csv.reader(remembered, delimiter=separator, quoting=quoting, strict=True)
        first = number
        try:
            for row in rows:
                if is_quoted and any(map(_SPACED_QUOTE.match, row)):
                    _refuse_spaced_quotes(lines, row, separator, f"{path}:{number}")
                lines.clear()
                yield number, row
                number = rows.line_num + first
        except csv.Error as error:
            last = rows.line_num + first - 1
            if last <= number:
                raise DataError(f"{path}:{number}: {error}; fix this row") from error
            # The fault is in the first of these lines more often than in the last, where the library noticed it.
            raise DataError(
                f"{path}:{number}: a quote that this row opens is not rightly closed up to line {last} ({error}); "
                "close it, and double quotes inside a text"
            ) from error


def _remembered(lines: Iterator[str], seen: list[str]) -> Iterator[str]:
    for line in lines:
        seen.append(line)
        yield line


def _refuse_spaced_quotes(lines: list[str], row: list[str], separator: str, source: str) -> None:
    """Raises DataError if a row has quotes that are not the first characters of their fields, and yet enclose them."""
    with contextlib.suppress(csv.Error):  # a text that goes on behind its quotes
        own = next(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
        spaced = list(filter(_SPACED_QUOTE.match, row))
        if len(spaced) > len(list(filter(_SPACED_QUOTE.match, own))):
            found = (
                f"a space stands before the quote of {spaced[0].strip()[:40]}, so that it is read as part of the text"
            )
            raise DataError(f"{source}: {found}; remove the spaces behind the separators")


def _own_separator(path: Path) -> str:
    with open_text(path, newline="") as file:
        found = _SEPARATOR_LINE.fullmatch(file.readline(16))
    return found[1] if found else ""


def _require_separator(path: Path, used: str, is_quoted: bool) -> None:
    """Raises DialectError if the header is one column for `used`, and several for another separator."""
    first = _first_rows(path, used, is_quoted)
    if not first or len(first[0][1]) != 1:
        return
    number, header = first[0]
    best, most = "", 1
    for separator in _SEPARATORS.replace(used, ""):
        widths = [len(row) for _, row in _first_rows(path, separator, is_quoted)]
        if widths and widths[0] > most and 2 * widths.count(widths[0]) >= len(widths):
            best, most = separator, widths[0]
    if best:
        shown = "tab" if best == "\t" else f'"{best}"'
        found = f'{path}:{number}: one column named "{header[0]}": the separator seems to be {shown}'
        raise DialectError(found, "separator", shown)


def _first_rows(path: Path, separator: str, is_quoted: bool) -> list[Row]:
    """The first rows that are not blank, up to one that breaks the rules of CSV."""
    rows = []
    with contextlib.suppress(DataError):  # it is told where the file is read with the right separator
        for number, row in islice(_rows(path, separator, is_quoted), _LOOKED_AT_ROWS):
            if row:
                rows.append((number, row))
    return rows


class _Quotes(NamedTuple):
    """What the quotes of a tab-separated file say, if they are read as characters."""

    doubled: int  # fields as only CSV writes them: in quotes, with each quote in them doubled
    bare: int  # fields as CSV never writes them, with a quote that is neither at an end nor doubled
    first: int  # the line of the first doubled one
    is_ragged: bool  # a row has more or fewer fields than the header
    has_quoted_header: bool
    always_quoted: list[str]  # columns of which every field is in quotes, in three rows or more


def _require_no_quoting(path: Path, separator: str, *, skips_first: bool) -> None:
    """Raises DialectError if a tab-separated file is quoted as CSV is; says so where it only may be."""
    quotes = _count_quotes(_rows(path, separator, False, skips_first=skips_first))
    place = f"{path}:{quotes.first}" if quotes.first else str(path)
    is_quoted = quotes.has_quoted_header or (quotes.doubled and quotes.doubled >= quotes.bare)
    if is_quoted or (quotes.is_ragged and _is_regular_csv(path, separator, skips_first=skips_first)):
        found = f"{place}: this TSV is quoted as CSV is"
        raise DialectError(found, "quoting", "csv (or none, to keep the quotes as they stand)")
    way_out = f"{option('quoting')} csv takes them off" if option("quoting") else f"to take them off, {REWRITE}"
    kept = f"the quotes are kept as they stand; {way_out}"
    if quotes.doubled:
        look = "looks" if quotes.doubled == 1 else "look"
        others = f"{quotes.bare:,} {'does' if quotes.bare == 1 else 'do'} not"
        say(f"{place}: {counted(quotes.doubled, 'field')} {look} quoted as in CSV, and {others}: {kept}")
    elif quotes.always_quoted and not quotes.bare:
        say(f'{path}: every field of "{quotes.always_quoted[0]}" is in quotes: {kept}')


def _count_quotes(rows: Iterator[Row]) -> _Quotes:
    _, header = next(((number, row) for number, row in rows if row), (1, [""]))
    doubled = bare = first = filled = 0
    is_ragged = False
    quoted = [0] * len(header)
    for number, row in rows:
        if not row:
            continue
        filled += 1
        is_ragged = is_ragged or len(row) != len(header)
        for place, field in enumerate(row):
            if '"' not in field:
                continue
            kind = _kind_of_quotes(field)
            doubled += kind == "doubled"
            bare += kind == "bare"
            first = first or (number if kind == "doubled" else 0)
            if kind in ("doubled", "whole") and place < len(quoted):
                quoted[place] += 1
    has_quoted_header = all(_kind_of_quotes(name) in ("doubled", "whole") for name in header)
    always = [name for name, count in zip(header, quoted, strict=True) if count == filled >= 3]
    return _Quotes(doubled, bare, first, is_ragged, has_quoted_header, always)


def _kind_of_quotes(field: str) -> Literal["doubled", "whole", "part", "bare"]:
    """How a field with quotes is written: see `_Quotes`; a part may begin or end a field that has line breaks."""
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return "doubled" if '""' in inner else "whole"
    left = field.replace('""', "")
    is_part = '"' not in left or (left.count('"') == 1 and (left[0] == '"' or left[-1] == '"'))
    return "part" if is_part else "bare"


def _is_regular_csv(path: Path, separator: str, *, skips_first: bool) -> bool:
    """True if the file, read with quotes, has the same number of fields in every row."""
    try:
        widths = {len(row) for _, row in _rows(path, separator, True, skips_first=skips_first) if row}
    except DataError:
        return False
    return len(widths) == 1

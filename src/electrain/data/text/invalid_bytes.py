"""Refuses files of text that is not in UTF-8, whose letters would be lost; a few damaged bytes are left out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from electrain.data.text.cleaning import count_invalid_bytes
from electrain.data.text.encodings import conversion
from electrain.data.text.text_files import RawText
from electrain.foundation.errors import DataError

_STRAY_BYTES = 2  # so few in a file are damage, not another encoding
_MOST_TOUCHED = 0.01  # share of the documents
# Share of so many documents that ends the reading of a long file before its end.
_MOST_TOUCHED_AT_FIRST = 0.1
_ENOUGH_DOCUMENTS = 1000


def read_in_utf8(
    path: Path, raws: Iterable[RawText], *, is_whole: bool = False, strict: bool = False
) -> Iterator[RawText]:
    """Passes on the records of a file, and looks for bytes that are not UTF-8.

    Args:
        is_whole: the file is one document; its lines are counted in place of documents.
        strict: refuse the first such byte.
    Raises: DataError: more than one document in a hundred holds such bytes, and they are more than `_STRAY_BYTES`.
    """
    read = touched = invalid = 0
    first, is_touched = "", False
    for raw in raws:
        found = count_invalid_bytes(raw.text)
        if found and strict:
            raise DataError(f"{raw.source}: bytes that are not UTF-8; {conversion(path)}, or leave out --strict")
        invalid += found
        first = first or (raw.source if found else "")
        is_touched |= found > 0
        if is_whole:
            read += raw.text.count("\n") + (not raw.continues)
            touched += sum(map(bool, map(count_invalid_bytes, raw.text.split("\n")))) if found else 0
        elif not raw.continues:
            read, touched, is_touched = read + 1, touched + is_touched, False
        if read >= _ENOUGH_DOCUMENTS and touched > _MOST_TOUCHED_AT_FIRST * read:
            break
        yield raw
    if touched > _MOST_TOUCHED * read and invalid > _STRAY_BYTES:
        what = "lines" if is_whole else "documents"
        raise DataError(
            f"{first}: not UTF-8, like {touched:,} of {read:,} {what}, whose letters would be lost; "
            f"{conversion(path)}; if only some bytes are damaged, `iconv -c -f UTF-8 -t UTF-8` leaves them out"
        )

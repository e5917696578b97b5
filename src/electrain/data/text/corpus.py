"""Corpora: files, folders, globs, Hugging Face data sets and installed documentation, read as cleaned documents."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from electrain.data.text.cleaning import clean, dropped_characters
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.delimited import read_csv
from electrain.data.text.documentation import read_documentation
from electrain.data.text.invalid_bytes import read_in_utf8
from electrain.data.text.source_files import source_files
from electrain.data.text.tables import read_hub, read_table
from electrain.data.text.text_files import JSON_LINES, RawText, read_jsonl, read_txt
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted

BUILTIN_DOCUMENTATION = "builtin:documentation"
FORMATS = (".txt", *JSON_LINES, ".csv", ".tsv", ".parquet", ".arrow")


@dataclass(frozen=True)
class Document:
    """One text of a corpus, or a piece of one that `continues` in the next `Document`.

    Only texts of more than 64 Ki characters come in pieces, so that a file larger than memory can be one document.
    """

    text: str  # cleaned Unicode, never empty
    source: str  # the place that it was read from, for messages: `file.jsonl.gz:17`
    continues: bool = False


@dataclass(frozen=True)
class CorpusFormat:
    """How the documents of a corpus are found in its files.

    In `document_separator`, backslash-n and backslash-t stand for a line feed and a tab.
    """

    text_column: str = "text"  # the field of .jsonl, .csv, .tsv, .parquet, .arrow and hub records that holds the text
    document_separator: str | None = None  # between two documents of a .txt file; None: a file is one document
    strict: bool = False  # refuse bytes that are not UTF-8 instead of leaving them out
    keeps_joiners: bool = False  # keep U+200C and U+200D, as the tokenizer does; read by `read_documents` only


DEFAULT_FORMAT = CorpusFormat()


@dataclass
class CorpusCounts:
    """What was read so far, and what was left out."""

    documents: int = 0  # documents that hold text
    bytes: int = 0  # size of the cleaned text in UTF-8
    empty_documents: int = 0  # records without any text, left out
    empty_files: int = 0  # files of no bytes in a folder or glob, left out
    dropped_characters: int = 0  # control and format characters, NUL and U+FFFD, left out
    invalid_bytes: int = 0  # bytes that were not UTF-8, left out
    dropped: dict[str, int] = field(default_factory=dict, compare=False)  # of each character, as "U+200C", how many

    def drop(self, characters: Mapping[str, int]) -> None:
        """Counts characters that were left out."""
        for character, count in characters.items():
            name = f"U+{ord(character):04X}"
            self.dropped[name] = self.dropped.get(name, 0) + count
            self.dropped_characters += count

    def describe(self) -> str:
        """What was read and what was left out, with the character that was left out most often."""
        most = max(self.dropped, key=lambda name: (self.dropped[name], name), default="")
        named = f" ({_named(most)}: {self.dropped[most]:,})" if most else ""
        return (
            f"{counted(self.documents, 'document')}, {self.bytes / 1e6:,.1f} MB of text; left out: "
            f"{counted(self.empty_documents, 'empty document')}, {counted(self.empty_files, 'empty file')}, "
            f"{counted(self.dropped_characters, 'control character')}{named}, "
            f"{counted(self.invalid_bytes, 'byte')} that {'is' if self.invalid_bytes == 1 else 'are'} not UTF-8"
        )


def _named(code: str) -> str:
    """A dropped character for a message, with what to do about it."""
    character = chr(int(code[2:], 16))
    unnamed = {"Cc": "control character", "Cs": "lone surrogate"}.get(unicodedata.category(character), "")
    name = f"{code} {unicodedata.name(character, unnamed)}"
    hint = ", which a tokenizer trained with --keep-joiners keeps" if code in ("U+200C", "U+200D") else ""
    return f"most often {name}{hint}"


def read_documents(
    sources: Sequence[str], corpus_format: CorpusFormat = DEFAULT_FORMAT, *, counts: CorpusCounts
) -> Iterator[Document]:
    """Yields the cleaned documents of `sources` in order; long ones arrive in pieces (see `Document.continues`).

    Args:
        sources: files, folders, globs, `hub:NAME[/CONFIG][:SPLIT]` or `builtin:documentation`.
        counts: is added to while documents are taken.
    Raises: DataError: a source cannot be read, or no document holds text.
    """
    found, held = False, None
    for raw in read_raw(sources, corpus_format, counts):
        cleaned = clean(raw.text, keeps_joiners=corpus_format.keeps_joiners)
        counts.bytes += len(cleaned.text.encode())
        if cleaned.dropped_characters:
            counts.drop(dropped_characters(raw.text, keeps_joiners=corpus_format.keeps_joiners))
        counts.invalid_bytes += cleaned.invalid_bytes
        # The last piece of a document may clean to nothing, so a piece is held back until it is known to be the last.
        if cleaned.text:
            if held is not None:
                yield held
            held = Document(cleaned.text, raw.source, continues=True)
        if raw.continues:
            continue
        if held is None:
            counts.empty_documents += 1
            continue
        counts.documents += 1
        found = True
        yield Document(held.text, held.source)
        held = None
    if not found:
        raise no_document(sources)


def no_document(sources: Sequence[str]) -> DataError:
    """The error for a corpus without any text."""
    return DataError(f"{', '.join(sources)}: no document holds any text; give files that do")


def read_raw(sources: Sequence[str], corpus_format: CorpusFormat, counts: CorpusCounts) -> Iterator[RawText]:
    """As `read_documents`, before cleaning, so that `prepare` can clean in its processes."""
    separator = corpus_format.document_separator
    # A shell hands over "\n" as a backslash and an n.
    separator = separator.replace("\\n", "\n").replace("\\t", "\t") if separator else None
    for source in sources:
        yield from _read_source(source, corpus_format, separator, counts)


def _read_source(
    source: str, corpus_format: CorpusFormat, separator: str | None, counts: CorpusCounts
) -> Iterator[RawText]:
    column, strict = corpus_format.text_column, corpus_format.strict
    if source == BUILTIN_DOCUMENTATION:
        yield from read_documentation()
    elif source.startswith("hub:"):
        yield from read_hub(source, column)
    else:
        for path in source_files(source, FORMATS):
            suffix = uncompressed_suffix(path)
            if path.stat().st_size == 0 and str(path) != source:  # one named by itself is an error instead
                counts.empty_files += 1
            elif suffix == ".txt":
                yield from read_in_utf8(path, read_txt(path, separator), is_whole=not separator, strict=strict)
            elif suffix in (".csv", ".tsv"):
                yield from read_in_utf8(path, read_csv(path, column), strict=strict)
            elif suffix in JSON_LINES:
                yield from read_in_utf8(path, read_jsonl(path, column), strict=strict)
            else:
                yield from read_table(path, column)

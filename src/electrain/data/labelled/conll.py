"""Sentences in files of columns: a word on each line, its tag beside it, an empty line after each sentence.

The columns are those of CoNLL's shared tasks, in any number and order; `conll_columns` finds out which of them hold
words and tags.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, groupby, pairwise
from pathlib import Path
from typing import NamedTuple

from electrain.data.labelled.record import Broken, Record, valid_text
from electrain.data.text.text_files import lines_of, open_text
from electrain.foundation.errors import DataError

COLUMN_FORMATS = (".conll", ".conllu", ".txt", ".bio", ".iob")
# The ten columns of CoNLL-U: universaldependencies.org/format.html.
UNIVERSAL_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_SPACES = re.compile("[ \t]+")  # not \s: an ideographic space can be a word
_TABS = re.compile("\t+")
_WHITE = " \t\r\n"
_COMMENT = ("# ", "#\t")  # GermEval 2014 writes a tab
_NO_WORD = re.compile(r"[0-9]+(-[0-9]+|\.[0-9]+)")  # CoNLL-U: a range of words (2-3), or an empty node (4.1)
_DOCUMENT = ("#begin document", "#end document")  # between the documents of CoNLL-2012
# Their columns but for the arguments of verbs, of which there are as many as a sentence has verbs, and coreference.
_COLUMNS_2012 = 11
_NO_TAG = re.compile(r"\s|://")
# What people write over the columns.
_TITLES = {
    *("id", "ids", "index", "idx", "no", "nr", "num", "number", "#", "sentence", "sentence_id", "sent_id", "token_id"),
    *("token", "tokens", "word", "words", "form", "text", "lemma", "tag", "tags", "label", "labels", "ner", "ner_tag"),
    *("ner_tags", "netag", "entity", "entities", "pos", "pos_tag", "pos_tags", "upos", "xpos", "chunk", "chunk_tag"),
    *("bio", "iob", "outer", "nested", "doc", "doc_id", "document", "document_id", "file", "filename", "sent"),
}
# A column that counts does so in nine of ten sentences; where none of the first ones counts, none will.
MOST_THAT_COUNT, _TRIED = 0.9, 20
_Line = tuple[int, str]


class Form(NamedTuple):
    """The shape of a file in columns."""

    width: int  # number of columns
    counting: int  # how many of the first columns count words or sentences
    is_universal: bool  # it is CoNLL-U
    is_2012: bool = False  # it is of CoNLL-2012

    def place(self, name: str) -> int | None:
        """The place, from 0, of a column by its number from 1, or by its name in CoNLL-U; None: there is none."""
        if self.is_universal and name.lower() in UNIVERSAL_COLUMNS:
            return UNIVERSAL_COLUMNS.index(name.lower())
        return int(name) - 1 if re.fullmatch("[0-9]{1,4}", name) and 0 < int(name) <= self.width else None

    def name(self, place: int) -> str:
        """The name of a column, as `place` takes it."""
        return UNIVERSAL_COLUMNS[place] if self.is_universal else str(place + 1)

    @property
    def listed(self) -> str:
        """The columns, for messages."""
        if self.is_universal:
            return f"the columns are {', '.join(UNIVERSAL_COLUMNS)}"
        return "it has one column" if self.width == 1 else f"the columns are numbered from 1 to {self.width}"


@dataclass(frozen=True)
class Sentence(Record):
    """A sentence; `values` is empty until `words_and_tags` has chosen columns."""

    rows: tuple[tuple[str, ...], ...] = ()  # the columns of each word
    lines: tuple[int, ...] = ()  # the line of each word
    form: Form = field(default_factory=lambda: Form(1, 0, False))

    @property
    def has_gaps(self) -> bool:
        """True where lines between its words are no words."""
        return self.lines[-1] - self.lines[0] >= len(self.lines)


class _Layout(NamedTuple):
    """How the lines of one file are read."""

    separator: re.Pattern[str]
    width: int
    is_counted: bool  # the first column counts words
    tags: Counter[str]  # the last columns
    is_2012: bool = False  # only the first columns are read, because further ones differ in number

    def is_row(self, text: str) -> bool:
        """True for a word that looks like a comment. The number of columns may be a comment's by chance."""
        columns = self.separator.split(text)
        if self.is_counted or len(columns) != self.width:
            return False
        return columns[-1] in self.tags or (text.startswith("#\t") and not _NO_TAG.search(columns[-1]))

    def columns(self, line: _Line, path: Path) -> tuple[str, ...]:
        """The columns of a line. Raises: DataError: no word, or another number of columns than the first row."""
        number, text = line
        source = f"{path}:{number}"
        columns = tuple(self.separator.split(valid_text(text, source, path)))
        if self.is_2012:
            columns = columns[: self.width]
        if not columns[0]:
            raise DataError(f"{source}: begins with white space, so that there is no word; fix this line")
        if len(columns) != self.width:
            what = "column" if len(columns) == 1 else "columns"
            hint = "each line needs a word and its tag, an empty line ends a sentence"
            raise DataError(f"{source}: {len(columns)} {what}, but the file's first row has {self.width}; {hint}")
        return columns


def conll_sentences(path: Path, broken: Broken) -> Iterator[Sentence]:
    """The sentences of a file with a word on each line, and perhaps more columns.

    Columns are separated by tabs if the first row has one, otherwise by white space. Lines before a sentence that begin
    with "# ", or with "#" and a tab, are comments, unless they have a row's number of columns and a tag; where the
    first column counts, every line that begins with "#" is one. Ranges and empty nodes of CoNLL-U are left out.
    """
    with open_text(path, newline=None) as file:
        content = list(lines_of(file, str(path)))
    sentences = list(_sentences(content))
    layout = _layout(sentences)
    if layout is None:
        return
    if any(line.startswith(_DOCUMENT) for line in content):
        layout = layout._replace(width=min(layout.width, _COLUMNS_2012), is_2012=True)
    sentences = [_without_comments(sentence, layout) for sentence in sentences]
    header = next((sentence[0] for sentence in sentences if sentence), None)
    times = sum(text == header[1] for sentence in sentences for _, text in sentence) if header is not None else 0
    if header is not None and _is_header(layout.separator.split(header[1]), layout, times):
        for number in (number for sentence in sentences for number, text in sentence if text == header[1]):
            broken(DataError(f'{path}:{number}: "{header[1]}" is a header, not a word; remove this line'))
        sentences = [[line for line in sentence if line[1] != header[1]] for sentence in sentences]
    read: list[Sentence] = []
    for sentence in sentences:
        try:
            rows = [(number, layout.columns((number, text), path)) for number, text in sentence]
        except DataError as error:
            broken(error)
            continue
        if layout.is_counted:
            rows = [row for row in rows if not _NO_WORD.fullmatch(row[1][0])]
            if anew := _begins_anew([cells[0] for _, cells in rows]):
                hint = "yet no empty line ends the sentence before; put one in"
                broken(DataError(f"{path}:{rows[anew][0]}: the count in column 1 begins anew, {hint}"))
                continue
        if rows:
            lines, cells = zip(*rows, strict=True)
            read.append(Sentence({}, f"{path}:{lines[0]}", cells, lines))
    form = _form_of(read, layout)
    yield from (replace(sentence, form=form) for sentence in read)


def _sentences(lines: Iterable[str]) -> Iterator[list[_Line]]:
    # Files that were put together may have a byte order mark in their middle.
    numbered = ((number, line.rstrip(_WHITE).removeprefix("\ufeff")) for number, line in enumerate(lines, 1))
    for is_between, group in groupby(
        numbered, lambda line: not line[1] or line[1].startswith(("-DOCSTART-", *_DOCUMENT))
    ):
        if not is_between:
            yield list(group)


def _layout(sentences: Sequence[Sequence[_Line]]) -> _Layout | None:
    """How to read the sentences of a file; None if there is none."""
    certain = [rows for one in sentences if (rows := [text for _, text in one if not text.startswith("#")])]
    if certain:
        separator = _separator_of(certain[0][0])
        width = len(separator.split(certain[0][0]))
        first = [[separator.split(text, maxsplit=1)[0] for text in sentence] for sentence in certain]
        if width > 1 and (_counts(first, least=1 if width > 2 else 2) or (width > 2 and _are_numbers(first))):
            return _Layout(separator, width, True, Counter())
    # A comment and a word "#" with its tag look alike, so the form of the file follows from lines that are certainly
    # no comments, and each doubtful line is then compared with that form.
    heads_off = (dropwhile(lambda line: line[1].startswith(_COMMENT), sentence) for sentence in sentences)
    rows = [text for sentence in heads_off for _, text in sentence]
    rows = rows or [text for sentence in sentences for _, text in sentence]
    if not rows:
        return None
    separator = _separator_of(rows[0])
    return _Layout(separator, len(separator.split(rows[0])), False, Counter(separator.split(text)[-1] for text in rows))


def has_counted_words(lines: Iterable[str]) -> bool:
    """True if the lines of a text file are of three columns or more with tabs between, the first of which counts."""
    rows = [[text.split("\t") for _, text in one if not text.startswith("#")] for one in _sentences(lines)]
    widths = {len(row) for sentence in rows for row in sentence}
    return len(widths) == 1 and min(widths) > 2 and _counts([[r[0] for r in one] for one in rows if one], least=2)


def _separator_of(row: str) -> re.Pattern[str]:
    return _TABS if "\t" in row else _SPACES


def _without_comments(sentence: Sequence[_Line], layout: _Layout) -> list[_Line]:
    if layout.is_counted:
        return [line for line in sentence if not line[1].startswith("#")]
    return list(dropwhile(lambda line: line[1].startswith(_COMMENT) and not layout.is_row(line[1]), sentence))


def _is_header(columns: Sequence[str], layout: _Layout, times: int) -> bool:
    """True for a first row, which occurs so many times, that names the columns.

    Raises nothing: a title that is also the tag of another row is a word.
    """
    if layout.is_counted:
        return not columns[0].replace("-", "").replace(".", "").isdecimal()
    is_titled = len(columns) > 1 and all(column.strip().lower() in _TITLES for column in columns)
    return is_titled and layout.tags[columns[-1]] == times


def _counts(sentences: Sequence[Sequence[str]], least: int) -> bool:
    """True if the cells of a column number the words of each sentence, or the sentences.

    Args: least: number of words that the longest sentence must have; fewer prove nothing.
    """
    if not sentences:
        return False
    # A header, and a mistake here and there, must not turn the numbers into words.
    first = sentences[0][1:] if len(sentences[0]) > 1 and not sentences[0][0].isdecimal() else sentences[0]
    if not any(cell.isdecimal() for cell in (*first[:2], *(cell for one in sentences[1:_TRIED] for cell in one[:1]))):
        return False
    whole = [[cell for cell in one if not _NO_WORD.fullmatch(cell)] for one in (first, *sentences[1:])]
    # Nine digits: a longer one is no count, and Python refuses to read thousands of them.
    numbers = [list(map(int, one)) for one in whole if one and all(x.isdecimal() and len(x) < 10 for x in one)]
    if not numbers or max(map(len, numbers)) < least or numbers[0][0] > 1:
        return False
    most = MOST_THAT_COUNT * sum(map(bool, whole))
    if sum(one == list(range(one[0], one[0] + len(one))) for one in numbers) >= most:
        return True
    counts_sentences = [one[0] for one in numbers] == list(range(numbers[0][0], numbers[0][0] + len(numbers)))
    return len(numbers) > 1 and len(numbers) >= most and counts_sentences and all(len(set(one)) == 1 for one in numbers)


def _are_numbers(sentences: Sequence[Sequence[str]]) -> bool:
    """True for a first column of numbers alone, with gaps or from any number on: it has no words.

    The first cell may be a header. One sentence has two words or more; fewer prove nothing.
    """
    cells = [cell for one in sentences for cell in one][1:]
    are_numbers = all(cell.isdecimal() or _NO_WORD.fullmatch(cell) for cell in cells)
    return max(map(len, sentences)) > 1 and are_numbers and any(map(str.isdecimal, cells))


def _begins_anew(cells: Sequence[str]) -> int:
    """The place of the first word that must be that of another sentence, by the numbers before the words; 0: none."""
    numbers = [int(cell) for cell in cells] if all(cell.isdecimal() and len(cell) < 10 for cell in cells) else []
    counts_words = len(numbers) < 2 or numbers[0] != numbers[1]
    steps = (after >= before if counts_words else after == before for before, after in pairwise(numbers))
    return next((place for place, fits in enumerate(steps, 1) if not fits), 0)


def _form_of(sentences: Sequence[Sentence], layout: _Layout) -> Form:
    counting = int(layout.is_counted)
    is_universal = layout.is_counted and layout.width == len(UNIVERSAL_COLUMNS)
    while layout.is_counted and not is_universal and counting < layout.width - 1:
        if not _counts([[row[counting] for row in one.rows] for one in sentences], least=2):
            break
        counting += 1
    return Form(layout.width, counting, is_universal, layout.is_2012)

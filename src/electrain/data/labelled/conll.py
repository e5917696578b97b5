"""Sentences in files of columns: a word on each line, its tag beside it, an empty line after each sentence.

The columns are those of CoNLL's shared tasks, in any number and order. Which of them hold words and tags is found out
from what stands in them, for all files of one shape at once, and said where it is not the first and the last.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, groupby, pairwise
from pathlib import Path
from typing import NamedTuple

from electrain.data.labelled.columns import Columns, MissingColumnError, Role, flag
from electrain.data.labelled.record import Broken, Record, valid_text
from electrain.data.labelled.tag_schemes import OUTSIDE, is_chunk_tag
from electrain.data.text.text_files import lines_of, open_text
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say

COLUMN_FORMATS = (".conll", ".conllu", ".txt", ".bio", ".iob")
# The ten columns of CoNLL-U: universaldependencies.org/format.html.
UNIVERSAL_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
WORDS, TAGS = "words", "tags"  # the columns that are found out, by the names that records give them
_SPACES = re.compile("[ \t]+")  # not \s: an ideographic space can be a word
_TABS = re.compile("\t+")
_WHITE = " \t\r\n"
_COMMENT = ("# ", "#\t")  # GermEval 2014 writes a tab
_NO_WORD = re.compile(r"[0-9]+(-[0-9]+|\.[0-9]+)")  # CoNLL-U: a range of words (2-3), or an empty node (4.1)
_NO_TAG = re.compile(r"\s|://")
# What people write over the columns.
_TITLES = {
    *("id", "ids", "index", "idx", "no", "nr", "num", "number", "#", "sentence", "sentence_id", "sent_id", "token_id"),
    *("token", "tokens", "word", "words", "form", "text", "lemma", "tag", "tags", "label", "labels", "ner", "ner_tag"),
    *("ner_tags", "netag", "entity", "entities", "pos", "pos_tag", "pos_tags", "upos", "xpos", "chunk", "chunk_tag"),
    *("bio", "iob", "outer", "nested"),
}
# Tags that are no words of any language: Universal Dependencies', and those of the Penn Treebank that are not
# punctuation. A first column that holds nothing else is one of tags.
_PARTS_OF_SPEECH = {
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ"),
    *("SYM", "VERB", "X", "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS", "LS", "MD", "NN", "NNS", "NNP"),
    *("NNPS", "PDT", "POS", "PRP", "PRP$", "RB", "RBR", "RBS", "RP", "TO", "UH", "VB", "VBD", "VBG", "VBN", "VBP"),
    *("VBZ", "WDT", "WP", "WP$", "WRB"),
}
# What the chunks of CoNLL-2000 are of: phrases, which are no names.
_PHRASES = {"NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"}
# Of two columns without a name, that of the words has far more different values; fewer lines than this prove nothing.
_LEAST_LINES, _TIMES_AS_MANY = 50, 3
# A column that counts does so in nine of ten sentences; where none of the first ones counts, none will.
_MOST_THAT_COUNT, _TRIED = 0.9, 20
_Line = tuple[int, str]


class Form(NamedTuple):
    """The shape of a file in columns."""

    width: int  # number of columns
    counting: int  # how many of the first columns count words or sentences
    is_universal: bool  # it is CoNLL-U

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
        sentences = list(_sentences(lines_of(file, str(path))))
    layout = _layout(sentences)
    if layout is None:
        return
    sentences = [_without_comments(sentence, layout) for sentence in sentences]
    header = next((sentence[0] for sentence in sentences if sentence), None)
    if header is not None and _is_header(layout.separator.split(header[1]), layout):
        broken(DataError(f'{path}:{header[0]}: "{header[1]}" is a header, not a word; remove this line'))
        sentences = [[line for line in sentence if line != header] for sentence in sentences]
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
    for is_between, group in groupby(numbered, lambda line: not line[1] or line[1].startswith("-DOCSTART-")):
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


def _is_header(columns: Sequence[str], layout: _Layout) -> bool:
    """True for a first row that names the columns. Raises nothing: a title that is also a tag elsewhere is a word."""
    if layout.is_counted:
        return not columns[0].replace("-", "").replace(".", "").isdecimal()
    is_titled = len(columns) > 1 and all(column.strip().lower() in _TITLES for column in columns)
    return is_titled and layout.tags[columns[-1]] == 1


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
    most = _MOST_THAT_COUNT * sum(map(bool, whole))
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
    return Form(layout.width, counting, is_universal)


class Found(NamedTuple):
    """The columns of words and tags, counted from 0, and why they are not the first and the last."""

    word: int
    tag: int | None  # None: the file has none
    reason: str = ""


class Choice(NamedTuple):
    """The columns that are read, and the names under which they are found in further files of the same shape."""

    word: int
    tag: int | None
    word_name: str
    tag_name: str


def words_and_tags(
    records: Sequence[Record], columns: Columns, broken: Broken, *, with_targets: bool
) -> tuple[list[Record], Columns, Columns | None]:
    """The records with the columns `words` and `tags` of files in columns.

    Args:
        columns: numbers from 1, or names of CoNLL-U's columns; "" and the names "words" and "tags" let them be found.
    Returns: the records, the columns to read from them, and those to name for further files; None without such files.
    Raises: DataError: there is no column of that name. A sentence in CoNLL-U without a tag is given to `broken`.
    """
    forms = {record.form for record in records if isinstance(record, Sentence)}
    if not forms:
        return list(records), columns, None
    chosen, kept = {}, set()
    for form in forms:
        sentences = [record for record in records if isinstance(record, Sentence) and record.form == form]
        chosen[form] = _choose(sentences, form, columns, with_targets=with_targets)
        kept.add((chosen[form].word_name, chosen[form].tag_name if with_targets else ""))
    filled: list[Record] = []
    for record in records:
        if not isinstance(record, Sentence):
            filled.append(record)
            continue
        word, tag = chosen[record.form].word, chosen[record.form].tag
        values: dict[str, object] = {WORDS: [row[word] for row in record.rows]}
        if tag is not None:
            values[TAGS] = [row[tag] for row in record.rows]
        lines = zip(record.lines, record.rows, strict=True)
        untagged = [line for line, row in lines if tag is not None and row[tag] == "_"]
        if with_targets and record.form.is_universal and untagged:
            place = f"{record.source.rpartition(':')[0]}:{untagged[0]}"
            broken(DataError(f'{place}: no tag in this row, only "_"; fix it, or choose another label_column'))
            continue
        filled.append(replace(record, values=values, rows=()))
    has_tags = with_targets and any(choice.tag is not None for choice in chosen.values())
    read = replace(columns, text=WORDS, label=TAGS if has_tags else columns.label)
    only = kept.pop() if len(kept) == 1 else (WORDS, TAGS)
    return filled, read, replace(columns, text=only[0], label=only[1])


def _choose(sentences: Sequence[Sentence], form: Form, columns: Columns, *, with_targets: bool) -> Choice:
    """The columns that the user named; the others as they are found, with a line on stderr that says which."""
    where = sentences[0].source.rpartition(":")[0]
    names: dict[Role, str] = {"text": columns.text, "label": columns.label}
    named = {role: form.place(name) for role, name in names.items()}
    lacking = [role for role, name in names.items() if name not in ("", WORDS, TAGS) and named[role] is None]
    if "label" in lacking and not with_targets:  # a file of another shape than that of training
        named["text"] = None
    elif lacking:
        raise MissingColumnError(f'{where}: no column "{names[lacking[0]]}" for {flag(lacking[0])}; {form.listed}')
    found = _found(sentences, form)
    word, tag = _apart(found, named["text"], named["label"], form)
    if word == tag and with_targets:
        raise DataError(f"{where}: column {form.name(word)} cannot hold both the words and their tags; name another")
    is_word_told = named["text"] is not None or word == 0 or (form.is_universal and named["label"] is not None)
    is_tag_told = named["label"] is not None or not with_targets or (tag == form.width - 1 and not word)
    if found.reason and not (is_word_told and is_tag_told):
        files = len({one.source.rpartition(":")[0] for one in sentences})
        more = f" and {files - 1} more" if files > 1 else ""
        tags = f", the tags from {form.name(tag)}" if with_targets and tag is not None else ""
        other = " (text_column and label_column name others)" if with_targets else ""
        say(f"{where}{more}: {found.reason}: the words are read from column {form.name(word)}{tags}{other}")
    if found == (word, tag, ""):  # the first and the last
        return Choice(word, tag, WORDS, TAGS)
    return Choice(word, tag, form.name(word), TAGS if tag is None else form.name(tag))


def _apart(found: Found, word: int | None, tag: int | None, form: Form) -> tuple[int, int | None]:
    """The columns that are named, and for one that is not that which is found, or the only one that is left."""
    if word is None and tag is not None and found.word == tag:
        word = next((place for place in range(form.counting, form.width) if place != tag), tag)
    if tag is None and word is not None and found.tag == word:
        left = [place for place in range(form.counting, form.width) if place != word]
        tag = left[0] if len(left) == 1 else word
    return found.word if word is None else word, found.tag if tag is None else tag


def _found(sentences: Sequence[Sentence], form: Form) -> Found:
    """The columns that are read where the user names none."""
    if form.is_universal:
        return Found(UNIVERSAL_COLUMNS.index("form"), UNIVERSAL_COLUMNS.index("upos"), "the file is CoNLL-U")
    first, last = form.counting, form.width - 1
    counts = f"column{' 1 counts' if first == 1 else 's 1 and 2 count'}" if first else ""
    if first == last:
        return Found(first, None, counts)
    values = {place: Counter(row[place] for one in sentences for row in one.rows) for place in range(first, last + 1)}
    if _stands_first(values, first, last):
        word = max(range(first + 1, last + 1), key=lambda place: len(values[place]))  # parts of speech are fewer
        return Found(word, first, f"column {first + 1} holds the tags")
    kinds = {place: _kinds(counted) for place, counted in values.items()}
    for place in range(first + 1, last):
        if _is_first_of_two(kinds[place], kinds[last], is_germeval=bool(first) and last - first == 2):
            reason = f"columns {place + 1} and {last + 1} both hold tags of names"
            return Found(first, place, f"{counts}, {reason}" if counts else reason)
    tag = next((place for place in range(first + 1, last) if (kinds[place] or _PHRASES) - _PHRASES), last)
    if tag != last and _are_no_names(values[last]):
        reason = f"column {tag + 1} holds tags of names, and column {last + 1} does not"
        return Found(first, tag, f"{counts}, {reason}" if counts else reason)
    return Found(first, last, counts)


def _are_no_names(values: Counter[str]) -> bool:
    """True if most values of a column are neither O nor tags of chunks: confidences, places, lemmas."""
    return 2 * sum(count for tag, count in values.items() if tag != OUTSIDE and not is_chunk_tag(tag)) > values.total()


def _is_first_of_two(kinds: set[str] | None, last: set[str] | None, *, is_germeval: bool) -> bool:
    """True if a column of names is right, and not the last one, by the kinds of the names in both.

    They are outer and nested names, or given and predicted ones. Phrases before names are neither.

    Args: is_germeval: the file has the shape of GermEval 2014, in whose last column all may be O.
    """
    if not kinds or last is None or kinds <= _PHRASES:
        return False
    return is_germeval or bool(last and last <= kinds)


def _kinds(values: Iterable[str]) -> set[str] | None:
    """What the chunks of a column are of, {"PER", "LOC"}; empty where all are O; None where a value is no such tag."""
    tags = set(values) - {OUTSIDE}
    return {tag[2:] for tag in tags} if all(map(is_chunk_tag, tags)) else None


def _stands_first(values: dict[int, Counter[str]], first: int, last: int) -> bool:
    """True if the first column holds tags and no later one does."""
    if _kinds(values[first]):
        return not any(_kinds(values[place]) for place in range(first + 1, last + 1))
    if first + 1 < last:
        return False
    is_of_tags, is_of_words = set(values[first]) <= _PARTS_OF_SPEECH, not set(values[last]) <= _PARTS_OF_SPEECH
    many = values[first].total() >= _LEAST_LINES and len(values[last]) > _TIMES_AS_MANY * len(values[first])
    return (is_of_tags and is_of_words and len(values[first]) > 1) or many

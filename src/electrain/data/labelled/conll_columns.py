"""Which columns of files in columns hold words and tags, found out for all files of one shape at once.

It is said where they are not the first and the last, or may hold something else.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from electrain.data.labelled.columns import Columns, MissingColumnError, Role, flag
from electrain.data.labelled.conll import MOST_THAT_COUNT, UNIVERSAL_COLUMNS, Form, Sentence
from electrain.data.labelled.record import Broken, Record
from electrain.data.labelled.tag_schemes import OUTSIDE, is_chunk_tag
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted, say

WORDS, TAGS = "words", "tags"  # the columns that are found out, by the names that records give them
_DIGITS = re.compile("[0-9]+")
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
# A column holds no tags where more than half of its values differ, or nearly as many as the words do.
# Fewer lines than this prove nothing.
_LEAST_TAGS, _AS_MANY = 20, 0.7


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
    records: Sequence[Record], columns: Columns, broken: Broken, *, with_targets: bool, of_other_files: bool = False
) -> tuple[list[Record], Columns, Columns | None]:
    """The records with the columns `words` and `tags` of files in columns.

    Args:
        columns: numbers from 1, or names of CoNLL-U's columns; "" and the names "words" and "tags" let them be found.
        of_other_files: the columns were found in other files, which may have had fewer.
    Returns: the records, the columns to read from them, and those to name for further files; None without such files.
    Raises: DataError: there is no column of that name. A sentence in CoNLL-U without a tag is given to `broken`.
    """
    forms = {record.form for record in records if isinstance(record, Sentence)}
    if not forms:
        return list(records), columns, None
    chosen, kept = {}, set()
    for form in forms:
        sentences = [record for record in records if isinstance(record, Sentence) and record.form == form]
        chosen[form] = _choose(sentences, form, columns, with_targets=with_targets, of_other_files=of_other_files)
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


def _choose(
    sentences: Sequence[Sentence], form: Form, columns: Columns, *, with_targets: bool, of_other_files: bool
) -> Choice:
    """The columns that the user named; the others as they are found, with a line on stderr that says which."""
    where = sentences[0].source.rpartition(":")[0]
    names: dict[Role, str] = {"text": columns.text, "label": columns.label}
    named = {role: form.place(name) for role, name in names.items()}
    lacking = [role for role, name in names.items() if name not in ("", WORDS, TAGS) and named[role] is None]
    if "label" in lacking and not with_targets:  # a file of another shape than that of training
        named["text"] = None
    elif lacking:
        raise MissingColumnError(where, names[lacking[0]], lacking[0], form.listed)
    if form.is_2012 and with_targets and named["label"] is None:
        hint = f"give {flag('text')} 4 and {flag('label')} 5 for parts of speech"
        raise DataError(f"{where}: the columns are those of CoNLL-2012, several of which may be the tags; {hint}")
    found = _found(sentences, form, with_targets=with_targets)
    word, tag = _apart(found, named["text"], named["label"], form)
    if word == tag and with_targets:
        raise DataError(f"{where}: column {form.name(word)} cannot hold both the words and their tags; name another")
    is_word_told = named["text"] is not None or word == 0 or (form.is_universal and named["label"] is not None)
    is_tag_told = named["label"] is not None or not with_targets or (tag == form.width - 1 and not word)
    reason = found.reason
    is_guess = {*names.values()} <= ({"", WORDS, TAGS} if of_other_files else {""})
    if found == (word, tag, "") and with_targets and form.width > 2 and is_guess:
        reason, is_tag_told = f"it has {form.width} columns", False
    if reason and not (is_word_told and is_tag_told):
        files = len({one.source.rpartition(":")[0] for one in sentences})
        more = f" and {files - 1} more" if files > 1 else ""
        tags = f", the tags from {form.name(tag)}" if with_targets and tag is not None else ""
        other = " (text_column and label_column name others)" if with_targets else ""
        say(f"{where}{more}: {reason}: the words are read from column {form.name(word)}{tags}{other}")
    if with_targets and tag is not None and named["label"] is None:
        _say_doubts(sentences, word, tag, where)
    if found == (word, tag, ""):  # the first and the last
        return Choice(word, tag, WORDS, TAGS)
    return Choice(word, tag, form.name(word), TAGS if tag is None else form.name(tag))


def _say_doubts(sentences: Sequence[Sentence], word: int, tag: int, where: str) -> None:
    """Says where what was found out to be tags may be something else, or the first of them a title."""
    tags = Counter(row[tag] for one in sentences for row in one.rows)
    first = sentences[0].rows[0][tag]
    may_be_title = not (first in _PARTS_OF_SPEECH or is_chunk_tag(first)) and tags.total() >= _LEAST_LINES
    if _are_no_tags(sentences, word, tag):
        found = f"column {tag + 1} has {counted(len(tags), 'different tag')} in {counted(tags.total(), 'row')}"
        say(f"{where}: {found}, as if it held no tags but words (label_column names another)")
    # Among other tags that occur once, a title would not stand out.
    elif (
        may_be_title
        and 10 * len(tags) <= tags.total()
        and [one for one, count in tags.items() if count == 1] == [first]
    ):
        shown = " ".join(sentences[0].rows[0])
        doubt = "occurs nowhere else; remove the row if it is a header"
        say(f'{sentences[0].source}: the tag of the first row, "{shown}", {doubt}')


def _apart(found: Found, word: int | None, tag: int | None, form: Form) -> tuple[int, int | None]:
    """The columns that are named, and for one that is not that which is found, or the only one that is left."""
    if word is None and tag is not None and found.word == tag:
        word = next((place for place in range(form.counting, form.width) if place != tag), tag)
    if tag is None and word is not None and found.tag == word:
        left = [place for place in range(form.counting, form.width) if place != word]
        tag = left[0] if len(left) == 1 else word
    return found.word if word is None else word, found.tag if tag is None else tag


def _found(sentences: Sequence[Sentence], form: Form, *, with_targets: bool) -> Found:
    """The columns that are read where the user names none; without targets, there may be no column of tags."""
    if form.is_universal:
        return Found(UNIVERSAL_COLUMNS.index("form"), UNIVERSAL_COLUMNS.index("upos"), "the file is CoNLL-U")
    first, last = form.counting, form.width - 1
    counts = f"column{' 1 counts' if first == 1 else 's 1 and 2 count'}" if first else ""
    while first < last - with_targets and _is_identifier(sentences, first, alone=first == last - 1):
        first += 1
    if first > form.counting:
        no_words = f"column{f' {first} holds' if first - form.counting == 1 else f's up to {first} hold'} no words"
        counts = f"{counts}, {no_words}" if counts else no_words
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
    are_words = _are_words(sentences, first, last)
    fewer = 1 if are_words else _TIMES_AS_MANY
    between = [place for place in range(first + 1, last) if not _are_words(sentences, first, place)]
    few = [place for place in between if len(values[place]) > 1 and fewer * len(values[place]) <= len(values[last])]
    if few and (are_words or _are_no_tags(sentences, first, last)):
        reason = f"column {last + 1} seems to hold lemmas, no tags"
        return Found(first, few[0], f"{counts}, {reason}" if counts else reason)
    return Found(first, last, counts)


def _is_identifier(sentences: Sequence[Sentence], place: int, *, alone: bool) -> bool:
    """True for a column before others that names documents, sentences or places: d1.txt, T1 T2, 0-3 4-8, 1. 2.

    It is the same in each sentence while further columns vary, or has numbers that go up.

    Args: alone: only one column follows, so that numbers alone may be words.
    """
    cells = [[row[place] for row in one.rows] for one in sentences]
    long = [one for one in cells if len(one) > 1]
    if not long:
        return False
    is_constant = len(cells) > 1 and 2 * len(long) > len(cells) and all(len(set(one)) == 1 for one in cells)
    if is_constant and any(len({row[place + 1 :] for row in one.rows}) > 1 for one in sentences):
        return True
    if alone and all(cell.isdecimal() for one in cells for cell in one):
        return False
    # A counted file has its words next; four letters or more, as in word1, are a word.
    if sentences[0].form.counting or any(sum(map(str.isalpha, cell)) > 3 for one in cells for cell in one):
        return False
    # Nine digits: Python refuses to read thousands of them.
    if not all(0 < len(number) < 10 for one in cells for cell in one for number in _DIGITS.findall(cell) or [""]):
        return False
    return sum(map(_go_up, long)) >= MOST_THAT_COUNT * len(long)


def _go_up(cells: Sequence[str]) -> bool:
    """True if cells that are alike but for their numbers have ever greater ones."""
    numbers = [tuple(map(int, _DIGITS.findall(cell))) for cell in cells]
    return len({_DIGITS.sub("0", cell) for cell in cells}) == 1 and all(one < other for one, other in pairwise(numbers))


def _are_no_tags(sentences: Sequence[Sentence], word: int, tag: int) -> bool:
    """True for a column that has too many different values to hold tags."""
    rows = [row for one in sentences for row in one.rows]
    tags, words = len({row[tag] for row in rows}), len({row[word] for row in rows})
    as_words = len(rows) >= _LEAST_LINES and 10 * tags > len(rows) and tags >= _AS_MANY * words
    return len(rows) >= _LEAST_TAGS and (2 * tags > len(rows) or as_words)


def _are_words(sentences: Sequence[Sentence], word: int, place: int) -> bool:
    """True for a column, such as lemmas, that is the word itself in a quarter of the rows."""
    rows = [row for one in sentences for row in one.rows]
    return len(rows) >= _LEAST_TAGS and 4 * sum(row[place].lower() == row[word].lower() for row in rows) > len(rows)


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

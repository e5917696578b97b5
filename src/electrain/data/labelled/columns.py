"""The columns of a labelled data set: named by the user, or guessed from the names that public data sets use."""

import difflib
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.label_spelling import is_indicator
from electrain.data.labelled.record import Record
from electrain.data.text.options import option
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say

Role = Literal["text", "pair", "label", "references"]


def label_columns(name: str, existing: Collection[str]) -> tuple[str, ...]:
    """The columns that `--data.label-column` names: one, or several with commas between them."""
    return (name,) if name in existing or "," not in name else tuple(part.strip() for part in name.split(","))


class MissingColumnError(DataError):
    """A column that was named, or that training reads, does not exist."""

    def __init__(self, where: str, name: str, role: Role, hint: str) -> None:
        super().__init__(f'{where}: no column "{name}" for {flag(role)}; {hint}')
        self.role = role
        # Where the name is that of the training data, whose flag the user may not have set.
        self.against_training = f'{where}: no column "{name}", which training reads as the {role}; {hint}'


@dataclass(frozen=True)
class Columns:
    """The names of the columns with the parts of an example, and how they are written in .csv and .tsv files.

    A name "" means: guess it, or, once guessed: there is none.
    """

    text: str = ""  # the text, the words (tagging), the question, or the text to summarize or translate
    pair: str = ""  # the second text of a pair, or the context of a question; not guessed when `text` is given
    label: str = ""  # the label, number, tags, answers, summary or translation
    references: str = ""  # further good summaries or translations, as lists of texts
    label_separator: str = ""  # between several labels in one field; "none": each field is one label; "": not known
    separator: str = ""  # between the fields of .csv and .tsv; "" goes by the name of the file
    quoting: str = ""  # of .csv and .tsv: csv or none; "" goes by the name of the file


def flag(role: Role) -> str:
    """The flag that names the column on the command line; "" where the verb has none."""
    return option(f"{role}-column")


def _flags(roles: Iterable[Role]) -> str:
    return " and ".join(filter(None, map(flag, roles)))


_PAIRS = (
    "sentence1 sentence2, sentence_1 sentence_2, sentence_a sentence_b, sent1 sent2, text1 text2, text_1 text_2, "
    "text_a text_b, premise hypothesis, question1 question2, question sentence, question passage, question answer, "
    "query passage, query document, query title, query1 query2, claim evidence, s1 s2, a b, text pair, text text_pair, "
    "sentence pair, question context, question paragraph, query context, query paragraph, claim context"
)
# Names of a second text. Beside a text that makes no usual pair with it, such a column may be half of what is to be
# learned from, or a note.
_SECOND = (
    "pair text_pair sentence_pair sentence2 sentence_2 sentence_b sent2 text2 text_2 text_b s2 premise hypothesis "
    "question question2 query query2 claim evidence context passage paragraph response reply"
)
_FROM_TO = (
    "source target, src tgt, src trg, source reference, input output, input target, text summary, text headline, "
    "text title, text target, text simplified, article highlights, article summary, article abstract, article title, "
    "article headline, document summary, document title, dialogue summary, conversation summary, email subject, "
    "abstract title, body title, body subject, content summary, content title, source summary, original simplified"
)
# Usual names by rank: a name in an earlier string is preferred, and two names in one string are ambiguous.
_TEXT = (
    "sentence text review comment content question query tweet utterance document post message body phrase article "
    "verse passage email abstract sentence1 text_a",
    "title headline description summary",
)
_LABEL = (
    "label",
    "labels class category gold_label sentiment target intent polarity emotion",
    "topic genre stance score stars rating answer",
)
_NUMBER = ("score similarity similarity_score relatedness_score", "rating stars value", "label target number labels")
_WORDS = ("words tokens", "word token characters chars text sentence")
_TAGS = ("tags ner_tags pos_tags chunk_tags bio_tags iob_tags labels", "label tag ner pos upos")
_QUESTION = ("question", "query")
_CONTEXT = ("context", "passage paragraph document article text")
_ANSWERS = ("answers", "answer")
_LOOKED_AT = 200  # values of a column, enough to tell numbers from texts
_NOT_TEXT = "id ids idx index guid uid uuid qid url link split lang language date time timestamp"


def choose_columns(
    task: TaskName, records: Sequence[Record], columns: Columns, where: str, *, with_targets: bool
) -> Columns:
    """The columns that the user named, with the others guessed.

    Args:
        where: the sources, for messages.
        with_targets: False leaves label and references out ("").
    Raises: MissingColumnError: a named column does not exist. DataError: one cannot be guessed. Both list the columns.
    """
    if not with_targets:
        columns = replace(columns, label="", references="")
    chooser = _Chooser(records, where)
    chooser.require(columns, may_have_labels=task == "classification")
    if task in ("summarization", "translation"):
        return _source_and_target(chooser, columns, with_targets)
    if task == "question-answering":
        context = columns.pair or chooser.find("pair", "context", _CONTEXT, {columns.text, columns.label})
        text = columns.text or chooser.find("text", "question", _QUESTION, {context, columns.label})
        return Columns(text, context, chooser.label(columns, "answers", _ANSWERS, {text, context}, with_targets))
    if task == "tagging":
        text = columns.text or chooser.find("text", "words of each sentence", _WORDS, {columns.label})
        return Columns(text, "", chooser.label(columns, "tags", _TAGS, {text}, with_targets))
    # The label comes first: "answer" may be a label, but next to a column "label" it is the second text.
    tiers, what = (_NUMBER, "number") if task == "regression" else (_LABEL, "label")
    label = chooser.label(columns, what, tiers, {columns.text, columns.pair}, with_targets)
    # Without targets the label's column is not needed, but it must not be taken for a text.
    likely = label or next((name for tier in tiers for name in chooser.usual(tier)), "")
    text, pair = _text_and_pair(chooser, replace(columns, label=likely), with_targets)
    if with_targets and not label:
        label = chooser.indicators({text, pair})
    return Columns(text, pair, label)


class _Chooser:
    """The columns of the records, and ways to find one by its usual names."""

    def __init__(self, records: Sequence[Record], where: str) -> None:
        self.where = where
        self.records = records
        self.names = list(dict.fromkeys(name for record in records for name in record.values))
        self.lists = {name for record in records for name, value in record.values.items() if isinstance(value, list)}
        not_text = self.usual(_NOT_TEXT)
        self.texts = [name for name in self.names if name not in not_text and _is_text(name, records)]

    def require(self, columns: Columns, *, may_have_labels: bool) -> None:
        """Raises DataError unless every column that is named exists; for labels, there may be several."""
        for role in get_args(Role):
            asked = getattr(columns, role)
            is_several = role == "label" and may_have_labels
            for name in label_columns(asked, self.names) if is_several else (asked,):
                if not name or name in self.names:
                    continue
                nearest = difflib.get_close_matches(name, self.names, n=1)
                hint = f'did you mean "{nearest[0]}"? ' if nearest else ""
                raise MissingColumnError(self.where, name, role, f"{hint}{self.listed()}")

    def usual(self, names: str) -> list[str]:
        """The columns that have one of these names."""
        return _named(self.names, names)

    def left(self, names: str, taken: set[str]) -> list[str]:
        """The further columns of texts that have one of these names."""
        return [name for name in self.usual(names) if name in self.texts and name not in taken]

    # Guessing stops at the first doubt: a wrong column would train without any error, on the wrong thing.
    def find(self, role: Role, what: str, tiers: Sequence[str], taken: set[str], *, is_needed: bool = True) -> str:
        """The one column with a usual name. Raises: DataError: two have the same rank, or none that is needed."""
        for tier in tiers:
            found = [name for name in self.usual(tier) if name not in taken]
            if len(found) > 1:
                raise self.ambiguous(what, found, [role])
            if found:
                return found[0]
        if is_needed:
            raise self.cannot_guess(what, [role])
        return ""

    def label(self, columns: Columns, what: str, tiers: Sequence[str], taken: set[str], with_targets: bool) -> str:
        """The column of the label; "" without targets, and where classes may be columns of 0 and 1."""
        if not with_targets or columns.label:
            return columns.label
        return self.find("label", what, tiers, taken, is_needed=tiers is not _LABEL)

    def indicators(self, taken: set[str]) -> str:
        """The columns of 0 and 1, at least two, with commas between them. Raises: DataError: there are none."""
        # pandas writes its index as a column without a name, and reads it back as "Unnamed: 0".
        unnamed = {name for name in self.names if not name or name.startswith("Unnamed:")}
        not_labels = taken | unnamed | set(self.usual(_NOT_TEXT))
        found, is_doubtful = [], False
        for name in self.names:
            values = [record.values.get(name) for record in self.records]
            if name not in not_labels and is_indicator(values):
                found.append(name)
            elif name not in not_labels and (
                name not in self.texts or is_indicator(value for value in values if value not in (None, ""))
            ):
                is_doubtful = True  # a column of other numbers, or one with gaps, may be a label as well
        if len(found) < 2 or is_doubtful or any("," in name for name in found):
            raise self.cannot_guess("label", ["label"], ", to several names with commas if each label has a column")
        say(f"{self.where}: the labels are the columns of 0 and 1: {', '.join(found)}")
        return ", ".join(found)

    def pairs(self, table: str, columns: Columns, second: Role) -> list[tuple[str, str]]:
        """The pairs of usual names whose columns both exist and agree with those that the user named.

        A second text that nobody named must hold text: a column `pair` may hold numbers, or nothing at all.
        """
        wanted_second = columns.pair if second == "pair" else columns.label
        usable = [name for name in self.names if second == "label" or name in (columns.pair, *self.texts)]
        by_plain = {_plain(name): name for name in usable}
        other = columns.label if second == "pair" else columns.pair
        found = []
        for names in table.split(", "):
            first_name, second_name = (by_plain.get(name, "") for name in names.split())
            is_asked = columns.text in ("", first_name) and wanted_second in ("", second_name)
            if first_name and second_name and is_asked and other not in (first_name, second_name):
                found.append((first_name, second_name))
        return found

    def listed(self) -> str:
        names = ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in self.names)
        return f"the columns are {names}"

    def cannot_guess(self, what: str, roles: Sequence[Role], hint: str = "") -> DataError:
        asked = _flags(roles)
        is_delimited = ".tsv" in self.where or ".csv" in self.where
        header = " (the first line of a .tsv or .csv file must name them)" if is_delimited else ""
        return DataError(
            f"{self.where}: cannot guess which column holds the {what}; {self.listed()}{header}; set {asked}{hint}"
        )

    def ambiguous(self, what: str, found: Iterable[str], roles: Sequence[Role]) -> DataError:
        asked = _flags(roles)
        return DataError(f"{self.where}: {' or '.join(found)} could be the {what}; {self.listed()}; set {asked}")

    def doubtful(self, text: str, second: str) -> DataError:
        both = f"{flag('pair')} {shlex.quote(second)} to read both, or " if flag("pair") else ""
        ways = f"{both}{flag('text')} {shlex.quote(text)} to read that alone"
        return DataError(f"{self.where}: {second} could be a second text beside {text}; {self.listed()}; set {ways}")


def _text_and_pair(chooser: _Chooser, columns: Columns, with_targets: bool) -> tuple[str, str]:
    """The columns of the one or two texts of classification and regression."""
    pairs = [] if columns.text else chooser.pairs(_PAIRS, columns, "pair")
    if len(pairs) > 1:
        raise chooser.ambiguous("two texts", map(" with ".join, pairs), ["text", "pair"])
    if pairs:
        further = chooser.left(_SECOND, {*pairs[0], columns.label}) if with_targets and not columns.pair else []
        say_unread(chooser.where, '" and "'.join(pairs[0]), further)
        return pairs[0]
    way_to_two = "" if columns.pair or not flag("pair") else f", and {flag('pair')} to read a second text"
    text = columns.text or _one_text(chooser, {columns.pair, columns.label}, way_to_two)
    if not columns.pair:
        second = chooser.left(_SECOND, {text, columns.label})
        if second and with_targets and not columns.text:
            raise chooser.doubtful(text, second[0])
        further = [] if columns.text or not with_targets else chooser.left(" ".join(_TEXT), {text, columns.label})
        say_unread(chooser.where, text, second + further)
    return text, columns.pair


def rival_labels(task: TaskName, records: Iterable[Record], chosen: Columns) -> list[str]:
    """The columns that could be the label too, by their names, besides the one that was chosen by its rank."""
    tiers = {"regression": _NUMBER, "tagging": _TAGS, "question-answering": _ANSWERS, "classification": _LABEL}
    names = dict.fromkeys(name for record in records for name in record.values)
    if chosen.label not in names:  # each label has a column
        return []
    left = [name for name in names if name not in (chosen.text, chosen.pair, chosen.label)]
    return _named(left, " ".join(tiers.get(task, ())))


def second_texts(names: Iterable[str]) -> list[str]:
    """Those of the names that a second text usually has."""
    return _named(names, _SECOND)


def say_unread(where: str, text: str, unread: Sequence[str]) -> None:
    """Says which columns are not read beside the one text, if there are any."""
    if unread:
        say(f'{where}: the text is read from "{text}" alone, not from {" or ".join(dict.fromkeys(unread))}')


def _one_text(chooser: _Chooser, taken: set[str], way_to_two: str) -> str:
    text = chooser.find("text", "text", _TEXT, taken, is_needed=False)
    if text:
        return text
    left = [name for name in chooser.texts if name not in {*taken, *chooser.usual(" ".join(_LABEL))}]
    if len(left) != 1:
        raise chooser.cannot_guess("text", ["text"], way_to_two if len(left) > 1 else "")
    return left[0]


def _source_and_target(chooser: _Chooser, columns: Columns, with_targets: bool) -> Columns:
    references = columns.references
    if not references and with_targets:
        found = [name for name in chooser.names if _plain(name).startswith("reference") and name in chooser.lists]
        if len(found) > 1:
            raise chooser.ambiguous("references", found, ["references"])
        references = found[0] if found else ""
    if columns.text and (columns.label or not with_targets):
        return replace(columns, pair="", references=references)
    pairs = chooser.pairs(_FROM_TO, columns, "label")
    if len(pairs) > 1:
        raise chooser.ambiguous("source and target", map(" to ".join, pairs), ["text", "label"])
    source, target = pairs[0] if pairs else _two_texts(chooser, columns, with_targets)
    return Columns(source, "", target if with_targets else "", references)


def _two_texts(chooser: _Chooser, columns: Columns, with_targets: bool) -> tuple[str, str]:
    """Source and target where no usual pair of names exists: the only two columns of text, in their order."""
    left = [name for name in chooser.texts if name not in (columns.text, columns.label)]
    if columns.text and len(left) == 1:
        return columns.text, left[0]
    if columns.label and len(left) == 1:
        return left[0], columns.label
    if not (columns.text or columns.label) and (len(left) == 2 or (len(left) == 1 and not with_targets)):
        return left[0], left[-1]
    if not with_targets:
        return chooser.find("text", "source", ("source src input", *_TEXT), set()), ""
    missing: list[Role] = [role for role in ("text", "label") if not getattr(columns, role)]
    raise chooser.cannot_guess("source and target" if len(missing) == 2 else "other text", missing)


def _named(names: Iterable[str], usual: str) -> list[str]:
    """Those of the names that are in a table of usual ones."""
    return [name for name in names if _plain(name) in usual.split()]


def _plain(name: str) -> str:
    """The name in the spelling of the tables above."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _is_text(name: str, records: Sequence[Record]) -> bool:
    texts = (value for record in records if isinstance(value := record.values.get(name), str) and value.strip())
    return not all(map(_is_number, islice(texts, _LOOKED_AT)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

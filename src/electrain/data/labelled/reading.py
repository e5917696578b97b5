"""Examples of a task from labelled files: finds the columns, checks every row, names the line of every fault."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from electrain.data.labelled.answers import answers_in_characters, answers_of
from electrain.data.labelled.checks import require_distinct_identifiers, word_place
from electrain.data.labelled.columns import Columns, Role, choose_columns, flag, rival_labels
from electrain.data.labelled.conll import Sentence
from electrain.data.labelled.conll_columns import words_and_tags
from electrain.data.labelled.examples import PairedExample, QuestionExample, TaggedExample, TaskName, TextExample
from electrain.data.labelled.label_spelling import label_text
from electrain.data.labelled.labels import LabelForm, label_form, labels_in
from electrain.data.labelled.record import Record
from electrain.data.labelled.records import DELIMITED, FORMATS, RecordKind, read_records
from electrain.data.text.cleaning import clean_text, without_surrogates
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.delimited import goes_by_its_kind
from electrain.data.text.options import option
from electrain.data.text.source_files import source_files
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted, say

Clean = Callable[[str], str]
_PART_OF_WORD = "-100"  # the target that PyTorch's loss leaves out
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
Example = TextExample | TaggedExample | QuestionExample | PairedExample


@dataclass(frozen=True)
class ReadExamples:
    """The examples that were read, and how."""

    examples: list[Any]  # examples of the task's type, in the order of the sources; at least one
    columns: Columns  # the columns that were used; pass them on to read further files in the same way
    has_label_columns: bool = False  # each label has a column of 0 and 1
    where: str = ""  # the sources
    rivals: tuple[str, ...] = ()  # columns that could hold the label too, where its column was guessed

    def say_rivals(self) -> None:
        """Says where the label's column was chosen among several."""
        if self.rivals:
            read = f'the label is read from "{self.columns.label}", not from {" or ".join(self.rivals)}'
            say(f"{self.where}: {read}; {flag('label')} names another")


class _Counted:
    """Takes the error of a broken record: raises it, or counts it."""

    def __init__(self, skip: bool, way_out: str) -> None:
        self.skip = skip
        self.way_out = way_out
        self.count = 0
        self.first = ""

    def __call__(self, error: DataError) -> None:
        if not self.skip:
            raise DataError(f"{error}{self.way_out}")
        self.first = self.first or str(error)
        self.count += 1

    def say(self) -> None:
        if self.count:
            say(f"left out as broken: {self.count:,} (the first: {self.first})")


def read_examples(
    task: TaskName,
    sources: Sequence[str],
    columns: Columns,
    *,
    with_targets: bool = True,
    skip_broken: bool = False,
    clean: Clean = clean_text,
    of_other_files: bool = False,
) -> ReadExamples:
    """The examples in `sources`, cleaned and checked, and the columns that they were read from.

    Words of sentences and contexts of questions are not cleaned, because tags and answers refer to their places. With
    targets, a question without answers is one that its context does not answer.

    Args:
        sources: files, folders, globs or `hub:NAME[/CONFIG][:SPLIT]`, as in `read_records`.
        columns: the columns that the user named; the others are guessed from their names.
        with_targets: False for prediction: labels need not exist and are not looked at, and texts may be empty
            (`is_blank`), so that each row has its example.
        skip_broken: leave out rows that cannot be read or used, and count them on stderr, instead of stopping.
        clean: cleans texts as those of the model's tokenizer were; see `cleaner_for`.
        of_other_files: the columns were found in other files, as those of training are for evaluation.
    Raises: DataError: a source cannot be read, a column cannot be found, a row is broken, or there is no row at all.
    """
    where = ", ".join(sources)
    can_skip = with_targets and option("skip-broken")
    broken = _Counted(skip_broken, " (skip_broken leaves such rows out)" if can_skip else "")
    kinds: dict[str, RecordKind] = {"tagging": "tagging", "question-answering": "question-answering"}
    rows = read_records(
        sources,
        kind=kinds.get(task, "table"),
        broken=broken,
        separator=columns.separator,
        quoting=columns.quoting,
        keeps_blank=not with_targets,
    )
    records = list(map(_flat, rows))
    if not records:
        broken.say()
        raise DataError(f"{where}: no example in it; give files that hold some")
    if with_targets:
        records = _accepted(records, broken)
    further = None
    if task == "tagging":
        records, columns, further = words_and_tags(
            records, columns, broken, with_targets=with_targets, of_other_files=of_other_files
        )
        if not records:
            broken.say()
            raise DataError(f"{where}: no example in it can be used; the messages above say why")
    if task == "tagging" and with_targets:
        _refuse_spans(records)
    # All records are read before the columns are chosen, because the first ones may lack a column.
    chosen = choose_columns(task, records, columns, where, with_targets=with_targets)
    rivals = rival_labels(task, records, chosen) if with_targets and not columns.label else []
    columns = replace(columns, text=chosen.text, pair=chosen.pair, label=chosen.label, references=chosen.references)
    form = label_form(records, columns, where) if task == "classification" and with_targets else None
    make = _maker(task, broken, form, clean)
    if task == "question-answering" and with_targets:
        records = answers_in_characters(records, columns)
    examples: list[Any] = []
    for record in records:
        try:
            examples.append(make(record, columns, with_targets))
        except DataError as error:
            broken(error)
    if task == "question-answering":
        examples = require_distinct_identifiers(examples, broken)
    broken.say()
    for note in form.notes if form is not None else ():
        say(note)
    if not examples:
        raise DataError(f"{where}: no example in it can be used; the messages above say why")
    has_label_columns = form is not None and len(form.columns) > 1
    return ReadExamples(examples, further or columns, has_label_columns, where, tuple(rivals))


def fitting(trained: Columns, sources: Sequence[str]) -> Columns:
    """A model's columns, to read files of which some may have another separator than its training data.

    Returns: them without separator and quoting where each .csv or .tsv file among the sources goes by its own kind.
    """
    if not trained.separator:
        return trained
    paths = [path for one in sources if not one.startswith("hub:") for path in source_files(one, FORMATS["table"])]
    delimited = [path for path in paths if uncompressed_suffix(path) in DELIMITED]
    is_own = bool(delimited) and all(goes_by_its_kind(path, trained.separator) for path in delimited)
    return replace(trained, separator="", quoting="") if is_own else trained


def _accepted(records: Sequence[Record], broken: _Counted) -> list[Record]:
    """The records without those that Prodigy keeps though the annotator rejected or ignored them."""
    kept = []
    for record in records:
        answer = record.values.get("answer") if "_task_hash" in record.values else None
        if answer in ("reject", "ignore"):
            broken(
                DataError(f'{record.source}: "answer" is "{answer}", so that the label is not true; remove this row')
            )
        else:
            kept.append(record)
    return kept


def _refuse_spans(records: Sequence[Record]) -> None:
    """Raises DataError if rows have spans of characters, and none has a list of words."""
    lists = [(record.source, name, value) for record in records for name, value in record.values.items()]
    if any(isinstance(item, str) for *_, value in lists if isinstance(value, list) for item in value):
        return
    for source, name, value in lists:
        if isinstance(value, list) and any(map(_is_span, value)):
            hint = 'write each sentence as {"words": ["Ada", "is"], "tags": ["B-PER", "O"]}'
            raise DataError(f'{source}: "{name}" holds spans of characters, but each word needs a tag; {hint}')


def _is_span(item: object) -> bool:
    """True for [0, 5, "PER"] (doccano, spaCy), and objects with a start and an end (Prodigy, Label Studio)."""
    if isinstance(item, dict):
        return {"start", "end"} <= set(item) or {"start_offset", "end_offset"} <= set(item) or "result" in item
    return isinstance(item, list) and list(map(type, item)) == [int, int, str]


def _flat(record: Record) -> Record:
    """The record; the languages in a field `translation`, as on the Hugging Face hub, become its columns."""
    languages = record.values.get("translation")
    return Record(languages, record.source) if isinstance(languages, dict) else record


def _maker(
    task: TaskName, broken: _Counted, form: LabelForm | None, clean: Clean
) -> Callable[[Record, Columns, bool], Example]:
    makers: dict[TaskName, Callable[[Record, Columns, bool], Example]] = {
        "classification": partial(_labelled_example, form=form, clean=clean),
        "regression": partial(_number_example, clean=clean),
        "tagging": _tagged_example,
        "question-answering": partial(_question_example, skip_broken=broken.skip, clean=clean),
        "summarization": partial(_paired_example, clean=clean),
        "translation": partial(_paired_example, clean=clean),
    }
    return makers[task]


def _labelled_example(
    record: Record, columns: Columns, with_targets: bool, form: LabelForm | None, clean: Clean
) -> TextExample:
    labels = labels_in(record, form) if form is not None else ()
    return TextExample(*_texts(record, columns, with_targets, clean), labels, source=record.source)


def _number_example(record: Record, columns: Columns, with_targets: bool, clean: Clean) -> TextExample:
    value = _number(record, columns.label) if with_targets else None
    return TextExample(*_texts(record, columns, with_targets, clean), value=value, source=record.source)


def _paired_example(record: Record, columns: Columns, with_targets: bool, clean: Clean) -> PairedExample:
    text = _text(record, columns.text, "text", clean, may_be_empty=not with_targets)
    if not with_targets:
        return PairedExample(text, source=record.source)
    references = record.values.get(columns.references) or []
    if isinstance(references, str):
        references = [references]
    if not isinstance(references, list) or not all(isinstance(reference, str) for reference in references):
        raise DataError(f'{record.source}: "{columns.references}" must hold a list of texts; fix this row')
    cleaned = tuple(filter(None, map(clean, references)))
    return PairedExample(text, _text(record, columns.label, "label", clean), cleaned, record.source)


def _tagged_example(record: Record, columns: Columns, with_targets: bool) -> TaggedExample:
    is_blank = not with_targets and record.values.get(columns.text) in (None, [])
    words = () if is_blank else _strings(record, columns.text, "text")
    tags = _strings(record, columns.label, "label") if with_targets else ()
    lines = record.lines if isinstance(record, Sentence) and record.has_gaps else ()
    example = TaggedExample(words, tags, record.source, lines)
    if with_targets and len(words) != len(tags):
        numbers = f"{counted(len(words), 'word')}, but {counted(len(tags), 'tag')}"
        raise DataError(f"{record.source}: {numbers}; fix this row")
    for what, values in (("word", words), ("tag", tags)):
        if "" in values:
            raise DataError(f"{word_place(example, values.index(''))}: an empty {what}; fix or remove it")
    if _PART_OF_WORD in tags:
        place = word_place(example, tags.index(_PART_OF_WORD))
        what = f"the tag {_PART_OF_WORD} marks parts of words in data that were prepared for a model"
        raise DataError(f"{place}: {what}; give whole words with a tag for each")
    return example


def _texts(record: Record, columns: Columns, with_targets: bool, clean: Clean) -> tuple[str, str | None]:
    text = _text(record, columns.text, "text", clean, may_be_empty=not with_targets)
    return text, _text(record, columns.pair, "pair", clean, may_be_empty=not with_targets) if columns.pair else None


def _text(record: Record, column: str, role: Role, clean: Clean, *, may_be_empty: bool = False) -> str:
    value = record.values.get(column)
    if value is not None and not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f'{record.source}: "{column}" holds {kind}, not text; fix this row, or set {flag(role)}')
    text = clean(value or "")
    if not text and not may_be_empty:
        raise DataError(f'{record.source}: no text in "{column}"; fix or remove this row, or set {flag(role)}')
    return text


def _number(record: Record, column: str) -> float:
    value = record.values.get(column)
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = "nothing" if value in (None, "") else f'"{value}"'
        if _DECIMAL_COMMA.fullmatch(str(value)):
            shown += " with a comma for a point"
        raise DataError(
            f'{record.source}: "{column}" holds {shown}, not a number; fix this row, or set {flag("label")}'
        )
    return number


def _strings(record: Record, column: str, role: Role) -> tuple[str, ...]:
    """The elements of a list as stripped texts; numbers become text."""
    values = record.values.get(column)
    if not isinstance(values, list) or not values:
        hint = f"each sentence needs a list in it, or one tag for each word; fix this row, or set {flag(role)}"
        raise DataError(f'{record.source}: no list in "{column}"; {hint}')
    return tuple(value.strip() if isinstance(value, str) else label_text(value) for value in values)


def _question_example(
    record: Record, columns: Columns, with_targets: bool, skip_broken: bool, clean: Clean
) -> QuestionExample:
    """The question of a record. Its context is not cleaned, because answers count its characters.

    Args: skip_broken: see `answers_of`.
    Raises: DataError: question or context is missing; otherwise as `answers_of`.
    """
    question, context = record.values.get(columns.text), record.values.get(columns.pair)
    for column, value in ((columns.text, question), (columns.pair, context)):
        is_blank = value is None or (isinstance(value, str) and not clean(value))
        if not isinstance(value, str | None) or (is_blank and with_targets):
            raise DataError(f'{record.source}: no text in "{column}"; fix or remove this question')
    context = without_surrogates(str(context or ""))
    identifier = record.values.get("id")
    return QuestionExample(
        identifier=record.source if identifier in (None, "") else str(identifier),
        question=clean(str(question or "")),
        context=context,
        answers=answers_of(record, columns.label, context, skip_broken=skip_broken) if with_targets else (),
        source=record.source,
    )

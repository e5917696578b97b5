"""Labelled examples, one type for each kind of task."""

from dataclasses import dataclass, field
from typing import Literal

TaskName = Literal["classification", "regression", "tagging", "question-answering", "summarization", "translation"]
PAIRED_TASKS: tuple[TaskName, ...] = ("classification", "regression", "question-answering")  # may read two texts
# Those that read .csv and .tsv files.
TABLE_TASKS: tuple[TaskName, ...] = ("classification", "regression", "summarization", "translation")
WRITING_TASKS: tuple[TaskName, ...] = ("summarization", "translation")


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with a label or a number."""

    first: str
    second: str | None = None  # None for a single text
    labels: tuple[str, ...] = ()  # any number of labels where texts can have several; empty when unknown (prediction)
    value: float | None = None  # the number of a regression example; None when unknown
    source: str = ""  # file and line, for messages


@dataclass(frozen=True)
class TaggedExample:
    """A sentence as words, with a tag for each word; without tags when they are unknown (prediction)."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    source: str = ""
    # The line of each word, where they do not follow each other. Not part of what the sentence says.
    lines: tuple[int, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class QuestionExample:
    """A question about a text."""

    identifier: str  # that no other question in the data has
    question: str
    context: str
    # Text and index of the first character in the context. Empty where the context does not answer the question, and in
    # prediction, where the answers are unknown.
    answers: tuple[tuple[str, int], ...] = ()
    source: str = ""


@dataclass(frozen=True)
class PairedExample:
    """A text and its summary or translation."""

    text: str
    target: str = ""  # the summary or translation to learn; empty when unknown (prediction)
    references: tuple[str, ...] = ()  # further good outputs, for scoring
    source: str = ""


AnyExample = TextExample | TaggedExample | QuestionExample | PairedExample


def texts_of(example: AnyExample) -> tuple[str, ...]:
    """The texts that a model reads of an example; of a tagged one its words."""
    if isinstance(example, TextExample):
        return (example.first,) if example.second is None else (example.first, example.second)
    if isinstance(example, TaggedExample):
        return example.words
    return (example.question, example.context) if isinstance(example, QuestionExample) else (example.text,)


def is_blank(example: AnyExample) -> bool:
    """True if the example lacks a text that a model would read, as an empty cell does in prediction."""
    if isinstance(example, TextExample):
        return not example.first or example.second == ""
    if isinstance(example, TaggedExample):
        return not example.words
    if isinstance(example, QuestionExample):
        return not (example.question and example.context.strip())
    return not example.text

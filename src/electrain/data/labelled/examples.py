"""Labelled examples, one type for each kind of task."""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "regression", "tagging", "question-answering", "summarization", "translation"]


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with a label or a number.

    Attributes:
        second: the second text of a pair; None for a single text.
        labels: the label; any number of labels where texts can have several; empty when unknown (prediction).
        value: the number of a regression example; None when unknown.
        source: file and line, for messages.
    """

    first: str
    second: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    source: str = ""


@dataclass(frozen=True)
class TaggedExample:
    """A sentence as words, with a tag for each word; without tags when they are unknown (prediction)."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class QuestionExample:
    """A question about a text.

    Attributes:
        identifier: an identifier that no other question in the data has.
        answers: for each accepted answer, its text and the index of its first character in the context; empty when
            unknown.
    """

    identifier: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    source: str = ""


@dataclass(frozen=True)
class PairedExample:
    """A text and its summary or translation.

    Attributes:
        target: the summary or translation to learn; empty when unknown (prediction).
        references: further good outputs, for scoring.
    """

    text: str
    target: str = ""
    references: tuple[str, ...] = ()
    source: str = ""

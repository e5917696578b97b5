"""Labelled examples, one type for each kind of task."""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "regression", "tagging", "question-answering", "summarization", "translation"]


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with a label or a number.

    Attributes:
        second: None for a single text.
        labels: its label; several, or none, where one text can have any number; empty where unknown (prediction).
        value: the number of a regression example; None where unknown.
        source: file and line, for messages.
    """

    first: str
    second: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    source: str = ""


@dataclass(frozen=True)
class TaggedExample:
    """A sentence as words, with a tag for each; no tags where unknown (prediction)."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class QuestionExample:
    """A question about a text.

    Attributes:
        identifier: unique in its file.
        answers: for each accepted answer its text and the character of the context where it begins; empty: unknown.
    """

    identifier: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    source: str = ""


@dataclass(frozen=True)
class PairedExample:
    """A text and what should be written of it (summary, translation).

    Attributes:
        target: what is trained on; empty where unknown (prediction).
        references: further good outputs, for scoring.
    """

    text: str
    target: str = ""
    references: tuple[str, ...] = ()
    source: str = ""

"""What a model answers, one type for each task of `electrain predict`. Nothing here needs torch.

`answer.to_dict()` is the JSON object that `electrain predict` prints, and `print(answer)` shows it to a person. A blank
text gets an answer without content: `is_blank` is true, and `to_dict()` gives {"text": ""}.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

_SHOWN_FROM = 0.5  # a word that is replaced with this probability or more is marked in a printed text


@dataclass(frozen=True)
class Part:
    """A part of an answer, such as a token."""

    def to_dict(self) -> dict[str, object]:
        """The part as JSON holds it."""
        return {one.name: _as_json(getattr(self, one.name)) for one in fields(self)}


@dataclass(frozen=True)
class Answer:
    """What all answers share."""

    # The fields that are left out of `to_dict()` where they are None.
    optional: ClassVar[tuple[str, ...]] = ()

    @property
    def is_blank(self) -> bool:
        """True if there was no text to answer."""
        return not getattr(self, "text", "")

    def to_dict(self) -> dict[str, object]:
        """The JSON object that `electrain predict` prints."""
        if self.is_blank:
            return {"text": ""}
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _as_json(value) for name, value in named.items() if value is not None or not self._omits(name)}

    def _omits(self, name: str) -> bool:
        return name in self.optional


@dataclass(frozen=True)
class JudgedToken(Part):
    """A token and its place in the text as given, in characters, end exclusive."""

    token: str
    start: int
    end: int
    probability_replaced: float


@dataclass(frozen=True)
class DetectedText(Answer):
    """A text with the probability that each of its tokens was replaced."""

    text: str
    tokens: tuple[JudgedToken, ...] = ()

    def __str__(self) -> str:
        """The text; each word that was probably replaced is followed by the probability of its likeliest piece."""
        shown, place = "", 0
        for word in self._words():
            chance = max(token.probability_replaced for token in word)
            if chance >= _SHOWN_FROM:
                shown += f"{self.text[place : word[-1].end]}[{chance:.2f}]"
                place = word[-1].end
        return shown + self.text[place:]

    def _words(self) -> list[list[JudgedToken]]:
        """The tokens, with the pieces of a WordPiece vocabulary joined."""
        words: list[list[JudgedToken]] = []
        for token in self.tokens:
            if words and token.token.startswith("##"):
                words[-1].append(token)
            else:
                words.append([token])
        return words


@dataclass(frozen=True)
class Candidate(Part):
    """A word that may fill a gap."""

    token: str
    probability: float


@dataclass(frozen=True)
class FilledMask(Part):
    """The place of a [MASK] in the text as given, in characters, end exclusive, and its likeliest words."""

    start: int
    end: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class FilledText(Answer):
    """A text with its gaps, and the folder or hub id of the network that filled them."""

    text: str
    model: str = ""
    masks: tuple[FilledMask, ...] = ()

    def __str__(self) -> str:
        """The text, and one line for each gap."""
        lines = (
            ", ".join(f"{one.token} {one.probability:.3f}" for one in mask.candidates) or "no candidate"
            for mask in self.masks
        )
        return "\n".join([self.text, *(f"  [MASK] {number}: {line}" for number, line in enumerate(lines, start=1))])


@dataclass(frozen=True)
class Embedding(Answer):
    """A text and its vector, as long as the encoder's hidden states are wide."""

    text: str
    embedding: tuple[float, ...] = ()

    def __repr__(self) -> str:
        """Without most of the numbers."""
        first = ", ".join(f"{one:.4f}" for one in self.embedding[:3])
        return f"Embedding(text={self.text!r}, embedding=({first}, ...{len(self.embedding)} numbers))"

    __str__ = __repr__


@dataclass(frozen=True)
class WrittenText(Answer):
    """A text, its continuation, and the tokens of the continuation."""

    text: str
    written: str
    tokens: tuple[str, ...]

    @property
    def is_blank(self) -> bool:
        """False: also an empty text can be continued."""
        return False

    def __str__(self) -> str:
        """The text and its continuation."""
        return f"{self.text} {self.written}".strip()


@dataclass(frozen=True)
class ClassifiedText(Answer):
    """A text, or a pair, with the probability of each label, and its label, or labels where a text may have several."""

    optional = ("pair", "label", "probability", "labels")
    text: str
    pair: str | None = None
    label: str | None = None
    probability: float | None = None  # of the label
    labels: tuple[str, ...] | None = None  # None where a text has one label
    probabilities: Mapping[str, float] | None = None

    @property
    def is_blank(self) -> bool:
        """True if a text that the model reads was blank."""
        return self.probabilities is None

    def __str__(self) -> str:
        """The label, with its probability, and the text."""
        chances = self.probabilities or {}
        names = [self.label] if self.label is not None else self.labels or ()
        shown = ", ".join(f"{name} {chances[name]:.3f}" for name in names if name is not None)
        return f"{shown or 'no label'}: {_texts(self.text, self.pair)}"


@dataclass(frozen=True)
class RegressedText(Answer):
    """A text, or a pair, with its number."""

    optional = ("pair",)
    text: str
    pair: str | None = None
    value: float | None = None

    @property
    def is_blank(self) -> bool:
        """True if a text that the model reads was blank."""
        return self.value is None

    def __str__(self) -> str:
        """The number and the text."""
        return f"{'no number' if self.value is None else f'{self.value:.3f}'}: {_texts(self.text, self.pair)}"


@dataclass(frozen=True)
class Entity(Part):
    """A name in a sentence: its type, its text, and the numbers of its first and last word, from 0, both inclusive."""

    type: str
    text: str
    first_word: int
    last_word: int


@dataclass(frozen=True)
class TaggedText(Answer):
    """The words of a sentence with their tags, and the entities that the tags mark; None where they mark none.

    Each word has the probability of its tag; None where the model does not say it.
    """

    optional = ("probabilities", "entities")
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    probabilities: tuple[float, ...] | None = None
    entities: tuple[Entity, ...] | None = None

    @property
    def is_blank(self) -> bool:
        """True if there was no word."""
        return not self.words

    def __str__(self) -> str:
        """Each word and its tag; where tags mark entities, those words alone have theirs."""
        pairs = zip(self.words, self.tags, strict=True)
        return " ".join(word if self.entities is not None and tag == "O" else f"{word}/{tag}" for word, tag in pairs)


@dataclass(frozen=True)
class AnswerSpan(Part):
    """A part of a context, with its probability, and its place in characters, end exclusive."""

    answer: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class FoundAnswer(Answer):
    """The part of a context that answers a question, its place in characters, end exclusive, and its probability.

    Where the model may leave a question without an answer, `answer`, `start` and `end` are then None, `score` is the
    probability of no answer, and the last three fields say what decided.
    """

    id: str = ""
    answer: str | None = None
    score: float | None = None
    start: int | None = None
    end: int | None = None
    null_score_difference: float | None = None
    null_probability: float | None = None
    best_span: AnswerSpan | None = None

    @property
    def is_blank(self) -> bool:
        """True if the question or the context was blank."""
        return self.score is None

    def _omits(self, name: str) -> bool:
        decides = ("null_score_difference", "null_probability", "best_span")
        return name in decides and self.null_probability is None

    def __str__(self) -> str:
        """The answer and its probability."""
        if self.score is None:
            return "no answer"
        return f"{self.score:.3f}: {self.answer if self.answer is not None else 'no answer'}"


@dataclass(frozen=True)
class WrittenOutput(Answer):
    """A text, and its summary or translation."""

    text: str
    output: str = ""

    def __str__(self) -> str:
        """The summary or translation."""
        return self.output


ANSWER_OF_TASK: dict[str, type[Answer]] = {
    "detect": DetectedText,
    "fill": FilledText,
    "embed": Embedding,
    "generate": WrittenText,
    "classify": ClassifiedText,
    "regress": RegressedText,
    "tag": TaggedText,
    "answer": FoundAnswer,
    "summarize": WrittenOutput,
    "translate": WrittenOutput,
}


def answer_of(task: str, record: Mapping[str, Any]) -> Answer:
    """The answer that a JSON object holds, as a fine-tuned model or `electrain predict` gives it.

    Args: task: a key of `ANSWER_OF_TASK`.
    """
    kind = ANSWER_OF_TASK[task]
    if record == {"text": ""} and task != "generate":
        return kind() if task in ("tag", "answer") else kind(**record)
    return kind(**{name: _of_json(name, value) for name, value in record.items()})


def _of_json(name: str, value: Any) -> Any:
    parts = {"masks": FilledMask, "candidates": Candidate, "entities": Entity}
    if name == "best_span" and value is not None:
        return AnswerSpan(**value)
    if not isinstance(value, list):
        return value
    if name == "tokens" and value and isinstance(value[0], Mapping):
        return tuple(JudgedToken(**one) for one in value)
    if name in parts:
        return tuple(parts[name](**{key: _of_json(key, inner) for key, inner in one.items()}) for one in value)
    return tuple(value)


def _as_json(value: object) -> object:
    if isinstance(value, Part):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    return list(map(_as_json, value)) if isinstance(value, tuple) else value


def _texts(text: str, pair: str | None) -> str:
    return text if pair is None else f"{text} | {pair}"

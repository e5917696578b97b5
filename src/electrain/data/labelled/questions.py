"""Questions about texts; every answer is checked against its place in the context."""

import re

from electrain.data.labelled.columns import Columns, flag
from electrain.data.labelled.examples import QuestionExample
from electrain.data.labelled.records import Record
from electrain.data.text.cleaning import clean_text
from electrain.foundation.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_CHARACTERS = 40


def question_example(record: Record, columns: Columns, with_targets: bool, skip_broken: bool) -> QuestionExample:
    """The question of a record. Its context is not cleaned, because answers count its characters.

    Args:
        skip_broken: accept answers at a wrong place if one answer of the question occurs somewhere in the context;
            scores compare texts, not places.
    Raises: DataError: question or context is missing, the answers have no known form, or are not in the context.
    """
    question, context = record.values.get(columns.text), record.values.get(columns.pair)
    for column, value in ((columns.text, question), (columns.pair, context)):
        if not isinstance(value, str) or not clean_text(value):
            raise DataError(f'{record.source}: no text in "{column}"; fix or remove this question')
    context = _with_valid_characters(str(context))
    identifier = record.values.get("id")
    return QuestionExample(
        identifier=record.source if identifier in (None, "") else str(identifier),
        question=clean_text(str(question)),
        context=context,
        answers=_answers(record, columns.label, context, skip_broken) if with_targets else (),
        source=record.source,
    )


def _answers(record: Record, column: str, context: str, skip_broken: bool) -> tuple[tuple[str, int], ...]:
    answers = _pairs(record.values.get(column))
    if answers is None:
        shape = '[{"text": "...", "answer_start": 0}] or {"text": ["..."], "answer_start": [0]}'
        raise DataError(f'{record.source}: no answers in "{column}", which must hold {shape}; or set {flag("label")}')
    # Answers that are off by a few characters are the most common fault of converted data; training on them would teach
    # the wrong words in silence.
    kept = [(_with_valid_characters(text), start) for text, start in answers]
    error = next(filter(None, (_misplaced(*answer, context, record.source) for answer in kept)), None)
    stands = any(text.strip() and text in context for text, _ in kept)
    if error is not None and not (skip_broken and stands):
        raise error
    return tuple(dict.fromkeys(kept))


def _pairs(value: object) -> list[tuple[str, int]] | None:
    """Texts and places from the form of SQuAD or of the Hugging Face hub; None if it is neither."""
    if isinstance(value, dict) and isinstance(value.get("text"), list) and isinstance(value.get("answer_start"), list):
        if len(value["text"]) != len(value["answer_start"]):
            return None
        pairs = list(zip(value["text"], value["answer_start"], strict=True))
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    else:
        return None
    is_whole = all(isinstance(text, str) and isinstance(start, int) for text, start in pairs)
    return pairs if is_whole else None


def _misplaced(text: str, start: int, context: str, source: str) -> DataError | None:
    """The error for an answer that is not at its place in the context; None if it is."""
    if text.strip() and start >= 0 and context.startswith(text, start):
        return None
    places = [match.start() for match in re.finditer(re.escape(text), context)] if text.strip() else []
    if places:
        hint = f"it begins at {min(places, key=lambda place: abs(place - start))}: count characters, not bytes"
    else:
        hint = "the context does not hold it: copy it character by character"
    stands = _shown(context[start : start + len(text)]) if 0 <= start < len(context) else "nothing"
    message = f"an answer that is not in its context: {_shown(text)} should begin at character {start}"
    return DataError(f"{source}: {message}, where {stands} stands; {hint}")


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= _SHOWN_CHARACTERS else f'"{line[:_SHOWN_CHARACTERS]}..."'


def _with_valid_characters(text: str) -> str:
    """The text with lone surrogates, which JSON can hold and tokenizers refuse, replaced one for one.

    One for one, so that the places of answers stay right.
    """
    return _SURROGATE.sub("\ufffd", text)

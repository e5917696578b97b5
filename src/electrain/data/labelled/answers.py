"""The answers of questions: the forms they come in, and where they stand in their context, counted in characters."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby

from electrain.data.labelled.columns import Columns, flag
from electrain.data.labelled.record import Record
from electrain.data.text.cleaning import without_surrogates
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say

_SHOWN_CHARACTERS = 40
# What a file may count instead of characters, with the encoding and the bytes of one unit: JavaScript and Java count
# UTF-16 units, and C, Go and Rust bytes.
_UNITS = {"UTF-16 units": ("utf-16-le", 2), "UTF-8 bytes": ("utf-8", 1)}
# What "is_impossible" may say: some corpora have texts or numbers there.
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
Answers = list[tuple[str, int]]  # text, and the place of its first character in the context


def answers_in_characters(records: Sequence[Record], columns: Columns) -> list[Record]:
    """The records with answers whose places count characters, whatever unit their file counts.

    The unit is that of a whole file: it counts another one only if all of its answers fit that one, and not all fit
    characters. A line on stderr says so. Answers whose text is nowhere in the context say nothing about the unit.
    """
    result: list[Record] = []
    for file, group in groupby(records, lambda record: _file_of(record.source)):
        own = list(group)
        placed = [one for record in own for one in _placed(record, columns)]
        # Only answers that do not fit are looked for, because nearly all files count characters.
        if not all(_stands(text, start, context) for context, text, start in placed):
            known = [one for one in placed if one[1].strip() and one[1] in one[0]]
            unit = "" if all(_stands(text, start, context) for context, text, start in known) else _unit_of(known)
            if unit:
                changed = sum(in_characters(start, context, unit) != start for context, _, start in known)
                say(
                    f"{file}: the places of its answers count {unit}, not characters; "
                    f"{changed:,} of {len(placed):,} are converted"
                )
                own = [_converted(record, columns, unit) for record in own]
        result += own
    return result


def _file_of(source: str) -> str:
    """The file or data set of a record, by the record's `source`."""
    return re.sub(r": row \d+$|:\d+$", "", source.partition(": question ")[0])


def _placed(record: Record, columns: Columns) -> Iterator[tuple[str, str, int]]:
    """Each answer of a question with its context."""
    context = record.values.get(columns.pair)
    if isinstance(context, str) and not _TRUTH.get(_plain(record.values.get("is_impossible"))):
        for text, start in pairs_of(record.values.get(columns.label)) or []:
            yield without_surrogates(context), without_surrogates(text), start


def _unit_of(placed: Sequence[tuple[str, str, int]]) -> str:
    """The unit other than a character that all of the answers fit; "" if there is none."""
    for unit in _UNITS:
        if placed and all(_stands(text, in_characters(at, context, unit), context) for context, text, at in placed):
            return unit
    return ""


def _converted(record: Record, columns: Columns, unit: str) -> Record:
    context, answers = record.values.get(columns.pair), pairs_of(record.values.get(columns.label))
    if not isinstance(context, str) or answers is None:
        return record  # a fault, which is said when the example is made
    context = without_surrogates(context)
    moved = [{"text": text, "answer_start": in_characters(start, context, unit)} for text, start in answers]
    return replace(record, values={**record.values, columns.label: moved})


def in_characters(place: int, context: str, unit: str) -> int:
    """The character at a place that counts another unit; -1 if none begins there."""
    encoding, unit_bytes = _UNITS[unit]
    encoded = _encoded(context, encoding)
    if not 0 <= place * unit_bytes <= len(encoded):
        return -1
    try:
        return len(encoded[: place * unit_bytes].decode(encoding))
    except UnicodeDecodeError:
        return -1


@lru_cache(maxsize=2)  # the questions of a context stand together
def _encoded(context: str, encoding: str) -> bytes:
    return context.encode(encoding)


def answers_of(record: Record, column: str, context: str, *, skip_broken: bool) -> tuple[tuple[str, int], ...]:
    """The answers of a question, each once; none for one that its context does not answer.

    Args: skip_broken: accept answers at a wrong place if one answer of the question occurs somewhere in the context;
        scores compare texts, not places.
    Raises: DataError: the answers have no known form, are not in the context, or are missing without a word.
    """
    is_impossible = _is_impossible(record)
    if is_impossible:
        return ()  # what may be listed there is plausible, and wrong
    answers = pairs_of(record.values.get(column))
    if answers is None:
        shape = '[{"text": "...", "answer_start": 0}] or {"text": ["..."], "answer_start": [0]}'
        raise DataError(f'{record.source}: no answers in "{column}", which must hold {shape}; or set {flag("label")}')
    if not answers and is_impossible is False:
        raise DataError(f'{record.source}: no answer, though "is_impossible" is false; add one, or set it to true')
    # Answers that are off by a few characters are the most common fault of converted data; training on them would teach
    # the wrong words in silence.
    kept = [(without_surrogates(text), start) for text, start in answers]
    error = next(filter(None, (_misplaced(*answer, context, record.source) for answer in kept)), None)
    stands = any(text.strip() and text in context for text, _ in kept)
    if error is not None and not (skip_broken and stands):
        raise error
    return tuple(dict.fromkeys(kept))


def _plain(value: object) -> str:
    return str(value).strip().lower()


def _is_impossible(record: Record) -> bool | None:
    """Whether the record says that its context does not answer the question; None if it does not say.

    Raises: DataError: it says something else. A text "false" must not be taken for true.
    """
    value = record.values.get("is_impossible")
    said = _TRUTH.get(_plain(value))
    if said is None and value is not None:
        raise DataError(f'{record.source}: "is_impossible" holds "{value}"; it must be true or false')
    return said


def pairs_of(value: object) -> Answers | None:
    """Texts and places from the form of SQuAD or of the Hugging Face hub; None if it is neither.

    An empty text at -1, as some corpora write where there is no answer, is none.
    """
    if isinstance(value, dict) and isinstance(value.get("text"), list) and isinstance(value.get("answer_start"), list):
        if len(value["text"]) != len(value["answer_start"]):
            return None
        pairs = list(zip(value["text"], value["answer_start"], strict=True))
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    else:
        return None
    is_whole = all(isinstance(text, str) and isinstance(start, int) for text, start in pairs)
    return [pair for pair in pairs if pair != ("", -1)] if is_whole else None


def _stands(text: str, start: int, context: str) -> bool:
    """True if the text is not blank and begins at this character of the context."""
    return bool(text.strip()) and start >= 0 and context.startswith(text, start)


def _misplaced(text: str, start: int, context: str, source: str) -> DataError | None:
    """The error for an answer that is not at its place in the context; None if it is."""
    if _stands(text, start, context):
        return None
    places = [match.start() for match in re.finditer(re.escape(text), context)] if text.strip() else []
    if places:
        unit = next((unit for unit in _UNITS if _stands(text, in_characters(start, context, unit), context)), "")
        right = in_characters(start, context, unit) if unit else min(places, key=lambda place: abs(place - start))
        hint = f"it begins at {right}: " + (f"count characters, not {unit}" if unit else "correct its place")
    else:
        hint = "the context does not hold it: copy it character by character"
    stands = _shown_text(context[start : start + len(text)]) if 0 <= start < len(context) else "nothing"
    message = f"an answer that is not in its context: {_shown_text(text)} should begin at character {start}"
    return DataError(f"{source}: {message}, where {stands} stands; {hint}")


def _shown_text(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= _SHOWN_CHARACTERS else f'"{line[:_SHOWN_CHARACTERS]}..."'

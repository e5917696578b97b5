"""Checks of whole sets of examples: labels that never vary, labels unknown to the training data, broken BIO tags."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from electrain.data.labelled.examples import QuestionExample, TaggedExample, TextExample
from electrain.data.labelled.records import COLUMN_FORMATS
from electrain.data.text.compression import uncompressed_suffix
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say

Labelled = Sequence[TextExample] | Sequence[TaggedExample]
OUTSIDE = "O"
_CHUNK_TAG = re.compile(r"[BIESLUM]-.+")  # BIO, BIOES, BILOU and BMES
_BEGINS = ("B", "S", "U")  # S and U are chunks of one word
_GOES_ON_AFTER = ("B", "I", "M")


def require_several_labels(examples: Labelled) -> None:
    """Raises DataError if all examples have the same label, or all words the same tag: nothing could be learned."""
    labels = {label for example in examples for label in labels_of(example)}
    if len(labels) <= 1:
        found = f"only one label ('{labels.pop()}')" if labels else "no label at all"
        raise DataError(
            f"{found} in {len(examples):,} training examples, the first of them "
            f"{examples[0].source}; give data with at least two"
        )


def require_known_labels(examples: Labelled, labels: Sequence[str], what: str = "validation") -> None:
    """Raises DataError at the first label or tag that is not among `labels`; `what` is the examples' role, as said."""
    known = set(labels)
    for example in examples:
        for index, label in enumerate(labels_of(example)):
            if label not in known:
                place = word_place(example, index) if isinstance(example, TaggedExample) else example.source
                nearest = difflib.get_close_matches(label, labels, n=1, cutoff=0.0)
                hint = f'the nearest that does is "{nearest[0]}"' if nearest else "which has none"
                raise DataError(
                    f'{place}: label "{label}" of the {what} data does not occur in the training data; {hint}'
                )


def require_single_labels(examples: Sequence[TextExample]) -> None:
    """Raises DataError at the first example that has not exactly one label, where every training example had one."""
    for example in examples:
        if len(example.labels) != 1:
            shown = ", ".join(example.labels) or "none"
            raise DataError(
                f"{example.source}: {len(example.labels)} labels ({shown}), where each training example has one; "
                "fix this row"
            )


def answered(examples: Sequence[QuestionExample], what: str, why: str) -> list[QuestionExample]:
    """The questions that have an answer; the others are counted on stderr.

    Args: what: the questions' role, as said. why: why the others cannot be used.
    Raises: DataError: none has one.
    """
    kept = [example for example in examples if example.answers]
    if not kept:
        raise DataError(f"{examples[0].source}: no {what} question has an answer; give some that have")
    if len(kept) < len(examples):
        left_out = f"{len(examples) - len(kept):,} {what} questions without an answer are left out"
        say(f"{left_out}, because {why}")
    return kept


def require_distinct_identifiers(
    examples: Sequence[QuestionExample], broken: Callable[[DataError], None]
) -> list[QuestionExample]:
    """The questions without those whose identifier is taken by an earlier one; `broken` gets an error for each of them.

    Predictions are written by identifier, so two questions with the same one could not be told apart.
    """
    places: dict[str, str] = {}
    kept = []
    for example in examples:
        if example.identifier in places:
            earlier = places[example.identifier]
            message = f'two questions with the id "{example.identifier}"; the other is {earlier}; rename one'
            broken(DataError(f"{example.source}: {message}"))
        else:
            places[example.identifier] = example.source
            kept.append(example)
    return kept


def require_valid_bio(examples: Sequence[TaggedExample], *, skip_broken: bool = False) -> list[TaggedExample]:
    """The examples, in which every chunk that continues has begun, if their tags are BIO or a scheme related to it.

    Tags in the older scheme IOB1, where B- marks only a chunk that follows another of its kind, are converted to BIO
    with a message on stderr. Tags of no such scheme are returned unchanged.

    Args: skip_broken: leave out sentences with a broken chunk, and count them on stderr.
    Raises: DataError: I-X without B-X or I-X before it; the message names the file and line, or the number of the word.
    Source: Ramshaw and Marcus 1995 (IOB1); Tjong Kim Sang and Veenstra 1999 (IOB2, here called BIO).
    """
    # The scheme is that of the whole set, since a single sentence may fit several schemes. A set that is valid BIO is
    # never changed: IOB1 is only considered for tags that would be broken BIO.
    tags = {tag for example in examples for tag in example.tags} - {OUTSIDE}
    if not tags or not all(map(_CHUNK_TAG.fullmatch, tags)):
        return list(examples)
    errors = [(number, error) for number, error in enumerate(map(_broken_chunk, examples)) if error]
    if not errors:
        return list(examples)
    is_iob1 = (tag[0] != "B" or _goes_on(before, tag) for one in examples for before, tag in _before(one.tags))
    if all(tag[0] in "BI" for tag in tags) and all(is_iob1):
        say(f"{examples[0].source}: the tags are IOB1 and are read as BIO")
        return [replace(example, tags=_from_iob1(example.tags)) for example in examples]
    if not skip_broken:
        raise errors[0][1]
    say(f"left out for broken tags: {len(errors):,} sentences (the first: {errors[0][1]})")
    dropped = {number for number, _ in errors}
    return [example for number, example in enumerate(examples) if number not in dropped]


def word_place(example: TaggedExample, index: int) -> str:
    """The place of a word, for messages: its file and line, or its sentence and its number, counted from 1."""
    file, _, line = example.source.rpartition(":")
    if line.isdecimal() and uncompressed_suffix(Path(file)) in COLUMN_FORMATS:
        return f"{file}:{int(line) + index}"
    word = f' ("{example.words[index]}")' if index < len(example.words) and example.words[index] else ""
    return f"{example.source}: word {index + 1}{word}"


def labels_of(example: TextExample | TaggedExample) -> tuple[str, ...]:
    """The labels of a text, or the tags of a sentence."""
    return example.labels if isinstance(example, TextExample) else example.tags


def _before(tags: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each tag with the one before it."""
    return zip((OUTSIDE, *tags), tags, strict=False)


def _goes_on(before: str, tag: str) -> bool:
    """True if `tag` can continue the chunk that `before` is in."""
    return before[0] in _GOES_ON_AFTER and before[1:] == tag[1:]


def _broken_chunk(example: TaggedExample) -> DataError | None:
    for index, (before, tag) in enumerate(_before(example.tags)):
        if tag != OUTSIDE and tag[0] not in _BEGINS and not _goes_on(before, tag):
            found = before if index else "the beginning of the sentence"
            hint = f"it must follow B{tag[1:]} or I{tag[1:]}, not {found}"
            return DataError(f'{word_place(example, index)}: broken tag "{tag}"; {hint}')
    return None


def _from_iob1(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"B{tag[1:]}" if tag[0] == "I" and not _goes_on(before, tag) else tag for before, tag in _before(tags))

"""Checks of whole sets of examples: labels that never vary, labels unknown in training, schemes of tags."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from electrain.data.labelled.conll import COLUMN_FORMATS
from electrain.data.labelled.examples import QuestionExample, TaggedExample, TextExample
from electrain.data.labelled.tag_schemes import (
    OUTSIDE,
    PLAIN,
    SCHEMES,
    SchemeName,
    chunks_of_tags,
    faults,
    have_kinds,
    is_chunk_tag,
    tags_of_chunks,
)
from electrain.data.text.compression import uncompressed_suffix
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted, say

# Chunks written otherwise than B-PER, some of which begin with B: b-per, B_PER, and PER-B.
_ODD_SPELLINGS = (re.compile(r"[bieslumw][-_:.–—].+", re.IGNORECASE), re.compile(r".+[-_:.–—][BIESLUMW]"))
Labelled = Sequence[TextExample] | Sequence[TaggedExample]


def require_several_labels(examples: Labelled) -> None:
    """Raises DataError if all examples have the same label, or all words the same tag: nothing could be learned."""
    labels = {label for example in examples for label in labels_of(example)}
    if len(labels) <= 1:
        found = f"only one label ('{labels.pop()}')" if labels else "no label at all"
        raise DataError(
            f"{found} in {counted(len(examples), 'training example')}, the first of them "
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
        count = len(examples) - len(kept)
        left_out = f"{counted(count, f'{what} question')} without an answer {'is' if count == 1 else 'are'} left out"
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


class TagForm(NamedTuple):
    """The scheme of the tags in labelled files, and that of the tags that a model is trained on."""

    files: SchemeName
    model: SchemeName


def scheme_of_examples(examples: Sequence[TaggedExample]) -> SchemeName:
    """The scheme in which the fewest tags of the examples are at fault; "none" where most mark no chunks at all.

    The scheme is that of the whole set, since a single sentence may fit several.
    """
    tags = Counter(tag for example in examples for tag in example.tags if tag != OUTSIDE)
    has_kind = have_kinds(tags)
    odd = sum(count for tag, count in tags.items() if not is_chunk_tag(tag, has_kind=has_kind))
    # Letters alone could also be parts of speech, so only a few other tags among them count as mistakes.
    if (2 if has_kind else 10) * odd > tags.total() or not tags:
        return PLAIN
    letters = {tag[0] for tag in tags if is_chunk_tag(tag, has_kind=has_kind)}
    best, fewest = PLAIN, tags.total() + 1
    for name in sorted(SCHEMES, key=lambda name: not letters <= set(SCHEMES[name])):  # those that know all letters
        found = sum(1 for example in examples for _ in faults(example.tags, name, has_kind=has_kind))
        if found < fewest:
            best, fewest = name, found
        if not found:
            break
    return best


def require_no_odd_spelling(examples: Sequence[TaggedExample]) -> None:
    """Raises DataError where all tags beside O mark chunks in another spelling than B-PER: b-per, B_PER, PER-B."""
    tags = {tag for example in examples for tag in example.tags}
    chunks = tags - {OUTSIDE, OUTSIDE.lower()}
    spelling = next((one for one in _ODD_SPELLINGS if chunks and all(map(one.fullmatch, chunks))), None)
    if spelling is None or len(chunks) == len(tags):
        return
    for example in examples:
        for index, tag in enumerate(example.tags):
            if tag in chunks:
                found = "the entities of its file are not marked as in B-PER, so that only words would be scored"
                hint = "write the tags so, or leave them with --data.tag-scheme none"
                raise DataError(f'{word_place(example, index)}: tag "{tag}": {found}; {hint}')


def require_whole_chunks(
    examples: Sequence[TaggedExample], name: SchemeName, *, skip_broken: bool = False
) -> list[TaggedExample]:
    """The examples, whose tags are all of the scheme, and in which every chunk begins and ends as it must.

    Args: skip_broken: leave out sentences with a broken chunk, and count them on stderr.
    Raises: DataError: the first tag at fault, with its file and line, or the number of its word.
    """
    if name == PLAIN:
        return list(examples)
    errors: dict[int, DataError] = {}
    has_kind = have_kinds(tag for example in examples for tag in example.tags)
    for number, example in enumerate(examples):
        fault = next(faults(example.tags, name, has_kind=has_kind), None)
        if fault is not None:
            message = f'broken tag "{example.tags[fault.word]}"; {fault.reason}'
            errors[number] = DataError(f"{word_place(example, fault.word)}: {message}")
            if not skip_broken:
                raise errors[number]
    if not errors:
        return list(examples)
    first = next(iter(errors.values()))
    say(f"left out for broken tags: {counted(len(errors), 'sentence')} (the first: {first})")
    return [example for number, example in enumerate(examples) if number not in errors]


def tag_form_of_further(examples: Sequence[TaggedExample], form: TagForm) -> TagForm:
    """The form of further examples for the same model: `form`, or that of a scheme that fits them where it does not."""
    if form.model == PLAIN or not _has_faults(examples, form.files):
        return form
    found = scheme_of_examples(examples)
    if found == PLAIN or _has_faults(examples, found):
        return form
    where = examples[0].source.rpartition(":")[0]
    say(f"{where}: the tags are {found.upper()} and are read as {form.model.upper()}")
    return TagForm(found, form.model)


def _has_faults(examples: Sequence[TaggedExample], name: SchemeName) -> bool:
    has_kind = have_kinds(tag for example in examples for tag in example.tags)
    return any(True for example in examples for _ in faults(example.tags, name, has_kind=has_kind))


def in_scheme(examples: Sequence[TaggedExample], form: TagForm) -> list[TaggedExample]:
    """The examples with their tags converted from the scheme of the files to that of the model."""
    if form.files == form.model or PLAIN in form:
        return list(examples)
    return [
        replace(one, tags=tags_of_chunks(chunks_of_tags(one.tags, form.files), len(one.tags), form.model))
        for one in examples
    ]


def word_place(example: TaggedExample, index: int) -> str:
    """The place of a word, for messages: its file and line, or its sentence and its number, counted from 1."""
    file, _, line = example.source.rpartition(":")
    if example.lines:
        return f"{file}:{example.lines[index]}"
    if line.isdecimal() and uncompressed_suffix(Path(file)) in COLUMN_FORMATS:
        return f"{file}:{int(line) + index}"
    word = f' ("{example.words[index]}")' if index < len(example.words) and example.words[index] else ""
    return f"{example.source}: word {index + 1}{word}"


def labels_of(example: TextExample | TaggedExample) -> tuple[str, ...]:
    """The labels of a text, or the tags of a sentence."""
    return example.labels if isinstance(example, TextExample) else example.tags

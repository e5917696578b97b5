"""What the scores of a tagger are made of: of entities where tags mark them, else of words."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from electrain.data.labelled.examples import TaggedExample
from electrain.data.labelled.tag_schemes import PLAIN, Chunk, chunks_of_tags
from electrain.data.text.words import joined_words
from electrain.finetuning.tasks.metrics import ALL_KINDS, NO_KIND, entity_report
from electrain.finetuning.tasks.tagging import Tagging
from electrain.finetuning.tasks.task import Answer
from electrain.inference.evaluate.breakdown_labels import Found, confusion_of, label_scores, mixups_of, worst
from electrain.inference.evaluate.calibration import bootstrap_interval, calibration_of, f1_interval
from electrain.inference.evaluate.evaluation import Breakdown, Calibration, LabelScore, Mistake

NOTHING = "nothing"
_CHUNK = "chunk"  # the name of what tags of a letter alone mark, which has no type
_WORDS_AROUND = 8  # shown on each side of a mistake


def tagging_breakdown(task: Tagging, examples: Sequence[TaggedExample], answers: Sequence[Answer]) -> Found:
    """Of taggers. Args: examples, answers: see `broken_down`."""
    truth, given = [example.tags for example in examples], [answer["tags"] for answer in answers]
    pairs = [pair for true, said in zip(truth, given, strict=True) for pair in zip(true, said, strict=True)]
    chances = np.array([chance for answer in answers for chance in answer["probabilities"]], np.float64)
    calibration = calibration_of("the tag of a word", chances, np.array([true == said for true, said in pairs]))
    if task.scheme != PLAIN:
        return _entities(task, examples, answers, calibration)
    flat_truth, flat_given = map(list, zip(*pairs, strict=True))
    breakdown = Breakdown(
        labels=label_scores(task.labels, flat_truth, flat_given),
        confusion=confusion_of(task.labels, flat_truth, flat_given),
        mixups=mixups_of((true, said) for true, said in pairs if true != said),
        calibration=calibration,
        **worst(list(_wrong_words(examples, answers)), "probability", highest_first=True),
    )
    # Whole sentences are drawn, because their words are not independent of each other.
    words = np.array([len(tags) for tags in truth], np.float64)
    right = [sum(map(str.__eq__, true, said)) for true, said in zip(truth, given, strict=True)]
    hits = np.array(right, np.float64)
    return breakdown, bootstrap_interval(len(words), lambda drawn: float(100 * hits[drawn].sum() / words[drawn].sum()))


def _wrong_words(examples: Sequence[TaggedExample], answers: Sequence[Answer]) -> Iterator[Mistake]:
    for one, answer in zip(examples, answers, strict=True):
        rows = zip(one.tags, answer["tags"], answer["probabilities"], strict=True)
        for place, (true, said, chance) in enumerate(rows):
            if true != said:
                yield Mistake(one.source, _in_context(one.words, place, place), true, said, chance)


def _in_context(words: Sequence[str], first: int, last: int) -> str:
    """The words from first to last, and then with those around them."""
    start, end = max(0, first - _WORDS_AROUND), last + 1 + _WORDS_AROUND
    before, after = "…" if start else "", "…" if end < len(words) else ""
    return f"{joined_words(words[first : last + 1])} | {before}{joined_words(words[start:end])}{after}"


def _entities(
    task: Tagging, examples: Sequence[TaggedExample], answers: Sequence[Answer], calibration: Calibration | None
) -> Found:
    scheme = task.scheme
    true_chunks = [chunks_of_tags(one.tags, scheme) for one in examples]
    given_chunks = [chunks_of_tags(answer["tags"], scheme) for answer in answers]
    counts = [
        (len(set(true) & set(said)), len(true), len(said)) for true, said in zip(true_chunks, given_chunks, strict=True)
    ]
    predicted = Counter(chunk.kind for chunks in given_chunks for chunk in chunks)
    report = entity_report([one.tags for one in examples], [answer["tags"] for answer in answers], scheme)
    labels = tuple(
        LabelScore(
            _CHUNK if kind == NO_KIND else kind,
            own["precision"] if predicted["" if kind == NO_KIND else kind] else None,
            own["recall"] if own["support"] else None,
            own["f1"],
            int(own["support"]),
            predicted["" if kind == NO_KIND else kind],
        )
        for kind, own in report.items()
        if kind != ALL_KINDS
    )
    mixups, mistakes = [], []
    for one, answer, true, said in zip(examples, answers, true_chunks, given_chunks, strict=True):
        for expected, got in _mistaken(true, said):
            mixups.append((_kind(expected), _kind(got)))
            mistakes.append(_mistake(one, answer, expected, got))
    breakdown = Breakdown(
        labels=labels,
        mixups=mixups_of(mixups),
        calibration=calibration,
        **worst(mistakes, "probability", highest_first=True),
    )
    return breakdown, f1_interval(*map(list, zip(*counts, strict=True)))


def _kind(chunk: Chunk | None) -> str | None:
    return None if chunk is None else chunk.kind or _CHUNK


def _mistaken(true: Sequence[Chunk], said: Sequence[Chunk]) -> Iterator[tuple[Chunk | None, Chunk | None]]:
    """Each wrong entity with the true one in its place, and each missed one: None where the other side has nothing."""
    right = set(true) & set(said)
    wrong = [chunk for chunk in said if chunk not in right]
    missed = [chunk for chunk in true if chunk not in right]
    met: set[Chunk] = set()
    for chunk in wrong:
        overlapping = [one for one in missed if one.first <= chunk.last and chunk.first <= one.last]
        met.update(overlapping)
        # Of several true ones, the one with the same type, or else the first.
        yield next((one for one in overlapping if one.kind == chunk.kind), next(iter(overlapping), None)), chunk
    for chunk in missed:
        if chunk not in met:
            yield chunk, None


def _mistake(example: TaggedExample, answer: Answer, expected: Chunk | None, got: Chunk | None) -> Mistake:
    """Its value is the probability of the tags that were given there, which the model gives independently."""
    place = got or expected
    assert place is not None
    chance = float(np.prod(answer["probabilities"][place.first : place.last + 1]))
    text = _in_context(example.words, place.first, place.last)
    return Mistake(example.source, text, _shown(example, expected), _shown(example, got), chance)


def _shown(example: TaggedExample, chunk: Chunk | None) -> str:
    return NOTHING if chunk is None else f"{_kind(chunk)}: {joined_words(example.words[chunk.first : chunk.last + 1])}"

"""Writes with a decoder in NumPy: by beam search, or the likeliest token each time. As transformers.

A decoder is asked one token at a time: given the last token of each row it returns (rows, vocabulary) logits of the
next one, and it remembers the tokens before. Between two tokens the rows can be put in another order.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from electrain.finetuning.tasks.network import Writing

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]
V = TypeVar("V", bound=np.generic)
# Far below every score; that of a beam which is no candidate any more. transformers uses the same number.
_LOW = np.float32(-1e9)


class Decoder(Protocol):
    """A decoder with the memory of its rows."""

    def next_logits(self, tokens: Ids) -> Scores:
        """(rows, vocabulary) float32 logits after (rows,) int64 further tokens."""

    def reorder(self, rows: Ids) -> None:
        """Goes on with these of its rows, (rows,) int64, in this order."""


class SpecialIds(NamedTuple):
    """The special tokens of a decoder."""

    start: int  # what the decoder reads before the first token that it writes
    end: int  # what it writes last
    pad: int  # what fills the rows after the end


def write(decoder: Decoder, texts: int, ids: SpecialIds, writing: Writing) -> list[list[int]]:
    """For each text the tokens that the decoder writes, start and end included.

    Args: texts: number of texts; the decoder's rows are the beams of the first text, those of the second, and so on.
    """
    if writing.beams == 1:
        return _likeliest(decoder, texts, ids, writing)
    return _beam_search(decoder, texts, ids, writing)


def _likeliest(decoder: Decoder, texts: int, ids: SpecialIds, writing: Writing) -> list[list[int]]:
    rows = np.full((texts, 1), ids.start, np.int64)
    is_done = np.zeros(texts, np.bool_)
    while rows.shape[1] <= writing.longest_tokens and not is_done.all():
        logits = decoder.next_logits(rows[:, -1])
        _forbid_repetition(logits, rows, writing.no_repeat_ngram_tokens)
        chosen = np.where(is_done, ids.pad, logits.argmax(-1))
        is_done |= chosen == ids.end
        rows = np.concatenate([rows, chosen[:, None]], 1)
    found: list[list[int]] = rows.tolist()
    return found


class _Beams(NamedTuple):
    """(texts, beams, ...) rows of tokens with their scores."""

    rows: Ids
    scores: Scores


def _beam_search(decoder: Decoder, texts: int, ids: SpecialIds, writing: Writing) -> list[list[int]]:
    """Source: transformers, `GenerationMixin._beam_search`, with `early_stopping` left out, as it is by default."""
    beams, longest = writing.beams, writing.longest_tokens + 1
    filled = np.full((texts, beams, longest), ids.pad, np.int64)
    filled[:, :, 0] = ids.start
    # All beams begin alike: only the first one counts at first.
    running = _Beams(filled.copy(), np.where(np.arange(beams) > 0, _LOW, np.float32(0))[None].repeat(texts, 0))
    done = _Beams(filled, np.full((texts, beams), _LOW, np.float32))
    is_done = np.zeros((texts, beams), np.bool_)
    can_improve = np.ones((texts, 1), np.bool_)
    for length in range(1, longest):
        kept, from_beam, ends = _continued(decoder, running, length, ids.end, writing)
        # At the greatest length every row is finished.
        ends |= length + 1 >= longest
        is_best = np.arange(kept.scores.shape[1]) < beams
        finished = kept.scores / np.float32(length**writing.length_penalty)
        finished = finished + np.where(can_improve & ends & is_best[None], np.float32(0), _LOW)
        open_scores = kept.scores + np.where(ends, _LOW, np.float32(0))
        best = _highest(open_scores, beams)
        running = _Beams(_taken(kept.rows, best), _taken(open_scores, best))
        merged = np.concatenate([done.scores, finished], 1)
        best_done = _highest(merged, beams)
        done = _Beams(_taken(np.concatenate([done.rows, kept.rows], 1), best_done), _taken(merged, best_done))
        is_done = _taken(np.concatenate([is_done, ends & is_best[None]], 1), best_done)
        if ends.all():
            break
        # Could the best open beam, were it to end now, still beat the worst finished one?
        worst = np.where(is_done, done.scores.min(1, keepdims=True), _LOW)
        can_improve &= (running.scores[:, :1] / np.float32(length**writing.length_penalty) > worst).any(
            -1, keepdims=True
        )
        if not can_improve.any():
            break
        decoder.reorder((np.arange(texts)[:, None] * beams + _taken(from_beam, best)).ravel())
    return [_until_end(row, ids.end) for row in done.rows[:, 0].tolist()]


def _continued(
    decoder: Decoder, running: _Beams, length: int, end: int, writing: Writing
) -> tuple[_Beams, Ids, NDArray[np.bool_]]:
    """The best continuations by one token, twice as many as beams; the beam of each, and whether it ends there."""
    texts, beams = running.scores.shape
    read = running.rows[:, :, :length].reshape(texts * beams, length)
    scores = _log_softmax(decoder.next_logits(read[:, -1]))
    _forbid_repetition(scores, read, writing.no_repeat_ngram_tokens)
    words = scores.shape[-1]
    together = (scores.reshape(texts, beams, words) + running.scores[:, :, None]).reshape(texts, beams * words)
    best = _highest(together, 2 * beams)
    from_beam, tokens = best // words, best % words
    rows = _taken(running.rows, from_beam)
    rows[:, :, length] = tokens
    return _Beams(rows, _taken(together, best)), from_beam, tokens == end


def _highest(scores: Scores, count: int) -> Ids:
    """(texts, count) int64: the places of the highest of (texts, n) scores, in order; of equal ones the first."""
    if scores.shape[1] > 4 * count:  # sorting a whole vocabulary would take most of the time
        places = np.sort(np.argpartition(-scores, count - 1, -1)[:, :count], -1)
    else:
        places = np.arange(scores.shape[1])[None].repeat(len(scores), 0)
    order = np.argsort(-np.take_along_axis(scores, places, -1), -1, kind="stable")[:, :count]
    return np.take_along_axis(places, order, -1)


def _taken(values: NDArray[V], places: Ids) -> NDArray[V]:
    """(texts, count, ...): of (texts, n, ...) values those at (texts, count) places."""
    further = (1,) * (values.ndim - 2)
    return np.take_along_axis(values, places.reshape(*places.shape, *further), 1)


def _log_softmax(logits: Scores) -> Scores:
    apart: Scores = logits - logits.max(-1, keepdims=True)
    apart -= np.log(np.exp(apart).sum(-1, keepdims=True))
    return apart


def _forbid_repetition(scores: Scores, rows: Ids, ngram: int) -> None:
    """Gives minus infinity to each token that would end a sequence of `ngram` tokens that its row holds already."""
    if not ngram or rows.shape[1] < ngram:
        return
    for number, row in enumerate(rows.tolist()):
        last = row[len(row) - ngram + 1 :]
        starts = range(len(row) - ngram + 1)
        scores[number, [row[start + ngram - 1] for start in starts if row[start : start + ngram - 1] == last]] = -np.inf


def _until_end(row: Sequence[int], end: int) -> list[int]:
    return list(row[: row.index(end, 1) + 1]) if end in row[1:] else list(row)

"""Noise that goes by words: it selects whole words or spans of words, or moves words elsewhere."""

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.randomness import random_uniforms
from electrain.data.shards.rows import PackedBatch

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def word_numbers(batch: PackedBatch, continues_word: Bools) -> Ints:
    """(rows, length) int64: the ascending number of each token's word in its row. A special token is a word by itself.

    Args:
        continues_word: (vocabulary,) bool; True for pieces such as ##ing. Used if the shards store no word boundaries.
    """
    begins = ~continues_word[batch.token_ids] if batch.begins_word is None else batch.begins_word.copy()
    begins |= batch.is_special
    begins[:, 1:] |= batch.is_special[:, :-1]
    begins[:, 0] = True
    return np.cumsum(begins, axis=1) - 1


def span_numbers(words: Ints, batch: PackedBatch, seed: int, span_words: float) -> Ints:
    """(rows, length) int64: the ascending number of each token's span, of geometric length with mean `span_words`.

    Source: Joshi et al. 2020, SpanBERT, section 3.1 (which cuts lengths at 10 words, exceeded by 7% of the spans).
    """
    # Where each word begins a new span with probability 1/m, independently, the lengths are geometric with mean m.
    draws = random_uniforms(seed, "spans", batch.row_numbers, words.shape[1])
    is_first = np.diff(words, axis=1, prepend=-1) > 0
    begins = is_first & (np.take_along_axis(draws, words, 1) < 1 / span_words)
    begins |= batch.is_special
    begins[:, 1:] |= batch.is_special[:, :-1]
    return np.cumsum(begins, axis=1) - 1


def choose_groups(
    groups: Ints, words: Ints, wanted: Ints, candidates: Bools, batch: PackedBatch, seed: int, slots: int
) -> tuple[Ints, Bools]:
    """Selects groups of tokens in random order until `wanted` tokens of the row are selected. No word is split.

    Args:
        groups: (rows, length) int64; ascending numbers of the groups, such as spans.
        words: (rows, length) int64; ascending numbers of the words, of which groups consist.
        wanted: (rows,) int64; largest number of tokens. Only a first word that is longer is cut.
        candidates: (rows, length) bool; False at tokens that cannot be selected.
        slots: width of the result.
    Returns: (rows, slots) int64 positions, ascending, and (rows, slots) bool, False in slots that a row does not use.
    """
    length = groups.shape[1]
    # All tokens of a group share a random key. A stable sort by key puts groups in random order and keeps the order
    # within them, so that the first `wanted` tokens are whole groups and the beginning of one more.
    keys = np.take_along_axis(random_uniforms(seed, "positions", batch.row_numbers, length), groups, 1)
    keys[~candidates] = 2.0
    order = np.argsort(keys, axis=1, kind="stable")
    words_in_order = np.take_along_axis(words, order, 1)
    rank = np.arange(length)
    is_taken = rank < wanted[:, None]
    # The word that the limit would cut is left out, unless it is the only one.
    following = np.take_along_axis(words_in_order, np.minimum(wanted, length - 1)[:, None], 1)
    is_cut = (words_in_order == following) & (wanted < length)[:, None]
    kept = is_taken & ~is_cut
    is_taken = np.where(kept.any(1, keepdims=True), kept, is_taken)[:, :slots]
    positions = np.sort(np.where(is_taken, order[:, :slots], length), axis=1)
    is_selected = positions < length
    return np.where(is_selected, positions, 0), is_selected


def moved_words(
    batch: PackedBatch, words: Ints, wanted: Ints, seed: int, *, exchanges_neighbours: bool
) -> tuple[Ints, Bools]:
    """The rows with some words moved, about `wanted` tokens of each.

    Args:
        exchanges_neighbours: True exchanges words with the next one. False deletes words and puts each where another of
            as many tokens was deleted.
    Returns: (rows, length) int64 token ids, and (rows, length) bool, True at every token of a moved word.
    """
    moved, is_moved = batch.token_ids.copy(), np.zeros(batch.token_ids.shape, np.bool_)
    draws = random_uniforms(seed, "moves", batch.row_numbers, batch.token_ids.shape[1])
    for row in range(len(moved)):
        starts = np.flatnonzero(np.diff(words[row], prepend=-1))
        ends = np.append(starts[1:], words.shape[1])
        movable = np.flatnonzero(~batch.is_special[row, starts])
        order = movable[np.argsort(draws[row, movable], kind="stable")]
        move = _exchange_neighbours if exchanges_neighbours else _put_in_elsewhere
        for place, source in move(order, starts, ends, batch.is_special[row], int(wanted[row])):
            moved[row, place] = batch.token_ids[row, source]
            is_moved[row, place] = True
    return moved, is_moved


def _exchange_neighbours(
    order: Ints, starts: Ints, ends: Ints, is_special: Bools, wanted: int
) -> list[tuple[Ints, Ints]]:
    """(places, sources) of each exchange: the tokens of the second word, then those of the first."""
    moves: list[tuple[Ints, Ints]] = []
    used: set[int] = set()
    left = wanted
    for word in order.tolist():
        after = word + 1
        if after >= len(starts) or is_special[starts[after]] or used & {word, after}:
            continue
        size = int(ends[after] - starts[word])
        if size > left:
            continue
        used |= {word, after}
        left -= size
        source = np.concatenate([np.arange(starts[after], ends[after]), np.arange(starts[word], ends[word])])
        moves.append((np.arange(starts[word], ends[after]), source))
    return moves


def _put_in_elsewhere(order: Ints, starts: Ints, ends: Ints, is_special: Bools, wanted: int) -> list[tuple[Ints, Ints]]:
    """(places, sources) of each word: among words of the same size, each takes the place of the next one."""
    del is_special
    # Words of the same size only: otherwise everything between two words would shift, and differ from the original.
    by_size: dict[int, list[int]] = {}
    left = wanted
    for word in order.tolist():
        size = int(ends[word] - starts[word])
        if size <= left:
            by_size.setdefault(size, []).append(word)
            left -= size
    moves = []
    for same in by_size.values():
        for word, place in zip(same, same[1:] + same[:1], strict=True):
            if word != place:
                moves.append((np.arange(starts[place], ends[place]), np.arange(starts[word], ends[word])))
    return moves

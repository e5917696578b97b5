"""Which tokens of a row noise takes: alone, by words, by spans of words; and words that it moves elsewhere."""

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.randomness import random_uniforms
from electrain.data.shards.rows import PackedBatch

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def word_numbers(batch: PackedBatch, continues_word: Bools) -> Ints:
    """(rows, length) int64: the number of each token's word in its row, ascending; a special token is one by itself.

    Args:
        continues_word: (vocabulary,) bool; True for pieces such as ##ing; read where the batch has no words of its own.
    """
    begins = ~continues_word[batch.token_ids] if batch.begins_word is None else batch.begins_word.copy()
    begins |= batch.is_special
    begins[:, 1:] |= batch.is_special[:, :-1]
    begins[:, 0] = True
    return np.cumsum(begins, axis=1) - 1


def span_numbers(words: Ints, batch: PackedBatch, seed: int, span_words: float) -> Ints:
    """(rows, length) int64: the number of each token's span; lengths in words are geometric with mean `span_words`.

    Source: Joshi et al. 2020, SpanBERT, section 3.1 (lengths there are cut at 10, which 7% of the spans exceed).
    """
    draws = random_uniforms(seed, "spans", batch.row_numbers, words.shape[1])
    is_first = np.diff(words, axis=1, prepend=-1) > 0
    begins = is_first & (np.take_along_axis(draws, words, 1) < 1 / span_words)
    begins |= batch.is_special
    begins[:, 1:] |= batch.is_special[:, :-1]
    return np.cumsum(begins, axis=1) - 1


def choose_groups(
    groups: Ints, words: Ints, wanted: Ints, candidates: Bools, batch: PackedBatch, seed: int, slots: int
) -> tuple[Ints, Bools]:
    """Takes groups of tokens in random order until `wanted` tokens of the row are taken; no word is taken in part.

    Args:
        groups: (rows, length) int64; ascending numbers of tokens that are taken together.
        words: (rows, length) int64; ascending numbers of words, which are parts of groups.
        wanted: (rows,) int64; at most so many tokens; a first word that is longer is cut.
        candidates: (rows, length) bool; False at tokens that cannot be taken.
        slots: width of the result.
    Returns: (rows, slots) int64 positions, ascending, and (rows, slots) bool, False where a row has fewer.
    """
    length = groups.shape[1]
    keys = np.take_along_axis(random_uniforms(seed, "positions", batch.row_numbers, length), groups, 1)
    keys[~candidates] = 2.0
    order = np.argsort(keys, axis=1, kind="stable")
    words_in_order = np.take_along_axis(words, order, 1)
    rank = np.arange(length)
    is_taken = rank < wanted[:, None]
    # The word that the limit would cut is left out, unless there is no other.
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

    Neighbours: a word and the next one change places. Otherwise words are taken out, and each is put in where another
    one, of as many tokens, was taken out, so that nothing between them shifts.
    Returns: (rows, length) int64 token ids, and (rows, length) bool, True at every token of a word that moved.
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
    """(places, sources) of each exchange: the second word's tokens, then the first's."""
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
    """(places, sources) of each word: among words of the same size, each goes where the next one taken out was."""
    del is_special
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

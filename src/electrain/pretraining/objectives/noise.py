"""Noise that goes by words: it selects whole words or spans of words, or moves words elsewhere."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.randomness import first_in_order, row_bits, row_uniforms
from electrain.data.shards.rows import PackedBatch


def word_numbers(batch: PackedBatch, continues_word: Tensor) -> Tensor:
    """(rows, length) int64: the ascending number of each token's word in its row. A special token is a word by itself.

    Args:
        continues_word: (vocabulary,) bool; True for pieces such as ##ing. Used if the shards store no word boundaries.
    """
    begins = ~continues_word[batch.token_ids] if batch.begins_word is None else batch.begins_word
    return _numbered(begins, batch)


def span_numbers(words: Tensor, batch: PackedBatch, seed: int, span_words: float) -> Tensor:
    """(rows, length) int64: the ascending number of each token's span, of geometric length with mean `span_words`.

    Source: Joshi et al. 2020, SpanBERT, section 3.1 (which cuts lengths at 10 words, exceeded by 7% of the spans).
    """
    # Where each word begins a new span with probability 1/m, independently, the lengths are geometric with mean m.
    draws = row_uniforms(seed, "spans", batch.row_numbers, words.shape[1])
    return _numbered(_is_first(words) & (draws.gather(1, words) < 1 / span_words), batch)


def _numbered(begins: Tensor, batch: PackedBatch) -> Tensor:
    """Numbers of what begins there, and at every special token, and behind every special token; the first is 0."""
    begins = begins | batch.is_special
    begins[:, 1:] |= batch.is_special[:, :-1]
    begins[:, 0] = True
    return begins.cumsum(1).sub_(1)


def _is_first(words: Tensor) -> Tensor:
    """(rows, length) bool: True at the first token of each word."""
    return functional.pad(words.diff(dim=1), (1, 0), value=1) > 0


def choose_groups(
    groups: Tensor, words: Tensor, wanted: Tensor, candidates: Tensor, batch: PackedBatch, seed: int, slots: int
) -> tuple[Tensor, Tensor]:
    """Selects groups of tokens in random order until `wanted` tokens of the row are selected. No word is split.

    Args:
        groups: (rows, length) int64; ascending numbers of the groups, such as spans.
        words: (rows, length) int64; ascending numbers of the words, of which groups consist.
        wanted: (rows,) int64; largest number of tokens, at most `slots`. Only a first word that is longer is cut.
        candidates: (rows, length) bool; False at tokens that cannot be selected.
        slots: width of the result.
    Returns: (rows, slots) int64 positions, ascending, and (rows, slots) bool, False in slots that a row does not use.
    """
    length = groups.shape[1]
    # All tokens of a group share a random key. So the first `wanted` tokens are whole groups, each in the order of the
    # row, and the beginning of one more.
    bits = row_bits(seed, "positions", batch.row_numbers, length).gather(1, groups)
    order = first_in_order(bits, candidates, min(slots + 1, length))
    words_in_order = words.gather(1, order)
    wanted = wanted[:, None]
    is_taken = torch.arange(order.shape[1], device=order.device) < wanted
    # The word that the limit would cut is left out, unless it is the only one.
    following = words_in_order.gather(1, wanted.clamp(max=order.shape[1] - 1))
    kept = is_taken & ~((words_in_order == following) & (wanted < length))
    is_taken = torch.where(kept.any(1, keepdim=True), kept, is_taken)[:, :slots]
    positions = torch.where(is_taken, order[:, :slots], length).sort(dim=1).values
    is_selected = positions < length
    return positions.masked_fill_(~is_selected, 0), is_selected


def moved_words(
    batch: PackedBatch, words: Tensor, wanted: Tensor, seed: int, *, exchanges_neighbours: bool
) -> tuple[Tensor, Tensor]:
    """The rows with some words moved, about `wanted` tokens of each.

    Words are chosen one after the other, in all rows at once. On a GPU that takes several operations for every token of
    a row, so that these rows are better made on the CPU, which stops as soon as no row can move another word.

    Args:
        exchanges_neighbours: True exchanges words with the next one. False deletes words and puts each where another of
            as many tokens was deleted.
    Returns: (rows, length) int64 token ids, and (rows, length) bool, True at every token of a moved word.
    """
    table = _word_table(batch, words)
    bits = row_bits(seed, "moves", batch.row_numbers, words.shape[1])
    order = first_in_order(bits, table.is_movable, words.shape[1])
    move = _exchange_neighbours if exchanges_neighbours else _put_in_elsewhere
    source = move(table, words, order, wanted)
    own = torch.arange(words.shape[1], device=words.device)
    return batch.token_ids.gather(1, source), source != own


@dataclass(frozen=True)
class _Words:
    """The words of each row by their numbers; a row has fewer words than its table has columns."""

    starts: Tensor  # (rows, length) int64; the first token of each word
    sizes: Tensor  # (rows, length) int64; its number of tokens, 0 behind the last word
    is_movable: Tensor  # (rows, length) bool; False at special tokens, and behind the last word


def _word_table(batch: PackedBatch, words: Tensor) -> _Words:
    rows, length = words.shape
    own = torch.arange(length, device=words.device)
    # Tokens that begin no word write into a column of their own, which then stands for the end of the row.
    starts = torch.full((rows, length + 1), length, device=words.device)
    starts.scatter_(1, torch.where(_is_first(words), words, length), own.expand_as(words))
    starts[:, length] = length
    is_special = functional.pad(batch.is_special, (0, 1), value=True)
    return _Words(starts[:, :length], starts.diff(dim=1), ~is_special.gather(1, starts[:, :length]))


def _exchange_neighbours(table: _Words, words: Tensor, order: Tensor, wanted: Tensor) -> Tensor:
    """(rows, length) int64: the place from which each token comes, when some words change places with the next one."""
    # A pair goes by the number of its first word. A column more: the last word has no next one.
    has_next = table.is_movable & functional.pad(table.is_movable[:, 1:], (0, 1))
    sizes = table.sizes + functional.pad(table.sizes[:, 1:], (0, 1))
    least = sizes.masked_fill(~has_next, words.shape[1] + 1).amin(1, keepdim=True)
    is_used = torch.zeros((len(words), words.shape[1] + 1), dtype=torch.bool, device=words.device)
    is_exchanged = torch.zeros_like(has_next)
    left = wanted[:, None].clone()
    for pair in torch.split(order, 1, dim=1):
        if words.device.type == "cpu" and bool((left < least).all()):
            break
        size, both = sizes.gather(1, pair), torch.cat([pair, pair + 1], 1)
        is_next = has_next.gather(1, pair) & ~is_used.gather(1, both).any(1, keepdim=True) & (size <= left)
        is_used.scatter_(1, both, is_used.gather(1, both) | is_next)
        is_exchanged.scatter_(1, pair, is_next)
        left -= size * is_next
    # A token of the first word goes behind the second one, whose size it moves by; and the other way round.
    is_second = functional.pad(is_exchanged[:, :-1], (1, 0)).gather(1, words)
    own = torch.arange(words.shape[1], device=words.device)
    first = torch.where(is_second, words - 1, words)
    start, size = table.starts.gather(1, first), table.sizes.gather(1, first)
    next_size = table.sizes.gather(1, (first + 1).clamp_(max=words.shape[1] - 1))
    place = own - start
    exchanged = torch.where(place < next_size, own + size, own - next_size)
    return torch.where(is_exchanged.gather(1, first), exchanged, own)


def _put_in_elsewhere(table: _Words, words: Tensor, order: Tensor, wanted: Tensor) -> Tensor:
    """(rows, length) int64: as above, when among chosen words of the same size each takes the place of the next one."""
    rows, length = words.shape
    own = torch.arange(length, device=words.device)
    sizes, is_movable = table.sizes, table.is_movable
    least = sizes.masked_fill(~is_movable, length + 1).amin(1, keepdim=True)
    # Words of the same size only: otherwise everything between two words would shift, and differ from the original.
    # Of each size the first and the latest chosen word, -1 while there is none; a column more for words not chosen.
    first = torch.full((rows, length + 2), -1, device=words.device)
    latest = first.clone()
    comes_from = functional.pad(own.expand_as(words), (0, 1))
    left = wanted[:, None].clone()
    for word in torch.split(order, 1, dim=1):
        if words.device.type == "cpu" and bool((left < least).all()):
            break
        size = sizes.gather(1, word)
        is_chosen = is_movable.gather(1, word) & (size <= left)
        column = torch.where(is_chosen, size, length + 1)
        before = latest.gather(1, column)
        is_after = is_chosen & (before >= 0)
        comes_from.scatter_(1, torch.where(is_after, word, length), before)
        first.scatter_(1, torch.where(is_after, length + 1, column), word)
        latest.scatter_(1, column, word)
        left -= size * is_chosen
    # The first of each size takes in the last one.
    is_some = latest[:, : length + 1] >= 0
    comes_from.scatter_(1, first[:, : length + 1].where(is_some, length), latest[:, : length + 1])
    source_word = comes_from.gather(1, words)
    return table.starts.gather(1, source_word) + own - table.starts.gather(1, words)

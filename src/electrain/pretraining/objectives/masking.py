"""Selects the positions of a row to corrupt, and masks them for the generator."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.randomness import below_one, first_in_order, row_bits, row_uniforms
from electrain.data.shards.rows import PackedBatch
from electrain.foundation.configuration import require_at_least, require_fraction
from electrain.pretraining.objectives.noise import choose_groups, moved_words, span_numbers, word_numbers

# ELECTRA: of the selected positions 85% become [MASK], the others stay as they are (Clark et al. 2020, reference code).
ELECTRA_MASK_FRACTION = 0.85
# BERT: 80% become [MASK], 10% a random word, 10% stay (Devlin et al. 2019, section 3.1).
BERT_MASK_FRACTION = 0.8
BERT_RANDOM_FRACTION = 0.1


Noise = Literal["random", "whole-word", "span", "deletion", "shuffle"]


@dataclass(frozen=True)
class CorruptionConfig:
    """How the text is corrupted before the discriminator reads it.

    Attributes:
        noise: How tokens are selected. random selects tokens independently, as published; whole-word selects all pieces
            of a word; span selects runs of words; deletion and shuffle mask half of masked_fraction and move the other
            half, deletion to other places in the row, shuffle by exchanging neighbouring words.
        masked_fraction: Fraction of the real tokens of a row that are selected, above 0 and below 1. 0.15 (small, base)
            or 0.25 (large) in the paper.
        last_masked_fraction: Selected fraction at the last step, reached linearly from masked_fraction; 0 keeps the
            fraction constant.
        span_words: Noise span: mean length of a span in words, at least 1.
        missing_fraction: Fraction of the selected tokens, from 0 to 1, that the discriminator sees as [MASK] instead of
            a proposed word. 0 in the paper.
        source: Text that is corrupted. corpus uses real text only, as published; generated also uses passages that the
            causal generator writes.
        generated_fraction: Source generated: fraction of the rows that hold a written passage, above 0 and below 1.
        prompt_fraction: Source generated: fraction of a row that is real text, which the generator continues; above 0
            and below 1.
        top_p: Source generated: each word is sampled from the likeliest words whose probabilities sum to this value,
            above 0 and at most 1. 1 samples from all words.
    """

    noise: Noise = "random"
    masked_fraction: float = 0.15
    last_masked_fraction: float = 0.0
    span_words: float = 3.0
    missing_fraction: float = 0.0
    source: Literal["corpus", "generated"] = "corpus"
    generated_fraction: float = 0.5
    prompt_fraction: float = 0.25
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("masked_fraction", "generated_fraction", "prompt_fraction"):
            require_fraction(name, getattr(self, name))
        for name in ("last_masked_fraction", "missing_fraction"):
            if getattr(self, name):
                require_fraction(name, getattr(self, name), may_be_one=True)
        require_fraction("top_p", self.top_p, may_be_one=True)
        require_at_least("span_words", self.span_words, 1)


@dataclass(frozen=True)
class MaskedBatch:
    """Rows with positions selected and masked, on one device."""

    packed: PackedBatch
    masked_ids: Tensor  # (rows, length) int64; the input of the generator, or of the masked language model
    positions: Tensor  # (rows, selected) int64; ascending; 0 in slots that a row does not use
    is_selected: Tensor  # (rows, selected) bool; False in slots that a row does not use
    uniforms: Tensor  # (rows, selected) float32 in [0, 1); each decides one draw of the generator
    # (rows, length) int64; the rows after noise has moved tokens; None if it moves none
    base_ids: Tensor | None = None


def most_selected(length: int, masked_fraction: float) -> int:
    """Number of positions selected in a full row: the fraction of all its tokens, at least one."""
    return max(1, round(length * masked_fraction))


def choose_positions(
    batch: PackedBatch,
    masked_fraction: float,
    seed: int,
    *,
    slots: int | None = None,
    can_be_masked: Tensor | None = None,
    with_collisions: bool = False,
) -> tuple[Tensor, Tensor]:
    """(positions, is_selected) as in `MaskedBatch`, each token selected independently.

    Args:
        slots: width of the result; None takes what the fraction needs.
        can_be_masked: (rows, length) bool; None allows every token that is not special.
        with_collisions: True draws positions with replacement, as the reference implementation does.
    """
    length = batch.token_ids.shape[1]
    most = most_selected(length, masked_fraction) if slots is None else slots
    candidates = ~batch.is_special if can_be_masked is None else can_be_masked
    wanted = wanted_tokens(batch, candidates, masked_fraction, most, with_collisions=with_collisions)
    if with_collisions:
        # At length 128, the 19 draws hit about 17.7 distinct positions.
        draws = row_uniforms(seed, "positions", batch.row_numbers, most)
        counted = candidates.cumsum(1)
        chosen = (draws * counted[:, -1:]).floor_().to(torch.int64)
        positions = torch.searchsorted(counted, chosen + 1)
    else:
        bits = row_bits(seed, "positions", batch.row_numbers, length)
        positions = first_in_order(bits, candidates, most)
    is_selected = torch.arange(most, device=positions.device) < wanted[:, None]
    # Unused slots sort behind all positions, then point at position 0, where [CLS] is never selected.
    positions = torch.where(is_selected, positions, length).sort(dim=1).values
    return positions.masked_fill_(~is_selected, 0), is_selected


def wanted_tokens(
    batch: PackedBatch, candidates: Tensor, fraction: float, most: int, *, with_collisions: bool = False
) -> Tensor:
    """(rows,) int64: number of tokens to select: the fraction of the real ones, at least 1 and at most `most`."""
    # In float64, as Python computes: 0.15 of 10 tokens may be a half, which rounding decides.
    wanted = (batch.is_real.sum(1).to(torch.float64) * fraction).round_().clamp_(1, most).to(torch.int64)
    possible = candidates.sum(1)
    return wanted * (possible > 0) if with_collisions else torch.minimum(wanted, possible)


@dataclass(frozen=True)
class Masking:
    """How the positions of a batch are selected and masked. See `CorruptionConfig` for noise and span_words."""

    fraction: float  # fraction of a row's real tokens that is selected
    seed: int  # seed of all random numbers, together with the number of each row
    mask_id: int
    slots: int | None = None  # largest number of positions of a row; None takes what the fraction needs
    noise: Noise = "random"
    span_words: float = 3.0
    # (vocabulary,) bool, for every noise but random; see `electrain.pretraining.objectives.noise.word_numbers`
    continues_word: Tensor | None = None
    # Size of the vocabulary for BERT's 80/10/10; None for ELECTRA's masking, in which no token becomes a random word.
    random_words: int | None = None
    with_collisions: bool = False  # see `choose_positions`


def mask_batch(batch: PackedBatch, masking: Masking) -> MaskedBatch:
    """Selects positions of each row and masks them."""
    seed, mask_id, with_collisions = masking.seed, masking.mask_id, masking.with_collisions
    if masking.noise == "random":
        base_ids = None
        positions, is_selected = choose_positions(
            batch, masking.fraction, seed, slots=masking.slots, with_collisions=with_collisions
        )
    else:
        base_ids, positions, is_selected = _select_words(batch, masking)
    slots = positions.shape[1]
    chances = row_uniforms(seed, "masking", batch.row_numbers, slots if masking.random_words is None else 2 * slots)
    fates, words = chances[:, :slots], chances[:, slots:]
    replacement = batch.token_ids.gather(1, positions)
    if masking.random_words is None:
        replacement = replacement.masked_fill_(fates < ELECTRA_MASK_FRACTION, mask_id)
    else:
        word = (words * masking.random_words).floor_().to(torch.int64)
        replacement = torch.where(fates < BERT_MASK_FRACTION + BERT_RANDOM_FRACTION, word, replacement)
        replacement = replacement.masked_fill_(fates < BERT_MASK_FRACTION, mask_id)
    masked_ids = batch.token_ids if base_ids is None else base_ids
    if with_collisions:
        # A position drawn twice is masked if either draw masks it; otherwise the last draw counts.
        is_last = is_selected.clone()
        is_last[:, :-1] &= (positions[:, :-1] != positions[:, 1:]) | ~is_selected[:, 1:]
        masked_ids = _placed(masked_ids, positions, is_last, replacement)
        masked_ids = _placed(masked_ids, positions, is_selected & (replacement == mask_id), replacement)
    else:
        masked_ids = _placed(masked_ids, positions, is_selected, replacement)
    uniforms = below_one(row_uniforms(seed, "samples", batch.row_numbers, slots))
    return MaskedBatch(batch, masked_ids, positions, is_selected, uniforms, base_ids)


def _placed(ids: Tensor, positions: Tensor, is_placed: Tensor, words: Tensor) -> Tensor:
    """(rows, length) int64: the ids with words at the positions where `is_placed`, (rows, selected) bool, says so."""
    length = ids.shape[1]
    # The others write into a column behind the row, which is cut off.
    wide = functional.pad(ids, (0, 1))
    return wide.scatter_(1, torch.where(is_placed, positions, length), words)[:, :length].contiguous()


def _select_words(batch: PackedBatch, masking: Masking) -> tuple[Tensor | None, Tensor, Tensor]:
    """(base_ids, positions, is_selected) of `MaskedBatch`, for every noise that goes by words."""
    assert masking.continues_word is not None
    noise, seed, fraction = masking.noise, masking.seed, masking.fraction
    slots = most_selected(batch.token_ids.shape[1], fraction) if masking.slots is None else masking.slots
    candidates = ~batch.is_special
    words = word_numbers(batch, masking.continues_word)
    if noise in ("whole-word", "span"):
        groups = words if noise == "whole-word" else span_numbers(words, batch, seed, masking.span_words)
        wanted = wanted_tokens(batch, candidates, fraction, slots)
        return None, *choose_groups(groups, words, wanted, candidates, batch, seed, slots)
    # Deletion and shuffling move half of the selected tokens, which needs no generator. It proposes words for the rest.
    half = fraction / 2
    wanted = wanted_tokens(batch, candidates, half, slots)
    base_ids, is_moved = moved_words(batch, words, wanted, seed, exchanges_neighbours=noise == "shuffle")
    positions, is_selected = choose_positions(batch, half, seed, slots=slots, can_be_masked=candidates & ~is_moved)
    return base_ids, positions, is_selected

"""Which positions are masked, and what stands there instead."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from electrain.configuration import require_fraction
from electrain.data.parcels import PackedBatch
from electrain.data.randomness import random_uniforms

# ELECTRA: of the selected positions 85% become [MASK], the others stay as they are (Clark et al. 2020, reference code).
ELECTRA_MASK_FRACTION = 0.85
# BERT: 80% become [MASK], 10% a random word, 10% stay (Devlin et al. 2019, section 3.1).
BERT_MASK_FRACTION = 0.8
BERT_RANDOM_FRACTION = 0.1


@dataclass(frozen=True)
class CorruptionConfig:
    """What is done to the text.

    Attributes:
        noise: random: positions are chosen independently.
        masked_fraction: of the real tokens of a row; 0.15 (small, base) or 0.25 (large) in the paper.
        source: corpus: real text is corrupted.
    """

    noise: Literal["random"] = "random"
    masked_fraction: float = 0.15
    source: Literal["corpus"] = "corpus"

    def __post_init__(self) -> None:
        require_fraction("masked_fraction", self.masked_fraction)


@dataclass(frozen=True)
class MaskedBatch:
    """Rows with positions selected and masked.

    Attributes:
        packed: the rows as they were.
        masked_ids: (rows, length) int64; what the generator, or the masked language model, sees.
        positions: (rows, selected) int64; ascending; 0 where a row has fewer.
        is_selected: (rows, selected) bool; False where a row has fewer.
        uniforms: (rows, selected) float32 in [0, 1); one per sample of the generator.
    """

    packed: PackedBatch
    masked_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    is_selected: NDArray[np.bool_]
    uniforms: NDArray[np.float32]


def most_selected(length: int, masked_fraction: float) -> int:
    """Positions selected in a full row: the fraction of its tokens, special ones counted, at least one."""
    return max(1, round(length * masked_fraction))


def choose_positions(
    batch: PackedBatch, masked_fraction: float, seed: int, *, with_collisions: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(positions, is_selected) as in `MaskedBatch`.

    Positions are drawn without replacement among the tokens that are not special. `with_collisions` draws them with
    replacement, as the reference implementation does (about 17.7 distinct ones of 19 at length 128).
    """
    length = batch.token_ids.shape[1]
    most = most_selected(length, masked_fraction)
    candidates = ~batch.is_special
    wanted = np.maximum(1, np.round(batch.is_real.sum(1) * masked_fraction)).astype(np.int64)
    wanted = np.minimum(wanted, most if with_collisions else np.minimum(most, candidates.sum(1)))
    wanted[~candidates.any(1)] = 0
    if with_collisions:
        draws = random_uniforms(seed, "positions", batch.row_numbers, most)
        places = np.argsort(~candidates, axis=1, kind="stable")
        chosen = np.floor(draws * candidates.sum(1, keepdims=True)).astype(np.int64)
        positions = np.take_along_axis(places, chosen, 1)
    else:
        keys = random_uniforms(seed, "positions", batch.row_numbers, length)
        keys[~candidates] = 2.0
        positions = np.argsort(keys, axis=1, kind="stable")[:, :most]
    is_selected = np.arange(most) < wanted[:, None]
    positions = np.sort(np.where(is_selected, positions, length), axis=1)
    return np.where(is_selected, positions, 0).astype(np.int64), is_selected


def mask_batch(
    batch: PackedBatch,
    masked_fraction: float,
    seed: int,
    *,
    mask_id: int,
    with_collisions: bool = False,
    random_words: int | None = None,
) -> MaskedBatch:
    """Selects positions and masks them.

    Args:
        random_words: None for ELECTRA's masking (no position becomes a random word); for BERT's 80/10/10 the size of
            the vocabulary that random words come from.
    """
    positions, is_selected = choose_positions(batch, masked_fraction, seed, with_collisions=with_collisions)
    chances = random_uniforms(seed, "masking", batch.row_numbers, 2 * positions.shape[1])
    fates, words = np.split(chances, 2, axis=1)
    replacement = np.take_along_axis(batch.token_ids, positions, 1)
    if random_words is None:
        replacement = np.where(fates < ELECTRA_MASK_FRACTION, mask_id, replacement)
    else:
        word = np.floor(words * random_words).astype(np.int64)
        replacement = np.where(fates < BERT_MASK_FRACTION + BERT_RANDOM_FRACTION, word, replacement)
        replacement = np.where(fates < BERT_MASK_FRACTION, mask_id, replacement)
    masked_ids = batch.token_ids.copy()
    row_of, slot = np.nonzero(is_selected)
    if with_collisions:  # a position drawn twice is masked where either draw masks it
        kept = replacement[row_of, slot] != mask_id
        order = np.argsort(~kept, kind="stable")
        row_of, slot = row_of[order], slot[order]
    masked_ids[row_of, positions[row_of, slot]] = replacement[row_of, slot]
    uniforms = random_uniforms(seed, "samples", batch.row_numbers, positions.shape[1]).astype(np.float32)
    # rounding to float32 may give 1.0
    return MaskedBatch(batch, masked_ids, positions, is_selected, np.minimum(uniforms, np.float32(1 - 2**-24)))

"""Draws words from the generator, and puts them into the text."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.randomness import first_in_order, row_bits

# Words in a block of the two-stage draw; see docs/experiments.md, "Sampling".
BLOCK_WORDS = 256
# The largest float32 below 1.
LARGEST_UNIFORM = 1 - 2**-24


@torch.no_grad()
def sample_words(logits: Tensor, uniforms: Tensor, temperature: float | Tensor | None = None) -> Tensor:
    """One word per position from softmax(logits / temperature), by inverting its cumulative distribution.

    Args:
        logits: (..., vocabulary) float; converted to float32.
        uniforms: (...) float32 in [0, 1).
        temperature: a number, or a () float32 tensor; None means 1, without a division.
    Returns: (...) int64, without gradient. A word of probability 0 is never drawn.
    """
    # A cumulative sum over a whole vocabulary is slow. So the uniform number first chooses a block of words by the
    # blocks' total weights, and its remainder then chooses a word of that block. One number decides both, so that a
    # draw depends neither on the other rows nor on earlier draws.
    vocabulary = logits.shape[-1]
    scores = logits.float() if temperature is None else logits.float() / temperature
    highest, missing = scores.amax(-1, keepdim=True), -vocabulary % BLOCK_WORDS
    padded = functional.pad(scores, (0, missing), value=-torch.inf) if missing else scores
    blocks = padded.view(*logits.shape[:-1], -1, BLOCK_WORDS)
    block, rest = _invert((blocks - highest.unsqueeze(-1)).exp().sum(-1), uniforms)
    # The chosen block is computed again from `logits`, so that the weights of all words need not be kept in memory.
    words = block.unsqueeze(-1) * BLOCK_WORDS + torch.arange(BLOCK_WORDS, device=logits.device)
    chosen = logits.gather(-1, words.clamp(max=vocabulary - 1)).float()
    chosen = chosen if temperature is None else chosen / temperature
    chances = torch.where(words < vocabulary, (chosen - highest).exp(), 0.0)
    return block * BLOCK_WORDS + _invert(chances, rest)[0]


def _invert(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """The (...) index drawn from (..., n) weights, never one of weight 0, and the remainder of the uniform number.

    The remainder is the position within the chosen weight, again uniform in [0, 1).
    """
    cumulative = weights.cumsum(-1)
    target = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    index = (cumulative <= target).sum(-1, keepdim=True).clamp(max=weights.shape[-1] - 1)
    before = functional.pad(cumulative, (1, 0)).gather(-1, index)
    rest = (target - before) / weights.gather(-1, index)
    return index.squeeze(-1), rest.squeeze(-1).clamp(0.0, LARGEST_UNIFORM)


def compared_words(by_frequency: Tensor, count: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The words that a step compares originals with, and the logarithm of how many words each of them stands for.

    Two thirds are the most frequent words, each of which stands for itself. One third is drawn without replacement from
    the others, for all of which it stands, so that sums over the compared words estimate sums over the vocabulary.

    Args:
        by_frequency: (vocabulary,) int64; all words, the most frequent first.
        count: the number of words, below that of the vocabulary.
    Returns: (count,) int64, ascending; (count,) float32.
    """
    # The step decides, not the rows: all micro-batches and all processes of a step compare with the same words.
    frequent = count - count // 3
    others = by_frequency[frequent:]
    number = torch.tensor([step], device=by_frequency.device)
    bits = row_bits(seed, "softmax", number, len(others))
    drawn = others[first_in_order(bits, torch.ones_like(bits, dtype=torch.bool), count // 3)[0]]
    stand_for = torch.zeros(len(by_frequency), device=by_frequency.device)
    stand_for[drawn] = math.log(len(others) / (count // 3))
    words = torch.cat([by_frequency[:frequent], drawn]).sort().values
    return words, stand_for[words]


@torch.no_grad()
def place_words(token_ids: Tensor, positions: Tensor, is_selected: Tensor, words: Tensor) -> Tensor:
    """The rows with `words` at the selected positions.

    Args:
        token_ids: (batch, length) int64.
        positions: (batch, selected) int64; distinct where selected.
        is_selected: (batch, selected) bool.
        words: (batch, selected) int64.
    Returns: (batch, length) int64.
    """
    # Unused slots point at position 0, which is never selected, and write the token that is already there.
    kept = torch.where(is_selected, words, token_ids.gather(1, positions))
    return token_ids.scatter(1, positions, kept)


@torch.no_grad()
def place_averaged_words(token_ids: Tensor, positions: Tensor, is_selected: Tensor, words: Tensor) -> Tensor:
    """As `place_words`, but the ids drawn for the same position are averaged and rounded down.

    The average is the id of an unrelated word. The reference implementation has this quirk; it is for parity only.
    """
    counted = is_selected.to(torch.int64)
    sums = torch.zeros_like(token_ids).scatter_add(1, positions, words * counted)
    counts = torch.zeros_like(token_ids).scatter_add(1, positions, counted)
    return torch.where(counts > 0, sums // counts.clamp(min=1), token_ids)

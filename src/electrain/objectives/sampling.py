"""Draws from the generator, and what becomes of the text."""

import torch
from torch import Tensor


@torch.no_grad()
def sample_words(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """One word per position from softmax(logits / temperature), by inverting its cumulative distribution.

    Args:
        logits: (..., vocabulary) float; taken to float32.
        uniforms: (...) float32 in [0, 1).
    Returns: (...) int64. No gradient flows. A word of probability 0 is never drawn.
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    cumulative = probabilities.cumsum(-1)
    target = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    words = (cumulative <= target).sum(-1)
    return words.clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def place_words(token_ids: Tensor, positions: Tensor, is_selected: Tensor, words: Tensor) -> Tensor:
    """The rows with `words` standing at the selected positions.

    Args:
        token_ids: (batch, length) int64.
        positions: (batch, selected) int64, distinct where selected.
        is_selected: (batch, selected) bool.
        words: (batch, selected) int64.
    Returns: (batch, length) int64.
    """
    # Unselected slots write what already stands at position 0, which is never selected.
    kept = torch.where(is_selected, words, token_ids.gather(1, positions))
    return token_ids.scatter(1, positions, kept)


@torch.no_grad()
def place_averaged_words(token_ids: Tensor, positions: Tensor, is_selected: Tensor, words: Tensor) -> Tensor:
    """As `place_words`, where positions may collide: the ids drawn for one position are averaged and rounded down.

    The averaged id is an unrelated word: a quirk of the reference implementation, for parity only.
    """
    counted = is_selected.to(torch.int64)
    sums = torch.zeros_like(token_ids).scatter_add(1, positions, words * counted)
    counts = torch.zeros_like(token_ids).scatter_add(1, positions, counted)
    return torch.where(counts > 0, sums // counts.clamp(min=1), token_ids)

"""Passages that a causal generator writes: it continues real words with its own, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from electrain.pretraining.objectives.sampling import sample_words


@dataclass(frozen=True)
class Sampling:
    """How each word of a passage is drawn."""

    temperature: float = 1.0  # divisor of the logits
    top_p: float = 1.0  # words are drawn from the likeliest ones that together have this probability; see `nucleus`
    never: Sequence[int] = ()  # ids that are never drawn, such as special tokens, which untrained weights would write


@torch.no_grad()
def write_passages(
    network: Any,
    token_ids: Tensor,
    can_write: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
    *,
    table: Tensor | None = None,
) -> Tensor:
    """(rows, length) int64: the rows with new tokens drawn, from left to right, wherever `can_write` is True.

    Each token is drawn given all tokens before it, including newly written ones.

    Args:
        network: a `GPT2LMHeadModel`.
        token_ids: (rows, length) int64; the prompt, and any later tokens to keep, are where `can_write` is False.
        can_write: (rows, length) bool; never at the first position.
        uniforms: (rows, length) float32 in [0, 1); decides each token, so that the same passage can be written again.
        table: (vocabulary, hidden) float; replaces the network's own embeddings and output layer.
    """
    written = token_ids.clone()
    places = torch.nonzero(can_write.any(0)).flatten().tolist()
    if not places:
        return written
    words_table = network.lm_head.weight if table is None else table
    # The cache holds keys and values of the tokens read so far, so that each new token costs one short forward pass.
    cache, read = None, 0
    for place in range(places[0], places[-1] + 1):
        embeddings = functional.embedding(written[:, read:place], words_table)
        output = network.transformer(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        cache, read = output.past_key_values, place
        logits = functional.linear(output.last_hidden_state[:, -1], words_table)
        logits[:, list(sampling.never)] = -torch.inf
        kept = nucleus(logits, sampling.top_p, sampling.temperature)
        words = sample_words(kept, uniforms[:, place], sampling.temperature)
        written[:, place] = torch.where(can_write[:, place], words, written[:, place])
    return written


def nucleus(logits: Tensor, top_p: float, temperature: float = 1.0) -> Tensor:
    """(..., vocabulary) float: the logits, minus infinity outside the smallest set of words of probability `top_p`.

    Source: Holtzman et al. 2020, section 3.1 (top-p sampling).
    """
    if top_p >= 1:
        return logits
    ordered, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
    is_over = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(is_over.gather(-1, order.argsort(-1)), -torch.inf)

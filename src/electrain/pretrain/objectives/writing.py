"""Passages that a causal generator writes: real words to begin with, then its own, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from electrain.pretrain.objectives.sampling import sample_words


@dataclass(frozen=True)
class Sampling:
    """How each word of a passage is drawn.

    Attributes:
        temperature: the logits are divided by it.
        top_p: words are drawn from the likeliest ones that together have this probability; see `nucleus`.
        never: ids that are not drawn: special tokens, which young weights would write too.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    never: Sequence[int] = ()


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
    """(rows, length) int64: the rows with every token where `can_write` drawn anew, from left to right.

    Each token is drawn knowing all before it, the newly written ones included; keys and values are kept between
    tokens, so that each costs one step.

    Args:
        network: a `GPT2LMHeadModel`.
        token_ids: (rows, length) int64; the prompt stands where `can_write` is False, and so may later tokens.
        can_write: (rows, length) bool; never at the first place.
        uniforms: (rows, length) float32 in [0, 1); decides each token, so that a passage can be written again.
        table: (vocabulary, hidden) float; in place of the network's own embeddings and output layer.
    """
    written = token_ids.clone()
    places = torch.nonzero(can_write.any(0)).flatten().tolist()
    if not places:
        return written
    words_table = network.lm_head.weight if table is None else table
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
    """(..., vocabulary) float: the logits, minus infinity but for the likeliest words that hold `top_p` of the chance.

    The word with which the share is reached is kept. Source: Holtzman et al. 2020, section 3.1 (top-p sampling).
    """
    if top_p >= 1:
        return logits
    ordered, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
    is_over = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(is_over.gather(-1, order.argsort(-1)), -torch.inf)

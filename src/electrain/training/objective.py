"""What the training loop knows of an objective: tensors in, sums and counts out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LossTerm(NamedTuple):
    """A loss as its parts, so that it is averaged once, over the whole step.

    Attributes:
        total: () float32: the sum over scored elements, in nats.
        scored: () int64: how many elements were scored.
        weight: of the mean in the step's loss.
    """

    total: Tensor
    scored: Tensor
    weight: float


class Outcome(NamedTuple):
    """What one forward pass of an objective gives.

    Attributes:
        terms: the losses by name.
        observations: detached tensors for the journal, by name.
    """

    terms: dict[str, LossTerm]
    observations: dict[str, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    Attributes:
        tensors: the keyword arguments of the objective's forward pass, without the device.
        is_special: (batch, length) bool; True at [CLS], [SEP] and [PAD]; None where nothing is detected (fine-tuning).
        counts: elements scored by each loss term, by its name.
        tokens: real tokens, padding left out.
    """

    tensors: dict[str, Any]
    is_special: Tensor | None
    counts: dict[str, int]
    tokens: int


def word_loss(logits: Tensor, words: Tensor, is_selected: Tensor) -> Tensor:
    """() float32: the summed cross-entropy, in nats, of the original words at the selected positions.

    Args:
        logits: (batch, selected, vocabulary) float.
        words: (batch, selected) int64, the originals.
        is_selected: (batch, selected) bool.
    """
    losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), words.flatten(), reduction="none")
    return (losses * is_selected.flatten()).sum()

"""The protocol between the training loop and what it trains: rows in, sums of losses out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

R = TypeVar("R")


class LossTerm(NamedTuple):
    """One loss of a forward pass, as a sum: the loop divides it by what the whole step counts (`MicroBatch.counts`).

    A mean of means would be wrong, since micro-batches and processes can count different numbers of elements.

    Attributes:
        total: () float32; the sum over the scored elements, in nats.
        weight: factor of the term's mean in the loss of the step.
    """

    total: Tensor
    weight: float


class Outcome(NamedTuple):
    """What one forward pass of an objective gives.

    Attributes:
        terms: the losses by name.
        observations: detached tensors for the log, by name.
    """

    terms: dict[str, LossTerm]
    observations: dict[str, Tensor]


@dataclass(frozen=True)
class MicroBatch(Generic[R]):
    """The rows of one forward pass.

    Attributes:
        rows: what the objective's forward pass takes, on the CPU.
        counts: number of elements that each loss term sums over, by the term's name.
        tokens: number of real tokens, padding left out.
    """

    rows: R
    counts: dict[str, int]
    tokens: int


class Objective(nn.Module, ABC, Generic[R]):
    """What the loop trains. It calls the methods in this order, at every step.

    Attributes:
        has_stages: True where some parameters get no gradient in some steps, which distributed training has to know.
    """

    has_stages = False

    def begin_step(self, step: int) -> None:
        """Called before the rows of a step (counted from 0) are prepared. Calling it again changes nothing."""
        del step

    @abstractmethod
    def prepare(self, rows: R, device: torch.device) -> R:
        """The rows on the device, completed by whatever needs a network but no gradient."""

    @abstractmethod
    def forward(self, rows: R) -> Outcome:
        """The losses of prepared rows."""

    def parameter_networks(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Names and parameters of each network that can have a learning rate and a gradient norm of its own.

        The first is the one that `peak_learning_rate` is for. A parameter of two networks belongs to the first.
        """
        return [list(self.named_parameters())]

"""The protocol between the training loop and what it trains: rows go in, sums of losses come out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

R = TypeVar("R")


class LossTerm(NamedTuple):
    """One loss of a forward pass, as a sum over its elements.

    The loop divides it by the number of elements in the whole step (`MicroBatch.counts`). A mean per micro-batch would
    not do: micro-batches and processes score different numbers of elements, and a mean of means weighs them wrongly.
    """

    total: Tensor  # () float32; the sum over the scored elements, in nats
    weight: float  # factor of the term's mean in the loss of the step


class Outcome(NamedTuple):
    """Result of a forward pass: the losses, and detached tensors for the log, each by name."""

    terms: dict[str, LossTerm]
    observations: dict[str, Tensor]


class Region(NamedTuple):
    """A part of a forward pass that is compiled by itself."""

    module: nn.Module
    method: str = ""  # a method of the module; empty: the call of the module itself


@dataclass(frozen=True)
class MicroBatch(Generic[R]):
    """The rows of one forward pass."""

    rows: R  # the objective's input, on any device
    # Number of elements that each loss term sums over, by the term's name; () int64 where the rows are on a device,
    # since reading them there would make the device wait.
    counts: Mapping[str, int | Tensor]
    tokens: int | Tensor  # number of real tokens, without padding; as above


class Objective(nn.Module, ABC, Generic[R]):
    """What the loop trains. It calls the methods in this order, at every step.

    Attributes:
        has_stages: True if some parameters get no gradient in some steps, which distributed training has to know.
    """

    has_stages = False

    def begin_step(self, step: int) -> None:
        """Called before the rows of a step (counted from 0) are prepared. Calling it again changes nothing."""
        del step

    def begins_stage(self, step: int) -> bool:
        """True if a step is the first of a stage that trains other networks than the step before it."""
        del step
        return False

    @abstractmethod
    def prepare(self, rows: R, device: torch.device) -> R:
        """The rows on the device, after the work that needs a network but no gradient."""

    @abstractmethod
    def forward(self, rows: R) -> Outcome:
        """The losses of prepared rows."""

    def regions(self) -> list[Region]:
        """The parts of `forward` that are compiled, each by itself; by default the whole of it.

        Equal layers are compiled once, and what runs between the regions is not compiled. No region may wait for the
        device, or make tensors on another one.
        """
        return [Region(self)]

    def parameter_networks(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Names and parameters of each network that can have a learning rate and gradient clipping of its own.

        `peak_learning_rate` is for the first network. A parameter that two networks share belongs to the first.
        """
        return [list(self.named_parameters())]

"""What a fine-tuning task says of itself; loop, checkpoints, files and command line are the same for all.

A task turns examples into rows of tokens, rows into tensors, tensors into a loss, and a model's outputs into answers
that are scored against the examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from electrain.data.labelled.examples import TaskName
from electrain.data.tokenizer.windows import longest_first

E = TypeVar("E", contravariant=True)
Answer = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What goes through the model at once.

    Attributes:
        example: number of the example that it belongs to; an example can have several rows (windows).
        input_ids: with special tokens.
        token_type_ids: as many; all 0 for a single text.
        target: what the loss compares with; its form is the task's own. None where unknown.
        places: what the task needs to find its way back from tokens to the example; its form is the task's own.
        is_cut: True where the example's end did not fit.
        is_target_cut: True where the end of what is to be written did not fit.
    """

    example: int
    input_ids: list[int]
    token_type_ids: list[int]
    target: Any = None
    places: Any = None
    is_cut: bool = False
    is_target_cut: bool = False


@dataclass(frozen=True)
class Collated:
    """Rows as tensors.

    Attributes:
        tensors: keyword arguments of `Task.loss`, and those of the model among them.
        scored: elements that the loss is summed over: rows, words or target tokens.
        tokens: real tokens, padding left out.
    """

    tensors: dict[str, Any]
    scored: int
    tokens: int


class Task(Protocol[E]):
    """One kind of fine-tuning."""

    @property
    def name(self) -> TaskName:
        """As the command line has it."""
        ...

    @property
    def main_score(self) -> str:
        """The key of `score` that chooses the best checkpoint; higher is better."""
        ...

    def rows(self, examples: Sequence[E]) -> list[Row]:
        """The examples as rows of tokens, in their order."""
        ...

    def collate(self, rows: Sequence[Row]) -> Collated:
        """Rows, padded to the longest of them, as tensors; targets only where every row has one."""
        ...

    def loss(self, model: Any, tensors: Mapping[str, Any]) -> Tensor:
        """() float32: the summed loss, in nats (squared error for regression), of the rows in `tensors`."""
        ...

    def answer(self, model: Any, examples: Sequence[E]) -> list[Answer]:
        """For each example, in order, what the model says of it, ready for JSON. The model is in evaluation mode."""
        ...

    def score(self, examples: Sequence[E], answers: Sequence[Answer]) -> dict[str, float]:
        """The task's scores, in the units in which they are usually published."""
        ...

    def score_settings(self, examples: Sequence[E]) -> dict[str, Any]:
        """What the scores depend on besides examples and answers."""
        ...


def padded(rows: Sequence[list[int]], padding: int) -> Tensor:
    """(rows, longest) int64: lists of numbers, filled up at the end."""
    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows], dtype=torch.int64)


def encoder_inputs(rows: Sequence[Row], pad_id: int, *, with_token_types: bool) -> dict[str, Any]:
    """`input_ids`, `attention_mask` (None where no row is padded) and `token_type_ids`, each (rows, length) int64."""
    ids = padded([row.input_ids for row in rows], pad_id)
    lengths = torch.tensor([len(row.input_ids) for row in rows])
    is_real = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": None if is_real.all() else is_real.to(torch.int64),
    }
    if with_token_types:
        inputs["token_type_ids"] = padded([row.token_type_ids for row in rows], 0)
    return inputs


def inference_batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """The rows, longest first, in batches of at most `batch_tokens` tokens, padding counted."""
    return longest_first(rows, batch_tokens, lambda row: len(row.input_ids))


def on_device(tensors: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The same arguments, tensors moved to the device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in tensors.items()}

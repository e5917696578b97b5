"""What all fine-tuning tasks share; the loop, checkpoints, files and command line are the same for all of them.

A task turns examples into rows of tokens, rows into tensors, tensors into a loss, and a model's outputs into answers,
which it scores against the examples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from electrain.data.tokenizer.windows import longest_first
from electrain.finetuning.tasks.network import Arrays, AskedModel, network_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

E = TypeVar("E")
T = TypeVar("T")
Answer = dict[str, Any]
BATCH_TOKENS = 8192  # maximum number of tokens, padding counted, in a forward pass without training
# Keyword arguments of a model: tensors, and None where an argument does not apply.
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A sequence of tokens that goes through the model as a whole; a long example has several (windows)."""

    example: int  # its number among the examples
    input_ids: list[int]  # special tokens included
    token_type_ids: list[int]  # one per token; all 0 for a single text
    target: Any = None  # what the loss compares with, in the task's own form; None where unknown
    places: Any = None  # what the task needs to map tokens back to the example, in its own form
    is_cut: bool = False  # True where the end of the example did not fit
    is_target_cut: bool = False  # True where the end of the target text did not fit


@dataclass(frozen=True)
class Collated:
    """Rows as tensors."""

    tensors: "dict[str, Tensor]"  # what `Task.loss` reads: the model's keyword arguments, and targets
    scored: int  # number of elements that the loss is summed over: rows, words or target tokens
    tokens: int  # number of tokens, padding not counted


@dataclass(frozen=True)
class Task(ABC, Generic[E]):
    """One kind of fine-tuning, set up for a model."""

    tokenizer: "PreTrainedTokenizerFast"  # the encoder's fast tokenizer
    longest_tokens: int = 128  # maximum length of a row, in tokens, special ones counted
    _: KW_ONLY
    with_token_types: bool = True  # False for encoders without token types (ModernBERT)
    batch_tokens: int = BATCH_TOKENS  # in a forward pass without training

    @property
    @abstractmethod
    def main_score(self) -> str:
        """The key of `score` by which the best model is chosen unless another is asked for; higher is better."""

    @property
    @abstractmethod
    def score_names(self) -> tuple[str, ...]:
        """The keys that `score` may have."""

    @abstractmethod
    def rows(self, examples: Sequence[E]) -> list[Row]:
        """The examples as rows of tokens, in the same order."""

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Collated:
        """Rows as tensors, padded to the longest of them; with targets only if every row has one."""

    @abstractmethod
    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: the loss summed over the rows in `tensors`, in nats (squared error for regression)."""

    @abstractmethod
    def answer(self, model: AskedModel, examples: Sequence[E]) -> list[Answer]:
        """The model's answer to each example, in order, ready for JSON. The model must be in evaluation mode."""

    @abstractmethod
    def score(self, examples: Sequence[E], answers: Sequence[Answer]) -> dict[str, float]:
        """The task's scores by name, in the units in which they are usually published."""

    def calibrated(self, examples: Sequence[E], answers: Sequence[Answer]) -> list[Answer]:
        """The answers as a model gives them whose last decision, if it has one, is set by the truth of the examples."""
        del examples
        return list(answers)

    def score_settings(self, examples: Sequence[E]) -> dict[str, object]:
        """Settings that the scores depend on besides examples and answers, ready for JSON."""
        del examples
        return {}

    def arrays(self, rows: Sequence[Row]) -> Arrays:
        """The encoder's inputs, as `encoder_arrays`."""
        return encoder_arrays(rows, self.tokenizer.pad_token_id, with_token_types=self.with_token_types)

    def inputs(self, rows: Sequence[Row]) -> "dict[str, Tensor]":
        """The encoder's inputs, as `encoder_arrays`, as tensors."""
        return as_tensors(self.arrays(rows))

    def logits(self, model: AskedModel, rows: Sequence[Row]) -> NDArray[np.float32]:
        """The model's logits for the rows, float32; of question answering (rows, length, 2) for start and end."""
        return network_of(model).logits(self.arrays(rows))


def padded(rows: Sequence[list[int]], padding: int) -> NDArray[np.int64]:
    """(rows, longest) int64: the lists, padded at the end to equal length."""
    longest = max(map(len, rows))
    return np.array([row + [padding] * (longest - len(row)) for row in rows], np.int64)


def encoder_arrays(rows: Sequence[Row], pad_id: int, *, with_token_types: bool) -> Arrays:
    """`input_ids`, `attention_mask` unless no row is padded, and `token_type_ids`, each (rows, length) int64."""
    ids = padded([row.input_ids for row in rows], pad_id)
    lengths = np.array([len(row.input_ids) for row in rows])
    is_real = np.arange(ids.shape[1]) < lengths[:, None]
    inputs = {"input_ids": ids}
    if not is_real.all():  # without a mask, attention takes its fused path
        inputs["attention_mask"] = is_real.astype(np.int64)
    if with_token_types:
        inputs["token_type_ids"] = padded([row.token_type_ids for row in rows], 0)
    return inputs


def as_tensors(arrays: Arrays) -> "dict[str, Tensor]":
    """The arrays as tensors of PyTorch, by the same names."""
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def tokens_of(rows: Sequence[Row]) -> int:
    """Number of tokens in the rows."""
    return sum(len(row.input_ids) for row in rows)


def logits_and_targets(model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "tuple[Tensor, Tensor]":
    """The model's logits in float32, and the entry `targets`, which is no input of the model."""
    inputs = {name: value for name, value in tensors.items() if name != "targets"}
    return model(**inputs).logits.float(), tensors["targets"]


def inference_batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """The rows in batches of at most `batch_tokens` tokens, padding counted; longest first, to keep padding low."""
    return longest_first(rows, batch_tokens, lambda row: len(row.input_ids))


def results_in_order(
    rows: Sequence[Row], batch_tokens: int, compute: Callable[[list[Row]], Iterable[T]]
) -> Iterator[tuple[Row, T]]:
    """Each row with its result, in the order of the rows; `compute` gets them in batches of similar length."""
    # Rows are not hashable: their identity finds the way back.
    found = {
        id(row): result
        for batch in inference_batches(rows, batch_tokens)
        for row, result in zip(batch, compute(batch), strict=True)
    }
    return ((row, found[id(row)]) for row in rows)


def on_device(tensors: "Mapping[str, Tensor]", device: "torch.device") -> "dict[str, Tensor]":
    """The tensors on the device, by the same names."""
    return {name: value.to(device) for name, value in tensors.items()}


# A task whose kind of example the caller does not need to know.
AnyTask = Task[Any]

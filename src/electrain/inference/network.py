"""What answers for a pretrained model: networks of PyTorch, or exported ones. Nothing here needs torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from electrain.finetuning.tasks.network import Arrays

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Ids = NDArray[np.int64]
Chances = NDArray[np.float32]


class Read(Protocol):
    """What all networks that read texts have."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer of the network."""

    @property
    def longest_row(self) -> int:
        """Maximum number of tokens in a row, special ones counted."""


class Detector(Read, Protocol):
    """A network that tells original tokens from replaced ones."""

    def replaced(self, ids: Ids, is_real: NDArray[np.bool_] | None) -> Chances:
        """(rows, length) float32: the logit of "this token was replaced".

        Args:
            ids: (rows, length) int64.
            is_real: (rows, length) bool, True at real tokens; None if all are.
        """


class Filler(Read, Protocol):
    """A masked language model."""

    @property
    def source(self) -> str:
        """The folder or hub id that the network was read from."""

    def words(self, ids: Ids, is_real: NDArray[np.bool_] | None, is_selected: NDArray[np.bool_]) -> Chances:
        """(selected, vocabulary) float32: logits of the words at the selected positions, in the order of the rows.

        Args: as `Detector.replaced`; is_selected: (rows, length) bool.
        """


class Writer(Read, Protocol):
    """A causal generator."""

    def continuation(
        self, ids: Sequence[int], uniforms: Chances, temperature: float, top_p: float, never: Sequence[int]
    ) -> list[int]:
        """The tokens that follow `ids`, one for each of the uniforms, (tokens,) float32 in [0, 1), which decide them.

        Args: temperature, top_p, never: see `electrain.pretraining.objectives.writing.Sampling`.
        Raises: CheckpointError: the network writes nothing.
        """


class TextEncoder(Read, Protocol):
    """A network that turns texts into vectors."""

    @property
    def with_token_types(self) -> bool:
        """True if the network reads token types."""

    def means(self, inputs: Arrays) -> Chances:
        """(rows, hidden) float32: the mean of each row's last hidden states over its real tokens."""

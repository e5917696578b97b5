"""What classification and regression share: a text or a pair of texts becomes one row and one vector of logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from electrain.data.labelled.examples import TextExample
from electrain.data.tokenizer.plain_text import encode_plain
from electrain.finetune.tasks.task import Collated, Row, encoder_inputs, inference_batches, on_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class TextTask:
    """A task on texts or pairs of texts.

    Attributes:
        tokenizer: a fast tokenizer.
        longest_tokens: maximum length of a row, in tokens; longer texts are cut, the longer one of a pair first.
        with_token_types: False for encoders without token types.
        batch_tokens: maximum number of tokens, padding counted, in a forward pass without training.
    """

    tokenizer: "PreTrainedTokenizerFast"
    longest_tokens: int = 128
    with_token_types: bool = True
    batch_tokens: int = 8192

    def target_of(self, example: TextExample) -> int | float | list[float] | None:
        """The target of an example; None where unknown."""
        raise NotImplementedError

    def rows(self, examples: Sequence[TextExample]) -> list[Row]:
        """One row for each example."""
        rows: list[Any] = [None] * len(examples)
        for is_pair in (False, True):
            numbers = [number for number, example in enumerate(examples) if (example.second is not None) == is_pair]
            if not numbers:
                continue
            encoded = encode_plain(
                self.tokenizer,
                [examples[number].first for number in numbers],
                [examples[number].second for number in numbers] if is_pair else None,
                truncation=True,
                max_length=self.longest_tokens,
                return_token_type_ids=True,
            )
            parts = (encoded["input_ids"], encoded["token_type_ids"], encoded.encodings)
            for number, ids, types, encoding in zip(numbers, *parts, strict=True):
                target, is_cut = self.target_of(examples[number]), bool(encoding.overflowing)
                rows[number] = Row(number, ids, types, target, is_cut=is_cut)
        return rows

    def score_settings(self, examples: Sequence[TextExample]) -> dict[str, object]:
        """Nothing: these scores depend on examples and answers alone."""
        del examples
        return {}

    def collated(self, rows: Sequence[Row], dtype: torch.dtype) -> Collated:
        """The rows as tensors, with `targets` of the given dtype if every row has one."""
        tensors = encoder_inputs(rows, self.tokenizer.pad_token_id, with_token_types=self.with_token_types)
        if all(row.target is not None for row in rows):
            tensors["targets"] = torch.tensor([row.target for row in rows], dtype=dtype)
        return Collated(tensors, len(rows), sum(len(row.input_ids) for row in rows))

    @torch.inference_mode()
    def logits(self, model: "PreTrainedModel", examples: Sequence[TextExample]) -> list[Tensor]:
        """The logits of each example: (labels,) float32, on the CPU."""
        result: list[Any] = [None] * len(examples)
        for batch in inference_batches(self.rows(examples), self.batch_tokens):
            inputs = encoder_inputs(batch, self.tokenizer.pad_token_id, with_token_types=self.with_token_types)
            logits = model(**on_device(inputs, model.device)).logits.float().cpu()
            for row, values in zip(batch, logits, strict=True):
                result[row.example] = values
        return result

"""Classification of a text or a pair of texts: each gets one label, or any number of labels."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.examples import TextExample
from electrain.data.tokenizer.plain_text import encode_plain
from electrain.finetuning.tasks.long_texts import Cut, places_of_rows
from electrain.finetuning.tasks.metrics import classification_scores
from electrain.finetuning.tasks.network import AskedModel
from electrain.finetuning.tasks.probabilities import sigmoid, softmax
from electrain.finetuning.tasks.task import Answer, Collated, Row, Task, logits_and_targets, results_in_order, tokens_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Where a text may have several labels, it gets those that are at least this probable.
LABEL_THRESHOLD = 0.5


@dataclass(frozen=True)
class TextTask(Task[TextExample]):
    """A task with one vector of logits for each text or pair, the mean of those of its rows.

    A text has one row, except in windows, each of which is trained with the whole text's target. The longer text of a
    pair is cut first.
    """

    cut: Cut = field(default="beginning", kw_only=True)  # what of a longer text is read

    @abstractmethod
    def target_of(self, example: TextExample) -> int | float | list[float] | None:
        """The target of an example; None where unknown."""

    @abstractmethod
    def answer_of(self, logits: NDArray[np.float32]) -> Answer:
        """What the logits of an example say; (labels,) float32."""

    def rows(self, examples: Sequence[TextExample]) -> list[Row]:
        rows: list[list[Row]] = [[] for _ in examples]
        for is_pair in (False, True):
            numbers = [number for number, example in enumerate(examples) if (example.second is not None) == is_pair]
            if not numbers:
                continue
            encoded = encode_plain(
                self.tokenizer,
                [examples[number].first for number in numbers],
                [examples[number].second for number in numbers] if is_pair else None,
                truncation=self.cut == "beginning",
                max_length=self.longest_tokens,
                return_token_type_ids=True,
            )
            parts = (encoded["input_ids"], encoded["token_type_ids"], encoded.encodings)
            for number, ids, types, encoding in zip(numbers, *parts, strict=True):
                target = self.target_of(examples[number])
                if self.cut == "beginning":
                    rows[number] = [Row(number, ids, types, target, is_cut=bool(encoding.overflowing))]
                    continue
                texts = [None if special else text for special, text in zip(*_frame_of(encoding), strict=True)]
                own, is_cut = places_of_rows(texts, self.longest_tokens, self.cut)
                rows[number] = [
                    Row(number, [ids[place] for place in row], [types[place] for place in row], target, is_cut=is_cut)
                    for row in own
                ]
        return [row for own in rows for row in own]

    def collate(self, rows: Sequence[Row]) -> Collated:
        """`targets` is (rows,) int64 labels or float32 numbers, or (rows, labels) float32 of several labels."""
        import torch

        tensors = self.inputs(rows)
        if all(row.target is not None for row in rows):
            tensors["targets"] = torch.tensor([row.target for row in rows])
        return Collated(tensors, len(rows), tokens_of(rows))

    def answer(self, model: AskedModel, examples: Sequence[TextExample]) -> list[Answer]:
        """{"text"} with "pair" for a pair, and what `answer_of` says of the mean of its rows' logits."""
        rows, of_batch = self.rows(examples), lambda batch: self.logits(model, batch)
        results: Iterator[tuple[Row, NDArray[np.float32]]] = results_in_order(rows, self.batch_tokens, of_batch)
        answers = []
        for number, own in groupby(results, lambda result: result[0].example):
            example = examples[number]
            texts = (
                {"text": example.first} if example.second is None else {"text": example.first, "pair": example.second}
            )
            answers.append(texts | self.answer_of(np.stack([logits for _, logits in own]).mean(0)))
        return answers


def _frame_of(encoding: Any) -> tuple[list[int], list[int | None]]:
    """For each token of an encoding whether it is special, 0 or 1, and the number of its text."""
    return encoding.special_tokens_mask, encoding.sequence_ids


@dataclass(frozen=True)
class Classification(TextTask):
    """Classification."""

    labels: tuple[str, ...] = ()  # the labels, in the order of the logits
    has_many: bool = False  # True where a text may have several labels or none
    class_weights: tuple[float, ...] = ()  # of each label in the loss; empty: all weigh 1
    # The probability from which on a label is given. Of two labels, one may have it; the other is given below it.
    thresholds: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def main_score(self) -> str:
        return "f1_micro" if self.has_many else "accuracy"

    @property
    def score_names(self) -> tuple[str, ...]:
        return ("exact_match", "f1_micro", "f1_macro") if self.has_many else ("accuracy", "f1_macro", "matthews")

    def target_of(self, example: TextExample) -> int | list[float] | None:
        """Number of the label; where there may be several, 0.0 or 1.0 for each label; None where unknown."""
        if self.has_many:
            return [float(label in example.labels) for label in self.labels]
        return self.labels.index(example.labels[0]) if example.labels else None

    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: summed cross-entropy in nats; where there may be several labels, binary and over all of them."""
        from torch.nn import functional

        logits, targets = logits_and_targets(model, tensors)
        if self.has_many:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        return functional.cross_entropy(logits, targets, weights, reduction="sum")

    def answer_of(self, logits: NDArray[np.float32]) -> Answer:
        """{"label", "probability", "probabilities"}, or {"labels", "probabilities"} where there may be several."""
        chances = (sigmoid(logits) if self.has_many else softmax(logits)).tolist()
        return self.decided(dict(zip(self.labels, chances, strict=True)))

    def decided(self, probabilities: Mapping[str, float]) -> Answer:
        """What `answer_of` returns for these probabilities of all labels, in the order of the labels."""
        chances = dict(probabilities)
        if self.has_many:
            given = [
                label for label, chance in chances.items() if chance >= self.thresholds.get(label, LABEL_THRESHOLD)
            ]
            return {"labels": given, "probabilities": chances}
        label = max(chances, key=chances.__getitem__)
        for name, threshold in self.thresholds.items():
            label = name if chances[name] >= threshold else next(one for one in self.labels if one != name)
        return {"label": label, "probability": chances[label], "probabilities": chances}

    def score_settings(self, examples: Sequence[TextExample]) -> dict[str, object]:
        """The thresholds, where they were chosen."""
        del examples
        return {"thresholds": dict(self.thresholds)} if self.thresholds else {}

    def score(self, examples: Sequence[TextExample], answers: Sequence[Answer]) -> dict[str, float]:
        if self.has_many:
            return classification_scores(
                [example.labels for example in examples], [tuple(answer["labels"]) for answer in answers]
            )
        return classification_scores([example.labels[0] for example in examples], [a["label"] for a in answers])

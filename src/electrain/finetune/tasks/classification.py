"""Classification of a text or a pair of texts: each gets one label, or any number of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.labelled.examples import TaskName, TextExample
from electrain.finetune.tasks.metrics import classification_scores
from electrain.finetune.tasks.task import Answer, Collated, Row
from electrain.finetune.tasks.text_task import TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where a text may have several labels, it gets those that are at least this probable.
LABEL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Classification(TextTask):
    """Classification.

    Attributes, besides those of `TextTask`:
        labels: the labels, in the order of the logits.
        has_many: True where a text may have several labels or none.
    """

    labels: tuple[str, ...] = ()
    has_many: bool = False
    name: TaskName = "classification"

    @property
    def main_score(self) -> str:
        """`accuracy`, or `f1_micro` where a text may have several labels."""
        return "f1_micro" if self.has_many else "accuracy"

    def target_of(self, example: TextExample) -> int | list[float] | None:
        """Number of the label; where there may be several, 0.0 or 1.0 for each label; None where unknown."""
        if self.has_many:
            return [float(label in example.labels) for label in self.labels]
        return self.labels.index(example.labels[0]) if example.labels else None

    def collate(self, rows: Sequence[Row]) -> Collated:
        """See `Task`. `targets` is (rows,) int64, or (rows, labels) float32 where there may be several."""
        return self.collated(rows, torch.float32 if self.has_many else torch.int64)

    def loss(self, model: "PreTrainedModel", tensors: Mapping[str, Tensor]) -> Tensor:
        """() float32: summed cross-entropy in nats; where there may be several labels, binary and over all of them."""
        inputs = dict(tensors)
        targets = inputs.pop("targets")
        logits = model(**inputs).logits.float()
        if self.has_many:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return functional.cross_entropy(logits, targets, reduction="sum")

    def answer(self, model: "PreTrainedModel", examples: Sequence[TextExample]) -> list[Answer]:
        """{"text", "pair", "label", "probability", "probabilities"}, or "labels" where there may be several."""
        answers = []
        for example, logits in zip(examples, self.logits(model, examples), strict=True):
            chances = (logits.sigmoid() if self.has_many else logits.softmax(-1)).tolist()
            probabilities = dict(zip(self.labels, chances, strict=True))
            answer: Answer = {"text": example.first}
            if example.second is not None:
                answer["pair"] = example.second
            if self.has_many:
                answer["labels"] = [label for label, chance in probabilities.items() if chance >= LABEL_THRESHOLD]
            else:
                label = max(probabilities, key=probabilities.__getitem__)
                answer |= {"label": label, "probability": probabilities[label]}
            answers.append(answer | {"probabilities": probabilities})
        return answers

    def score(self, examples: Sequence[TextExample], answers: Sequence[Answer]) -> dict[str, float]:
        """See `classification_scores`."""
        if self.has_many:
            return classification_scores(
                [example.labels for example in examples], [tuple(answer["labels"]) for answer in answers]
            )
        return classification_scores([example.labels[0] for example in examples], [a["label"] for a in answers])

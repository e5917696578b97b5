"""Classification of a text or a pair of texts: one label of several, or any number of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.labelled.examples import TaskName, TextExample
from electrain.finetune.tasks.metrics import classification_scores
from electrain.finetune.tasks.task import Answer, Collated, Row
from electrain.finetune.tasks.text_task import TextTask

# From this probability on a label is given, where a text may have several.
LABEL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Classification(TextTask):
    """Attributes, beside those of `TextTask`:

    labels: in the order of the logits.
    has_many: True where a text may have several labels, or none.
    """

    labels: tuple[str, ...] = ()
    has_many: bool = False
    name: TaskName = "classification"

    @property
    def main_score(self) -> str:
        """Accuracy; micro F1 where a text may have several labels."""
        return "f1_micro" if self.has_many else "accuracy"

    def target_of(self, example: TextExample) -> Any:
        """The number of the label; 0 and 1 for each label where there may be several; None where unknown."""
        if self.has_many:
            return [float(label in example.labels) for label in self.labels]
        return self.labels.index(example.labels[0]) if example.labels else None

    def collate(self, rows: Sequence[Row]) -> Collated:
        """See `Task`. `targets` is (rows,) int64, or (rows, labels) float32 where there may be several."""
        return self.collated(rows, torch.float32 if self.has_many else torch.int64)

    def loss(self, model: Any, tensors: Mapping[str, Any]) -> Tensor:
        """() float32: summed cross-entropy in nats; binary, over all labels, where there may be several."""
        inputs = dict(tensors)
        targets = inputs.pop("targets")
        logits = model(**inputs).logits.float()
        if self.has_many:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return functional.cross_entropy(logits, targets, reduction="sum")

    def answer(self, model: Any, examples: Sequence[TextExample]) -> list[Answer]:
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

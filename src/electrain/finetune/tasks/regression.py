"""Regression: a number for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from electrain.data.labelled.examples import TaskName, TextExample
from electrain.finetune.tasks.metrics import regression_scores
from electrain.finetune.tasks.task import Answer, Collated, Row
from electrain.finetune.tasks.text_task import TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Regression(TextTask):
    """Regression on the numbers as they are: the reference implementation does not scale them either.

    Source: google-research/electra, finetune/classification/classification_tasks.py, RegressionTask.
    """

    name: TaskName = "regression"
    main_score: str = "spearman"

    def target_of(self, example: TextExample) -> float | None:
        """The number; None where unknown."""
        return example.value

    def collate(self, rows: Sequence[Row]) -> Collated:
        """See `Task`. `targets` is (rows,) float32."""
        return self.collated(rows, torch.float32)

    def loss(self, model: "PreTrainedModel", tensors: Mapping[str, Tensor]) -> Tensor:
        """() float32: summed squared error."""
        inputs = dict(tensors)
        targets = inputs.pop("targets")
        return functional.mse_loss(model(**inputs).logits.float().squeeze(-1), targets, reduction="sum")

    def answer(self, model: "PreTrainedModel", examples: Sequence[TextExample]) -> list[Answer]:
        """{"text", "pair", "value"}."""
        answers = []
        for example, logits in zip(examples, self.logits(model, examples), strict=True):
            answer: Answer = {"text": example.first}
            if example.second is not None:
                answer["pair"] = example.second
            answers.append(answer | {"value": float(logits[0])})
        return answers

    def score(self, examples: Sequence[TextExample], answers: Sequence[Answer]) -> dict[str, float]:
        """See `regression_scores`."""
        truth = [0.0 if example.value is None else example.value for example in examples]
        return regression_scores(truth, [answer["value"] for answer in answers])

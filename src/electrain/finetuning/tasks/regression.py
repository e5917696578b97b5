"""Regression: a number for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.examples import TextExample
from electrain.finetuning.tasks.classification import TextTask
from electrain.finetuning.tasks.metrics import regression_scores
from electrain.finetuning.tasks.task import Answer, logits_and_targets

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Regression(TextTask):
    """Regression on the numbers as they are: the reference implementation does not scale them either.

    Source: google-research/electra, finetune/classification/classification_tasks.py, RegressionTask.
    """

    main_score = "spearman"
    score_names = ("pearson", "spearman", "mean_squared_error")

    def target_of(self, example: TextExample) -> float | None:
        return example.value

    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: summed squared error."""
        from torch.nn import functional

        logits, targets = logits_and_targets(model, tensors)
        return functional.mse_loss(logits.squeeze(-1), targets, reduction="sum")

    def answer_of(self, logits: NDArray[np.float32]) -> Answer:
        """{"value"}."""
        return {"value": float(logits[0])}

    def score(self, examples: Sequence[TextExample], answers: Sequence[Answer]) -> dict[str, float]:
        truth = [0.0 if example.value is None else example.value for example in examples]
        return regression_scores(truth, [answer["value"] for answer in answers])

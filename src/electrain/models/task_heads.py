"""Encoders with a head for a task: Hugging Face's classes, from pretrained or fresh weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

TASK_CLASSES: dict[str, Any] = {
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
# What each family calls its dropouts.
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "embedding_dropout",
    "attention_dropout",
    "mlp_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "hidden_dropout",
    "dropout",
)
# The layer that gives the answer; a discriminator of two labels has one of the same name and shape.
_ANSWER_LAYERS = ("classifier", "qa_outputs")
# GELU(x) is x in float32 from about 6 on, and no state of an ELECTRA encoder reaches this far below zero.
_FOLD_SHIFT = 64.0


def with_dropout(configuration: PretrainedConfig, dropout: float) -> PretrainedConfig:
    """A copy of a Hugging Face configuration in which every dropout that it knows has this value."""
    configuration = copy.deepcopy(configuration)
    for name in _DROPOUTS:
        if hasattr(configuration, name):
            setattr(configuration, name, dropout)
    return configuration


def task_configuration(
    configuration: PretrainedConfig, task: str, labels: tuple[str, ...], *, dropout: float, pooling: str
) -> PretrainedConfig:
    """The configuration of an encoder with the task's head.

    Args:
        labels: in the order of the logits; for regression none.
        pooling: cls or mean; read by ModernBERT alone.
    """
    configuration = with_dropout(configuration, dropout)
    names = {"regression": ("value",), "question-answering": ("start", "end")}.get(task, labels)
    configuration.id2label = dict(enumerate(names))
    configuration.label2id = {name: number for number, name in enumerate(names)}
    if hasattr(configuration, "classifier_pooling"):
        configuration.classifier_pooling = pooling
    if task in ("classification", "regression"):
        configuration.problem_type = "regression" if task == "regression" else "single_label_classification"
    return configuration


def reset_answer_layer(model: PreTrainedModel) -> None:
    """Fresh weights for the layer that gives the answer, since what a discriminator has there answers something else.

    Source of the deviation 0.02: Clark et al. 2020, table 6.
    """
    for name in _ANSWER_LAYERS:
        layer = getattr(model, name, None)
        for linear in [layer] if isinstance(layer, nn.Linear) else []:
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)


class ReferenceHead(nn.Module):
    """Dropout and one linear layer on [CLS], as the reference implementation has it.

    Source: google-research/electra, finetune/classification/classification_tasks.py.
    """

    def __init__(self, hidden_size: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, labels)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, features: Tensor, **_: Any) -> Tensor:
        """(batch, labels) float from (batch, length, hidden) float."""
        logits: Tensor = self.out_proj(self.dropout(features[:, 0]))
        return logits


def use_reference_head(model: PreTrainedModel) -> None:
    """Puts a `ReferenceHead` into an `ElectraForSequenceClassification`, whose own head has a further dense layer."""
    config = model.config
    model.classifier = ReferenceHead(config.hidden_size, config.num_labels, config.hidden_dropout_prob)


@torch.no_grad()
def fold_reference_head(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the head that Hugging Face's class has, and the same outputs.

    GELU(x) - GELU(-x) is x: the dense layer gives each logit and its negative, the linear layer takes the difference.
    Where there are more logits than half of the width, the dense layer instead adds a number so large that GELU changes
    nothing, and the linear layer takes it away again, which wants float32.
    """
    head = getattr(model, "classifier", None)
    if not isinstance(head, ReferenceHead):
        return model
    folded = type(model)(model.config)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    folded.load_state_dict(state, strict=False)
    dense, output = folded.classifier.dense, folded.classifier.out_proj
    weight, bias = head.out_proj.weight, head.out_proj.bias
    labels, width = weight.shape
    if 2 * labels > width:
        dense.weight.copy_(torch.eye(width))
        dense.bias.fill_(_FOLD_SHIFT)
        output.weight.copy_(weight)
        output.bias.copy_(bias - _FOLD_SHIFT * weight.sum(1))
        return folded.eval()
    for layer in (dense, output):
        layer.weight.zero_()
        layer.bias.zero_()
    dense.weight[: 2 * labels].copy_(torch.cat([weight, -weight]))
    dense.bias[: 2 * labels].copy_(torch.cat([bias, -bias]))
    output.weight[:, : 2 * labels].copy_(torch.cat([torch.eye(labels), -torch.eye(labels)], 1))
    return folded.eval()

"""Prepares the Hugging Face classes that have the head of a fine-tuning task."""

import copy

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

TASK_CLASSES: dict[str, type[PreTrainedModel]] = {
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
# The names that the families of networks have for their dropouts.
_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "embedding_dropout"),
    *("attention_dropout", "mlp_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout", "dropout"),
)
# In float32, GELU(x) equals x from about 6 on, and no state of an ELECTRA encoder is below -58.
_FOLD_SHIFT = 64.0


def with_dropout(configuration: PretrainedConfig, dropout: float) -> PretrainedConfig:
    """A copy of a configuration in which every dropout has this value."""
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
        labels: in the order of the logits; none for regression.
        pooling: cls or mean; only ModernBERT reads it.
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
    """Gives the layer of the answer random weights.

    The detection head of a discriminator has a layer of the same name. With two labels it has the same shape too, and
    would be loaded as a classifier. Source of the deviation 0.02: Clark et al. 2020, table 6.
    """
    for name in ("classifier", "qa_outputs"):  # of token classification, and of question answering
        layer = getattr(model, name, None)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)


class ReferenceHead(nn.Module):
    """Dropout and one linear layer on [CLS], as in the reference implementation.

    Source: google-research/electra, finetune/classification/classification_tasks.py.
    """

    def __init__(self, hidden_size: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, labels)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, features: Tensor, **_: object) -> Tensor:
        """(batch, labels) float from (batch, length, hidden) float."""
        logits: Tensor = self.out_proj(self.dropout(features[:, 0]))
        return logits


def use_reference_head(model: PreTrainedModel) -> None:
    """Puts a `ReferenceHead` into an `ElectraForSequenceClassification`, whose own head has a further dense layer."""
    config = model.config
    model.classifier = ReferenceHead(config.hidden_size, config.num_labels, config.hidden_dropout_prob)


@torch.no_grad()
def fold_reference_head(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the head of its Hugging Face class, and the same outputs.

    That head has a dense layer and a GELU before the linear layer. They must compute the identity, so that every
    program which loads the folder gets the answers of training.
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
        # No room for two units per logit: shift the states to where GELU is the identity, and subtract the shift again.
        # The shift costs precision, so that this form is exact in float32 only.
        dense.weight.copy_(torch.eye(width))
        dense.bias.fill_(_FOLD_SHIFT)
        output.weight.copy_(weight)
        output.bias.copy_(bias - _FOLD_SHIFT * weight.sum(1))
        return folded.eval()
    # GELU(x) - GELU(-x) = x. The dense layer computes each logit and its negative, the linear layer their difference.
    for layer in (dense, output):
        layer.weight.zero_()
        layer.bias.zero_()
    dense.weight[: 2 * labels].copy_(torch.cat([weight, -weight]))
    dense.bias[: 2 * labels].copy_(torch.cat([bias, -bias]))
    output.weight[:, : 2 * labels].copy_(torch.cat([torch.eye(labels), -torch.eye(labels)], 1))
    return folded.eval()

"""Heads of any backbone in the table: words from hidden states, "was this token replaced?", and the further heads."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PretrainedConfig, PreTrainedModel

from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import LABELS, Part, backbone_of, encode, known_backbone

LanguageModelKind = Literal["masked-language-model", "causal-language-model"]


def language_model(configuration: PretrainedConfig) -> PreTrainedModel:
    """A Hugging Face network with random weights and the head that predicts words."""
    return known_backbone(configuration).language_model(configuration)


def token_classifier(configuration: PretrainedConfig) -> PreTrainedModel:
    """A Hugging Face network with random weights and the head that says of each token: original or replaced."""
    backbone = known_backbone(configuration)
    assert backbone.detector is not None
    if backbone.detects_by_labels:
        # Labels belong to this head alone. In a configuration that other networks share they would reach what people
        # fine-tune, whose answers would then be called original and replaced.
        configuration = copy.deepcopy(configuration)
        configuration.id2label = dict(LABELS)
        configuration.label2id = {label: number for number, label in LABELS.items()}
    return backbone.detector(configuration)


def word_logits(network: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(..., vocabulary) float from (..., hidden): the head that predicts words."""
    logits: Tensor = output_layer(network)(word_features(network, hidden))
    return logits


def word_features(network: "PreTrainedModel | CorrectionHead", hidden: Tensor) -> Tensor:
    """(..., embedding) float from (..., hidden): the head that predicts words, without its output layer."""
    return _through(network, known_backbone(network.config).word_features, hidden)


def output_layer(network: PreTrainedModel) -> nn.Linear:
    """The `nn.Linear` from features to words."""
    layer: nn.Linear = network.get_submodule(known_backbone(network.config).output_layer)
    return layer


def replaced_logits(network: "PreTrainedModel | EnergyHead", hidden: Tensor) -> Tensor:
    """(batch, length) float from (batch, length, hidden): the logit of "this token was replaced"."""
    backbone = known_backbone(network.config)
    logits = _through(network, backbone.detection, hidden)
    if not backbone.detects_by_labels:
        return logits
    # The softmax over two labels is the sigmoid of the difference of their logits.
    pair = logits.float()
    return pair[..., 1] - pair[..., 0]


def _through(network: nn.Module, parts: Sequence[Part], hidden: Tensor) -> Tensor:
    for part in parts:
        hidden = network.get_submodule(part)(hidden) if isinstance(part, str) else part(hidden)
    return hidden


def _take(head: nn.Module, parts: Sequence[Part], network: nn.Module) -> None:
    """Puts modules of a network into a head, under the same paths, so that Hugging Face's class can load them."""
    for path in (part for part in parts if isinstance(part, str)):
        *outer, name = path.split(".")
        holder = head
        for step in outer:
            if step not in dict(holder.named_children()):
                holder.add_module(step, nn.Module())
            holder = holder.get_submodule(step)
        holder.add_module(name, network.get_submodule(path))


class EnergyHead(nn.Module):
    """A second head like that of detection; its logit is the energy of the token.

    Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.1 (one linear
    layer there; here the head that Hugging Face gives the backbone, so that it can be saved as one).
    """

    def __init__(self, configuration: PretrainedConfig) -> None:
        super().__init__()
        self.config = configuration
        _take(self, known_backbone(configuration).detection, token_classifier(configuration))

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, length) float from (batch, length, hidden)."""
        return replaced_logits(self, hidden)


class CorrectionHead(nn.Module):
    """Says which word belongs at a position. Its output layer is the discriminator's table of embeddings.

    The recurrent network instead has the linear layer that the article gives it, which is tied to nothing.
    """

    def __init__(self, configuration: PretrainedConfig) -> None:
        super().__init__()
        network = language_model(configuration)
        self.config = configuration
        backbone = known_backbone(configuration)
        _take(self, backbone.word_features, network)
        self.bias = nn.Parameter(output_layer(network).bias.detach().clone())
        self.weight: nn.Parameter | None = None
        if backbone.output_layer_in_body:
            self.weight = nn.Parameter(output_layer(network).weight.detach().clone())

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """(..., vocabulary) float from (..., hidden) and the (vocabulary, embedding) table."""
        if self.weight is not None:
            table = self.weight
        return functional.linear(word_features(self, hidden), table, self.bias)


def states_and_word_logits(
    network: PreTrainedModel,
    token_ids: Tensor,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    take: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(..., hidden) and (..., vocabulary) float: states and word logits of any language model where `take` says.

    Args:
        network: any language model of Hugging Face.
        token_ids: (batch, length) int64.
        token_type_ids: (batch, length) int64; ignored by a network without token types.
        attention_mask: (batch, length) bool or int, true at real tokens; None where every token is real.
        take: from (batch, length, n) to (..., n).
    """
    if backbone_of(network.config):
        # The head is most of a small network's work, so it runs at the positions taken only.
        hidden = take(encode(network.base_model, token_ids, token_type_ids, attention_mask))
        return hidden, word_logits(network, hidden)
    given: dict[str, Any] = {"input_ids": token_ids}
    if attention_mask is not None:
        given["attention_mask"] = attention_mask.to(torch.int64)
    if getattr(network.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = token_type_ids
    output = network(**given, output_hidden_states=True)
    return take(output.hidden_states[-1]), take(output.logits)


def language_model_kind(configuration: PretrainedConfig) -> LanguageModelKind:
    """Masked: fills gaps and sees both sides of them. Causal: says which word comes next.

    The architecture's name decides. Where it names no head, or both of BERT's, the type of the model decides.

    Raises: CheckpointError: neither.
    """
    name = (configuration.architectures or [""])[0]
    names_no_head = not name or name.endswith("Model") or name == "BertForPreTraining"
    names_no_head = names_no_head and not configuration.is_encoder_decoder
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal-language-model"
    if name.endswith("ForMaskedLM") or (names_no_head and type(configuration) in MODEL_FOR_MASKED_LM_MAPPING):
        return "masked-language-model"
    if names_no_head and type(configuration) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "causal-language-model"
    raise CheckpointError(
        f"{configuration.name_or_path}: is a {name or configuration.model_type}, no masked or causal language model; "
        "give one, such as the generator/ of a run"
    )

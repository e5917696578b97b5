"""The heads of the backbones: they predict words, detect replaced tokens, or give each token an energy."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

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
    """A Hugging Face network with random weights and the head that tells original tokens from replaced ones."""
    backbone = known_backbone(configuration)
    assert backbone.detector is not None
    if backbone.detects_by_labels:
        # The labels belong to this head alone. In the shared configuration they would reach the exported encoder, and a
        # classifier fine-tuned from it would call its classes original and replaced.
        configuration = copy.deepcopy(configuration)
        configuration.id2label = dict(LABELS)
        configuration.label2id = {label: number for number, label in LABELS.items()}
    return backbone.detector(configuration)


def word_logits(network: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(..., vocabulary) float from (..., hidden): the output of the head that predicts words."""
    logits: Tensor = output_layer(network)(word_features(network, hidden))
    return logits


class WordRows(NamedTuple):
    """The rows of an output layer for some words: those that all positions compare, and each position's original."""

    weight: Tensor  # (compared + positions, embedding) float
    bias: Tensor | None  # (compared + positions,) float


def word_rows(word_ids: Tensor, weight: Tensor, bias: Tensor | None) -> WordRows:
    """The rows of the words.

    Args:
        word_ids: (compared + positions,) int64.
        weight: (compared + positions, embedding) float; of these words.
        bias: (vocabulary,) float; of all words.
    """
    return WordRows(weight, None if bias is None else functional.embedding(word_ids, bias.unsqueeze(-1)).squeeze(-1))


def compared_logits(features: Tensor, words: WordRows) -> Tensor:
    """(batch, selected, 1 + compared) float: the logit of each position's original, then those of the compared words.

    Args: features: (batch, selected, embedding) float.
    """
    weight, bias = words
    compared = len(weight) - features.shape[0] * features.shape[1]
    others = functional.linear(features, weight[:compared], None if bias is None else bias[:compared])
    own = (features * weight[compared:].view_as(features)).sum(-1)
    if bias is not None:
        own = own + bias[compared:].view_as(own)
    return torch.cat([own.unsqueeze(-1).to(others.dtype), others], -1)


def word_features(network: "PreTrainedModel | CorrectionHead", hidden: Tensor) -> Tensor:
    """(..., embedding) float from (..., hidden): what the head that predicts words gives to its output layer."""
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
    # A softmax over two labels equals the sigmoid of the difference of their logits.
    pair = logits.float()
    return pair[..., 1] - pair[..., 0]


def _through(network: nn.Module, parts: Sequence[Part], hidden: Tensor) -> Tensor:
    for part in parts:
        hidden = network.get_submodule(part)(hidden) if isinstance(part, str) else part(hidden)
    return hidden


def _take(head: nn.Module, parts: Sequence[Part], network: nn.Module) -> None:
    """Moves modules of a network into a head. They keep their paths, so that Hugging Face's class can load the head."""
    for path in (part for part in parts if isinstance(part, str)):
        *outer, name = path.split(".")
        holder = head
        for step in outer:
            if step not in dict(holder.named_children()):
                holder.add_module(step, nn.Module())
            holder = holder.get_submodule(step)
        holder.add_module(name, network.get_submodule(path))


class EnergyHead(nn.Module):
    """A second detection head, whose logit is the energy of the token.

    Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.1. The article has
    one linear layer; this is the backbone's whole detection head, so that Hugging Face can load it as one.
    """

    def __init__(self, configuration: PretrainedConfig) -> None:
        super().__init__()
        self.config = configuration
        _take(self, known_backbone(configuration).detection, token_classifier(configuration))

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, length) float from (batch, length, hidden)."""
        return replaced_logits(self, hidden)


class CorrectionHead(nn.Module):
    """Predicts the original word at a position. Its output layer is tied to the discriminator's word embeddings.

    The recurrent network has an output layer of its own, as in the article, which is not tied.
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

    def forward(self, hidden: Tensor, table: Tensor | WordRows) -> Tensor:
        """(..., vocabulary) float from (..., hidden) and the (vocabulary, embedding) table.

        From `rows` instead of the table: as `compared_logits`.
        """
        if isinstance(table, WordRows):
            return compared_logits(word_features(self, hidden), table)
        weight = table if self.weight is None else self.weight
        return functional.linear(word_features(self, hidden), weight, self.bias)

    def rows(self, word_ids: Tensor, table: Tensor) -> WordRows:
        """The rows of words in the output layer; see `word_rows`."""
        weight = table if self.weight is None else self.weight
        return word_rows(word_ids, functional.embedding(word_ids, weight), self.bias)


def states_and_word_logits(
    network: PreTrainedModel,
    token_ids: Tensor,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    take: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(..., hidden) and (..., vocabulary) float: the states that `take` selects, and their word logits.

    Args:
        network: any language model of Hugging Face.
        token_ids: (batch, length) int64.
        token_type_ids: (batch, length) int64; ignored by a network without token types.
        attention_mask: (batch, length) bool or int, true at real tokens; None if every token is real.
        take: selects positions, from (batch, length, n) to (..., n).
    """
    if backbone_of(network.config):
        # A row of 128 tokens has about 20 selected positions. The output layer is most of a small network's work, so it
        # runs at these positions only.
        hidden = take(encode(network.base_model, token_ids, token_type_ids, attention_mask)[0])
        return hidden, word_logits(network, hidden)
    # The heads of other networks are unknown, so the whole network runs and the positions are taken from its output.
    given: dict[str, Tensor | None] = {"input_ids": token_ids}
    if attention_mask is not None:
        given["attention_mask"] = attention_mask.to(torch.int64)
    if getattr(network.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = token_type_ids
    output = network(**given, output_hidden_states=True)
    return take(output.hidden_states[-1]), take(output.logits)


def language_model_kind(configuration: PretrainedConfig) -> LanguageModelKind:
    """Whether a model predicts masked words from both sides, or each word from the words before it.

    The class named in the configuration decides. If it names no head, or both of BERT's, the model type decides.

    Raises: CheckpointError: the model does neither.
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

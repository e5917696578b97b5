"""Weights to start from: a released ELECTRA, or another encoder of the same shape."""

import re

import torch
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import backbone_of, first_position, known_backbone
from electrain.models.folders import configuration_of, is_of_a_pooler, weights_of


def load_starting_encoder(source: str, body: PreTrainedModel, sequence_length: int) -> None:
    """Puts the weights of a folder or hub id into an encoder (`ElectraModel` or `ModernBertModel`).

    BERT is ELECTRA's encoder under other names. RoBERTa keeps its first two positions for padding: the others
    move down, and its single token type serves for both. Heads stay fresh unless `source` is of the same kind.

    Args:
        sequence_length: of the rows to come; positions beyond those of `source` stay fresh when no row reaches them.
    Raises: CheckpointError: nothing there, damaged, of an unknown kind, of another shape, or with too few positions.
    """
    configuration = configuration_of(source)
    backbone = known_backbone(body.config)
    if not backbone.starts_from:
        raise CheckpointError(
            f"{source}: cannot start a {backbone.model_type} network; leave [start] discriminator out"
        )
    if not backbone.can_start_from(configuration):
        raise CheckpointError(
            f"{source}: is a {configuration.model_type}; a {backbone.model_type} encoder starts from one of: "
            + ", ".join(backbone.starts_from)
        )
    _require_same_layers(source, configuration, body.config)
    state = weights_of(source, AutoModel, "encoder", may_be_new=is_of_a_pooler).state_dict()
    offset = first_position(configuration) - first_position(body.config)
    if offset:
        state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"][offset:]
    _copy(source, state, body, sequence_length)


def load_starting_generator(source: str, network: PreTrainedModel, sequence_length: int) -> None:
    """Puts the weights of a language model, its head too, into a generator network of the same kind.

    Raises: CheckpointError: as `load_starting_encoder`.
    """
    configuration = configuration_of(source)
    backbone = known_backbone(network.config)
    if backbone_of(configuration) is not backbone:
        raise CheckpointError(
            f"{source}: is a {configuration.model_type}; this generator starts from a {backbone.model_type}"
        )
    _require_same_layers(source, configuration, network.config)
    state = weights_of(source, backbone.language_model, "language model").state_dict()
    _copy(source, state, network, sequence_length)


def load_starting_discriminator(source: str, network: PreTrainedModel, sequence_length: int) -> None:
    """Puts the weights of `source` into a discriminator: its head too where `source` has the same head.

    Raises: CheckpointError: as `load_starting_encoder`.
    """
    load_starting_encoder(source, network.base_model, sequence_length)
    architectures = configuration_of(source).architectures or []
    if type(network).__name__ in architectures:
        _copy(source, weights_of(source, type(network), "discriminator").state_dict(), network, sequence_length)


def _require_same_layers(source: str, given: PretrainedConfig, wanted: PretrainedConfig) -> None:
    # Weights of the right shapes that mean something else when depth, heads or positions differ.
    for name in ("num_hidden_layers", "num_attention_heads", *known_backbone(wanted).must_match):
        theirs, ours = getattr(given, name, None), getattr(wanted, name)
        if theirs != ours:
            raise CheckpointError(
                f"{source}: its {name} is {theirs}, the configuration says {ours}; change [encoder] or [generator], "
                "or start from another model"
            )


@torch.no_grad()
def _copy(source: str, state: dict[str, Tensor], network: PreTrainedModel, sequence_length: int) -> None:
    for name, parameter in network.named_parameters():
        if name not in state:
            raise CheckpointError(
                f"{source}: has no {name}; its shape is not the configured one: change [encoder] or [generator]"
            )
        value = state[name]
        if re.search(r"(position|token_type)_embeddings\.weight$", name) and value.shape[1:] == parameter.shape[1:]:
            if "position" in name and len(value) < sequence_length:
                raise CheckpointError(
                    f"{source}: takes rows of at most {len(value)} tokens; lower data.sequence_length"
                )
            rows = min(len(value), len(parameter))
            parameter[:rows] = value[:rows]
            if name.endswith("token_type_embeddings.weight") and len(value) == 1:
                parameter[:] = value
            continue
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"{source}: {name} is {tuple(value.shape)}, the configuration says {tuple(parameter.shape)}; "
                "change [encoder], [generator] or the tokenizer"
            )
        parameter.copy_(value)

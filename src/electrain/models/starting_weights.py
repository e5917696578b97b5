"""Starts a network from the weights of a released ELECTRA, or of another model with the same shape."""

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import backbone_of, first_position, known_backbone
from electrain.models.discriminator import Discriminator, Head
from electrain.models.folders import configuration_of, is_of_a_pooler, one_line, weights_of

# Of word embeddings that begin from counts. Random ones begin with 0.02, and training makes them five times as large.
WORD_DEVIATION = 0.1


def load_starting_encoder(source: str, body: PreTrainedModel, sequence_length: int) -> None:
    """Copies the weights of an encoder into `body`, the encoder of a backbone.

    Args:
        source: folder or hub id of the model to start from.
        sequence_length: of the rows in training. `source` needs as many positions; those beyond stay random.
    Raises: CheckpointError: `source` cannot be read, or its kind, its shape or its number of positions does not fit.
    """
    configuration = configuration_of(source)
    backbone = known_backbone(body.config)
    if not backbone.starts_from:
        raise CheckpointError(
            f"{source}: cannot start a {backbone.model_type} network; leave [start] discriminator out"
        )
    if not backbone.can_start_from(configuration):
        raise CheckpointError(
            f"{source}: is of the kind {configuration.model_type}; an encoder of the kind {backbone.model_type} starts "
            f"from one of: {', '.join(backbone.starts_from)}; give another model, or another --encoder.backbone"
        )
    _require_same_layers(source, configuration, body.config)
    state = weights_of(source, AutoModel, "encoder", may_be_new=is_of_a_pooler).state_dict()
    # RoBERTa and its relatives reserve the first rows of the position table for padding, so that their first token has
    # position 2. All rows move down, or each token would get the embedding of the token two places before it.
    offset = first_position(configuration) - first_position(body.config)
    if offset:
        state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"][offset:]
    _copy(source, state, body, sequence_length)


def load_starting_generator(source: str, network: PreTrainedModel, sequence_length: int) -> None:
    """Copies the weights of a language model, with its head, into a generator. Raises: as `load_starting_encoder`."""
    configuration = configuration_of(source)
    backbone = known_backbone(network.config)
    if backbone_of(configuration) is not backbone:
        raise CheckpointError(
            f"{source}: is of the kind {configuration.model_type}; this generator starts from {backbone.model_type}"
        )
    _require_same_layers(source, configuration, network.config)
    state = weights_of(source, backbone.language_model, "language model").state_dict()
    _copy(source, state, network, sequence_length)


def load_starting_network(source: str, network: PreTrainedModel, sequence_length: int) -> None:
    """Copies weights into a network, with its head if the classes agree. Raises: as `load_starting_encoder`."""
    load_starting_encoder(source, network.base_model, sequence_length)
    name = type(network).__name__
    if name in (configuration_of(source).architectures or []):
        _copy(source, weights_of(source, type(network), name).state_dict(), network, sequence_length)


def load_starting_head(source: str, head: Head, discriminator: Discriminator) -> None:
    """Copies the correction or the electric head of a run into a discriminator.

    Args: source: the folder that the run wrote for this head.
    Raises: CheckpointError: `source` cannot be read, or its shape does not fit.
    """
    backbone = known_backbone(discriminator.configuration)
    kind = backbone.language_model if head == "correction" else backbone.detector
    assert kind is not None
    network = weights_of(source, kind, f"{head} head")
    with one_line(source, f"its {head} head does not fit the model beside it"):
        discriminator.load_head(head, network)


@torch.no_grad()
def set_word_embeddings(table: nn.Embedding, vectors: NDArray[np.float32]) -> None:
    """Begins word embeddings with given vectors.

    Args: vectors: (vocabulary, embedding) float32, with a root mean square of 1. Rows of zeros stay as they are.
    """
    known = torch.from_numpy(np.flatnonzero(vectors.any(1)))
    table.weight[known] = (WORD_DEVIATION * torch.from_numpy(vectors)[known]).to(table.weight)


def _require_same_layers(source: str, given: PretrainedConfig, wanted: PretrainedConfig) -> None:
    # These settings change what the weights compute without changing their shapes, so that `_copy` cannot notice. More
    # layers in `source` would simply be ignored.
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
            if "token_type" in name and len(value) == 1:
                parameter[:] = value  # RoBERTa trained one token type only, which serves for both segments
            continue
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"{source}: {name} is {tuple(value.shape)}, the configuration says {tuple(parameter.shape)}; "
                "change [encoder], [generator] or the tokenizer"
            )
        parameter.copy_(value)

"""Gradient checkpointing: a layer keeps its input only, and is computed a second time in the backward pass.

Hugging Face's own switch is not used. In training mode it takes the cache of keys and values away from a generator
that writes a passage, which would then write each word from the word before it alone. Besides, its name and its place,
inside or outside of a compiled layer, differ between the releases that electrain runs with.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from electrain.foundation.errors import ConfigurationError
from electrain.models.backbones import repeated_layers


def checkpoint_layers(module: nn.Module, *, has_dropout: bool) -> None:
    """Makes every layer of the Hugging Face networks in a module keep its input only.

    Losses and gradients stay the same, bit for bit, and so do the names of the weights.

    Args: has_dropout: True draws the masks of dropout once more as they were drawn first.
    Raises: ConfigurationError: a network has no layers that can be computed twice, as an LSTM.
    """
    for network in module.modules():
        if not isinstance(network, PreTrainedModel) or network.base_model is not network:
            continue
        if not any(parameter.requires_grad for parameter in network.parameters()):
            continue  # of a frozen generator nothing is kept
        layers = repeated_layers(network)
        if not layers:
            raise ConfigurationError(
                f"[training] gradient_checkpointing: the layers of {network.config.model_type} cannot be computed "
                "twice; set it to false, and lower micro_batch_rows to save memory"
            )
        for layer in layers:
            if not _is_checkpointed(layer):
                kind: type[nn.Module] = type(layer)
                layer.__class__ = _checkpointed(kind, keeps_random_state=has_dropout)  # type: ignore[arg-type]


def checkpointed_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a module that keep their input only."""
    return (layer for layer in module.modules() if _is_checkpointed(layer))


def _is_checkpointed(layer: nn.Module) -> bool:
    return getattr(type(layer), "keeps_input_only", False)


@cache  # equal layers stay of one class, which a compiled layer checks before it is used again
def _checkpointed(kind: type[nn.Module], *, keeps_random_state: bool) -> type[nn.Module]:
    """A subclass that calls its layer through `checkpoint`.

    A class rather than a wrapping module, so that names of weights do not change. It overrides the call rather than
    `forward`, so that a layer which is compiled, or has hooks, is called twice as a whole.
    """

    def call(layer: nn.Module, *args: Any, **named: Any) -> Any:
        whole = partial(kind.__call__, layer)
        # Without gradients nothing is kept, and a generator that writes needs its cache, which a second call would
        # fill twice.
        if not (layer.training and torch.is_grad_enabled()):
            return whole(*args, **named)
        return checkpoint(whole, *args, use_reentrant=False, preserve_rng_state=keeps_random_state, **named)

    return type(f"Checkpointed{kind.__name__}", (kind,), {"__call__": call, "keeps_input_only": True})

"""The sizes of a generator that starts from given weights: those of the weights, whatever fraction a preset names."""

import dataclasses
from collections.abc import Callable
from typing import Any

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import say
from electrain.models.backbones import backbone_of, sizes_of
from electrain.models.folders import configuration_of
from electrain.pretrain.build import generator_sizes
from electrain.pretrain.configuration import PretrainConfig


def sized_as_started(config: PretrainConfig, tell: Callable[[str], None] = say) -> PretrainConfig:
    """The configuration in which the generator has the sizes of the weights that [start] generator names.

    Released small generators differ: Google's has the discriminator's full width, the Chinese one a quarter of it,
    and the paper says a quarter. The config.json of the weights is right by definition.

    Raises: ConfigurationError: [generator] gives other sizes in numbers. CheckpointError: no such weights.
    """
    source, choice = config.start.generator, config.generator
    is_trained = config.training.objective == "replaced-token-detection" and choice.kind in ("masked", "causal")
    if not source or not is_trained:
        return config
    theirs = configuration_of(source)
    if backbone_of(theirs) is None:
        return config  # refused, with its reason, when its weights are read
    wanted: dict[str, Any] = sizes_of(theirs)
    ours = generator_sizes(config)
    if all(getattr(ours, name) == size for name, size in wanted.items()):
        return config
    said = ", ".join(f"{name} = {size}" for name, size in wanted.items())
    if any(getattr(choice, name) not in (0, size) for name, size in wanted.items()):
        flags = " ".join(f"--generator.{name.replace('_', '-')} {size}" for name, size in wanted.items())
        raise ConfigurationError(f"[generator]: {source} has other sizes than the configuration; give {flags}")
    tell(f"the generator takes its sizes from {source}: {said}; size_fraction = {choice.size_fraction:g} is not read")
    return dataclasses.replace(config, generator=dataclasses.replace(choice, **wanted))

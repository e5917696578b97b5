"""Gives a generator that starts from existing weights the sizes of those weights."""

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
    """The configuration, with the generator's sizes replaced by those of the weights that [start] generator names.

    Released small generators differ: Google's has the full width of the discriminator, the Chinese one a quarter of
    it, and the paper says a quarter. The config.json of the weights is right by definition.

    Raises: ConfigurationError: [generator] gives other sizes in numbers. CheckpointError: there are no such weights.
    """
    source, choice = config.start.generator, config.generator
    is_trained = config.training.objective == "replaced-token-detection" and choice.kind in ("masked", "causal")
    if not source or not is_trained:
        return config
    theirs = configuration_of(source)
    if backbone_of(theirs) is None:
        return config  # reading the weights will refuse them with the reason
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

"""How the two networks share their embeddings."""

from typing import Any

from torch import nn

from electrain.models.discriminator import Discriminator
from electrain.models.generators import MaskedGenerator, ProjectedGenerator

Generator = MaskedGenerator | ProjectedGenerator


def build_generator(configuration: Any, discriminator: Discriminator, embedding_sharing: str) -> Generator:
    """A generator whose embeddings are the discriminator's (`shared`) or its own (`separate`).

    Shared, electra: word, position and type embeddings and their LayerNorm are one module in both networks, and the
    generator projects them to its width and ties its output layer to the word embeddings (Clark et al. 2020, section
    3.2; the reference implementation shares the LayerNorm too). Shared, modernbert: the generator's table is the
    discriminator's times a learned projection, or the same where the widths are equal.
    """
    same_width = configuration.hidden_size == discriminator.body.config.hidden_size
    if embedding_sharing == "separate":
        return MaskedGenerator(configuration)
    if configuration.model_type == "modernbert" and not same_width:
        return ProjectedGenerator(configuration, discriminator.word_embeddings)
    generator = MaskedGenerator(configuration)
    if configuration.model_type == "electra":
        generator.body.embeddings = discriminator.body.embeddings
        generator.network.generator_lm_head.weight = discriminator.word_embeddings.weight
    else:
        generator.body.embeddings.tok_embeddings = discriminator.word_embeddings
        generator.network.decoder.weight = discriminator.word_embeddings.weight
    return generator


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of the modules together, each shared tensor counted once."""
    seen = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(seen.values())

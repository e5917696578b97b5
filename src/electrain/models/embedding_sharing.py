"""Builds the generator so that it shares its embeddings with the discriminator, and finds what shares nothing."""

from collections.abc import Iterator

from torch import nn
from transformers import PretrainedConfig

from electrain.models.backbones import known_backbone, repeated_layers
from electrain.models.discriminator import Discriminator, DisentangledEmbedding
from electrain.models.generators import CausalGenerator, EmbeddingSharing, MaskedGenerator, ProjectedTable
from electrain.models.heads import output_layer


def build_generator(
    configuration: PretrainedConfig, discriminator: Discriminator, embedding_sharing: EmbeddingSharing
) -> MaskedGenerator:
    """A masked or causal generator that shares embeddings with the discriminator as the configuration says.

    shared: both networks use the discriminator's word embeddings. gradient-disentangled: they use one table that the
    generator owns, see `DisentangledEmbedding`. separate: nothing is shared.
    """
    backbone = known_backbone(configuration)
    generator = CausalGenerator(configuration) if backbone.is_causal else MaskedGenerator(configuration)
    if embedding_sharing == "separate":
        return generator
    words = discriminator.word_embeddings
    assert isinstance(words, nn.Embedding)
    is_disentangled = embedding_sharing == "gradient-disentangled"
    if not backbone.has_embedding_size and configuration.hidden_size != words.embedding_dim:
        # A network of another width, without a projection of its own, needs a table in its width.
        generator.use(ProjectedTable(words, configuration.hidden_size, owns_table=is_disentangled))
    else:
        if backbone.has_embedding_size and not is_disentangled:
            # Two ELECTRAs share positions, token types and the LayerNorm too, as in the reference implementation; the
            # generator then projects all to its width (Clark et al. 2020, section 3.2).
            generator.body.embeddings = discriminator.body.embeddings
        generator.network.set_input_embeddings(words)
        # transformers tied the output layer to the table that has just been replaced.
        output_layer(generator.network).weight = words.weight
    if is_disentangled:
        discriminator.network.set_input_embeddings(DisentangledEmbedding(words))
    return generator


def word_tables(*networks: nn.Module) -> list[nn.Embedding]:
    """The word embeddings that the networks own and train; a table that both share is given once."""
    found: dict[int, nn.Embedding] = {}
    for network in networks:
        if isinstance(network, Discriminator):
            own: nn.Module | None = network.word_embeddings
            own = own.shared[0] if isinstance(own, DisentangledEmbedding) else own
        else:  # a generator with a projected table has none of its own; a frozen one learns nothing
            own = network.network.get_input_embeddings() if isinstance(network, MaskedGenerator) else None
        if isinstance(own, nn.Embedding):
            found[id(own)] = own
    return list(found.values())


def count_parameters(*modules: nn.Module) -> int:
    """The number of parameters in all modules together; a shared tensor counts once."""
    seen = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(seen.values())


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a module's Hugging Face networks that share no weight with what lies outside of them."""
    layers = repeated_layers(module)
    inside = {id(part) for layer in layers for part in layer.modules()}
    outside = [part for part in module.modules() if id(part) not in inside]
    # Weights that several units share would be gathered and given back by each, so they belong to the root.
    shared = {id(weight) for part in outside for weight in part.parameters(recurse=False)}
    for layer in layers:
        own = {id(weight) for weight in layer.parameters()}
        if own and not own & shared:
            shared |= own
            yield layer

"""How the two networks share their embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig

from electrain.models.backbones import known_backbone
from electrain.models.discriminator import Discriminator
from electrain.models.generators import CausalGenerator, MaskedGenerator, ProjectedTable
from electrain.models.heads import output_layer


class DisentangledEmbedding(nn.Module):
    """The generator's table, without its gradient, plus a difference that the discriminator trains.

    The difference starts at zero. Source: He et al. 2021, DeBERTaV3, section 3.2 (gradient-disentangled sharing).
    """

    def __init__(self, shared: nn.Embedding) -> None:
        super().__init__()
        self.shared = [shared]  # in a list: the generator owns it
        self.padding_idx = shared.padding_idx
        self.difference = nn.Parameter(torch.zeros_like(shared.weight))

    @property
    def weight(self) -> Tensor:
        """(vocabulary, embedding) float: the table that the discriminator uses; it is what export saves."""
        return self.shared[0].weight.detach() + self.difference

    def forward(self, token_ids: Tensor) -> Tensor:
        """(..., embedding) float: the embeddings of (...) token ids."""
        shared = functional.embedding(token_ids, self.shared[0].weight.detach())
        return shared + functional.embedding(token_ids, self.difference, self.padding_idx)

    @torch.no_grad()
    def set(self, table: Tensor) -> None:
        """Makes the table the given (vocabulary, embedding) one, by the difference."""
        shared = self.shared[0].weight
        self.difference.copy_(table.to(shared.device) - shared)


def build_generator(
    configuration: PretrainedConfig, discriminator: Discriminator, embedding_sharing: str
) -> MaskedGenerator:
    """A masked or causal generator whose embeddings are tied to the discriminator's as `embedding_sharing` says.

    shared, both electra: word, position and type embeddings and their LayerNorm are one module in both networks, and
    the generator projects them to its width and ties its output layer to the word embeddings (Clark et al. 2020,
    section 3.2; the reference implementation shares the LayerNorm too). Otherwise the generator's table is the
    discriminator's times a learned projection, or the same where the widths are equal. gradient-disentangled: the
    same table, which the generator then owns; see `DisentangledEmbedding`. separate: nothing is shared.
    """
    backbone = known_backbone(configuration)
    generator = CausalGenerator(configuration) if backbone.is_causal else MaskedGenerator(configuration)
    if embedding_sharing == "separate":
        return generator
    words = discriminator.word_embeddings
    is_disentangled = embedding_sharing == "gradient-disentangled"
    has_projection = backbone.has_embedding_size
    if not has_projection and configuration.hidden_size != words.embedding_dim:
        generator.use(ProjectedTable(words, configuration.hidden_size, owns_table=is_disentangled))
    else:
        if has_projection and not is_disentangled:
            generator.body.embeddings = discriminator.body.embeddings
        generator.network.set_input_embeddings(words)
        output_layer(generator.network).weight = words.weight
    if is_disentangled:
        discriminator.network.set_input_embeddings(DisentangledEmbedding(words))
    return generator


def count_parameters(*modules: nn.Module) -> int:
    """Parameters of the modules together, each shared tensor counted once."""
    seen = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(seen.values())

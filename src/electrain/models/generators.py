"""Generators: small networks that fill the masked positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ElectraForMaskedLM, ModernBertForMaskedLM

from electrain.configuration import require_at_least
from electrain.models.backbones import encode


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that proposes replacements.

    Attributes:
        kind: masked: a masked language model, as published.
        size_fraction: its width, feed-forward and heads as a fraction of the encoder's; 1/4 or 1/3 in the paper.
        training: likelihood: trained to restore the words, never to fool the discriminator.
        embedding_sharing: shared: one table of embeddings for both networks; separate: one each.
        temperature: of the samples; 1 in the paper.
    """

    kind: Literal["masked"] = "masked"
    size_fraction: float = 0.25
    training: Literal["likelihood"] = "likelihood"
    embedding_sharing: Literal["shared", "separate"] = "shared"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.size_fraction <= 1:
            hint = f"; as a percentage it is written {self.size_fraction / 100}" if self.size_fraction > 1 else ""
            raise ValueError(f"size_fraction = {self.size_fraction}: must be above 0 and at most 1{hint}")
        require_at_least("temperature", self.temperature, 0.01)


def masked_language_model(configuration: Any) -> Any:
    """The Hugging Face network with a word-prediction head for a configuration of either backbone."""
    kind = ElectraForMaskedLM if configuration.model_type == "electra" else ModernBertForMaskedLM
    return kind(configuration)


class MaskedGenerator(nn.Module):
    """A masked language model whose prediction head runs only where it is asked."""

    def __init__(self, configuration: Any) -> None:
        super().__init__()
        self.network: Any = masked_language_model(configuration)

    @property
    def body(self) -> Any:
        """The encoder without its head."""
        return self.network.base_model

    def forward(
        self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None, positions: Tensor
    ) -> Tensor:
        """(batch, selected, vocabulary) float: logits of the word at each selected position.

        Args:
            positions: (batch, selected) int64.
        """
        hidden = encode(self.body, token_ids, token_type_ids, attention_mask)
        return word_logits(self.network, take_positions(hidden, positions))

    def export(self) -> Any:
        """The network as Hugging Face saves and loads it."""
        return self.network

    def load(self, fill: Callable[[Any], None]) -> None:
        """Lets `fill` put weights into the network as Hugging Face has it."""
        fill(self.network)


class ProjectedGenerator(nn.Module):
    """A ModernBERT generator that shares the discriminator's wider table through a learned projection.

    ModernBERT has no projection between embeddings and layers. The generator's table is computed as `shared @
    projection`, so that it is both input embedding and tied output layer, and `export` saves the product.
    """

    def __init__(self, configuration: Any, shared: nn.Embedding) -> None:
        super().__init__()
        self.configuration = configuration
        self.network: Any = masked_language_model(configuration)
        self.network.decoder.weight = None
        self.network.model.embeddings.tok_embeddings = None
        self.shared = [shared]  # in a list: the discriminator owns it
        self.projection = nn.Parameter(torch.empty(shared.embedding_dim, configuration.hidden_size))
        nn.init.normal_(self.projection, std=shared.embedding_dim**-0.5)

    @property
    def body(self) -> Any:
        """The encoder without its head."""
        return self.network.model

    def table(self) -> Tensor:
        """(vocabulary, hidden) float: the generator's word embeddings, in float32 even under autocast."""
        with torch.autocast(self.projection.device.type, enabled=False):
            return self.shared[0].weight @ self.projection

    def forward(
        self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None, positions: Tensor
    ) -> Tensor:
        """(batch, selected, vocabulary) float, as `MaskedGenerator`."""
        table = self.table()
        embeddings = functional.embedding(token_ids, table)
        hidden = encode(self.body, None, token_type_ids, attention_mask, token_embeddings=embeddings)
        selected = self.network.head(take_positions(hidden, positions))
        return functional.linear(selected, table, self.network.decoder.bias)

    @torch.no_grad()
    def load(self, fill: Callable[[Any], None]) -> None:
        """Lets `fill` put weights into the network; the projection is the one that comes nearest to its table.

        Nearest in least squares, given the table that is shared at this moment.
        """
        network = masked_language_model(self.configuration)
        fill(network)
        table = network.get_input_embeddings().weight
        self.projection.copy_(torch.linalg.lstsq(self.shared[0].weight, table).solution)
        state = {name: value for name, value in network.state_dict().items() if name in self.network.state_dict()}
        self.network.load_state_dict(state)

    @torch.no_grad()
    def export(self) -> Any:
        """The network as Hugging Face saves and loads it, with the product as its own table."""
        network = masked_language_model(self.configuration)
        state = dict(self.network.state_dict())
        state["model.embeddings.tok_embeddings.weight"] = self.table()
        state["decoder.weight"] = state["model.embeddings.tok_embeddings.weight"]
        network.load_state_dict(state)
        return network


def take_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """(batch, selected, hidden) float: the rows of (batch, length, hidden) at (batch, selected) positions."""
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def word_logits(network: Any, hidden: Tensor) -> Tensor:
    """(..., vocabulary) float from (..., hidden): the prediction head of either kind of network."""
    if hasattr(network, "generator_lm_head"):
        logits: Tensor = network.generator_lm_head(network.generator_predictions(hidden))
    else:
        logits = network.decoder(network.head(hidden))
    return logits

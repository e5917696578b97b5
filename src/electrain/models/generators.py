"""Generators: small networks that propose words at the selected positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from electrain.foundation.configuration import require_at_least, require_layers
from electrain.models.backbones import encode
from electrain.models.heads import (
    WordRows,
    compared_logits,
    language_model,
    output_layer,
    word_features,
    word_logits,
    word_rows,
)

GeneratorKind = Literal["masked", "causal", "unigram", "frozen"]
GeneratorTraining = Literal["likelihood", "policy-gradient", "gumbel", "mixture"]
EmbeddingSharing = Literal["shared", "gradient-disentangled", "separate"]


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator, which proposes replacements for the selected tokens.

    Attributes:
        kind: Kind of generator. masked is a masked language model, as published; causal is a GPT-2, which sees only the
            words before; unigram draws from word frequencies, without a network; frozen is a network that is not
            trained together with the discriminator.
        size_fraction: Width, feed-forward width and attention heads as a fraction of the encoder's, above 0 and at most
            1. 1/4 (small, large) or 1/3 (base) in the paper.
        layers: Number of layers; 0 uses as many as the encoder has, as in the paper.
        hidden_size: Width of the hidden states, instead of size_fraction; 0 uses size_fraction. Set feed_forward_size
            and heads too.
        feed_forward_size: Width inside the feed-forward network, instead of size_fraction; 0 uses size_fraction. Set
            hidden_size and heads too.
        heads: Number of attention heads, instead of size_fraction; 0 uses size_fraction. Set hidden_size and
            feed_forward_size too.
        training: What the generator learns. likelihood trains it to restore the original words, as published;
            policy-gradient and gumbel train it to mislead the discriminator; mixture trains several depths by
            likelihood, and only the weights of their mixture to mislead.
        embedding_sharing: How the two networks share token embeddings. shared uses one table, as published;
            gradient-disentangled gives the discriminator the generator's table, without its gradient, plus a learned
            difference; separate uses two tables.
        temperature: Sampling temperature of the replacements, at least 0.01. 1 in the paper.
        last_temperature: Sampling temperature at the last step, reached linearly from temperature; 0 keeps the
            temperature constant.
        source: Frozen generator: folder or hub id of a masked or causal language model with the vocabulary of the
            shards. Give either this or own_stage_steps.
        own_stage_steps: Frozen generator without a source: number of first steps in which only the generator is
            trained; below training.steps.
        clusters: Unigram generator: number of frequency classes; a word is replaced by a word of its own class. 1
            allows any word. With many classes, the most frequent words each fill a class and are never replaced.
    """

    kind: GeneratorKind = "masked"
    size_fraction: float = 0.25
    layers: int = 0
    hidden_size: int = 0
    feed_forward_size: int = 0
    heads: int = 0
    training: GeneratorTraining = "likelihood"
    embedding_sharing: EmbeddingSharing = "shared"
    temperature: float = 1.0
    last_temperature: float = 0.0
    source: str = ""
    own_stage_steps: int = 0
    clusters: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.size_fraction <= 1:
            hint = f"; as a percentage it is written {self.size_fraction / 100}" if self.size_fraction > 1 else ""
            raise ValueError(f"size_fraction = {self.size_fraction}: must be above 0 and at most 1{hint}")
        require_at_least("temperature", self.temperature, 0.01)
        require_at_least("clusters", self.clusters, 1)
        for name in ("layers", "hidden_size", "feed_forward_size", "heads", "own_stage_steps"):
            require_at_least(name, getattr(self, name), 0)
        require_layers(self.layers)
        if self.last_temperature:
            require_at_least("last_temperature", self.last_temperature, 0.01)
        sizes = [bool(size) for size in (self.hidden_size, self.feed_forward_size, self.heads)]
        if any(sizes) and not all(sizes):
            raise ValueError("hidden_size, feed_forward_size and heads: give all three, or size_fraction alone")
        self._require_no_contradiction()

    def _require_no_contradiction(self) -> None:
        if self.kind in ("unigram", "frozen") and self.training != "likelihood":
            raise ValueError(
                f'training = "{self.training}": a {self.kind} generator cannot be trained against the discriminator; '
                'use kind = "masked" or "causal"'
            )
        if self.training == "mixture" and self.kind != "masked":
            raise ValueError(f'training = "mixture": mixes depths of a masked generator, not kind = "{self.kind}"')
        if self.kind == "frozen" and bool(self.source) == bool(self.own_stage_steps):
            raise ValueError('kind = "frozen": give either source, a pretrained model, or own_stage_steps')
        if self.kind != "frozen" and (self.source or self.own_stage_steps):
            name = "source" if self.source else "own_stage_steps"
            raise ValueError(f'{name}: is for kind = "frozen"; this one is "{self.kind}"')
        if self.kind == "unigram" and self.last_temperature:
            raise ValueError(
                f"last_temperature = {self.last_temperature}: the frequencies of a unigram generator do not change; "
                "leave it out"
            )
        if self.kind != "unigram" and self.clusters > 1:
            raise ValueError(f'clusters = {self.clusters}: is for kind = "unigram"; this one is "{self.kind}"')


class Reading(NamedTuple):
    """A generator's view of some rows, before it predicts words."""

    states: list[Tensor]  # (batch, length, hidden) float, after each depth
    table: Tensor | None = None  # (vocabulary, width) float32; a projected table of words; None: the network's own
    logits: Tensor | None = None  # (batch, length, vocabulary) float; of a network whose head cannot be run by itself
    words: WordRows | None = None  # the words whose logits are computed; None for the whole vocabulary


class ProjectedTable(nn.Module):
    """The discriminator's word embeddings, projected to the generator's width.

    Only ELECTRA's encoder has a projection between its embeddings and its layers. Other networks use one table both as
    embeddings and as tied output layer, so the whole table is projected: `shared @ projection`.
    """

    def __init__(self, shared: nn.Embedding, width: int, *, owns_table: bool = False) -> None:
        """Args: owns_table: True if `shared` is a parameter of this module, False if it is the discriminator's."""
        super().__init__()
        self.owned = shared if owns_table else None
        self.shared = [shared]  # in a list, which registers nothing
        self.projection = nn.Parameter(torch.empty(shared.embedding_dim, width))
        nn.init.normal_(self.projection, std=shared.embedding_dim**-0.5)  # keeps the deviation of the embeddings

    def forward(self) -> Tensor:
        """(vocabulary, width) float32: the generator's word embeddings."""
        # Autocast would round the table to bfloat16, but embeddings that are looked up are never rounded.
        with torch.autocast(self.projection.device.type, enabled=False):
            return self.shared[0].weight @ self.projection

    def rows(self, token_ids: Tensor) -> Tensor:
        """(..., width) float32: the rows of (...) tokens, without the product of the whole table."""
        with torch.autocast(self.projection.device.type, enabled=False):
            return functional.embedding(token_ids, self.shared[0].weight) @ self.projection

    @torch.no_grad()
    def fit(self, table: Tensor) -> None:
        """Sets the projection so that the product is as near as possible to a (vocabulary, width) table."""
        shared = self.shared[0].weight
        self.projection.copy_(torch.linalg.lstsq(shared, table.to(shared.device)).solution)


class MaskedGenerator(nn.Module):
    """A masked language model whose prediction head runs at the selected positions only."""

    reads_masked_ids = True  # its input is the row with [MASK]

    def __init__(self, configuration: PretrainedConfig) -> None:
        super().__init__()
        self.configuration = configuration
        self.network = language_model(configuration)
        self.table: ProjectedTable | None = None

    def use(self, table: ProjectedTable) -> None:
        """Replaces the network's embeddings and output layer by a projected table."""
        self.table = table
        # The network keeps no table of its own, which would be trained and saved without being used.
        output_layer(self.network).register_parameter("weight", None)
        self.network.set_input_embeddings(None)

    @property
    def body(self) -> PreTrainedModel:
        """The encoder without its head."""
        return self.network.base_model

    def propose(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        positions: Tensor,
        depths: tuple[int, ...] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """The states and the word logits at the selected positions.

        Args:
            positions: (batch, selected) int64.
            depths: numbers of layers after which words are predicted; empty means after the last layer only.
        Returns: (batch, selected, hidden) float: the last hidden states; and for each depth
            (batch, selected, vocabulary) float: the word logits.
        """
        return self.predict(self.read(token_ids, token_type_ids, attention_mask, depths), positions)

    def read(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        depths: tuple[int, ...] = (),
        words: Tensor | None = None,
    ) -> Reading:
        """The states of the whole rows: the first part of `propose`, which is compiled layer by layer.

        Args: words: (compared + batch * selected,) int64; the words to compare at all of the positions, and the
            originals there; None for the whole vocabulary.
        """
        # The rows that are looked up can be fewer than those of the table.
        takes_all = words is None or token_ids.numel() + len(words) > self.configuration.vocab_size
        table = self.table() if self.table is not None and takes_all else None
        embeddings = self._projected(token_ids, table)
        states = encode(self.body, token_ids, token_type_ids, attention_mask, embeddings, depths)
        if words is None:
            return Reading(states, table)
        layer, weight = output_layer(self.network), self._projected(words, table)
        weight = functional.embedding(words, layer.weight) if weight is None else weight
        return Reading(states, words=word_rows(words, weight, layer.bias))

    def predict(self, reading: Reading, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The states and the word logits at the selected positions: the second part of `propose`."""
        hidden = [self.take(state, positions) for state in reading.states]
        return hidden[-1], [self._logits(state, reading) for state in hidden]

    def take(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """(batch, selected, hidden) float: the states from which the words at the positions are predicted."""
        return take_positions(hidden, positions)

    def _logits(self, hidden: Tensor, reading: Reading) -> Tensor:
        if reading.words is not None:
            return compared_logits(word_features(self.network, hidden), reading.words)
        if reading.table is None:
            return word_logits(self.network, hidden)
        return functional.linear(word_features(self.network, hidden), reading.table, output_layer(self.network).bias)

    def _projected(self, token_ids: Tensor, table: Tensor | None) -> Tensor | None:
        """(..., width) float: rows of the projected table, whose product may exist; None if there is none."""
        if table is not None:
            return functional.embedding(token_ids, table)
        return None if self.table is None else self.table.rows(token_ids)

    def forward(
        self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None, positions: Tensor
    ) -> Tensor:
        """(batch, selected, vocabulary) float: the word logits at the selected positions."""
        return self.propose(token_ids, token_type_ids, attention_mask, positions)[1][0]

    @torch.no_grad()
    def export(self) -> PreTrainedModel:
        """The network to save; it holds the product of a projected table as an ordinary one."""
        if self.table is None:
            return self.network
        network = self._fresh()
        network.load_state_dict(self.network.state_dict(), strict=False)
        network.get_input_embeddings().weight.copy_(self.table())
        network.tie_weights()
        return network

    @torch.no_grad()
    def load(self, fill: Callable[[PreTrainedModel], None]) -> None:
        """Lets `fill` copy weights into the network, which has an ordinary table of embeddings for it.

        The shared table belongs to the discriminator and stays, so a projected table is only approximated.
        """
        if self.table is None:
            fill(self.network)
            return
        network = self._fresh()
        fill(network)
        self.table.fit(network.get_input_embeddings().weight)
        own = self.network.state_dict()
        self.network.load_state_dict({name: value for name, value in network.state_dict().items() if name in own})

    def _fresh(self) -> PreTrainedModel:
        """A network of this shape with random weights, on the same device."""
        return language_model(self.configuration).to(next(self.parameters()).device)


class CausalGenerator(MaskedGenerator):
    """A GPT-2 that proposes a word at each selected position from the original words before it, in one pass."""

    reads_masked_ids = False  # its input is the original row: it cannot see the position that it predicts

    def take(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """(batch, selected, hidden) float: the states one place before the positions."""
        return take_positions(hidden, places_before(positions))


def places_before(positions: Tensor) -> Tensor:
    """(...) int64: the places whose states a causal network predicts the words at the positions from."""
    # Place 0 holds [CLS] and is never selected; only the filler of unused slots is clamped.
    return (positions - 1).clamp(min=0)


def take_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """(batch, selected, hidden) float: the states of (batch, length, hidden) at (batch, selected) positions."""
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))

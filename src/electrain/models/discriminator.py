"""The discriminator: an encoder with one or more heads that judge every token."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from electrain.foundation.configuration import require_at_least
from electrain.models.backbones import encode, known_backbone
from electrain.models.heads import (
    CorrectionHead,
    EnergyHead,
    language_model,
    output_layer,
    replaced_logits,
    token_classifier,
)

Head = Literal["detection", "correction", "electric"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The tasks of the discriminator, and the weights of their losses.

    Attributes:
        heads: Output heads, each at most once. detection tells original tokens from replaced ones; correction predicts
            the original word; electric assigns each token an energy, which is low for likely tokens.
        loss_weight: Weight of the detection and electric losses, at least 0; the generator's loss has weight 1. 50 in
            the paper.
        detection_at: Tokens that the detection loss covers. all covers every token, as published; selected covers only
            the tokens that the generator may have replaced (an ablation of the paper).
        correction_at: Tokens that the correction loss covers. missing covers those that the discriminator sees as
            [MASK]; replaced covers all selected tokens; all covers every token, each of which is copied with the
            probability that the detection head gives to original.
        correction_weight: Weight of the correction loss, at least 0; the generator's loss has weight 1.
    """

    heads: tuple[Head, ...] = ("detection",)
    loss_weight: float = 50.0
    detection_at: Literal["all", "selected"] = "all"
    correction_at: Literal["missing", "replaced", "all"] = "replaced"
    correction_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ValueError('heads: give each of detection, correction and electric at most once, as ["detection"]')
        if "correction" in self.heads and self.correction_at == "all" and "detection" not in self.heads:
            raise ValueError('correction_at = "all": a word is copied with the chance that detection gives it; add '
                             'heads = ["detection", "correction"]')  # fmt: skip
        require_at_least("loss_weight", self.loss_weight, 0.0)
        require_at_least("correction_weight", self.correction_weight, 0.0)


class DisentangledEmbedding(nn.Module):
    """The generator's word embeddings, without their gradient, plus a difference that the discriminator trains.

    The two networks pull shared embeddings in opposite directions: the generator makes similar words alike, detection
    must tell them apart. Here the generator alone moves the shared table. The difference starts at zero.
    Source: He et al. 2021, DeBERTaV3, section 3.2 (gradient-disentangled sharing).
    """

    def __init__(self, shared: nn.Embedding) -> None:
        super().__init__()
        self.shared = [shared]  # in a list, so that the table is registered in the generator alone, which owns it
        self.padding_idx = shared.padding_idx
        self.difference = nn.Parameter(torch.zeros_like(shared.weight))

    @property
    def weight(self) -> Tensor:
        """(vocabulary, embedding) float: the sum, which is exported as an ordinary table."""
        return self.shared[0].weight.detach() + self.difference

    def forward(self, token_ids: Tensor) -> Tensor:
        """(..., embedding) float: the embeddings of (...) token ids."""
        # Two look-ups instead of one in `weight`, which would add up the whole table in every pass.
        shared = functional.embedding(token_ids, self.shared[0].weight.detach())
        return shared + functional.embedding(token_ids, self.difference, self.padding_idx)

    @torch.no_grad()
    def set(self, table: Tensor) -> None:
        """Sets the difference so that `weight` equals a (vocabulary, embedding) table."""
        shared = self.shared[0].weight
        self.difference.copy_(table.to(shared.device) - shared)


class Discriminator(nn.Module):
    """A Hugging Face network with a detection head, and the other heads of the configuration.

    A discriminator that does not detect keeps the detection head untrained, so that a whole network can be exported.
    """

    def __init__(self, configuration: PretrainedConfig, heads: tuple[Head, ...] = ("detection",)) -> None:
        super().__init__()
        self.heads = heads
        self.configuration = configuration
        self.network = token_classifier(configuration)
        self.correction = CorrectionHead(configuration) if "correction" in heads else None
        self.energy = EnergyHead(configuration) if "electric" in heads else None
        if known_backbone(configuration).output_layer_in_body:
            # The correction head trains a copy of its own, so that this layer never gets a gradient.
            output_layer(self.network).requires_grad_(False)
        if "detection" not in heads:
            inside = {id(parameter) for parameter in self.body.parameters()}
            for parameter in self.network.parameters():
                parameter.requires_grad_(parameter.requires_grad and id(parameter) in inside)

    @property
    def body(self) -> PreTrainedModel:
        """The encoder without its head."""
        return self.network.base_model

    @property
    def word_embeddings(self) -> nn.Embedding | DisentangledEmbedding:
        """The word embeddings of the encoder."""
        embeddings: nn.Embedding | DisentangledEmbedding = self.network.get_input_embeddings()
        return embeddings

    def hidden(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_embeddings: Tensor | None = None,
    ) -> Tensor:
        """(batch, length, hidden) float: the last hidden states; `token_embeddings` replace a look-up of the ids."""
        return encode(self.body, token_ids, token_type_ids, attention_mask, token_embeddings)[0]

    def detect(self, hidden: Tensor) -> Tensor:
        """(batch, length) float from (batch, length, hidden): the logit of "this token was replaced"."""
        return replaced_logits(self.network, hidden)

    def forward(self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """(batch, length) float: the logit of "this token was replaced"."""
        return self.detect(self.hidden(token_ids, token_type_ids, attention_mask))

    def exports(self) -> dict[Literal["encoder"] | Head, Callable[[], PreTrainedModel]]:
        """For the encoder and for each head, the function that makes the Hugging Face network to save."""
        makers: dict[Literal["encoder"] | Head, Callable[[], PreTrainedModel]] = {
            "encoder": self._export_encoder,
            "detection": self._export_detector,
            "correction": self._export_correction,
            "electric": self._export_energy,
        }
        chosen = {part: make for part, make in makers.items() if part in ("encoder", *self.heads)}
        # Token classification names its layer as a classifier does: fine-tuning would take the detection head for a
        # trained classifier. So the encoder is saved without it. ELECTRA has a class and a layer name of its own for
        # detection, so that one network serves both as encoder and as detector.
        if not known_backbone(self.configuration).detects_by_labels and "detection" in chosen:
            chosen["encoder"] = chosen.pop("detection")
        return chosen

    @torch.no_grad()
    def _export_detector(self) -> PreTrainedModel:
        if isinstance(self.word_embeddings, nn.Embedding):
            return self.network
        # Hugging Face does not know a disentangled table, so the sum is saved in an ordinary one.
        return self._filled(token_classifier(self.configuration), self.network.state_dict())

    @torch.no_grad()
    def _export_encoder(self) -> PreTrainedModel:
        body = copy.deepcopy(self._export_detector().base_model)
        body.config = copy.deepcopy(self.configuration)  # the network's own names the labels of its head
        return body

    @torch.no_grad()
    def load(self, fill: Callable[[PreTrainedModel], None]) -> None:
        """Lets `fill` copy weights into the network, which has an ordinary table of embeddings for it."""
        words = self.word_embeddings
        if isinstance(words, nn.Embedding):
            fill(self.network)
            return
        # The network's own table is the sum of two. `fill` writes into a copy, and the difference takes up the rest.
        network = token_classifier(self.configuration).to(self.network.device)
        fill(network)
        own = self.network.state_dict()
        state = {name: value for name, value in network.state_dict().items() if name in own}
        self.network.load_state_dict(state, strict=False)
        words.set(network.get_input_embeddings().weight)

    @property
    def further_heads(self) -> list[Head]:
        """The heads that have a network of their own beside that of detection."""
        return [head for head in self.heads if head != "detection"]

    @torch.no_grad()
    def load_head(self, head: Head, network: PreTrainedModel) -> None:
        """Takes the weights of a further head from the network that `exports` made of it."""
        state = network.state_dict()
        if head == "electric":
            assert self.energy is not None
            self.energy.load_state_dict({name: state[name] for name in self.energy.state_dict()})
            return
        assert self.correction is not None
        layer = output_layer(network)
        outputs = {"bias": layer.bias, "weight": layer.weight}
        own = self.correction.state_dict()
        self.correction.load_state_dict({name: outputs[name] if name in outputs else state[name] for name in own})

    @torch.no_grad()
    def _export_energy(self) -> PreTrainedModel:
        assert self.energy is not None
        network = self._filled(token_classifier(self.configuration), self.network.state_dict())
        network.load_state_dict(self.energy.state_dict(), strict=False)
        return network

    @torch.no_grad()
    def _export_correction(self) -> PreTrainedModel:
        assert self.correction is not None
        network = self._filled(language_model(self.configuration), self.network.state_dict())
        state = {name: x for name, x in self.correction.state_dict().items() if name not in ("bias", "weight")}
        network.load_state_dict(state, strict=False)
        output_layer(network).bias.copy_(self.correction.bias)
        if self.correction.weight is not None:
            output_layer(network).weight.copy_(self.correction.weight)
        network.tie_weights()
        return network

    def _filled(self, network: PreTrainedModel, state: dict[str, Tensor]) -> PreTrainedModel:
        """The network with the weights that it has in common with `state`, and with the encoder's word embeddings."""
        own = network.state_dict()
        network.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
        network.get_input_embeddings().weight.copy_(self.word_embeddings.weight)
        return network

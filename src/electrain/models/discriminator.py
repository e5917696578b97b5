"""The discriminator: an encoder and a head that says of each token whether it was replaced."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from transformers import ElectraForPreTraining, ModernBertForTokenClassification

from electrain.configuration import require_at_least
from electrain.models.backbones import encode


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What the discriminator is asked.

    Attributes:
        heads: detection: was this token replaced?
        loss_weight: weight of the detection loss beside the generator's; 50 in the paper.
    """

    heads: tuple[Literal["detection"], ...] = ("detection",)
    loss_weight: float = 50.0

    def __post_init__(self) -> None:
        if self.heads != ("detection",):
            raise ValueError('heads: must be ["detection"]')
        require_at_least("loss_weight", self.loss_weight, 0.0)


class Discriminator(nn.Module):
    """A Hugging Face network with a per-token head, as one number per token.

    `network` is `ElectraForPreTraining`, or `ModernBertForTokenClassification` with the labels original and replaced:
    Hugging Face has no pretraining class for it, and the difference of its two logits is the logit of "replaced".
    """

    def __init__(self, configuration: Any) -> None:
        super().__init__()
        kind = ElectraForPreTraining if configuration.model_type == "electra" else ModernBertForTokenClassification
        self.network: Any = kind(configuration)

    @property
    def body(self) -> Any:
        """The encoder without its head."""
        return self.network.base_model

    @property
    def word_embeddings(self) -> Any:
        """The embedding table of the encoder, an `nn.Embedding`."""
        return self.network.get_input_embeddings()

    def forward(self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """(batch, length) float: the logit of "this token was replaced"."""
        hidden = encode(self.body, token_ids, token_type_ids, attention_mask)
        return replaced_logits(self.network, hidden)


def replaced_logits(network: Any, hidden: Tensor) -> Tensor:
    """(batch, length) float from (batch, length, hidden): the head of either kind of network."""
    if hasattr(network, "discriminator_predictions"):
        logits: Tensor = network.discriminator_predictions(hidden)
        return logits
    pair: Tensor = network.classifier(network.drop(network.head(hidden))).float()
    return pair[..., 1] - pair[..., 0]

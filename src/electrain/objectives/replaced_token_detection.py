"""Replaced token detection (Clark et al. 2020): a generator fills the gaps, the discriminator finds which."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from electrain.models.discriminator import Discriminator
from electrain.models.embedding_sharing import Generator
from electrain.objectives.masking import MaskedBatch
from electrain.objectives.objective import LossTerm, MicroBatch, Outcome, micro_batch, word_loss
from electrain.objectives.sampling import place_averaged_words, place_words, sample_words


def replaced_token_loss(logits: Tensor, is_replaced: Tensor, is_scored: Tensor | None) -> Tensor:
    """() float32: the summed binary cross-entropy of "was this token replaced?", in nats.

    Args:
        logits: (batch, length) float; before the sigmoid, positive means replaced.
        is_replaced: (batch, length) bool; False where the generator drew the original token.
        is_scored: (batch, length) bool, True at real tokens; None where all are.
    Source: Clark et al. 2020, section 2.
    """
    losses = functional.binary_cross_entropy_with_logits(logits.float(), is_replaced.float(), reduction="none")
    return losses.sum() if is_scored is None else (losses * is_scored).sum()


class ReplacedTokenDetection(nn.Module):
    """Both networks and their joint loss: generator cross-entropy + weight x discriminator cross-entropy.

    The samples carry no gradient, so the discriminator's loss reaches the generator through shared embeddings only.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        *,
        loss_weight: float,
        temperature: float = 1.0,
        averages_collisions: bool = False,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.loss_weight = loss_weight
        self.temperature = temperature
        self.place = place_averaged_words if averages_collisions else place_words

    def forward(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor | None,
        masked_ids: Tensor,
        positions: Tensor,
        is_selected: Tensor,
        uniforms: Tensor,
    ) -> Outcome:
        """Losses `generator` and `discriminator` of rows, whose arguments are those of `MaskedBatch`."""
        originals = token_ids.gather(1, positions)
        word_logits = self.generator(masked_ids, token_type_ids, attention_mask, positions)
        words = sample_words(word_logits, uniforms, self.temperature)
        corrupted_ids = self.place(token_ids, positions, is_selected, words)
        is_replaced = corrupted_ids != token_ids
        logits = self.discriminator(corrupted_ids, token_type_ids, attention_mask)
        real = token_ids.numel() if attention_mask is None else attention_mask.sum()
        terms = {
            "generator": LossTerm(word_loss(word_logits, originals, is_selected), is_selected.sum(), 1.0),
            "discriminator": LossTerm(
                replaced_token_loss(logits, is_replaced, attention_mask), torch.as_tensor(real), self.loss_weight
            ),
        }
        with torch.no_grad():
            log_probabilities = torch.log_softmax(word_logits.float(), dim=-1)
            entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
            # No word is likelier than the original (a tie is a hit): on a CPU cheaper than `argmax`.
            is_hit = (word_logits <= word_logits.gather(-1, originals.unsqueeze(-1))).all(-1)
            observations = {
                "replaced_logits": logits.detach().float(),
                "is_replaced": is_replaced,
                "corrupted_ids": corrupted_ids,
                "generator_hits": (is_hit & is_selected).sum(),
                "generator_entropy": (entropies * is_selected).sum(),
            }
        return Outcome(terms, observations)


def detection_micro_batch(masked: MaskedBatch, *, with_padding: bool) -> MicroBatch:
    """Rows for `ReplacedTokenDetection`, with what its two losses count."""
    scored = {"generator": int(masked.is_selected.sum()), "discriminator": int(masked.packed.is_real.sum())}
    return micro_batch(masked, with_padding=with_padding, scored=scored)

"""Masked language modelling (Devlin et al. 2019): the baseline; the encoder itself restores the words."""

from typing import Any

import torch
from torch import Tensor, nn

from electrain.models.generators import MaskedGenerator
from electrain.pretrain.objectives.masking import MaskedBatch, micro_batch
from electrain.training.objective import LossTerm, MicroBatch, Outcome, word_loss


class MaskedLanguageModelling(nn.Module):
    """One network of the encoder's size with a word-prediction head at the masked positions."""

    def __init__(self, configuration: Any) -> None:
        super().__init__()
        self.model = MaskedGenerator(configuration)

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
        """Loss `masked_language_model` of rows, whose arguments are those of `MaskedBatch`."""
        del uniforms  # nothing is drawn
        originals = token_ids.gather(1, positions)
        logits = self.model(masked_ids, token_type_ids, attention_mask, positions)
        term = LossTerm(word_loss(logits, originals, is_selected), is_selected.sum(), 1.0)
        with torch.no_grad():
            hits = ((logits.argmax(-1) == originals) & is_selected).sum()
        return Outcome({"masked_language_model": term}, {"masked_language_model_hits": hits})


def modelling_micro_batch(masked: MaskedBatch, *, with_padding: bool) -> MicroBatch:
    """Rows for `MaskedLanguageModelling`, with what its loss counts."""
    scored = {"masked_language_model": int(masked.is_selected.sum())}
    return micro_batch(masked, with_padding=with_padding, scored=scored)

"""Masked language modelling (Devlin et al. 2019), the baseline in which the encoder itself restores the words."""

import torch
from transformers import PretrainedConfig

from electrain.models.backbones import repeated_layers
from electrain.models.generators import MaskedGenerator, Reading
from electrain.pretraining.objectives.head_losses import is_likeliest, word_loss
from electrain.pretraining.objectives.masking import MaskedBatch
from electrain.pretraining.objectives.rows import Rows, number_of, rows_of
from electrain.training.objective import LossTerm, MicroBatch, Objective, Outcome, Region


class MaskedLanguageModelling(Objective[Rows]):
    """One network of the encoder's size with a word-prediction head at the masked positions."""

    def __init__(self, configuration: PretrainedConfig) -> None:
        super().__init__()
        self.model = MaskedGenerator(configuration)

    def prepare(self, rows: Rows, device: torch.device) -> Rows:
        """The rows on the device."""
        return rows.to(device)

    def regions(self) -> list[Region]:
        """The layers, and the head with its loss."""
        return [*map(Region, repeated_layers(self.model)), Region(self, "losses")]

    def forward(self, rows: Rows) -> Outcome:
        """The loss `masked_language_model` of the rows."""
        return self.losses(
            rows, self.model.read(rows.masked_ids, rows.token_type_ids, rows.attention_mask, words=rows.words)
        )

    def losses(self, rows: Rows, reading: Reading) -> Outcome:
        """The loss from the states of the rows."""
        answers = rows.answers
        (logits,) = self.model.predict(reading, rows.positions)[1]
        term = LossTerm(word_loss(rows.answerable(logits), answers, rows.is_selected), 1.0)
        with torch.no_grad():
            hits = (is_likeliest(rows.distinct(logits), answers) & rows.is_selected).sum()
        return Outcome({"masked_language_model": term}, {"masked_language_model_hits": hits})


def modelling_micro_batch(masked: MaskedBatch, *, with_padding: bool) -> MicroBatch[Rows]:
    """The rows, and the number of positions that the loss of `MaskedLanguageModelling` counts."""
    counts = {"masked_language_model": number_of(masked.is_selected)}
    return MicroBatch(rows_of(masked, with_padding=with_padding), counts, number_of(masked.packed.is_real))

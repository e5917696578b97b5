"""Corrupts held-out rows as in pretraining, and collects the answers of the networks for every token."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.rows import RowSource
from electrain.foundation.progress import Progress
from electrain.inference.corruption import Corrupted, Corruption
from electrain.inference.model import LoadedModel, replaced_logits, word_logits
from electrain.models.generators import take_positions
from electrain.pretraining.objectives.sampling import place_words

BATCH_ROWS = 32


@dataclass(frozen=True)
class JudgedTokens:
    """The answers of the networks at all tokens that could be replaced; an absent network leaves its arrays empty."""

    logits: NDArray[np.float32]  # (tokens,); the discriminator's, positive means replaced
    is_replaced: NDArray[np.bool_]  # (tokens,)
    token_ids: NDArray[np.int64]  # (tokens,); the discriminator's input
    row: NDArray[np.int64]  # (tokens,); the row of each token, from 0
    word_losses: NDArray[np.float32]  # (masked,); the generator's cross-entropy at each masked position, in nats
    entropies: NDArray[np.float32]  # (masked,); the entropy of the generator's distribution there, in nats
    is_hit: NDArray[np.bool_]  # (masked,); the generator's likeliest word is the original
    is_same: NDArray[np.bool_]  # (masked,); the word that the generator drew is the original
    is_corrected: NDArray[np.bool_]  # (masked,); the corrector's likeliest word is the original
    correction_losses: NDArray[np.float32]  # (masked,); the corrector's cross-entropy there, in nats


@dataclass(frozen=True)
class Corrector:
    """A network that restores words: a correction head, or the masked-language-modelling baseline."""

    model: LoadedModel
    restores_missing: bool  # it was trained at [MASK] only, so it reads [MASK] where it is scored


def judge_rows(
    detector: LoadedModel | None, corrector: Corrector | None, corruption: Corruption, source: RowSource, rows: int
) -> JudgedTokens:
    """The answers of the detector and the corrector on the first `rows` rows of the source, after corruption.

    Everything random is a function of (seed, row), so the batch size does not change the corruption.
    """
    parts = []
    with Progress("evaluate detection", "rows", rows) as progress:
        for start in range(0, rows, BATCH_ROWS):
            packed = source.batch(np.arange(start, min(start + BATCH_ROWS, rows), dtype=np.int64))
            made = corruption.corrupted(corruption.masked(packed))
            parts.append(_judge(detector, corrector, corruption, made, packed.row_numbers))
            progress.advance(len(packed.row_numbers))
    return JudgedTokens(**{name: torch.cat([part[name].cpu() for part in parts]).numpy() for name in parts[0]})


@torch.inference_mode()
def _judge(
    detector: LoadedModel | None,
    corrector: Corrector | None,
    corruption: Corruption,
    made: Corrupted,
    row_numbers: Tensor,
) -> dict[str, Tensor]:
    """The attributes of `JudgedTokens` for one batch."""
    rows = made.rows
    # Detection is trained and scored only at tokens that can be replaced, so not at [CLS], [SEP] and [MASK].
    is_scored = ~rows.is_special if rows.is_detected is None else ~rows.is_special & rows.is_detected
    # Absent networks give empty tensors, on the same device so that all parts can be concatenated.
    nothing = torch.zeros(0, device=rows.token_ids.device)
    logits = nothing
    if detector is not None:
        logits = replaced_logits(detector, made.ids, rows.attention_mask, rows.token_type_ids)[is_scored]
    is_scored_word = rows.is_selected_in_text
    originals, drawn = rows.originals[is_scored_word], made.proposal.words[is_scored_word]
    word_losses, entropies, is_hit = nothing, nothing, nothing.bool()
    if made.proposal.chosen is not None:
        words = made.proposal.chosen[is_scored_word].float()
        log_probabilities = words.log_softmax(-1)
        word_losses = functional.nll_loss(log_probabilities, originals, reduction="none")
        entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
        is_hit = words.argmax(-1) == originals
    # Without a corrector: logits of one word at no position, so that the comparisons below give empty tensors.
    corrections, restored = nothing.unsqueeze(1), nothing.long()
    if corrector is not None:
        corrections, restored = _corrections(corrector, corruption, made)
    numbers = row_numbers.to(is_scored.device).unsqueeze(1).expand(is_scored.shape)
    return {
        "logits": logits,
        "is_replaced": made.is_replaced[is_scored],
        "token_ids": made.ids[is_scored],
        "row": numbers[is_scored],
        "word_losses": word_losses,
        "entropies": entropies,
        "is_hit": is_hit,
        "is_same": drawn == originals,
        "is_corrected": corrections.argmax(-1) == restored,
        "correction_losses": functional.cross_entropy(corrections, restored, reduction="none"),
    }


def _corrections(corrector: Corrector, corruption: Corruption, made: Corrupted) -> tuple[Tensor, Tensor]:
    """(scored, vocabulary) float32 word logits of the corrector, and the (scored,) int64 original words."""
    rows = made.rows
    shown, is_scored = made.ids, rows.is_selected
    if corrector.restores_missing and rows.is_missing is not None:
        is_scored = is_scored & rows.is_missing
    elif corrector.restores_missing:
        masks = torch.full_like(rows.positions, corruption.vocabulary.mask_id)
        shown = place_words(rows.token_ids, rows.positions, rows.is_selected, masks)
    logits = word_logits(
        corrector.model,
        shown,
        rows.token_type_ids,
        rows.attention_mask,
        lambda states: take_positions(states, rows.positions),
    )
    return logits[is_scored], rows.originals[is_scored]

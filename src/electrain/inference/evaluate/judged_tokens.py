"""Held-out rows, corrupted as in pretraining, and what the networks made of every token."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.rows import RowSource
from electrain.foundation.progress import Progress
from electrain.inference.corruption import Corrupted, Corruption
from electrain.inference.model import LoadedModel, proposed_word_logits, replaced_logits
from electrain.pretrain.objectives.rows import Rows
from electrain.pretrain.objectives.sampling import place_words

BATCH_ROWS = 32


@dataclass(frozen=True)
class JudgedTokens:
    """The answers of both networks.

    Attributes:
        logits: (tokens,) float32; positive means replaced; tokens that could have been replaced only; empty without
            a detection head.
        is_replaced: (tokens,) bool.
        token_ids: (tokens,) int64; what the discriminator saw.
        row: (tokens,) int64; which row each token stands in, from 0.
        word_losses: (masked,) float32; the generator's cross-entropy at each masked position, in nats.
        entropies: (masked,) float32; of its distribution there, in nats.
        is_hit: (masked,) bool; its likeliest word is the original.
        is_same: (masked,) bool; the word it drew is the original.
        is_corrected: (masked,) bool; the correction head's likeliest word is the original; empty without that head.
        correction_losses: (masked,) float32; its cross-entropy there, in nats; empty without that head.
    """

    logits: NDArray[np.float32]
    is_replaced: NDArray[np.bool_]
    token_ids: NDArray[np.int64]
    row: NDArray[np.int64]
    word_losses: NDArray[np.float32]
    entropies: NDArray[np.float32]
    is_hit: NDArray[np.bool_]
    is_same: NDArray[np.bool_]
    is_corrected: NDArray[np.bool_]
    correction_losses: NDArray[np.float32]


@dataclass(frozen=True)
class Corrector:
    """What restores words: a correction head, or the masked-language-modelling baseline.

    Attributes:
        is_baseline: it is the baseline, and is shown [MASK] at every selected position instead of proposed words.
        restores_missing: it was trained at [MASK] only, and is asked nowhere else.
    """

    model: LoadedModel
    is_baseline: bool
    restores_missing: bool


def judge_rows(
    detector: LoadedModel | None, corrector: Corrector | None, corruption: Corruption, source: RowSource, rows: int
) -> JudgedTokens:
    """Corrupts rows 0 to `rows` of the source and asks the detector which tokens were replaced.

    Without a detection head only the corrector is asked. Everything random is a function of (seed, row), so the number
    of rows that are computed together changes nothing.
    """
    parts = []
    with Progress("evaluate detection", "rows", rows) as progress:
        for start in range(0, rows, BATCH_ROWS):
            packed = source.batch(np.arange(start, min(start + BATCH_ROWS, rows), dtype=np.int64))
            made = corruption.corrupted(corruption.masked(packed))
            parts.append(_judge(detector, corrector, corruption, made, packed.row_numbers))
            progress.advance(len(packed.row_numbers))
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(JudgedTokens)]
    return JudgedTokens(*columns)


@torch.inference_mode()
def _judge(
    detector: LoadedModel | None,
    corrector: Corrector | None,
    corruption: Corruption,
    made: Corrupted,
    row_numbers: NDArray[np.int64],
) -> JudgedTokens:
    rows = made.rows
    # Detection is trained and judged at tokens that can be replaced, which leaves [CLS], [SEP] and [MASK] out.
    is_scored = ~rows.is_special if rows.is_detected is None else ~rows.is_special & rows.is_detected
    nothing = torch.zeros(0, device=rows.token_ids.device)
    logits = nothing
    if detector is not None:
        logits = replaced_logits(detector, made.ids, rows.attention_mask, rows.token_type_ids)[is_scored]
    is_asked = rows.is_selected_in_text
    originals, drawn = rows.originals[is_asked], made.proposal.words[is_asked]
    word_losses, entropies, is_hit = nothing, nothing, nothing.bool()
    if made.proposal.chosen is not None:
        words = made.proposal.chosen[is_asked].float()
        log_probabilities = words.log_softmax(-1)
        word_losses = functional.nll_loss(log_probabilities, originals, reduction="none")
        entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
        is_hit = words.argmax(-1) == originals
    # Without a corrector there is one word and no position, so that everything below is empty.
    corrections, restored = nothing.unsqueeze(1), nothing.long()
    if corrector is not None:
        corrections, restored = _corrections(corrector, corruption, made)
    numbers = torch.from_numpy(row_numbers).to(is_scored.device).unsqueeze(1).expand(is_scored.shape)
    return JudgedTokens(
        logits=_array(logits),
        is_replaced=_array(made.is_replaced[is_scored]),
        token_ids=_array(made.ids[is_scored]),
        row=_array(numbers[is_scored]),
        word_losses=_array(word_losses),
        entropies=_array(entropies),
        is_hit=_array(is_hit),
        is_same=_array(drawn == originals),
        is_corrected=_array(corrections.argmax(-1) == restored),
        correction_losses=_array(functional.cross_entropy(corrections, restored, reduction="none")),
    )


def _corrections(corrector: Corrector, corruption: Corruption, made: Corrupted) -> tuple[Tensor, Tensor]:
    """(asked, vocabulary) float32 word logits of the corrector, and the (asked,) int64 words that belong there."""
    rows = made.rows
    shown, is_asked = made.ids, rows.is_selected
    if corrector.is_baseline:
        masks = torch.full_like(rows.positions, corruption.vocabulary.mask_id)
        shown = place_words(rows.token_ids, rows.positions, rows.is_selected, masks)
    elif corrector.restores_missing and rows.is_missing is not None:
        is_asked = is_asked & rows.is_missing
    return _words_at(corrector.model, shown, rows)[is_asked], rows.originals[is_asked]


def _words_at(model: LoadedModel, shown: Tensor, rows: Rows) -> Tensor:
    """(batch, selected, vocabulary) float32: a model's word logits at the selected positions of what it is shown."""
    return proposed_word_logits(model, shown, shown, rows.token_type_ids, rows.attention_mask, rows.positions)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array

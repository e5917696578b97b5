"""Held-out rows, corrupted as in pretraining, and what both networks made of every token."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from electrain.data.shards.rows import RowSource
from electrain.foundation.progress import Progress
from electrain.inference.model import LoadedModel, proposed_word_logits, replaced_logits
from electrain.pretrain.objectives.masking import MaskedBatch, mask_batch
from electrain.pretrain.objectives.sampling import place_words, sample_words


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
        restores_missing: it was trained at [MASK], and is shown that instead of proposed words.
    """

    model: LoadedModel
    restores_missing: bool


def judge_rows(
    detector: LoadedModel | None,
    sampler: LoadedModel,
    source: RowSource,
    *,
    rows: int,
    batch_rows: int,
    masked_fraction: float,
    temperature: float,
    seed: int,
    corrector: Corrector | None = None,
) -> JudgedTokens:
    """Masks rows 0 to `rows` of the source, fills them with samples of `sampler`, and asks `detector` which those are.

    Without a detection head only the corrector is asked.
    Masks and samples are functions of (seed, row), so `batch_rows` does not change them.
    """
    progress = Progress("detection", rows, "rows")
    parts = []
    for start in range(0, rows, batch_rows):
        packed = source.batch(np.arange(start, min(start + batch_rows, rows), dtype=np.int64))
        masked = mask_batch(packed, masked_fraction, seed, mask_id=int(sampler.tokenizer.mask_token_id))
        parts.append(_judge_batch(detector, sampler, corrector, masked, temperature))
        progress.advance(len(packed.row_numbers))
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(JudgedTokens)]
    return JudgedTokens(*columns)


@torch.inference_mode()
def _judge_batch(
    detector: LoadedModel | None,
    sampler: LoadedModel,
    corrector: Corrector | None,
    masked: MaskedBatch,
    temperature: float,
) -> JudgedTokens:
    packed, device = masked.packed, sampler.device
    token_ids, masked_ids, positions, is_selected, uniforms, types = (
        torch.from_numpy(array).to(device)
        for array in (
            packed.token_ids,
            masked.masked_ids,
            masked.positions,
            masked.is_selected,
            masked.uniforms,
            packed.token_type_ids,
        )
    )
    is_real = None if packed.is_real.all() else torch.from_numpy(packed.is_real).to(device)
    words_of = proposed_word_logits(sampler, token_ids, masked_ids, types, is_real, positions)
    drawn = sample_words(words_of, uniforms, temperature)
    corrupted = place_words(token_ids, positions, is_selected, drawn)
    is_scored = ~packed.is_special
    logits = np.zeros(0, np.float32)
    if detector is not None:
        logits = replaced_logits(detector, corrupted, is_real, types).cpu().numpy()[is_scored]
    originals = token_ids.gather(1, positions)[is_selected]
    words_of, drawn = words_of[is_selected], drawn[is_selected]
    log_probabilities = words_of.log_softmax(-1)
    corrections = torch.zeros(0, words_of.shape[-1], device=device)
    if corrector is not None:
        shown = corrupted
        if corrector.restores_missing:
            mask_ids = torch.full_like(positions, sampler.tokenizer.mask_token_id)
            shown = place_words(token_ids, positions, is_selected, mask_ids)
        corrections = proposed_word_logits(corrector.model, shown, shown, types, is_real, positions)[is_selected]
    asked = originals[: len(corrections)]
    return JudgedTokens(
        logits=logits,
        is_replaced=(corrupted != token_ids).cpu().numpy()[is_scored],
        token_ids=corrupted.cpu().numpy()[is_scored],
        row=np.broadcast_to(packed.row_numbers[:, None], is_scored.shape)[is_scored],
        word_losses=functional.nll_loss(log_probabilities, originals, reduction="none").cpu().numpy(),
        entropies=-(log_probabilities.exp() * log_probabilities).sum(-1).cpu().numpy(),
        is_hit=(words_of.argmax(-1) == originals).cpu().numpy(),
        is_same=(drawn == originals).cpu().numpy(),
        is_corrected=(corrections.argmax(-1) == asked).cpu().numpy(),
        correction_losses=functional.cross_entropy(corrections, asked, reduction="none").cpu().numpy(),
    )

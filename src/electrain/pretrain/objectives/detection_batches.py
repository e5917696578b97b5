"""Micro-batches of `ReplacedTokenDetection`: which words the discriminator sees, and how many each loss counts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.data.shards.randomness import below_one, random_uniforms
from electrain.models.discriminator import DiscriminatorConfig
from electrain.pretrain.objectives.masking import CorruptionConfig, MaskedBatch
from electrain.pretrain.objectives.rows import Rows, rows_of
from electrain.training.objective import MicroBatch

# As much text as noise (Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.2).
KEPT_FRACTION = 0.5


@dataclass(frozen=True)
class StepSettings:
    """The settings of a micro-batch that change from step to step."""

    temperature: float | None = None  # divisor of the generator's logits; None means 1
    reversal: float | None = None  # see `Rows.reversal`
    generator: str | None = "likelihood"  # how this step trains the generator; None if it does not
    generator_alone: bool = False  # True leaves the discriminator out of this step


def detection_micro_batch(
    masked: MaskedBatch,
    judge: DiscriminatorConfig,
    corruption: CorruptionConfig,
    seed: int,
    step: StepSettings,
    *,
    with_padding: bool,
) -> MicroBatch[Rows]:
    """The rows as tensors, and the number of elements of each loss of `ReplacedTokenDetection`."""
    is_missing = _chosen(masked, "missing", corruption.missing_fraction, seed)
    is_kept = _chosen(masked, "kept", KEPT_FRACTION, seed) if "electric" in judge.heads else None
    is_written = _written(masked, corruption, seed) if corruption.source == "generated" else None
    # Counts are taken from the masks, before any network runs: every process knows the divisors of a step beforehand.
    counts = {}
    in_text = masked.is_selected if is_written is None else masked.is_selected & ~_at(masked, is_written)
    if step.generator is not None:
        counts["generator"] = int(in_text.sum())
    if not step.generator_alone:
        counts |= _discriminator_counts(masked, judge, is_missing)
    if step.generator == "policy-gradient":
        counts |= dict.fromkeys(("policy", "baseline"), int((_shown(masked, is_missing) & in_text).sum()))
    rows = rows_of(masked, with_padding=with_padding)._replace(
        temperature=None if step.temperature is None else torch.tensor(step.temperature),
        reversal=None if step.reversal is None else torch.tensor(step.reversal),
        is_missing=None if is_missing is None else torch.from_numpy(is_missing),
        is_kept=None if is_kept is None else torch.from_numpy(is_kept),
        generator_alone=step.generator_alone,
    )
    if is_written is not None:
        draws = random_uniforms(seed, "writing", masked.packed.row_numbers, is_written.shape[1])
        rows = rows._replace(
            is_written=torch.from_numpy(is_written), writing_uniforms=torch.from_numpy(below_one(draws))
        )
    return MicroBatch(rows, counts, int(masked.packed.is_real.sum()))


def _chosen(masked: MaskedBatch, purpose: str, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """(rows, selected) bool: a random fraction of the selected positions; None if the fraction is 0."""
    if not fraction:
        return None
    draws = random_uniforms(seed, purpose, masked.packed.row_numbers, masked.positions.shape[1])
    return (draws < fraction) & masked.is_selected


def _written(masked: MaskedBatch, corruption: CorruptionConfig, seed: int) -> NDArray[np.bool_]:
    """(rows, length) bool: the tokens that the generator writes: all after the prompt, in a random part of the rows."""
    packed = masked.packed
    draws = random_uniforms(seed, "written", packed.row_numbers, 1)
    is_behind = np.arange(packed.token_ids.shape[1]) > packed.is_real.sum(1, keepdims=True) * corruption.prompt_fraction
    result: NDArray[np.bool_] = (draws < corruption.generated_fraction) & is_behind & ~packed.is_special
    return result


def _at(masked: MaskedBatch, is_true: NDArray[np.bool_]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.take_along_axis(is_true, masked.positions, 1)
    return result


def _shown(masked: MaskedBatch, is_missing: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return masked.is_selected if is_missing is None else masked.is_selected & ~is_missing


def _discriminator_counts(
    masked: MaskedBatch, judge: DiscriminatorConfig, is_missing: NDArray[np.bool_] | None
) -> dict[str, int]:
    real, selected = int(masked.packed.is_real.sum()), int(masked.is_selected.sum())
    missing = 0 if is_missing is None else int(is_missing.sum())
    counts = {}
    if "detection" in judge.heads:
        counts["discriminator"] = (real if judge.detection_at == "all" else selected) - missing
    if "correction" in judge.heads:
        counts["correction"] = {"missing": missing, "replaced": selected, "all": real}[judge.correction_at]
    if "electric" in judge.heads:
        counts["electric"] = selected
    return counts

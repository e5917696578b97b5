"""Micro-batches of `ReplacedTokenDetection`: which words the discriminator sees, and how many each loss counts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from electrain.data.shards.randomness import below_one, row_uniforms
from electrain.models.discriminator import DiscriminatorConfig
from electrain.pretraining.objectives.masking import CorruptionConfig, MaskedBatch
from electrain.pretraining.objectives.rows import Rows, number_of, rows_of
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
    """The rows, and the number of elements of each loss of `ReplacedTokenDetection`."""
    is_missing = _chosen(masked, "missing", corruption.missing_fraction, seed)
    is_kept = _chosen(masked, "kept", KEPT_FRACTION, seed) if "electric" in judge.heads else None
    is_written = _written(masked, corruption, seed) if corruption.source == "generated" else None
    rows = rows_of(masked, with_padding=with_padding)._replace(
        temperature=_number(step.temperature, masked),
        reversal=_number(step.reversal, masked),
        is_missing=is_missing,
        is_kept=is_kept,
        is_written=is_written,
        generator_alone=step.generator_alone,
    )
    # Counts are taken from the masks, before any network runs: every process knows the divisors of a step beforehand.
    counts: dict[str, int | Tensor] = {}
    if step.generator is not None:
        counts["generator"] = number_of(rows.is_selected_in_text)
    if not step.generator_alone:
        counts |= _discriminator_counts(masked, judge, is_missing)
    if step.generator == "policy-gradient":
        counts |= dict.fromkeys(("policy", "baseline"), number_of(rows.is_played))
    if is_written is not None:
        draws = row_uniforms(seed, "writing", masked.packed.row_numbers, is_written.shape[1])
        rows = rows._replace(writing_uniforms=below_one(draws))
    return MicroBatch(rows, counts, number_of(masked.packed.is_real))


def _number(value: float | None, masked: MaskedBatch) -> Tensor | None:
    """() float32 on the device of the rows."""
    if value is None:
        return None
    return torch.full((), value, dtype=torch.float32, device=masked.positions.device)


def _chosen(masked: MaskedBatch, purpose: str, fraction: float, seed: int) -> Tensor | None:
    """(rows, selected) bool: a random fraction of the selected positions; None if the fraction is 0."""
    if not fraction:
        return None
    draws = row_uniforms(seed, purpose, masked.packed.row_numbers, masked.positions.shape[1])
    return (draws < fraction) & masked.is_selected


def _written(masked: MaskedBatch, corruption: CorruptionConfig, seed: int) -> Tensor:
    """(rows, length) bool: the tokens that the generator writes: all after the prompt, in a random part of the rows."""
    packed = masked.packed
    draws = row_uniforms(seed, "written", packed.row_numbers, 1)
    prompt = packed.is_real.sum(1, keepdim=True).to(torch.float64) * corruption.prompt_fraction
    is_behind = torch.arange(packed.token_ids.shape[1], device=prompt.device) > prompt
    return (draws < corruption.generated_fraction) & is_behind & ~packed.is_special


def _discriminator_counts(
    masked: MaskedBatch, judge: DiscriminatorConfig, is_missing: Tensor | None
) -> dict[str, int | Tensor]:
    real, selected = number_of(masked.packed.is_real), number_of(masked.is_selected)
    missing = 0 if is_missing is None else number_of(is_missing)
    counts: dict[str, int | Tensor] = {}
    if "detection" in judge.heads:
        counts["discriminator"] = (real if judge.detection_at == "all" else selected) - missing
    if "correction" in judge.heads:
        counts["correction"] = {"missing": missing, "replaced": selected, "all": real}[judge.correction_at]
    if "electric" in judge.heads:
        counts["electric"] = selected
    return counts

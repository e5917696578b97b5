"""Observations of a step: as numbers for the journal, and as words for the live line."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from electrain.pretraining.objectives.detection_metrics import detection_metrics, unigram_auc
from electrain.pretraining.objectives.rows import Rows
from electrain.training.loop import StepResult


def metrics_of(result: StepResult[Rows], unigram_counts: NDArray[np.int64]) -> dict[str, float]:
    """The numbers of one journal line: losses in nats, and measures of the last micro-batch of this process.

    Detection is measured on the tokens that can be replaced. Special tokens never are, and would flatter it.
    """
    numbers = {"loss": float(result.loss), **{f"{name}_loss": float(value) for name, value in result.losses.items()}}
    numbers |= {"learning_rate": result.learning_rate, "gradient_norm": float(result.gradient_norm)}
    seen, rows = result.observations, result.micro_batch.rows
    selected = max(1, int(rows.is_selected.sum()))
    if "masked_language_model_hits" in seen:
        numbers["masked_language_model_accuracy"] = float(seen["masked_language_model_hits"]) / selected
        return numbers
    if "generator_hits" in seen:
        asked = max(1, int(seen["generator_asked"]))
        numbers["generator_accuracy"] = float(seen["generator_hits"]) / asked
        numbers["generator_entropy"] = float(seen["generator_entropy"]) / asked
    if "replaced_logits" in seen:
        numbers |= _detection_numbers(result, unigram_counts)
    if "correction_hits" in seen:
        numbers |= _correction_numbers(result)
    return numbers


def details_of(metrics: Mapping[str, float]) -> str:
    """The most telling numbers, for the live line: the AUC beside that of word frequency, and the loss."""
    parts = []
    if "discriminator_auc" in metrics:
        parts.append(f"AUC {metrics['discriminator_auc']:.3f} (word frequency alone {metrics['unigram_auc']:.3f})")
    for name, words in (("generator_loss", "generator loss"), ("masked_language_model_loss", "loss")):
        if name in metrics:
            parts.append(f"{words} {metrics[name]:.3f}")
    return ", ".join(parts or [f"loss {metrics['loss']:.3f}"])


def _detection_numbers(result: StepResult[Rows], unigram_counts: NDArray[np.int64]) -> dict[str, float]:
    """Measures of detection on the tokens that could have been replaced, and the value of the adversarial game.

    The value is E[log D] over original tokens plus E[log(1 - D)] over replaced ones, where D is the probability that
    the discriminator gives to a token being original. It is 0 if D is never wrong, and -2 ln 2 if D only guesses.
    """
    seen, can_be_replaced = result.observations, ~result.micro_batch.rows.is_special.cpu().numpy()
    if "is_scored" in seen:  # [MASK] is not scored
        can_be_replaced = can_be_replaced & seen["is_scored"].cpu().numpy()
    scores = seen["replaced_logits"].cpu().numpy()[can_be_replaced]
    is_replaced = seen["is_replaced"].cpu().numpy()[can_be_replaced]
    token_ids = seen["corrupted_ids"].cpu().numpy()[can_be_replaced]
    detection = detection_metrics(scores, is_replaced)
    numbers = {
        "discriminator_precision": detection.precision,
        "discriminator_recall": detection.recall,
        "discriminator_auc": detection.auc,
        "unigram_auc": unigram_auc(token_ids, is_replaced, unigram_counts),
        "replaced_fraction": detection.replaced_fraction,
    }
    if is_replaced.any() and not is_replaced.all():
        surprise = np.logaddexp(0.0, np.where(is_replaced, -scores, scores).astype(np.float64))
        numbers["game_value"] = -float(surprise[~is_replaced].mean() + surprise[is_replaced].mean())
    if "generator_rewards" in seen:
        is_asked = seen["is_asked"].cpu().numpy()
        if is_asked.any():  # of several processes, one may have written no word
            numbers["generator_reward"] = float(seen["generator_rewards"].cpu().numpy()[is_asked].mean())
    return numbers


def _correction_numbers(result: StepResult[Rows]) -> dict[str, float]:
    """Fraction of the words that the correction head restores, in real text and in written passages."""
    seen = result.observations
    hits, is_asked, is_written = (
        seen[name].cpu().numpy() for name in ("correction_hits", "correction_asked", "correction_written")
    )
    scored = {
        "correction_accuracy": is_asked & ~is_written,
        "correction_accuracy_written": is_asked & is_written,
    }
    return {name: float(hits[is_scored].mean()) for name, is_scored in scored.items() if is_scored.any()}


def example_of(result: StepResult[Rows], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]] | None:
    """The first row of the last micro-batch with the discriminator's probabilities; None without a detection head."""
    if "replaced_logits" not in result.observations:
        return None
    is_special = result.micro_batch.rows.is_special[0].cpu()
    places = torch.nonzero(~is_special).flatten()

    def row(tensor: torch.Tensor) -> list[Any]:
        values: list[Any] = tensor[0].cpu()[places].tolist()
        return values

    seen = result.observations
    probabilities = row(torch.sigmoid(seen["replaced_logits"]))
    return {
        "tokens": tokenizer.convert_ids_to_tokens(row(seen["corrupted_ids"])),
        "originals": tokenizer.convert_ids_to_tokens(row(result.micro_batch.rows.token_ids)),
        "probabilities": [round(probability, 4) for probability in probabilities],
        "is_replaced": row(seen["is_replaced"]),
    }

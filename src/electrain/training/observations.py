"""What a step showed, as numbers for the journal and as a sentence for a person."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.objectives.detection_metrics import detection_metrics, unigram_auc
from electrain.training.loop import StepResult


def metrics_of(result: StepResult, unigram_counts: NDArray[np.int64]) -> dict[str, Any]:
    """The numbers of one journal line: losses in nats, and what the last micro-batch of this process showed.

    Detection is scored on tokens that can be replaced: special tokens never are, and would flatter it.
    """
    numbers: dict[str, Any] = {"loss": result.loss}
    numbers |= {f"{name}_loss": value for name, value in result.losses.items()}
    numbers |= {"learning_rate": result.learning_rate, "gradient_norm": result.gradient_norm}
    seen, tensors = result.observations, result.micro_batch.tensors
    selected = max(1, int(tensors["is_selected"].sum()))
    if "masked_language_model_hits" in seen:
        numbers["masked_language_model_accuracy"] = float(seen["masked_language_model_hits"]) / selected
        return numbers
    can_be_replaced = ~result.micro_batch.is_special.numpy()
    scores = seen["replaced_logits"].cpu().numpy()[can_be_replaced]
    is_replaced = seen["is_replaced"].cpu().numpy()[can_be_replaced]
    token_ids = seen["corrupted_ids"].cpu().numpy()[can_be_replaced]
    detection = detection_metrics(scores, is_replaced)
    numbers |= {
        "generator_accuracy": float(seen["generator_hits"]) / selected,
        "generator_entropy": float(seen["generator_entropy"]) / selected,
        "discriminator_precision": detection.precision,
        "discriminator_recall": detection.recall,
        "discriminator_auc": detection.auc,
        "unigram_auc": unigram_auc(token_ids, is_replaced, unigram_counts),
        "replaced_fraction": detection.replaced_fraction,
    }
    return numbers


def example_of(result: StepResult, tokenizer: Any) -> dict[str, Any] | None:
    """The first row of the last micro-batch, with the discriminator's marks; None where nothing is detected."""
    if "replaced_logits" not in result.observations:
        return None
    is_special = result.micro_batch.is_special[0]
    places = torch.nonzero(~is_special).flatten()

    def row(tensor: torch.Tensor) -> list[Any]:
        values: list[Any] = tensor[0].cpu()[places].tolist()
        return values

    seen = result.observations
    probabilities = row(torch.sigmoid(seen["replaced_logits"]))
    return {
        "tokens": tokenizer.convert_ids_to_tokens(row(seen["corrupted_ids"])),
        "originals": tokenizer.convert_ids_to_tokens(row(result.micro_batch.tensors["token_ids"])),
        "probabilities": [round(probability, 4) for probability in probabilities],
        "is_replaced": row(seen["is_replaced"]),
    }

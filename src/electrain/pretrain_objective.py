"""From a configuration to the objective that is trained, and the micro-batches it is trained on."""

from collections.abc import Callable

import numpy as np
import torch

from electrain.data.batches import RowSource
from electrain.models.backbones import EncoderConfig, encoder_configuration, generator_encoder
from electrain.models.discriminator import Discriminator
from electrain.models.embedding_sharing import build_generator
from electrain.models.starting_weights import (
    load_starting_discriminator,
    load_starting_encoder,
    load_starting_generator,
)
from electrain.objectives.masked_language_modelling import MaskedLanguageModelling, modelling_micro_batch
from electrain.objectives.masking import mask_batch
from electrain.objectives.objective import MicroBatch
from electrain.objectives.replaced_token_detection import ReplacedTokenDetection, detection_micro_batch
from electrain.pretrain_configuration import PretrainConfig

PretrainObjective = ReplacedTokenDetection | MaskedLanguageModelling


def build_objective(config: PretrainConfig, *, vocabulary_size: int, special_ids: dict[str, int]) -> PretrainObjective:
    """The networks of a configuration with fresh weights from its seed, on the CPU.

    Args:
        special_ids: the ids of `pad`, `cls` and `sep` in the vocabulary.
    """
    torch.manual_seed(config.training.seed)

    def configuration(encoder: EncoderConfig) -> object:
        return encoder_configuration(
            encoder,
            vocabulary_size=vocabulary_size,
            sequence_length=config.data.sequence_length,
            dropout=config.training.dropout,
            special_ids=special_ids,
        )

    if config.training.objective == "masked-language-modelling":
        return MaskedLanguageModelling(configuration(config.encoder))
    discriminator = Discriminator(configuration(config.encoder))
    encoder = generator_encoder(config.encoder, config.generator.size_fraction)
    generator = build_generator(configuration(encoder), discriminator, config.generator.embedding_sharing)
    return ReplacedTokenDetection(
        discriminator,
        generator,
        loss_weight=config.discriminator.loss_weight,
        temperature=config.generator.temperature,
        averages_collisions=config.parity.colliding_positions,
    )


def load_starting_weights(objective: PretrainObjective, config: PretrainConfig) -> None:
    """Puts the weights that `[start]` names into the networks.

    Where embeddings are shared, the discriminator's are the ones that stay.
    Raises: CheckpointError: see `electrain.models.starting_weights`.
    """
    start, length = config.start, config.data.sequence_length
    if isinstance(objective, MaskedLanguageModelling):
        if start.generator:
            load_starting_generator(start.generator, objective.model.network, length)
        elif start.discriminator:
            load_starting_encoder(start.discriminator, objective.model.body, length)
        return
    if start.discriminator:
        load_starting_discriminator(start.discriminator, objective.discriminator.network, length)
    if start.generator:
        shared = objective.discriminator.body.embeddings.state_dict()
        kept = {name: value.clone() for name, value in shared.items()}
        objective.generator.load(lambda network: load_starting_generator(start.generator, network, length))
        if start.discriminator:
            objective.discriminator.body.embeddings.load_state_dict(kept)


def micro_batches(
    rows: RowSource,
    config: PretrainConfig,
    *,
    mask_id: int,
    vocabulary_size: int,
    rank: int = 0,
    processes: int = 1,
) -> Callable[[int], list[MicroBatch]]:
    """The function from a step to this process's micro-batches.

    A step's rows have consecutive numbers; each process takes a run of them, so that the number of processes changes
    who computes a row, never the rows.
    """
    training, parity = config.training, config.parity
    is_baseline = training.objective == "masked-language-modelling"
    parcel = modelling_micro_batch if is_baseline else detection_micro_batch
    own_rows = training.batch_rows // processes
    micro_rows = training.micro_batch_rows or own_rows

    def of_step(step: int) -> list[MicroBatch]:
        first = step * training.batch_rows + rank * own_rows
        batches = []
        for offset in range(0, own_rows, micro_rows):
            numbers = np.arange(first + offset, first + min(offset + micro_rows, own_rows), dtype=np.int64)
            masked = mask_batch(
                rows.batch(numbers),
                config.corruption.masked_fraction,
                training.seed,
                mask_id=mask_id,
                with_collisions=parity.colliding_positions,
                random_words=vocabulary_size if is_baseline else None,
            )
            batches.append(parcel(masked, with_padding=parity.reference_packing))
        return batches

    return of_step

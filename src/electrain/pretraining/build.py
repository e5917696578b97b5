"""Builds the objective that a configuration describes, and the micro-batches that it is trained on."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from electrain.data.shards.rows import PackedBatch, RowSource
from electrain.data.shards.shards import Shards
from electrain.data.shards.word_vectors import neighbour_information, word_vectors
from electrain.data.tokenizer.tokenizer import SpecialIds, continues_word, special_ids_of
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import say
from electrain.models.backbones import EncoderConfig, backbone_of, encoder_configuration, generator_encoder, sizes_of
from electrain.models.discriminator import Discriminator
from electrain.models.embedding_sharing import build_generator, layers_of, word_tables
from electrain.models.folders import configuration_of
from electrain.models.frozen_generator import load_frozen_generator
from electrain.models.generators import MaskedGenerator
from electrain.models.gradient_checkpointing import checkpoint_layers
from electrain.models.starting_weights import (
    load_starting_generator,
    load_starting_head,
    load_starting_network,
    set_word_embeddings,
)
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.objectives.corruption import Generator, ProposalSettings
from electrain.pretraining.objectives.detection_batches import StepSettings, detection_micro_batch
from electrain.pretraining.objectives.masked_language_modelling import MaskedLanguageModelling, modelling_micro_batch
from electrain.pretraining.objectives.masking import Masking, mask_batch, most_selected
from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.objectives.sampling import compared_words
from electrain.pretraining.run_folder import head_beside
from electrain.training.objective import MicroBatch

PretrainObjective = ReplacedTokenDetection | MaskedLanguageModelling
# AMOS mixes three generators (Meng et al. 2022, section 3.2).
MIXTURE_DEPTHS = 3
# Of a GPU's free memory, what a copy of the shards' tokens may take. The rest is the networks' and their activations'.
MOST_OF_FREE_MEMORY = 0.1


def build_objective(
    config: PretrainConfig,
    *,
    vocabulary_size: int,
    special_ids: SpecialIds,
    unigram_counts: NDArray[np.int64] | None = None,
) -> PretrainObjective:
    """The networks of a configuration with fresh weights from its seed, on the CPU.

    Args:
        special_ids: ids of the tokenizer's special tokens.
        unigram_counts: (vocabulary,) occurrences in the corpus, for a unigram generator; None takes all as equal.
    Raises: CheckpointError: a frozen generator's folder cannot be used. ConfigurationError: gradient checkpointing of a
        network that has no layers for it.
    """
    torch.manual_seed(config.training.seed)
    objective = _fresh_objective(config, vocabulary_size, special_ids, unigram_counts)
    if config.training.gradient_checkpointing:
        checkpoint_layers(objective, has_dropout=config.training.dropout > 0)
    return objective


def _fresh_objective(
    config: PretrainConfig,
    vocabulary_size: int,
    special_ids: SpecialIds,
    unigram_counts: NDArray[np.int64] | None,
) -> PretrainObjective:
    configured = partial(
        encoder_configuration,
        vocabulary_size=vocabulary_size,
        sequence_length=config.data.sequence_length,
        dropout=config.training.dropout,
        special_ids=special_ids,
    )
    if config.training.objective == "masked-language-modelling":
        return MaskedLanguageModelling(configured(config.encoder))
    discriminator = Discriminator(configured(config.encoder), config.discriminator.heads)
    if config.generator.kind == "unigram":
        counts = np.ones(vocabulary_size, np.int64) if unigram_counts is None else unigram_counts
        special = sorted(set(special_ids.all))
        generator: Generator = UnigramGenerator(
            counts, config.generator.clusters, config.generator.temperature, special
        )
    elif config.generator.source:
        generator = load_frozen_generator(config.generator.source, vocabulary_size, config.data.sequence_length)
    else:
        network = configured(generator_sizes(config), is_causal=config.generator.kind == "causal")
        # A generator with a stage of its own is frozen after it. Shared embeddings would go on changing it.
        sharing = "separate" if config.generator.own_stage_steps else config.generator.embedding_sharing
        generator = build_generator(network, discriminator, sharing)
    return ReplacedTokenDetection(
        discriminator,
        generator,
        config.discriminator,
        config.game,
        proposal_settings(config, special_ids),
        own_stage_steps=config.generator.own_stage_steps,
    )


def layers_to_divide(objective: PretrainObjective, config: PretrainConfig) -> list[nn.Module]:
    """The layers whose weights are gathered one after another where `[training] sharding` divides them."""
    if config.corruption.source == "generated" and isinstance(objective, ReplacedTokenDetection):
        # A generator writes as many words as its passages need, which differ between processes, so that they would
        # gather layers at different times. The generator is small, and all of it is gathered with what both share.
        return list(layers_of(objective.discriminator))
    return list(layers_of(objective))


def generator_sizes(config: PretrainConfig) -> EncoderConfig:
    """The generator's sizes: a fraction of the encoder's, except for those that the configuration gives in numbers.

    Raises: ConfigurationError: the numbers do not fit each other.
    """
    choice = config.generator
    sizes = generator_encoder(config.encoder, choice.size_fraction)
    numbers = {name: getattr(choice, name) for name in ("layers", "hidden_size", "feed_forward_size", "heads")}
    try:
        return dataclasses.replace(sizes, **{name: number for name, number in numbers.items() if number})
    except ValueError as error:
        raise ConfigurationError(f"[generator] {error}") from error


def sized_as_started(config: PretrainConfig, tell: Callable[[str], None] = say) -> PretrainConfig:
    """The configuration, with the generator's sizes replaced by those of the weights that [start] generator names.

    Released small generators differ: Google's has the full width of the discriminator, the Chinese one a quarter of
    it, and the paper says a quarter. The config.json of the weights is right by definition.

    Raises: ConfigurationError: [generator] gives other sizes in numbers. CheckpointError: there are no such weights.
    """
    source, choice = config.start.generator, config.generator
    if not source or not config.trains_generator:
        return config
    theirs = configuration_of(source)
    if backbone_of(theirs) is None:
        return config  # reading the weights will refuse them with the reason
    wanted: dict[str, Any] = sizes_of(theirs)
    ours = generator_sizes(config)
    if all(getattr(ours, name) == size for name, size in wanted.items()):
        return config
    said = ", ".join(f"{name} = {size}" for name, size in wanted.items())
    if any(getattr(choice, name) not in (0, size) for name, size in wanted.items()):
        flags = " ".join(f"--generator.{name.replace('_', '-')} {size}" for name, size in wanted.items())
        raise ConfigurationError(f"[generator]: {source} has other sizes than the configuration; give {flags}")
    tell(f"the generator takes its sizes from {source}: {said}; size_fraction = {choice.size_fraction:g} is not read")
    return dataclasses.replace(config, generator=dataclasses.replace(choice, **wanted))


def proposal_settings(config: PretrainConfig, special_ids: SpecialIds) -> ProposalSettings:
    """How a configuration's generator proposes words and how they are placed."""
    game, choice = config.game, config.generator
    layers = generator_sizes(config).layers
    last = tuple(range(max(1, layers - MIXTURE_DEPTHS + 1), layers + 1))
    return ProposalSettings(
        special_ids=special_ids,
        training=choice.training,
        depths=(game.mixture_depths or last) if choice.training == "mixture" else (),
        gumbel_temperature=game.gumbel_temperature,
        top_p=config.corruption.top_p,
        averages_collisions=config.parity.colliding_positions,
    )


def _reversal(config: PretrainConfig, masked_fraction: float) -> float | None:
    """The factor that makes the gradient through relaxed words as large as that of a reward; None without such words.

    Both come from the discriminator's loss. That loss is a mean over all scored tokens, times its weight; a reward is
    a mean over the proposed words that the discriminator sees. The factor is the ratio of the two.
    """
    if config.generator.training not in ("gumbel", "mixture"):
        return None
    missing, weight = config.corruption.missing_fraction, config.discriminator.loss_weight
    if config.discriminator.detection_at == "all":
        weight *= masked_fraction * (1 - missing) / (1 - masked_fraction * missing)
    return config.game.adversarial_weight / weight


def load_starting_weights(
    objective: PretrainObjective,
    config: PretrainConfig,
    shards: Shards | None = None,
    tell: Callable[[str], None] = say,
) -> None:
    """Loads the weights that `[start]` names into the networks. Shared embeddings take the discriminator's weights.

    A discriminator takes the heads that lie beside the `model/` of a run; those that do not stay random.

    Word embeddings that begin from counts are counted where `[start]` names no weights.

    Args: shards: to count neighbours in; without shards, word embeddings stay random.
    Raises: CheckpointError: see `electrain.models.starting_weights`.
    """
    start, length = config.start, config.data.sequence_length
    if start.word_embeddings == "co-occurrence" and not (start.discriminator or start.generator):
        _count_words(objective, config, shards, tell)
    if isinstance(objective, MaskedLanguageModelling):
        if start.generator:
            load_starting_generator(start.generator, objective.model.network, length)
        elif start.discriminator:
            load_starting_network(start.discriminator, objective.model.network, length)
        return
    if start.discriminator:
        source = head_beside(start.discriminator, "detection") or start.discriminator
        objective.discriminator.load(lambda network: load_starting_network(source, network, length))
        for head in objective.discriminator.further_heads:
            if folder := head_beside(start.discriminator, head):
                load_starting_head(folder, head, objective.discriminator)
    if start.generator:
        if not isinstance(objective.generator, MaskedGenerator):
            raise ConfigurationError(
                f"[start] generator: a {config.generator.kind} generator has no weights to start from; leave it out"
            )
        embeddings = objective.discriminator.body.embeddings
        kept = {name: value.clone() for name, value in embeddings.state_dict().items()}
        objective.generator.load(lambda network: load_starting_generator(start.generator, network, length))
        if start.discriminator:  # loading the generator overwrote the embeddings that both share
            embeddings.load_state_dict(kept)


def _count_words(
    objective: PretrainObjective, config: PretrainConfig, shards: Shards | None, tell: Callable[[str], None]
) -> None:
    if shards is None:
        tell("word embeddings begin at random: there are no shards to count neighbours in")
        return
    tell("counting which tokens stand near each other, for the first word embeddings")
    information = neighbour_information(shards)
    if isinstance(objective, MaskedLanguageModelling):
        tables = word_tables(objective.model)
    else:
        tables = word_tables(objective.discriminator, objective.generator)
    widths = {table.embedding_dim for table in tables}
    vectors = {width: word_vectors(information, width, config.training.seed) for width in widths}
    for table in tables:
        set_word_embeddings(table, vectors[table.embedding_dim])


@dataclass(frozen=True)
class Vocabulary:
    """What the corruption of rows needs from the tokenizer."""

    size: int  # number of tokens
    mask_id: int
    # (size,) bool; True for pieces such as ##ing. Noise by words needs it, on the device of the rows.
    continues_word: Tensor | None = None
    # (size,) int64; all ids, the most frequent first, on the device of the rows. None: a step compares with all words,
    # whatever [training] softmax_words says.
    by_frequency: Tensor | None = None

    def to(self, device: torch.device) -> "Vocabulary":
        """The same vocabulary on a device."""
        tensors = [None if each is None else each.to(device) for each in (self.continues_word, self.by_frequency)]
        return Vocabulary(self.size, self.mask_id, *tensors)


def vocabulary_of(tokenizer: Any, unigram_counts: NDArray[np.int64] | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Args: unigram_counts: (vocabulary,) occurrences in the corpus; None leaves out the order of frequency.
    """
    order = None if unigram_counts is None else torch.from_numpy(np.argsort(-unigram_counts, kind="stable"))
    continues = torch.from_numpy(continues_word(tokenizer))
    return Vocabulary(len(tokenizer), special_ids_of(tokenizer).mask, continues, order)


def rows_near(rows: RowSource, config: PretrainConfig, device: torch.device) -> RowSource:
    """The rows, made on the device that trains on them if `rows_on_device` says so, or else on the CPU.

    Raises: ConfigurationError: they cannot be made there.
    """
    choice, noise = config.data.rows_on_device, config.corruption.noise
    if device.type == "cpu" or choice == "no":
        return rows
    if device.type == "mps":  # it has no float64, in which random numbers are compared
        if choice == "yes":
            raise ConfigurationError('[data] rows_on_device = "yes": this GPU has no float64; write "auto" or "no"')
        return rows
    with_words = noise != "random" and rows.stream.has_words
    if choice == "auto":
        # Deletion and shuffling choose word after word, in more operations than a GPU has time for.
        if device.type != "cuda" or noise in ("deletion", "shuffle"):
            return rows
        free, _ = torch.cuda.mem_get_info(device)
        if rows.stream.copied_bytes(with_words=with_words) > MOST_OF_FREE_MEMORY * free:
            return rows
    return rows.on(device, with_words=with_words)


def micro_batches(
    rows: RowSource,
    config: PretrainConfig,
    vocabulary: Vocabulary,
    *,
    rank: int = 0,
    processes: int = 1,
    device: torch.device | None = None,
) -> Callable[[int], list[MicroBatch[Rows]]]:
    """A function from a step to the micro-batches of this process, on the device of `rows`.

    Args: device: what trains on them; None if it is the CPU or the device of `rows`.
    """
    device = rows.device if device is None else device
    vocabulary = vocabulary.to(rows.device)
    own_rows = config.training.batch_rows // processes
    micro_rows = config.training.micro_batch_rows or own_rows

    def of_step(step: int) -> list[MicroBatch[Rows]]:
        # The rows of a step have consecutive numbers, and each process takes a part of them. The number of processes
        # therefore decides who computes a row, but never which rows a step has.
        first = step * config.training.batch_rows + rank * own_rows
        starts = range(0, own_rows, micro_rows)
        numbers = [np.arange(first + n, first + min(n + micro_rows, own_rows), dtype=np.int64) for n in starts]
        # A thread that makes rows ahead starts with the first GPU, whichever this process has.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            made = [corrupted_micro_batch(rows.batch(one), config, vocabulary, step) for one in numbers]
            made = with_compared_words(made, config, vocabulary, step)
            if device.type == "cuda" and rows.device.type == "cpu":
                made = [dataclasses.replace(one, rows=one.rows.pinned()) for one in made]
        return made

    return of_step


def corrupted_micro_batch(
    packed: PackedBatch, config: PretrainConfig, vocabulary: Vocabulary, step: int
) -> MicroBatch[Rows]:
    """Packed rows with positions selected and masked as pretraining does at a step.

    `evaluate detection` and `predict corrupt` call it too, so that they cannot disagree with training.
    """
    corruption, parity = config.corruption, config.parity
    is_baseline = config.training.objective == "masked-language-modelling"
    masking = Masking(
        fraction=_masked_fraction(config, step),
        seed=config.training.seed,
        mask_id=vocabulary.mask_id,
        # A text given to `predict` can be shorter than the run's rows.
        slots=min(most_masked(config), packed.token_ids.shape[1]),
        noise=corruption.noise,
        span_words=corruption.span_words,
        continues_word=vocabulary.continues_word,
        random_words=vocabulary.size if is_baseline else None,
        with_collisions=parity.colliding_positions,
    )
    masked = mask_batch(packed, masking)
    if is_baseline:
        return modelling_micro_batch(masked, with_padding=parity.reference_packing)
    return detection_micro_batch(
        masked,
        config.discriminator,
        corruption,
        config.training.seed,
        _step_settings(config, step),
        with_padding=parity.reference_packing,
    )


def with_compared_words(
    micro_batches: list[MicroBatch[Rows]], config: PretrainConfig, vocabulary: Vocabulary, step: int
) -> list[MicroBatch[Rows]]:
    """The micro-batches of a step, which compares their originals with words of its own, or with the vocabulary."""
    words = softmax_words(config, vocabulary.size)
    if not words or vocabulary.by_frequency is None:
        return micro_batches
    compared, weights = compared_words(vocabulary.by_frequency, words, config.training.seed, step)
    return [
        dataclasses.replace(one, rows=one.rows._replace(compared=compared, compared_weights=weights))
        for one in micro_batches
    ]


def softmax_words(config: PretrainConfig, vocabulary_size: int) -> int:
    """The number of words that a step compares each original with; 0 for the whole vocabulary."""
    words = config.training.softmax_words
    return words if 2 * words <= vocabulary_size else 0


def most_masked(config: PretrainConfig) -> int:
    """The largest number of positions of a row that any step selects."""
    corruption = config.corruption
    fraction = max(corruption.masked_fraction, corruption.last_masked_fraction)
    return most_selected(config.data.sequence_length, fraction)


def on_the_line(first: float, last: float, step: int, steps: int) -> float:
    """The value at a step on the straight line from `first` to `last`; `first` where `last` is 0."""
    return first + (last - first) * step / max(1, steps - 1) if last else first


def _masked_fraction(config: PretrainConfig, step: int) -> float:
    corruption = config.corruption
    return on_the_line(corruption.masked_fraction, corruption.last_masked_fraction, step, config.training.steps)


def _step_settings(config: PretrainConfig, step: int) -> StepSettings:
    choice = config.generator
    temperature = on_the_line(choice.temperature, choice.last_temperature, step, config.training.steps)
    is_tempered = temperature != 1.0 and choice.kind != "unigram"
    is_alone = step < choice.own_stage_steps
    is_trained = choice.kind not in ("unigram", "frozen") or is_alone
    return StepSettings(
        temperature=temperature if is_tempered else None,
        reversal=_reversal(config, _masked_fraction(config, step)),
        generator=choice.training if is_trained else None,
        generator_alone=is_alone,
    )

"""Estimates the cost of a run from its configuration: parameters, operations, memory, hours and money."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from electrain.foundation.errors import ConfigurationError
from electrain.models.embedding_sharing import count_parameters
from electrain.pretraining.build import build_objective, most_masked, sized_as_started, softmax_words
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.flops import (
    PAPER_MASKED_FRACTION,
    NetworkPass,
    paper_flops_per_row,
    passes_of,
    training_flops_per_row,
)
from electrain.pretraining.hardware import Hardware
from electrain.pretraining.memory import SPECIAL_IDS, step_memory
from electrain.pretraining.repetition import times_read
from electrain.training.arithmetic import DTYPES

PAPER_VOCABULARY_SIZE = 30_522  # BERT's lower-cased WordPiece vocabulary
PAPER_DROPOUT = 0.1
# The rest holds the process itself, the device's own tables, kernels' temporary memory and what the allocator wastes.
USABLE_MEMORY_FRACTION = 0.85
# Numbers of rows from which on each further row needs as much more as the last one did.
FEW_ROWS, MANY_ROWS = 32, 64


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters. `together` counts shared parameters once."""

    discriminator: int
    generator: int
    shared: int
    together: int


@dataclass(frozen=True)
class Flops:
    """Operations of training, by both conventions of `electrain.pretraining.flops`."""

    # The operations that the machine performs:
    per_row: float
    per_step: float
    per_run: float
    per_run_as_in_paper: float  # by the paper's convention, to compare with its table 8


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors on one device at the fullest moment of a step, uncompiled. `total` is the sum.

    A process needs more: about 0.5 GB for itself, and on a CPU what glibc's allocator keeps of freed tensors, which was
    11% to 27% of the process, and with gradient checkpointing up to 58% (docs/experiments.md, Memory).
    """

    weights: int
    gradients: int
    optimizer_state: dict[str, int]  # by kind: AdamW has exp_avg and exp_avg_sq, Muon has momentum_buffer only
    micro_batch_rows: int
    gradient_checkpointing: bool
    activations: int  # all other tensors at that moment, for a micro-batch of `micro_batch_rows`
    total: int
    # The largest powers of two that fit the hardware, by gradient checkpointing; 0 if not even one row does. None
    # without hardware.
    largest_micro_batch_rows: int | None
    largest_micro_batch_rows_with_checkpointing: int | None


@dataclass(frozen=True)
class Duration:
    """Time on named hardware: operations / (devices x rate x utilisation)."""

    hardware: str
    devices: int
    precision: str
    flops_per_second: float  # nominal or measured rate of one device, in the run's precision
    utilisation: float  # assumed fraction of that rate
    tokens_per_second: float
    hours: float
    # hours x devices x price per hour, in the currency of that price; None without a price per hour
    price: float | None


@dataclass(frozen=True)
class Plan:
    """The cost of a run.

    `tokens` counts the tokens of all its rows, `times_read` how often it reads its text; None if the text is not known.
    """

    vocabulary_size: int
    tokens: int
    parameters: Parameters
    flops: Flops
    memory: Memory
    duration: Duration | None
    times_read: float | None


def plan(
    config: PretrainConfig,
    hardware: Hardware | None = None,
    *,
    vocabulary_size: int = PAPER_VOCABULARY_SIZE,
    devices: int = 1,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
    rows_per_epoch: int | None = None,
) -> Plan:
    """The cost of a configuration. No weight is allocated, so even the largest model takes seconds and little memory.

    Args:
        hardware: see `electrain.pretraining.hardware.named_hardware`; None estimates no time.
        devices: number of devices that share the rows of a step.
        utilisation: fraction of the hardware's rate that training reaches; None uses the hardware's assumption.
        price_per_hour: price of one device.
        rows_per_epoch: number of rows that the text makes; None: it is not known.
    Raises: ConfigurationError: a number is out of range, or the hardware lacks the precision of the run.
    """
    _require_possible(vocabulary_size, devices, utilisation, price_per_hour)
    config = sized_as_started(config)
    if hardware is not None and utilisation is not None:
        hardware = replace(hardware, utilisation=utilisation)
    dtype = _dtype(config, hardware)
    rows = config.training.batch_rows
    micro_batch_rows = config.training.micro_batch_rows or max(1, rows // devices)
    passes = _passes(config, vocabulary_size)
    per_row = training_flops_per_row(passes, micro_batch_rows)
    steps = config.training.steps
    flops = Flops(per_row, per_row * rows, per_row * rows * steps, paper_flops(config, vocabulary_size=vocabulary_size))
    tokens = rows * steps * config.data.sequence_length
    return Plan(
        vocabulary_size,
        tokens,
        _parameters(passes),
        flops,
        _memory(config, micro_batch_rows, dtype, hardware, vocabulary_size),
        _duration(flops, tokens, hardware, dtype, devices, price_per_hour) if hardware else None,
        None if rows_per_epoch is None else times_read(config, rows_per_epoch),
    )


def paper_flops(config: PretrainConfig, *, vocabulary_size: int = PAPER_VOCABULARY_SIZE) -> float:
    """Operations of a whole run by the paper's convention; see `electrain.pretraining.flops`."""
    # The paper compares with all words; by its convention, looking up a row costs a product with the whole table.
    training = replace(config.training, dropout=PAPER_DROPOUT, softmax_words=0)
    with_dropout = replace(config, training=training)
    positions = round(config.data.sequence_length * PAPER_MASKED_FRACTION)
    per_row = paper_flops_per_row(_passes(with_dropout, vocabulary_size, positions))
    return per_row * config.training.batch_rows * config.training.steps


# More than any vocabulary has.
MOST_WORDS = 1 << 31


def _require_possible(
    vocabulary_size: int, devices: int, utilisation: float | None, price_per_hour: float | None
) -> None:
    if not len(SPECIAL_IDS.all) < vocabulary_size < MOST_WORDS:
        raise ConfigurationError(
            f"--vocab-size {vocabulary_size}: must be at least {len(SPECIAL_IDS.all) + 1} and below {MOST_WORDS:,}"
        )
    if devices < 1:
        raise ConfigurationError(f"--devices {devices}: must be at least 1")
    if utilisation is not None and not 0 < utilisation <= 1:
        raise ConfigurationError(f"--utilisation {utilisation}: must be a fraction above 0 and at most 1")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ConfigurationError(f"--price-per-hour {price_per_hour}: must be a finite number, at least 0")


def _dtype(config: PretrainConfig, hardware: Hardware | None) -> torch.dtype:
    if config.training.precision == "auto":
        return hardware.dtype if hardware else torch.bfloat16
    return DTYPES[config.training.precision]


def _passes(config: PretrainConfig, vocabulary_size: int, masked_positions: int | None = None) -> list[NetworkPass]:
    """The networks of a configuration, without data, and how a step runs them."""
    length = config.data.sequence_length
    # The weights of a generator from a folder are read, which the meta device cannot do.
    with nullcontext() if config.generator.source else torch.device("meta"):
        objective = build_objective(config, vocabulary_size=vocabulary_size, special_ids=SPECIAL_IDS)
    selected = masked_positions or most_masked(config)
    compared = softmax_words(config, vocabulary_size)
    return passes_of(objective, sequence_length=length, masked_positions=selected, compared_words=compared)


def _parameters(passes: list[NetworkPass]) -> Parameters:
    modules: list[nn.Module] = [network.module for network in passes]
    judge, generators = modules[0], [module for module in modules[1:] if module is not modules[0]]
    own, others, together = count_parameters(judge), count_parameters(*generators), count_parameters(*modules)
    return Parameters(own, others, own + others - together, together)


def _memory(
    config: PretrainConfig, rows: int, dtype: torch.dtype, hardware: Hardware | None, vocabulary_size: int
) -> Memory:
    device = torch.device("cuda" if hardware is None else hardware.device)
    step = step_memory(config, rows, dtype, device, vocabulary_size=vocabulary_size)
    is_checkpointed = config.training.gradient_checkpointing
    plain, checkpointed = None, None
    if hardware is not None:
        plain, checkpointed = (
            _largest_micro_batch(with_checkpointing(config, is_on=is_on), dtype, hardware, vocabulary_size)
            for is_on in (False, True)
        )
    return Memory(
        step.weights,
        step.gradients,
        step.optimizer_state,
        rows,
        is_checkpointed,
        step.activations,
        step.total,
        plain,
        checkpointed,
    )


def with_checkpointing(config: PretrainConfig, *, is_on: bool) -> PretrainConfig:
    """The configuration with gradient checkpointing on or off."""
    return replace(config, training=replace(config.training, gradient_checkpointing=is_on))


def _largest_micro_batch(
    config: PretrainConfig, dtype: torch.dtype, hardware: Hardware, vocabulary_size: int
) -> int | None:
    """The largest power of two of rows that fits; 0 if not even one does; None if layers or memory are unknown."""
    if not hardware.memory_bytes:  # this machine does not say
        return None
    # More rows than a micro-batch has, so that gradients are added up.
    config = replace(config, training=replace(config.training, batch_rows=2 * MANY_ROWS))
    device = torch.device(hardware.device)
    try:
        few, many = (
            step_memory(config, rows, dtype, device, vocabulary_size=vocabulary_size) for rows in (FEW_ROWS, MANY_ROWS)
        )
    except ConfigurationError:
        return None
    per_row = (many.total - few.total) / (MANY_ROWS - FEW_ROWS)
    spare = hardware.memory_bytes * USABLE_MEMORY_FRACTION - few.total
    most = int(FEW_ROWS + spare // per_row)
    is_too_large = few.total - few.activations > hardware.memory_bytes * USABLE_MEMORY_FRACTION
    return 0 if most < 1 or is_too_large else 1 << (most.bit_length() - 1)


def _duration(
    flops: Flops, tokens: int, hardware: Hardware, dtype: torch.dtype, devices: int, price_per_hour: float | None
) -> Duration:
    rate = hardware.flops(dtype)
    seconds = flops.per_run / (devices * rate * hardware.utilisation)
    hours = seconds / 3600
    return Duration(
        hardware=hardware.name,
        devices=devices,
        precision=str(dtype).removeprefix("torch."),
        flops_per_second=rate,
        utilisation=hardware.utilisation,
        tokens_per_second=tokens / seconds,
        hours=hours,
        price=None if price_per_hour is None else hours * devices * price_per_hour,
    )

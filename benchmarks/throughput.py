"""Tokens per second of our pretraining step, beside a plain Hugging Face loop and the machine's matrix products.

    python benchmarks/throughput.py [--preset small] [--rows N ...] [--repetitions N] [--device cpu]

Ours is the real thing: the loop, objective and optimizers of `electrain pretrain`. The plain loop is what one writes
with Hugging Face's classes: ElectraForMaskedLM and ElectraForPreTraining with tied embeddings, words predicted at every
position, float32, dropout 0.1, eager, AdamW. Both train on the same rows, of words drawn by Zipf's law. All contestants
take turns within one run, so that other work on the machine slows each alike; ratios are taken turn by turn. The best
contestant of several `--rows` is compared with the rest. A table goes to stderr, one line of JSON to stdout.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electrain.data.shards.rows import RowSource
from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.models.backbones import EncoderConfig, choose_attention, encoder_configuration, generator_encoder
from electrain.pretraining.build import (
    PretrainObjective,
    Vocabulary,
    build_objective,
    micro_batches,
    softmax_words,
)
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.flops import passes_of, training_flops_per_row
from electrain.pretraining.objectives.masking import most_selected
from electrain.pretraining.objectives.rows import Rows
from electrain.training.arithmetic import choose_arithmetic, measure_matrix_rate, synchronize
from electrain.training.compilation import compile_or_say_why_not
from electrain.training.loop import TrainingRun, train
from electrain.training.objective import MicroBatch
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import Runtime, started_runtime
from electrain.training.settings import Precision

SPECIAL_IDS = SpecialIds(pad=0, cls=101, sep=102, mask=103)
FIRST_WORD_ID = 999
PLAIN_DROPOUT = 0.1


@dataclass
class ZipfText:
    """A stream of words by Zipf's law, in documents of 500, in place of shards."""

    vocabulary_size: int
    token_count: int = 1_000_000
    special_ids: SpecialIds = SPECIAL_IDS
    has_words: bool = False

    def __post_init__(self) -> None:
        words = np.arange(FIRST_WORD_ID, self.vocabulary_size)
        chances = 1 / np.arange(1, len(words) + 1)
        self.tokens = np.random.default_rng(0).choice(words, self.token_count, p=chances / chances.sum())
        self.document_ends: NDArray[np.int64] = np.arange(500, self.token_count + 1, 500)
        self.tokens[self.document_ends - 1] = self.special_ids.sep

    def take(self, places: Tensor, *, with_words: bool) -> tuple[Tensor, None]:
        """(rows, count) int64: the tokens at these places."""
        return torch.from_numpy(self.tokens)[places], None


@dataclass
class Contestant:
    """Something that trains: its name, how it takes so many steps, and how fast it was in each turn."""

    name: str
    take_steps: Callable[[int], None]
    tokens_per_step: int
    steps_per_turn: int = 1
    rates: list[float] = field(default_factory=list)

    def warm_up(self, device: torch.device, seconds: float) -> None:
        """Takes two steps and decides how many make a turn of at least `seconds`."""
        self.take_steps(1)
        self.steps_per_turn = math.ceil(seconds / self._seconds_of(1, device))

    def take_turn(self, device: torch.device) -> None:
        """Notes the tokens per second of one turn."""
        seconds = self._seconds_of(self.steps_per_turn, device)
        self.rates.append(self.tokens_per_step * self.steps_per_turn / seconds)

    def _seconds_of(self, steps: int, device: torch.device) -> float:
        synchronize(device)
        start = time.perf_counter()
        self.take_steps(steps)
        synchronize(device)
        return time.perf_counter() - start


def ours(config: PretrainConfig, rows: RowSource, vocabulary_size: int, runtime: Runtime) -> tuple[Contestant, float]:
    """Our step, built as `electrain pretrain` builds it, and its operations per row."""
    training, length = config.training, config.data.sequence_length
    objective = build_objective(config, vocabulary_size=vocabulary_size, special_ids=SPECIAL_IDS)
    row_flops = _row_flops(objective, config, vocabulary_size)
    choose_attention(objective, runtime.device, length)
    objective.to(runtime.device)
    optimizers = build_optimizers(objective, training, config.parity)
    vocabulary = Vocabulary(vocabulary_size, SPECIAL_IDS.mask, by_frequency=torch.arange(vocabulary_size))
    batches = micro_batches(rows, config, vocabulary)
    run = TrainingRun(objective, optimizers, batches, training, runtime, parity=config.parity, records=True)
    if not compile_or_say_why_not(run):
        raise SystemExit("the step could not be compiled")

    def take_steps(count: int) -> None:
        until = replace(training, steps=run.state.step + count, warmup_steps=0)
        if not train(replace(run, training=until), lambda result: False):
            raise SystemExit("stopped")

    name = f"electrain, {training.micro_batch_rows} rows"
    return Contestant(name, take_steps, training.batch_rows * length), row_flops


def _row_flops(objective: PretrainObjective, config: PretrainConfig, vocabulary_size: int) -> float:
    length = config.data.sequence_length
    masked = most_selected(length, config.corruption.masked_fraction)
    compared = softmax_words(config, vocabulary_size)
    passes = passes_of(objective, sequence_length=length, masked_positions=masked, compared_words=compared)
    return training_flops_per_row(passes)


class HuggingFaceLoop:
    """A training loop that one writes in an afternoon: eager, float32, AdamW. `is_fast` compiles it, under autocast."""

    device: torch.device
    is_fast: bool
    networks: list[Any]

    def prepare(self, networks: list[Any], rate: float) -> None:
        """Takes the networks to train, on the device."""
        every = [parameter for network in networks for parameter in network.parameters()]
        self.parameters = list({id(parameter): parameter for parameter in every}.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate)
        self.networks = [torch.compile(network) for network in networks] if self.is_fast else networks

    def take_step(self, batches: list[MicroBatch[Rows]]) -> None:
        """Forward and backward passes over the micro-batches, clipping, update."""
        self.optimizer.zero_grad()
        for batch in batches:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.is_fast):
                loss = self.loss(batch.rows.to(self.device))
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    def loss(self, rows: Rows) -> torch.Tensor:
        """The mean loss of a micro-batch."""
        raise NotImplementedError


class PlainLoop(HuggingFaceLoop):
    """Joint pretraining of a generator and a discriminator with Hugging Face's classes."""

    def __init__(
        self, config: PretrainConfig, vocabulary_size: int, device: torch.device, *, is_fast: bool = False
    ) -> None:
        self.device, self.is_fast = device, is_fast
        small = generator_encoder(config.encoder, config.generator.size_fraction)
        judge: Any = ElectraForPreTraining(_configuration(config, config.encoder, vocabulary_size)).to(device).train()
        generator: Any = ElectraForMaskedLM(_configuration(config, small, vocabulary_size)).to(device).train()
        generator.electra.embeddings.word_embeddings = judge.electra.embeddings.word_embeddings
        generator.tie_weights()
        self.loss_weight = config.discriminator.loss_weight
        self.prepare([judge, generator], config.training.peak_learning_rate)

    def loss(self, rows: Rows) -> torch.Tensor:
        """Words are predicted at every position, and drawn at the masked ones."""
        judge, generator = self.networks
        ids, types = rows.token_ids, rows.token_type_ids
        mask = torch.ones_like(ids)
        is_masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, rows.positions, rows.is_selected)
        labels = torch.where(is_masked, ids, -100)
        words = generator(input_ids=rows.masked_ids, token_type_ids=types, attention_mask=mask, labels=labels)
        with torch.no_grad():
            chances = functional.softmax(words.logits[is_masked].float(), dim=-1)
            corrupted = ids.clone()
            corrupted[is_masked] = torch.multinomial(chances, 1).squeeze(-1)
        is_replaced = (corrupted != ids).long()
        found = judge(input_ids=corrupted, token_type_ids=types, attention_mask=mask, labels=is_replaced)
        loss: torch.Tensor = words.loss + self.loss_weight * found.loss
        return loss


class MaskedWordsLoop(HuggingFaceLoop):
    """Masked language modelling with Hugging Face's class, of a network as large as the discriminator."""

    def __init__(
        self, config: PretrainConfig, vocabulary_size: int, device: torch.device, *, is_fast: bool = False
    ) -> None:
        self.device, self.is_fast = device, is_fast
        network: Any = ElectraForMaskedLM(_configuration(config, config.encoder, vocabulary_size)).to(device).train()
        self.prepare([network], config.training.peak_learning_rate)

    def loss(self, rows: Rows) -> torch.Tensor:
        """Words are predicted at every position, as the class does it."""
        ids, types = rows.token_ids, rows.token_type_ids
        is_masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, rows.positions, rows.is_selected)
        labels = torch.where(is_masked, ids, -100)
        mask = torch.ones_like(ids)
        loss: torch.Tensor = self.networks[0](
            input_ids=rows.masked_ids, token_type_ids=types, attention_mask=mask, labels=labels
        ).loss
        return loss


def _configuration(config: PretrainConfig, encoder: EncoderConfig, vocabulary_size: int) -> Any:
    return encoder_configuration(
        encoder,
        vocabulary_size=vocabulary_size,
        sequence_length=config.data.sequence_length,
        dropout=PLAIN_DROPOUT,
        special_ids=SPECIAL_IDS,
    )


def plain(config: PretrainConfig, rows: RowSource, vocabulary_size: int, device: torch.device) -> Contestant:
    """The plain loop, on the batches that ours is given."""
    loop = PlainLoop(config, vocabulary_size, device)
    batches = micro_batches(rows, config, Vocabulary(vocabulary_size, SPECIAL_IDS.mask))(0)

    def take_steps(count: int) -> None:
        torch.use_deterministic_algorithms(False)
        for _ in range(count):
            loop.take_step(batches)
        torch.use_deterministic_algorithms(True, warn_only=True)

    training = config.training
    name = f"plain Hugging Face loop, {training.micro_batch_rows} rows"
    return Contestant(name, take_steps, training.batch_rows * config.data.sequence_length)


def with_rows(config: PretrainConfig, micro_batch_rows: int) -> PretrainConfig:
    """The configuration with that many rows in a forward pass."""
    return replace(config, training=replace(config.training, micro_batch_rows=micro_batch_rows))


def summary(numbers: list[float]) -> dict[str, float]:
    """Median, least and greatest of the turns."""
    return {key: round(f(numbers), 4) for key, f in (("median", median), ("least", min), ("greatest", max))}


def measure(arguments: argparse.Namespace, config: PretrainConfig, runtime: Runtime) -> dict[str, Any]:
    """All contestants in turns."""
    device, size = runtime.device, arguments.vocabulary_size
    rows = RowSource(ZipfText(size), config.data, config.training.seed)
    built = [ours(with_rows(config, count), rows, size, runtime) for count in arguments.rows]
    row_flops = built[0][1]
    mine = [contestant for contestant, _ in built]
    others = [plain(with_rows(config, count), rows, size, device) for count in arguments.plain_rows]
    rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    loads = [os.getloadavg()[0]]
    for contestant in [*mine, *others]:
        contestant.warm_up(device, arguments.seconds)
        print(f"warm: {contestant.name}, {contestant.steps_per_turn} steps a turn", file=sys.stderr)
    for _ in range(arguments.repetitions):
        for name, turns in rates.items():
            turns.append(measure_matrix_rate(device, getattr(torch, name), arguments.seconds / 2))
        for contestant in [*mine, *others]:
            contestant.take_turn(device)
        loads.append(os.getloadavg()[0])
    best = max(mine, key=lambda contestant: median(contestant.rates))
    result = {
        "preset": arguments.preset,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(runtime.dtype).removeprefix("torch."),
        "rows_per_step": config.training.batch_rows,
        "sequence_length": config.data.sequence_length,
        "row_gigaflops": round(row_flops / 1e9, 4),
        "load_average": [round(load, 2) for load in loads],
        "matrix_gigaflops_per_second": {name: summary([rate / 1e9 for rate in turns]) for name, turns in rates.items()},
        "tokens_per_second": {contestant.name: summary(contestant.rates) for contestant in [*mine, *others]},
        "best": best.name,
    }
    if others:
        fastest = max(others, key=lambda contestant: median(contestant.rates))
        ratios = [one / other for one, other in zip(best.rates, fastest.rates, strict=True)]
        result["times_as_fast_as_plain"] = summary(ratios)
    own_rate = rates[str(runtime.dtype).removeprefix("torch.")]
    achieved = [rate / config.data.sequence_length * row_flops for rate in best.rates]
    result["fraction_of_matrix_rate"] = summary([one / other for one, other in zip(achieved, own_rate, strict=True)])
    return result


def print_table(result: dict[str, Any]) -> None:
    """The same numbers for a person."""
    lines = [("", "median", "least", "greatest")]
    for name, numbers in result["matrix_gigaflops_per_second"].items():
        lines.append((f"matrix products, {name}, GFLOP/s", *(f"{value:,.0f}" for value in numbers.values())))
    for name, numbers in result["tokens_per_second"].items():
        lines.append((f"{name}, tokens/s", *(f"{value:,.0f}" for value in numbers.values())))
    for key in ("times_as_fast_as_plain", "fraction_of_matrix_rate"):
        if key in result:
            lines.append((key.replace("_", " "), *(f"{value:.2f}" for value in result[key].values())))
    print(f"{result['device']}, {result['threads']} threads, load {result['load_average']}", file=sys.stderr)
    for label, *values in lines:
        print(f"{label:<45}" + "".join(f"{value:>10}" for value in values), file=sys.stderr)


def main() -> None:
    """Measures what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", help="a preset with the electra backbone, or a TOML file")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[32], help="of a forward pass of ours; several to compare"
    )
    parser.add_argument(
        "--plain-rows", type=int, nargs="*", default=[32], help="the same of the plain loop; none: without"
    )
    parser.add_argument("--rows-per-step", type=int, help="in place of the preset's batch_rows")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of every contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn, at least one step")
    parser.add_argument("--vocabulary-size", type=int, default=30_522)
    parser.add_argument("--precision", default="auto", choices=get_args(Precision), help="of ours")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    config = load_configuration(arguments.preset)
    if config.encoder.backbone != "electra":
        parser.error(f"--preset {arguments.preset}: the plain loop knows the electra backbone only")
    batch_rows = arguments.rows_per_step or config.training.batch_rows
    training = replace(config.training, batch_rows=batch_rows, precision=arguments.precision)
    config = replace(config, training=training)
    with started_runtime(arguments.precision) as runtime:
        device = torch.device(arguments.device)
        runtime = replace(runtime, device=device, dtype=choose_arithmetic(arguments.precision, device).dtype)
        result = measure(arguments, config, runtime)
    print_table(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Pretraining: shards and a configuration in, a run folder with two Hugging Face models out. Wiring only."""

import dataclasses
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards
from electrain.data.tokenizer.tokenizer import continues_word, load_tokenizer, tokenizer_hash
from electrain.foundation.errors import ConfigurationError, TokenizerError
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    MANIFEST_NAME,
    Manifest,
    begins,
    emptied_on_error,
    file_hash,
    read_manifest,
    write_manifest,
)
from electrain.foundation.progress import ProgressDisplay, format_seconds, say
from electrain.models.backbones import choose_attention
from electrain.models.folders import tokenizer_of
from electrain.pretrain.build import (
    PretrainObjective,
    build_objective,
    load_starting_weights,
    micro_batches,
    most_masked,
)
from electrain.pretrain.configuration import PretrainConfig
from electrain.pretrain.export import export_models
from electrain.pretrain.flops import passes_of, training_flops_per_row
from electrain.pretrain.health import HealthMonitor
from electrain.pretrain.observations import example_of, metrics_of
from electrain.training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from electrain.training.journal import Journal
from electrain.training.loop import RunState, StepResult, compile_or_say_why_not, train
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import OUT_OF_MEMORY, Runtime, measure_matrix_rate, started_runtime

KIND = "run"
FIRST_FILES = {CONFIGURATION_NAME, "unigram_counts.npy", "tokenizer", MANIFEST_NAME}
# More than any vocabulary has.
MOST_WORDS = 1 << 31
# Sentences with the discriminator's marks: so many over the run.
EXAMPLES_PER_RUN = 20


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        directory: of the run.
        step: steps taken.
        is_finished: False when it was stopped before its last step.
        is_failed: True when it stopped by itself, because too many updates were refused.
        is_first: True in the process that speaks.
        metrics: the last line of the journal.
    """

    directory: Path
    step: int
    is_finished: bool
    is_failed: bool
    is_first: bool
    metrics: dict[str, Any]


def pretrain(config: PretrainConfig, shards_directory: Path, output: Path, *, resume: bool = False) -> RunResult:
    """Trains as `config` says on the shards and writes the run folder `output`.

    Args:
        resume: go on from the newest good checkpoint of `output`; where there is none, begin.
    Raises: ElectrainError: whatever the user has to mend.
    """
    shards = open_shards(shards_directory)
    _require_tokenizer(shards, config)
    with started_runtime(config.training.precision) as runtime:
        if config.training.batch_rows % runtime.processes:
            raise ConfigurationError(
                f"batch_rows = {config.training.batch_rows}: must be a multiple of the {runtime.processes} processes"
            )
        rows = RowSource(shards, config.data, config.training.seed, reference_packing=config.parity.reference_packing)
        if runtime.is_first:
            _prepare_run_directory(config, shards, output, resume=resume)
        runtime.sum([0.0])  # the other processes wait for the folder
        try:
            with emptied_on_error(output, FIRST_FILES, is_first=runtime.is_first):
                run = _Run(config, shards, rows, output, runtime)
                run.restore()
            return run.go()
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(OUT_OF_MEMORY) from error


def _require_tokenizer(shards: Shards, config: PretrainConfig) -> None:
    named = (config.start.discriminator, config.start.generator, config.generator.source)
    starts = [Path(start) for start in named if start]
    for other in (start for start in starts if start.is_dir()):
        if tokenizer_hash(other) != shards.tokenizer_hash:
            raise TokenizerError(
                f"the shards were made with another tokenizer than {other}; "
                f"prepare the corpus again with --tokenizer {other}"
            )
    own = load_tokenizer(shards.tokenizer_directory).get_vocab()
    for start in starts:
        if not start.is_dir() and tokenizer_of(str(start), MOST_WORDS).get_vocab() != own:
            raise TokenizerError(
                f"the shards were made with another vocabulary than that of {start}; prepare the corpus again with its "
                "tokenizer"
            )


def _prepare_run_directory(config: PretrainConfig, shards: Shards, output: Path, *, resume: bool) -> None:
    shards_directory = shards.tokenizer_directory.parent
    inputs = {"shards": file_hash(shards_directory / MANIFEST_NAME), "tokenizer": shards.tokenizer_hash}
    if begins(output, KIND, inputs, config, FIRST_FILES, resume=resume):
        np.save(output / "unigram_counts.npy", shards.unigram_counts)
        shutil.copytree(shards.tokenizer_directory, output / "tokenizer")
        facts = {"shards": str(shards_directory), "has_words": shards.has_words}
        write_manifest(output, Manifest(KIND, False, inputs, facts))


class _Run:
    """One sitting of a run: what is built once and used by every step."""

    def __init__(self, config: PretrainConfig, shards: Shards, rows: RowSource, output: Path, runtime: Runtime) -> None:
        self.config, self.shards, self.output, self.runtime = config, shards, output, runtime
        self.is_first = runtime.is_first
        self.tokenizer = load_tokenizer(shards.tokenizer_directory)
        self.objective = build_objective(
            config,
            vocabulary_size=shards.vocabulary_size,
            special_ids=shards.special_ids,
            unigram_counts=shards.unigram_counts,
        )
        self.row_flops = _row_flops(self.objective, config, runtime.processes)
        choose_attention(self.objective, runtime.device, config.data.sequence_length)
        self.objective.to(runtime.device)
        self.optimizers = build_optimizers(self.objective, config.training, config.parity)
        self.batches = micro_batches(
            rows,
            config,
            mask_id=shards.special_ids.mask,
            vocabulary_size=shards.vocabulary_size,
            continues_word=continues_word(self.tokenizer),
            rank=runtime.rank,
            processes=runtime.processes,
        )
        self.state = RunState()
        self.metrics, self.examples = Journal(output / "metrics.jsonl"), Journal(output / "examples.jsonl")
        self.health = HealthMonitor(config.training, shards.unigram_counts, config.generator.own_stage_steps)
        self.since = (0, 0.0)
        self.last: dict[str, Any] = {}

    def go(self) -> RunResult:
        """Takes the steps that are left, and writes what comes out."""
        if self.state.step < self.config.training.steps:
            self._announce()
            with ProgressDisplay(
                self.config.training.steps, self.state.step, is_silent=not self.is_first
            ) as self.progress:
                train(
                    self.objective,
                    self.optimizers,
                    self.batches,
                    self.config.training,
                    self.config.parity,
                    self.runtime,
                    self.state,
                    self._after_step,
                )
        is_finished = self.state.step >= self.config.training.steps
        if self.is_first:
            self._write_results(is_finished=is_finished)
        is_failed = self.health.must_stop(self.state)
        return RunResult(self.output, self.state.step, is_finished, is_failed, self.is_first, self.last)

    def restore(self) -> None:
        """Puts everything where the newest good checkpoint was, or, where there is none, at the start.

        Raises: ConfigurationError, CheckpointError, TokenizerError: weights to start from that do not fit.
        """
        checkpoint = find_checkpoint(self.output / "checkpoints", say if self.is_first else lambda _: None)
        if checkpoint is None:
            load_starting_weights(self.objective, self.config)
        else:
            load_checkpoint(checkpoint, self.objective, self.optimizers)
            self.state = RunState(**checkpoint.state["run"])
            self.health.restore(checkpoint.state["health"])
        if self.is_first:
            self.metrics.cut_back(self.state.step)
            self.examples.cut_back(self.state.step)
        self.since = (self.state.tokens, self.state.seconds)

    def _announce(self) -> None:
        training = self.config.training
        self.matrix_rate = measure_matrix_rate(self.runtime.device, self.runtime.dtype)
        is_compiled = training.compile and compile_or_say_why_not(
            self.objective, self.batches(self.state.step)[0], training, self.runtime
        )
        if not self.is_first:
            return
        machine = {
            "device": _device_name(self.runtime),
            "processes": self.runtime.processes,
            "threads": torch.get_num_threads(),
            "precision": str(self.runtime.dtype).removeprefix("torch."),
            "compiled": is_compiled,
            "matrix_rate_flops": self.matrix_rate,
            "row_flops": self.row_flops,
            "torch": torch.__version__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        self.metrics.write({"event": "machine", "step": self.state.step, **machine})
        say(
            f"training on {machine['device']} in {machine['precision']}, {self.matrix_rate / 1e9:,.0f} GFLOP/s, "
            f"from step {self.state.step} to {training.steps}"
        )
        for warning in self.health.at_start(training.batch_rows * self.config.data.sequence_length):
            self._warn(warning)

    def _warn(self, message: str) -> None:
        say(f"warning: {message}")
        self.metrics.write({"event": "warning", "step": self.state.step, "message": message})

    def _after_step(self, result: StepResult) -> bool:
        training, step = self.config.training, self.state.step
        is_last = step == training.steps or result.is_stop_asked or self.health.must_stop(self.state)
        if self.is_first and (step % training.log_every_steps == 0 or is_last):
            self._log(result)
        if self.is_first and step % max(1, training.steps // EXAMPLES_PER_RUN) == 0:
            example = example_of(result, self.tokenizer)
            if example:
                self.examples.write({"step": step, **example})
        if step % training.checkpoint_every_steps == 0 or is_last:
            if self.is_first:
                state = {"run": dataclasses.asdict(self.state), "health": self.health.to_dict()}
                save_checkpoint(self.output / "checkpoints", step, self.objective, self.optimizers, state)
            self.runtime.sum([0.0])
        return False

    def _log(self, result: StepResult) -> None:
        tokens, seconds = self.state.tokens - self.since[0], self.state.seconds - self.since[1]
        self.since = (self.state.tokens, self.state.seconds)
        rate = tokens / max(seconds, 1e-9)
        achieved = rate / self.config.data.sequence_length * self.row_flops
        fraction = achieved / (self.matrix_rate * self.runtime.processes)
        self.last = {
            "event": "log",
            "step": self.state.step,
            "tokens": self.state.tokens,
            "seconds": round(self.state.seconds, 3),
            "processor_seconds": round(time.process_time(), 3),
            **metrics_of(result, self.shards.unigram_counts),
            "tokens_per_second": round(rate, 1),
            "matrix_rate_fraction": round(fraction, 4),
            "refused_updates": self.state.refused_updates,
        }
        self.metrics.write(self.last)
        self.progress.update(self.state.step, tokens_per_second=rate, matrix_rate_fraction=fraction, loss=result.loss)
        for warning in self.health.observe(self.last):
            self._warn(warning)

    def _write_results(self, *, is_finished: bool) -> None:
        from electrain.pretrain.report import write_report  # draws with matplotlib, which training does not need

        export_models(self.objective, self.tokenizer, self.output)
        manifest = read_manifest(self.output, KIND)
        facts = {**manifest.facts, "step": self.state.step, "tokens": self.state.tokens, "seconds": self.state.seconds}
        write_manifest(self.output, Manifest(KIND, is_finished, manifest.inputs, facts))
        report = write_report(self.output)
        steps = self.config.training.steps
        if is_finished:
            say(f"finished {steps} steps in {format_seconds(self.state.seconds)}; report: {report}")
        elif self.health.must_stop(self.state):
            say(
                f"stopped at step {self.state.step}: {self.state.refused_in_a_row} updates in a row were not finite; "
                f"lower --training.peak-learning-rate and start again; report: {report}"
            )
        else:
            say(f"stopped at step {self.state.step} of {steps}; go on with --resume; report: {report}")


def _row_flops(objective: PretrainObjective, config: PretrainConfig, processes: int) -> float:
    length = config.data.sequence_length
    masked_positions = most_masked(config)
    passes = passes_of(objective, sequence_length=length, masked_positions=masked_positions)
    rows = config.training.micro_batch_rows or config.training.batch_rows // processes
    return training_flops_per_row(passes, rows)


def _device_name(runtime: Runtime) -> str:
    if runtime.device.type == "cuda":
        return torch.cuda.get_device_name(runtime.device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"

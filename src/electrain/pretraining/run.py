"""Pretraining: from shards and a configuration to a run folder with Hugging Face models."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electrain.data.shards.prepare import COUNTS_NAME
from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards
from electrain.data.tokenizer.tokenizer import tokenizer_hash
from electrain.foundation.card import public_name
from electrain.foundation.configuration import read_configuration, to_toml
from electrain.foundation.errors import CheckpointError, ConfigurationError, TokenizerError
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    EXAMPLES_NAME,
    GO_ON,
    HASHES,
    JOURNAL_NAME,
    MANIFEST_NAME,
    Manifest,
    begins,
    emptied_on_error,
    file_hash,
    hashes_of,
    one_line_when_full,
    read_manifest,
    write_manifest,
)
from electrain.foundation.process import exit_code
from electrain.foundation.progress import counted, format_seconds, say
from electrain.foundation.report_page import json_lines
from electrain.foundation.sums import SUMS_NAME
from electrain.models.backbones import choose_attention
from electrain.models.folders import require_safetensors, tokenizer_of
from electrain.pretraining.best_checkpoint import (
    ACCURACY,
    FACT,
    PROBE_EVENT,
    STANDARD_ERROR,
    ProbedStep,
    best_of,
    choice,
    chosen_of,
    export_best,
    probed_steps,
)
from electrain.pretraining.build import (
    PretrainObjective,
    build_objective,
    layers_to_divide,
    load_starting_weights,
    micro_batches,
    most_masked,
    rows_near,
    sized_as_started,
    softmax_words,
    vocabulary_of,
)
from electrain.pretraining.card import hub_names_of, write_cards
from electrain.pretraining.configuration import PretrainConfig, StartConfig
from electrain.pretraining.export import export_models
from electrain.pretraining.flops import passes_of, training_flops_per_row
from electrain.pretraining.health import HealthMonitor
from electrain.pretraining.objectives.masked_language_modelling import MaskedLanguageModelling
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.observations import details_of, example_of, metrics_of
from electrain.pretraining.probe import Probe, how_to_resume, is_probed, probe_of
from electrain.pretraining.repetition import say_if_read_too_often
from electrain.pretraining.run_folder import how_to_train_longer
from electrain.training.arithmetic import measure_matrix_rate, record_arithmetic, recorded_arithmetic
from electrain.training.checkpoint import checkpoint_folder, read_checkpoint
from electrain.training.compilation import compile_for_stage, compile_or_say_why_not
from electrain.training.journal import Journal
from electrain.training.loop import StepResult, TrainingRun
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import OUT_OF_MEMORY, Runtime, compute_reproducibly, started_runtime
from electrain.training.sharding import copy_weights, gathered, is_sharded, shard_parameters
from electrain.training.sitting import CHECKPOINTS, Sitting
from electrain.training.tracking import require_trackers

KIND = "run"
FIRST_FILES = {CONFIGURATION_NAME, COUNTS_NAME, "tokenizer", MANIFEST_NAME}
# More than any vocabulary has.
MOST_WORDS = 1 << 31
# Rows with the discriminator's probabilities that a run saves for its report.
EXAMPLES_PER_RUN = 20


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    step: int
    is_finished: bool  # False if it stopped before its last step
    is_failed: bool  # True if it stopped by itself, because too many updates were refused
    is_first: bool  # True in the process that prints
    metrics: dict[str, Any]  # the last line of the journal
    stopped_by: int = 0  # number of the signal that stopped it; 0 if none did

    @property
    def exit_code(self) -> int:
        """0 if it finished, 1 if it failed, 128 and the signal's number if a signal stopped it."""
        is_finished = self.is_finished and not self.is_failed
        return exit_code(is_finished=is_finished, is_failed=self.is_failed, stopped_by=self.stopped_by)


def pretrain(config: PretrainConfig, shards_directory: Path, output: Path, *, resume: bool = False) -> RunResult:
    """Trains on the shards and writes the run folder `output`.

    Args:
        resume: continue from the newest intact checkpoint of `output`, or begin if there is none.
    Raises: ElectrainError: a mistake that the user can fix.
    """
    require_trackers(config.training.report_to)
    recorded = partial(recorded_arithmetic, output, KIND) if resume else None
    with (
        started_runtime(config.training.precision, recorded) as runtime,
        one_line_when_full(output, GO_ON),
        ExitStack() as held,
    ):
        compute_reproducibly(wanted=config.training.deterministic)
        # One process hashes the files, for which the others wait.
        shards = runtime.together(lambda: open_shards(shards_directory, verify=runtime.is_first))
        runtime.together(lambda: _require_tokenizer(shards, config))
        reads_probe = runtime.is_first and not (resume and _is_over(output, config))
        probe = runtime.together(lambda: probe_of(config, shards.tokenizer) if reads_probe else None)
        config = sized_as_started(config, say if runtime.is_first else _silently)
        if config.training.batch_rows % runtime.processes:
            raise ConfigurationError(
                f"batch_rows = {config.training.batch_rows}: must be a multiple of the {runtime.processes} processes"
            )
        # This comes before the first file, so that shards with too little text for a row leave no folder behind.
        rows = RowSource(shards, config.data, config.training.seed, reference_packing=config.parity.reference_packing)
        if runtime.is_first and not resume:
            say_if_read_too_often("pretrain", config, rows.rows_per_epoch)
        inputs = {"shards": file_hash(shards_directory / MANIFEST_NAME), "tokenizer": shards.tokenizer_hash}
        runtime.require_same(
            f"{inputs} {to_toml(config)}",
            "the processes have different shards or configurations; start each with the same command and data",
        )

        def begin() -> None:
            if runtime.is_first:
                held.enter_context(locked(output))
                told = inputs | {"probe": "" if probe is None else probe.hash} if reads_probe else inputs
                _begin(config, shards, told, output, resume=resume)
                record_arithmetic(output, KIND, runtime.device, runtime.arithmetic)

        runtime.together(begin)  # the first process makes the folder, for which the others wait
        try:
            with emptied_on_error(output, FIRST_FILES, is_first=runtime.is_first):
                parts = _build(config, shards, rows, output, runtime, probe)
                _restore(parts)
            return _run(parts)
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(OUT_OF_MEMORY) from error


def _silently(_: str) -> None:
    """Says nothing: the first process does."""


def _is_over(output: Path, config: PretrainConfig) -> bool:
    """True for a run that has the checkpoint of its last step, so that nothing more is trained or probed."""
    last = checkpoint_folder(output / CHECKPOINTS, config.training.steps)
    with suppress(OSError, CheckpointError):
        return read_checkpoint(last).step == config.training.steps
    return False


def _begin(config: PretrainConfig, shards: Shards, inputs: dict[str, str], output: Path, *, resume: bool) -> None:
    """Makes the folder of a new run, or refuses to go on with another one.

    Args: inputs: see `Manifest`; without the probe where nothing more is probed, so that its texts may be gone.
    """
    path = output / CONFIGURATION_NAME
    begun = read_configuration(PretrainConfig, path) if resume and path.is_file() else config
    hints = {"[training] steps": how_to_train_longer(config, output), "probe": how_to_resume(begun.probe)}
    kept = config if "probe" in inputs else replace(config, probe=begun.probe)
    if begins(output, KIND, inputs, kept, FIRST_FILES, hints, resume=resume):
        _write_first_files(config, shards, inputs, output)


def _require_tokenizer(shards: Shards, config: PretrainConfig) -> None:
    named = (config.start.discriminator, config.start.generator, config.generator.source)
    starts = [Path(start) for start in named if start]
    for other in (start for start in starts if start.is_dir()):
        require_safetensors(str(other))
        if tokenizer_hash(other) != shards.tokenizer_hash:
            raise TokenizerError(
                f"the shards were made with another tokenizer than {other}; "
                f"prepare the corpus again with --tokenizer {other}"
            )
    own = shards.tokenizer.get_vocab()
    for start in starts:
        if not start.is_dir() and tokenizer_of(str(start), MOST_WORDS).get_vocab() != own:
            raise TokenizerError(
                f"the shards were made with another vocabulary than that of {start}; prepare the corpus again with its "
                "tokenizer"
            )


def _write_first_files(config: PretrainConfig, shards: Shards, inputs: dict[str, str], output: Path) -> None:
    inputs = {name: value for name, value in inputs.items() if value}
    np.save(output / COUNTS_NAME, shards.unigram_counts)
    shutil.copytree(shards.tokenizer_directory, output / "tokenizer")
    facts = {"shards": str(shards.tokenizer_directory.parent), "has_words": shards.has_words}
    sources = [public_name(source) for source in shards.manifest.inputs if source != "tokenizer"]
    facts |= {"sources": sources, **hub_names_of(config)}
    facts |= {HASHES: hashes_of(output, [COUNTS_NAME])}
    write_manifest(output, Manifest(KIND, False, inputs, facts))


@dataclass(frozen=True)
class BuiltRun:
    """A run before its first step."""

    objective: PretrainObjective
    run: TrainingRun[Rows]
    row_flops: float  # operations that training on one row takes, without those that a compiler saves or adds
    fresh: Callable[[], PretrainObjective]  # builds the objective once more, on the CPU, before its first step


@dataclass(frozen=True)
class _Parts:
    """What is built once, for all steps."""

    config: PretrainConfig
    shards: Shards
    objective: PretrainObjective
    sitting: Sitting[Rows]
    health: HealthMonitor
    examples: Journal
    row_flops: float
    fresh: Callable[[], PretrainObjective]
    probe: Probe | None  # in the first process
    probed: list[ProbedStep] = field(default_factory=list)  # so far, in the first process


def build_run(config: PretrainConfig, shards: Shards, rows: RowSource, runtime: Runtime) -> BuiltRun:
    """A run before its first step, on the device of `runtime`, as `pretrain` trains it. Benchmarks build theirs here.

    Args: rows: the rows of the shards.
    Raises: CheckpointError: a frozen generator's folder cannot be used.
    """
    fresh = partial(
        build_objective,
        config,
        vocabulary_size=shards.vocabulary_size,
        special_ids=shards.special_ids,
        unigram_counts=shards.unigram_counts,
    )
    objective = fresh()
    length, training = config.data.sequence_length, config.training
    compared = softmax_words(config, shards.vocabulary_size)
    passes = passes_of(objective, sequence_length=length, masked_positions=most_masked(config), compared_words=compared)
    row_flops = training_flops_per_row(passes, training.micro_batch_rows or training.batch_rows // runtime.processes)
    choose_attention(objective, runtime.device, length)
    if training.sharding == "parameters" and runtime.processes > 1:
        # From the CPU, so that the device never holds the whole model.
        shard_parameters(objective, layers_to_divide(objective, config), runtime.device, runtime.processes)
    objective.to(runtime.device)
    batches = micro_batches(
        rows_near(rows, config, runtime.device),
        config,
        vocabulary_of(shards.tokenizer, shards.unigram_counts),
        rank=runtime.rank,
        processes=runtime.processes,
        device=runtime.device,
    )
    run = TrainingRun(
        objective,
        build_optimizers(objective, training, config.parity, runtime.muon_dtype),
        batches,
        training,
        runtime,
        parity=config.parity,
        records=training.compile,
    )
    return BuiltRun(objective, run, row_flops, fresh)


def _build(
    config: PretrainConfig, shards: Shards, rows: RowSource, output: Path, runtime: Runtime, probe: Probe | None
) -> _Parts:
    built = build_run(config, shards, rows, runtime)
    return _Parts(
        config,
        shards,
        built.objective,
        Sitting(built.run, output),
        HealthMonitor(config.training, shards.unigram_counts, config.generator.own_stage_steps),
        Journal(output / EXAMPLES_NAME),
        built.row_flops,
        built.fresh,
        probe,
    )


def _restore(parts: _Parts) -> None:
    """Restores the newest intact checkpoint, or loads the weights that `[start]` names if there is none.

    Raises: ConfigurationError, CheckpointError, TokenizerError: the weights to start from do not fit.
    """
    if not parts.sitting.restore(lambda saved: parts.health.restore(saved["health"])):
        _start(parts)
    if parts.sitting.is_first:
        parts.examples.cut_back(parts.sitting.run.state.step)
        parts.probed.extend(probed_steps(json_lines(parts.sitting.journal.path)))
        _renew_best(parts)


def _renew_best(parts: _Parts) -> None:
    """Writes `best/` anew where a sitting that was killed left that of the sitting before."""
    output = parts.sitting.directory
    manifest, chosen = read_manifest(output, KIND), chosen_of(parts.probed)
    if FACT not in manifest.facts or chosen is None or manifest.facts[FACT].get("best_step") == chosen.step:
        return
    facts = manifest.facts | _export_best(parts, chosen, int(manifest.facts.get("step", 0)))
    write_manifest(output, replace(manifest, facts=facts))
    write_cards(output)


def _export_best(parts: _Parts, chosen: ProbedStep, step: int) -> dict[str, Any]:
    """Writes `best/`, see `export_best`. Returns the fact of the manifest about it. Args: step: that of `model/`."""
    tokenizer, length = parts.shards.tokenizer, parts.config.data.sequence_length
    folder = export_best(parts.sitting.directory, chosen, step, parts.fresh, tokenizer, length)
    return {FACT: {"best_step": chosen.step, ACCURACY: chosen.accuracy, "folder": folder}}


def _start(parts: _Parts) -> None:
    tell = say if parts.sitting.is_first else _silently
    if not is_sharded(parts.objective):
        load_starting_weights(parts.objective, parts.config, parts.shards, tell)
    elif parts.config.start != StartConfig():
        whole = parts.fresh()
        load_starting_weights(whole, parts.config, parts.shards, tell)
        copy_weights(dict(whole.named_parameters()), parts.objective)


def _whole_objective(parts: _Parts) -> PretrainObjective:
    """The objective with whole weights, in the first process. All processes call it together."""
    if not is_sharded(parts.objective):
        return parts.objective
    weights = gathered(dict(parts.objective.named_parameters()), is_kept=parts.sitting.is_first)
    if not parts.sitting.is_first:
        return parts.objective
    whole = parts.fresh()
    copy_weights(weights, whole)
    return whole


def _run(parts: _Parts) -> RunResult:
    """Takes the remaining steps, and writes the models and the report."""
    sitting, run = parts.sitting, parts.sitting.run
    if run.has_steps_left:
        matrix_rate = measure_matrix_rate(run.runtime.device, run.runtime.dtype)
        _announce(parts, matrix_rate)
        sitting.train(lambda result: _after_step(parts, matrix_rate, result))
    is_finished = not run.has_steps_left
    whole = _whole_objective(parts)
    if sitting.is_first:
        _write_results(parts, whole, is_finished=is_finished)
    return RunResult(
        run.state.step, is_finished, run.is_failed, sitting.is_first, sitting.last_line, run.state.stopped_by
    )


def _announce(parts: _Parts, matrix_rate: float) -> None:
    run, training, runtime = parts.sitting.run, parts.config.training, parts.sitting.run.runtime
    is_compiled = training.compile and not is_sharded(run.objective) and compile_or_say_why_not(run)
    if not runtime.is_first:
        return
    if training.compile and is_sharded(run.objective):
        say('[training] sharding = "parameters": the layers are not compiled')
    machine = {
        "device": runtime.device_name,
        "processes": runtime.processes,
        "threads": torch.get_num_threads(),
        "precision": str(runtime.dtype).removeprefix("torch."),
        "compiled": is_compiled,
        "matrix_rate_flops": matrix_rate,
        "row_flops": parts.row_flops,
        "torch": torch.__version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    parts.sitting.journal.write({"event": "machine", "step": run.state.step, **machine})
    say(
        f"training on {machine['device']} in {machine['precision']}{_why_this_precision(parts)}, "
        f"matrix products at {matrix_rate / 1e9:,.0f} GFLOP/s, "
        f"from step {run.state.step} to {training.steps}"
    )
    for warning in parts.health.at_start(training.batch_rows * parts.config.data.sequence_length):
        _warn(parts.sitting, warning)


def _why_this_precision(parts: _Parts) -> str:
    run = parts.sitting.run
    speedup = run.runtime.arithmetic.speedup
    if run.state.step or not speedup:  # a run that goes on keeps its precision, whatever this machine is best at
        return ""
    if run.runtime.dtype != torch.float32:
        return f" ({speedup:.1f} times as fast as float32 here)"
    return " (two bytes a number are no faster here)" if parts.config.training.precision == "auto" else ""


def _warn(sitting: Sitting[Rows], message: str) -> None:
    say(f"warning: {message}")
    sitting.journal.write({"event": "warning", "step": sitting.run.state.step, "message": message})


def _after_step(parts: _Parts, matrix_rate: float, result: StepResult[Rows]) -> bool:
    training, sitting, step = parts.config.training, parts.sitting, parts.sitting.run.state.step
    if sitting.is_first and (step % training.log_every_steps == 0 or result.is_last):
        _log(parts, matrix_rate, result)
    if sitting.is_first and step % max(1, training.steps // EXAMPLES_PER_RUN) == 0:
        example = example_of(result, parts.shards.tokenizer)
        if example:
            parts.examples.write({"step": step, **example})
    probes = is_probed(parts.config, step)
    if probes:
        _probe(parts)
    if step % training.checkpoint_every_steps == 0 or result.is_last or probes:
        best = best_of(parts.probed)
        sitting.save(kept_steps=() if best is None else (best.step,), health=parts.health.to_dict())
    if not result.is_last:
        compile_for_stage(sitting.run)
    return False


def _probe(parts: _Parts) -> None:
    """Scores the encoder in the first process, for which the others wait when the checkpoint is written."""
    whole, runtime, step = _whole_objective(parts), parts.sitting.run.runtime, parts.sitting.run.state.step
    if parts.probe is None:
        return
    began = time.perf_counter()
    encoder = whole.model.body if isinstance(whole, MaskedLanguageModelling) else whole.discriminator.body
    score = parts.probe.score(encoder, runtime.autocast())
    found = ProbedStep(step, round(score.accuracy, 4), round(score.standard_error, 4))
    numbers = {ACCURACY: found.accuracy, STANDARD_ERROR: found.standard_error}
    seconds = round(time.perf_counter() - began, 3)
    parts.sitting.record({"event": PROBE_EVENT, "step": step, **numbers, "probe_seconds": seconds})
    parts.probed.append(found)
    say(f"step {step}: probe {found}")


def _log(parts: _Parts, matrix_rate: float, result: StepResult[Rows]) -> None:
    metrics = metrics_of(result, parts.shards.unigram_counts)
    rate = parts.sitting.tokens_per_second() / parts.config.data.sequence_length * parts.row_flops
    fraction = rate / (matrix_rate * parts.sitting.run.runtime.processes)
    times = {"processor_seconds": round(time.process_time(), 3)}
    line = parts.sitting.log(
        times | metrics | {"matrix_rate_fraction": round(fraction, 4)},
        f"{details_of(metrics)}, {fraction:.0%} of the matrix rate",
    )
    for warning in parts.health.observe(line):
        _warn(parts.sitting, warning)


def _write_results(parts: _Parts, objective: PretrainObjective, *, is_finished: bool) -> None:
    from electrain.pretraining.report import write_report  # draws with matplotlib, which training does not need

    output, run = parts.sitting.directory, parts.sitting.run
    tokenizer, length = parts.shards.tokenizer, parts.config.data.sequence_length
    export_models(objective, tokenizer, output, length)
    chosen = chosen_of(parts.probed)
    manifest = read_manifest(output, KIND)
    facts = {**manifest.facts, "step": run.state.step, "tokens": run.state.tokens, "seconds": run.state.seconds}
    if chosen is not None:
        facts |= _export_best(parts, chosen, run.state.step)
    files = (CONFIGURATION_NAME, COUNTS_NAME, JOURNAL_NAME, EXAMPLES_NAME)
    sums = [path.relative_to(output).as_posix() for path in output.glob(f"*/{SUMS_NAME}")]
    facts |= {HASHES: hashes_of(output, [*files, *sorted(sums)])}
    write_manifest(output, Manifest(KIND, is_finished, manifest.inputs, facts))
    write_cards(output)
    report = write_report(output)
    if chosen is not None:
        say(choice(parts.probed, facts[FACT]["folder"], output))
    steps = run.training.steps
    if is_finished:
        say(f"finished {counted(steps, 'step')} in {format_seconds(run.state.seconds)}; report: {report}")
    elif run.is_failed:
        say(
            f"stopped at step {run.state.step}: {run.state.refused_in_a_row} updates in a row were not finite; "
            f"lower --training.peak-learning-rate and start again; report: {report}"
        )
    else:
        say(f"stopped at step {run.state.step} of {steps}; continue with --resume; report: {report}")

"""The training step, measured inside the library's own loop; see `machine_check.py`."""

import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards
from electrain.foundation.configuration import merge_tables
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.run import BuiltRun, build_run
from electrain.training.arithmetic import measure_matrix_rate, synchronize
from electrain.training.compilation import compile_or_say_why_not
from electrain.training.loop import StepResult, train
from electrain.training.optimizer import trained_networks, update_weights
from electrain.training.runtime import Runtime, compute_reproducibly, started_runtime
from machine_jobs import Task
from machine_trace import Memory, Profiler, peak_memory, reset_peak_memory

GIBIBYTE = 1 << 30
# For a trial on a CPU that shows that everything runs.
QUICK = {
    "encoder": {"layers": 1, "hidden_size": 64, "feed_forward_size": 128, "heads": 2},
    "data": {"sequence_length": 32},
    "training": {"batch_rows": 8, "micro_batch_rows": 4},
}
# A CPU takes tens of seconds for a step of 128 rows of `small`, which a few rows represent well.
ON_A_CPU = {"small": 32, "base": 4}
WARM_STEPS = 3
CALIBRATION_SECONDS = 1.0


@dataclass(frozen=True)
class Speed:
    """How long a measurement may take."""

    turns: int = 5
    turn_seconds: float = 1.5
    profiled_steps: int = 4
    with_optimizer: bool = False  # the optimizer's step alone, too
    keeps_trace: bool = False  # beside the output, for a person


def configuration_of(task: Task, device: torch.device) -> PretrainConfig:
    """The preset that a job names, with its overrides, made smaller for a trial or a CPU."""
    preset, tables = task.job.arguments["preset"], dict(task.job.arguments.get("tables", {}))
    if task.is_quick:
        tables = merge_tables(tables, QUICK)
        if task.job.section == "objectives":  # a mixture has several depths
            tables = merge_tables(tables, {"encoder": {"layers": 2}})
    elif device.type == "cpu" and preset in ON_A_CPU:
        rows = min(ON_A_CPU[preset], tables.get("training", {}).get("micro_batch_rows") or ON_A_CPU[preset])
        tables = merge_tables(tables, {"training": {"batch_rows": ON_A_CPU[preset], "micro_batch_rows": rows}})
    return load_configuration(preset, tables)


def shards_of(task: Task) -> Shards:
    """The text that all jobs train on."""
    return open_shards(task.work / "shards")


class Watch:
    """Takes the times of steps inside the loop. Its `after_step` is what the loop calls after each."""

    def __init__(self, task: Task, built: BuiltRun, config: PretrainConfig, speed: Speed) -> None:
        self.task, self.built, self.config, self.speed = task, built, config, speed
        self.device = built.run.runtime.device
        self.facts: dict[str, Any] = {}
        self.losses: list[float] = []
        self.step_seconds = 0.0
        self._peaks: list[Memory] = []
        self._plan = self._steps()

    def after_step(self, result: StepResult[Rows]) -> bool:
        """Goes on with the plan. True at its end."""
        if self.built.run.state.step % self.config.training.log_every_steps == 0 or not self.losses:
            self.losses.append(float(result.loss))  # as a run reads it for its log
        return next(self._plan, "over") == "over"

    def _steps(self) -> Iterator[None]:
        """The plan: every `yield` is one step of the loop. It begins after the first step."""
        self._note_first_step()
        for _ in range(WARM_STEPS):
            yield
        # The products that measure the machine take memory too. In the first steps, graphs were recorded by passes that
        # hold all activations; a recorded pass holds them without PyTorch's counting them.
        self._peaks.append(peak_memory(self.device))
        with self.task.alone():
            yield from self._calibrate()
            yield from self._take_turns()
            if self.device.type == "cuda" and self.speed.profiled_steps:
                with self.task.guarded(f"{self.task.job.name}, profile"):
                    yield from self._profile()
            if self.speed.with_optimizer:
                with self.task.guarded(f"{self.task.job.name}, optimizer alone"):
                    self._measure_optimizer()

    def _note_first_step(self) -> None:
        synchronize(self.device)
        seconds = round(self.task.since_spawned, 2)
        self.facts["first_step_seconds"] = seconds
        self.task.note(f"first step after {seconds:.1f} s", event="first step", **self.facts)

    def _calibrate(self) -> Iterator[None]:
        """Seconds of a step, to decide how many make a turn."""
        synchronize(self.device)
        started, steps = time.perf_counter(), 0
        while steps < 1 or time.perf_counter() - started < min(CALIBRATION_SECONDS, self.speed.turn_seconds):
            yield
            synchronize(self.device)
            steps += 1
        self.step_seconds = (time.perf_counter() - started) / steps

    def _take_turns(self) -> Iterator[None]:
        steps = max(1, math.ceil(self.speed.turn_seconds / self.step_seconds))
        tokens = self.config.training.batch_rows * self.config.data.sequence_length
        dtype, seconds = self.built.run.runtime.dtype, list[float]()
        rates = [measure_matrix_rate(self.device, dtype, 0.3)]
        reset_peak_memory(self.device)
        for _ in range(self.speed.turns):
            if seconds and self.task.seconds_left < 2 * max(seconds) * steps + 10:
                break  # what was measured counts more than another turn
            synchronize(self.device)
            started = time.perf_counter()
            for _ in range(steps):
                yield
            synchronize(self.device)
            seconds.append((time.perf_counter() - started) / steps)
        self._peaks.append(peak_memory(self.device))
        rates.append(measure_matrix_rate(self.device, dtype, 0.3))
        self.step_seconds = median(seconds)
        row_flops, rows = self.built.row_flops, self.config.training.batch_rows
        self.facts |= {
            "tokens_per_second": spread([tokens / one for one in seconds], 1),
            "steps_per_turn": steps,
            "step_milliseconds": round(1e3 * self.step_seconds, 3),
            "matrix_rate": spread(rates, 0),
            "matrix_rate_fraction": round(rows * row_flops / self.step_seconds / max(rates), 4),
            "peak_gib": round(max(peak.allocated for peak in self._peaks) / GIBIBYTE, 3),
            "reserved_gib": round(max(peak.reserved for peak in self._peaks) / GIBIBYTE, 3),
        }
        # Before the profiler, which may fail: this is what counts.
        self.task.note(self._words(), event="rate", **self.facts)

    def _profile(self) -> Iterator[None]:
        profiler = Profiler()
        profiler.start()
        for _ in range(self.speed.profiled_steps):
            yield
        output = self.task.record.path
        name = re.sub(r"[^a-z0-9]+", "-", f"{self.task.job.section} {self.task.job.name}")
        kept = output.with_name(f"{output.stem}.{name}.trace.json.gz") if self.speed.keeps_trace else None
        traced = profiler.stop(self.speed.profiled_steps, kept)
        # Kernels take as long under the profiler as without it; the host does not, so that the whole comes from above.
        traced["gpu_busy_fraction"] = round(traced["gpu_milliseconds_per_step"] / (1e3 * self.step_seconds), 4)
        self.facts |= traced

    def _measure_optimizer(self) -> None:
        """Seconds and launches of the optimizers' step alone. It spoils the run, which is over."""
        run = self.built.run
        for network in trained_networks(run.objective, run.training):
            for _, parameter in network:
                parameter.grad = torch.zeros_like(parameter)

        is_finite = torch.ones((), dtype=torch.bool, device=self.device)

        def step() -> None:
            update_weights(run.optimizers, 0.0, is_finite)

        seconds = []
        for _ in range(12):
            synchronize(self.device)
            started = time.perf_counter()
            step()
            synchronize(self.device)
            seconds.append(time.perf_counter() - started)
        self.facts["optimizer_milliseconds"] = round(1e3 * median(seconds[2:]), 3)
        if self.device.type == "cuda":
            profiler = Profiler()
            profiler.start()
            step()
            traced = profiler.stop(1)
            names = ("gpu_milliseconds_per_step", "kernels_per_step", "launches_per_step", "host_calls_per_step")
            self.facts |= {f"optimizer_{name}": traced[name] for name in names}

    def _words(self) -> str:
        rate = self.facts["tokens_per_second"]
        return (
            f"{rate['median']:,.0f} tokens/s ({rate['least']:,.0f} to {rate['greatest']:,.0f}), "
            f"{self.facts['matrix_rate_fraction']:.0%} of the {self.built.run.runtime.dtype} matrix rate"
        )

    def last_words(self) -> str:
        """The rest of the figures, for a person."""
        facts = self.facts
        words = [f"peak {facts['peak_gib']:.2f} GiB"]
        if "gpu_busy_fraction" in facts:
            words.append(f"GPU busy {facts['gpu_busy_fraction']:.0%}")
            words.append(f"{facts['launches_per_step']:.0f} launches, {facts['kernels_per_step']:.0f} kernels a step")
            words.append(f"{facts['waits_per_step']:.1f} waits")
        if "optimizer_milliseconds" in facts:
            launches = facts.get("optimizer_launches_per_step")
            more = "" if launches is None else f" in {launches:.0f} launches"
            words.append(f"optimizer alone {facts['optimizer_milliseconds']:.2f} ms{more}")
        return ", ".join(words)


def spread(numbers: list[float], digits: int) -> dict[str, float]:
    """Median, least and greatest."""
    return {name: round(of(numbers), digits) for name, of in (("median", median), ("least", min), ("greatest", max))}


def measure_training(task: Task) -> None:
    """The job: builds a run as `electrain pretrain` does, compiles it if it says so, and measures its steps."""
    arguments = task.job.arguments
    imported = round(task.since_spawned, 2)
    with started_runtime(arguments.get("precision", "auto")) as runtime:
        config = configuration_of(task, runtime.device)
        compute_reproducibly(wanted=config.training.deterministic)
        shards = shards_of(task)
        rows = RowSource(shards, config.data, config.training.seed, reference_packing=config.parity.reference_packing)
        built = build_run(config, shards, rows, runtime)
        if "records" in arguments:  # CUDA graphs
            built = replace(built, run=replace(built.run, records=arguments["records"]))
        built_at = round(task.since_spawned, 2)
        is_compiled = config.training.compile and compile_or_say_why_not(built.run)
        speed = Speed(**arguments.get("speed", {}))
        if task.is_quick:
            speed = replace(speed, turns=2, turn_seconds=0.2, profiled_steps=2)
        watch = Watch(task, built, config, speed)
        watch.facts = {
            **_described(config, runtime, is_compiled=is_compiled),
            "recorded": built.run.is_recorded,
            "imported_seconds": imported,
            "built_seconds": built_at,
            "compiled_seconds": round(task.since_spawned, 2),
        }
        train(built.run, watch.after_step)
        watch.facts |= {
            "losses": [round(loss, 4) for loss in watch.losses[-3:]],
            "refused_updates": int(built.run.state.refused_updates),
            "compiler": compiler_counters(),
        }
        task.note(watch.last_words(), event="measured", **watch.facts)


def _described(config: PretrainConfig, runtime: Runtime, *, is_compiled: bool) -> dict[str, Any]:
    training = config.training
    return {
        "precision": str(runtime.dtype).removeprefix("torch."),
        "compile_wanted": training.compile,
        "compiled": is_compiled,
        "optimizer": training.optimizer,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "batch_rows": training.batch_rows,
        "micro_batch_rows": training.micro_batch_rows or training.batch_rows,
        "sequence_length": config.data.sequence_length,
        "layers": config.encoder.layers,
        "hidden_size": config.encoder.hidden_size,
    }


def compiler_counters() -> dict[str, int]:
    """How much torch.compile compiled, broke, and found in its cache."""
    found: dict[str, int] = {}
    with suppress(Exception):
        from torch._dynamo.utils import counters

        found["graphs"] = int(counters["stats"].get("unique_graphs", 0))
        found["graph_breaks"] = int(sum(counters["graph_break"].values()))
        for name in ("fxgraph_cache_hit", "fxgraph_cache_miss", "fxgraph_cache_bypass", "cudagraph_skips"):
            if counters["inductor"].get(name):
                found[name] = int(counters["inductor"][name])
    return found

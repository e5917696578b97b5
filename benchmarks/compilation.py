"""Time to the first step, compiled graphs and seconds a step: uncompiled, compiled as a whole, and by regions.

    python benchmarks/compilation.py first-step [--preset small] [--how regions] [--layers N]
    python benchmarks/compilation.py steps [--preset small] [--turns 5]

`first-step` compiles in this process with whatever cache TORCHINDUCTOR_CACHE_DIR names, so that a fresh folder is a
cold start and a second call a warm one. `steps` compiles all forms in one process and times them in turns. One line of
JSON goes to stdout.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from electrain.data.shards.rows import RowSource
from electrain.models.backbones import choose_attention
from electrain.pretraining.build import PretrainObjective, Vocabulary, build_objective, micro_batches
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.objectives.rows import Rows
from electrain.training import compilation
from electrain.training.arithmetic import synchronize
from electrain.training.loop import TrainingRun, train
from electrain.training.objective import Region
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import Runtime, started_runtime
from throughput import SPECIAL_IDS, ZipfText

FORMS = ("uncompiled", "whole", "regions")


def build(config: PretrainConfig, vocabulary_size: int, runtime: Runtime, form: str) -> TrainingRun[Rows]:
    """A run as `electrain pretrain` builds it, in one of the `FORMS`."""
    objective: PretrainObjective = build_objective(config, vocabulary_size=vocabulary_size, special_ids=SPECIAL_IDS)
    choose_attention(objective, runtime.device, config.data.sequence_length)
    objective.to(runtime.device)
    rows = RowSource(ZipfText(vocabulary_size), config.data, config.training.seed)
    vocabulary = Vocabulary(vocabulary_size, SPECIAL_IDS.mask, by_frequency=torch.arange(vocabulary_size))
    batches = micro_batches(rows, config, vocabulary)
    optimizers = build_optimizers(objective, config.training, config.parity)
    run = TrainingRun(objective, optimizers, batches, config.training, runtime, parity=config.parity)
    if form == "whole":
        objective.regions = lambda: [Region(objective)]  # type: ignore[method-assign]
    if form != "uncompiled" and not compilation.compile_or_say_why_not(run):
        raise SystemExit("the step could not be compiled")
    return run


def take_steps(run: TrainingRun[Rows], count: int) -> float:
    """Seconds of so many steps."""
    synchronize(run.runtime.device)
    start = time.perf_counter()
    until = replace(run.training, steps=run.state.step + count, warmup_steps=0)
    train(replace(run, training=until), lambda result: False)
    synchronize(run.runtime.device)
    return time.perf_counter() - start


def counted() -> dict[str, int]:
    """What the compiler did in this process."""
    counters = torch._dynamo.utils.counters
    return {
        "dynamo_graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "inductor_cache_misses": counters["inductor"]["fxgraph_cache_miss"],
        "inductor_cache_hits": counters["inductor"]["fxgraph_cache_hit"],
        "autograd_cache_misses": counters["aot_autograd"]["autograd_cache_miss"],
        "autograd_cache_hits": counters["aot_autograd"]["autograd_cache_hit"],
        "autograd_cache_bypasses": counters["aot_autograd"]["autograd_cache_bypass"],
        "kernels": torch._inductor.metrics.generated_kernel_count,
    }


def first_step(arguments: argparse.Namespace, config: PretrainConfig, runtime: Runtime) -> dict[str, Any]:
    """Seconds to the end of the first step after building, and what was compiled for it."""
    start = time.perf_counter()
    run = build(config, arguments.vocabulary_size, runtime, arguments.how)
    built = time.perf_counter() - start
    first = take_steps(run, 1)
    return {"form": arguments.how, "seconds": round(built + first, 1), **counted()}


def steps(arguments: argparse.Namespace, config: PretrainConfig, runtime: Runtime) -> dict[str, Any]:
    """Seconds a step of every form, in turns."""
    runs = {form: build(config, arguments.vocabulary_size, runtime, form) for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for run in runs.values():
        take_steps(run, 1)
    for _ in range(arguments.turns):
        for form, run in runs.items():
            seconds[form].append(take_steps(run, arguments.steps) / arguments.steps)
    ratios = {
        form: [one / other for one, other in zip(seconds[form], seconds["regions"], strict=True)] for form in FORMS
    }
    return {
        "milliseconds": {form: round(1e3 * median(values), 1) for form, values in seconds.items()},
        "times_regions": {form: [round(f(x), 3) for f in (median, min, max)] for form, x in ratios.items()},
    }


def main() -> None:
    """Measures what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["first-step", "steps"])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--how", default="regions", choices=FORMS)
    parser.add_argument("--layers", type=int, help="of both networks, in place of the preset's")
    parser.add_argument("--rows", type=int, help="of a step and a forward pass, in place of the preset's")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--vocabulary-size", type=int, default=30_522)
    arguments = parser.parse_args()
    config = load_configuration(arguments.preset)
    if arguments.layers:
        config = replace(config, encoder=replace(config.encoder, layers=arguments.layers))
    if arguments.rows:
        config = replace(config, training=replace(config.training, batch_rows=arguments.rows, micro_batch_rows=0))
    with started_runtime(config.training.precision) as runtime:
        result = {"first-step": first_step, "steps": steps}[arguments.what](arguments, config, runtime)
    machine = {"preset": arguments.preset, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({**machine, "precision": str(runtime.dtype), **result}))


if __name__ == "__main__":
    main()

"""How fast this machine trains a configuration, by real steps."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import open_shards
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.run import build_run
from electrain.training.arithmetic import synchronize
from electrain.training.loop import StepResult, train
from electrain.training.runtime import started_runtime

# The first steps fill caches, choose kernels and make the optimizer's moments.
WARM_UP_STEPS = 3
LEAST_STEPS = 5


def seconds_per_step(config: PretrainConfig, shards_directory: Path, *, seconds: float = 4.0) -> float:
    """Mean time of an uncompiled step on the shards, of steps that together take about `seconds`. Keeps no weights.

    Raises: DataError: the shards have too little text for a row. KeyboardInterrupt: Ctrl-C was pressed.
    """
    shards = open_shards(shards_directory)
    training = dataclasses.replace(config.training, compile=False)
    config = dataclasses.replace(config, training=training)
    ends: list[float] = []

    def note(result: StepResult[Any]) -> bool:
        if result.is_stop_asked:
            raise KeyboardInterrupt
        synchronize(runtime.device)
        ends.append(time.perf_counter())
        timed = ends[WARM_UP_STEPS - 1 :]
        return len(timed) > LEAST_STEPS and timed[-1] - timed[0] > seconds

    with started_runtime(training.precision) as runtime:
        train(build_run(config, shards, RowSource(shards, config.data, training.seed), runtime).run, note)
    timed = ends[WARM_UP_STEPS - 1 :]
    if len(timed) < 2:  # the configuration has hardly any steps, whose time hardly matters
        return 0.0
    return (timed[-1] - timed[0]) / (len(timed) - 1)

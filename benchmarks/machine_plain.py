"""Hugging Face's classes trained as one would without electrain, for comparison; see `machine_check.py`."""

import math
import time
from statistics import median

import torch

from electrain.data.shards.rows import RowSource
from electrain.pretraining.build import micro_batches, vocabulary_of
from electrain.training.arithmetic import synchronize
from electrain.training.runtime import device_of
from machine_jobs import Task
from machine_steps import CALIBRATION_SECONDS, GIBIBYTE, configuration_of, shards_of, spread
from machine_trace import peak_memory
from throughput import MaskedWordsLoop, PlainLoop

LOOPS = {"joint": PlainLoop, "masked words": MaskedWordsLoop}
WARM_STEPS = 3


def measure_plain(task: Task) -> None:
    """The job: tokens per second of a loop of Hugging Face's classes on the batches of the preset."""
    arguments = task.job.arguments
    is_fast = arguments["is_fast"]
    device = device_of()
    if is_fast and device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    config, shards = configuration_of(task, device), shards_of(task)
    rows = RowSource(shards, config.data, config.training.seed)
    batches = micro_batches(rows, config, vocabulary_of(shards.tokenizer))(0)
    loop = LOOPS[arguments["loop"]](config, shards.vocabulary_size, device, is_fast=is_fast)
    loop.take_step(batches)
    synchronize(device)
    first = round(task.since_spawned, 2)
    for _ in range(1 if device.type == "cpu" else WARM_STEPS):
        loop.take_step(batches)
    with task.alone():
        synchronize(device)
        started = time.perf_counter()
        loop.take_step(batches)
        synchronize(device)
        turn = 0.2 if task.is_quick else CALIBRATION_SECONDS
        steps = max(1, math.ceil(turn / (time.perf_counter() - started)))
        seconds = []
        for _ in range(2 if task.is_quick else 5):
            if seconds and task.seconds_left < 2 * max(seconds) * steps + 5:
                break
            synchronize(device)
            started = time.perf_counter()
            for _ in range(steps):
                loop.take_step(batches)
            synchronize(device)
            seconds.append((time.perf_counter() - started) / steps)
    rates = spread([config.training.batch_rows * config.data.sequence_length / one for one in seconds], 1)
    peak = round(peak_memory(device).allocated / GIBIBYTE, 3)
    facts = {"tokens_per_second": rates, "first_step_seconds": first, "peak_gib": peak, "steps_per_turn": steps}
    rows_each = config.training.micro_batch_rows or config.training.batch_rows
    task.note(
        f"{rates['median']:,.0f} tokens/s ({rates['least']:,.0f} to {rates['greatest']:,.0f}), peak {peak:.2f} GiB",
        event="rate",
        batch_rows=config.training.batch_rows,
        micro_batch_rows=rows_each,
        step_milliseconds=round(1e3 * median(seconds), 3),
        **facts,
    )

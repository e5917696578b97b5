"""The batches of a fine-tuning run, as a function of the step."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.row_hashes import permuted
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.tasks.task import AnyTask, Row, Tensors
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import counted
from electrain.training.objective import MicroBatch

# Number of steps whose rows are sorted by length together: enough for little padding, few enough that every epoch mixes
# rows differently.
STEPS_PER_POOL = 32


def training_batches(
    task: AnyTask, rows: list[Row], config: FinetuneConfig, *, rank: int = 0, processes: int = 1
) -> tuple[Callable[[int], list[MicroBatch[Tensors]]], int]:
    """The function from a step to this process's micro-batches, and how many steps an epoch has.

    The function depends only on the seed and the step, so that resuming needs no saved state. The last batch of an
    epoch is filled with rows from its beginning.

    Raises: ConfigurationError: a batch has fewer rows than there are processes.
    """
    batch_rows = min(config.training.batch_rows, len(rows))
    if batch_rows < processes:
        rows_of_step = counted(batch_rows, "row")
        raise ConfigurationError(f"a step has {rows_of_step} for {processes} processes; raise --training.batch-rows")
    per_epoch = -(-len(rows) // batch_rows)
    lengths = np.array([len(row.input_ids) for row in rows])
    micro_rows = config.training.micro_batch_rows or batch_rows

    @lru_cache(2)
    def order(epoch: int) -> NDArray[np.int64]:
        return epoch_order(lengths, batch_rows, config.training.seed, epoch)

    def of_step(step: int) -> list[MicroBatch[Tensors]]:
        epoch, place = divmod(step, per_epoch)
        own = order(epoch)[place, rank::processes].tolist()
        micro_batches = [[rows[number] for number in part] for part in chunks_of(own, micro_rows)]
        collated = map(task.collate, micro_batches)
        return [MicroBatch(one.tensors, {"task": one.scored}, one.tokens) for one in collated]

    return of_step, per_epoch


def epoch_order(lengths: NDArray[np.int64], batch_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(batches, batch_rows) int64: every row once, rows of similar length together, in a different order each epoch."""
    count = len(lengths)
    numbers = permuted(seed, f"epoch {epoch}", np.arange(count), count)
    batches = -(-count // batch_rows)
    numbers = np.concatenate([numbers, numbers[: batches * batch_rows - count]])
    pool = STEPS_PER_POOL * batch_rows
    for first in range(0, len(numbers), pool):
        part = numbers[first : first + pool]
        numbers[first : first + pool] = part[np.argsort(lengths[part], kind="stable")]
    return numbers.reshape(batches, batch_rows)[permuted(seed, f"batches {epoch}", np.arange(batches), batches)]

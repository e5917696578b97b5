"""What a fine-tuning run trains on: examples, the task set up for them, and its batches as a function of the step."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.reading import (
    Columns,
    read_examples,
    require_known_labels,
    require_several_labels,
    require_single_labels,
    require_valid_bio,
)
from electrain.data.shards.randomness import permuted
from electrain.finetune.configuration import WRITING_TASKS, ExamplesConfig, FinetuneConfig
from electrain.finetune.tasks.task import Row, Task, TaskName
from electrain.finetune.tasks.task_folder import TaskSettings
from electrain.foundation.errors import ConfigurationError
from electrain.training.journal import say
from electrain.training.objective import MicroBatch

# Rows of so many steps are sorted by length together: little padding, and still another mixture each epoch.
STEPS_PER_POOL = 32


@dataclass(frozen=True)
class Examples:
    """What a run reads.

    Attributes:
        train, validation: examples of the task's kind.
        labels: of all training examples, in the order of the logits; empty where the task has none.
        columns: that were read.
    """

    train: list[Any]
    validation: list[Any]
    labels: tuple[str, ...]
    columns: Columns


def read_all(
    task: TaskName, data: ExamplesConfig, train: Sequence[str], validation: Sequence[str], seed: int
) -> Examples:
    """Reads and checks both sets. Raises: DataError: whatever has to be mended, with file and line."""
    asked = Columns(data.text_column, data.pair_column, data.label_column)
    read = read_examples(task, train, asked, skip_broken=data.skip_broken)
    labels: tuple[str, ...] = ()
    # Further references are needed for scoring alone; training files need not have them.
    same = dataclasses.replace(read.columns, references=data.references_column)
    held_out = read_examples(task, validation, same, skip_broken=data.skip_broken)
    if task in ("classification", "tagging"):
        kept, known = (checked(task, part, skip_broken=data.skip_broken) for part in (read.examples, held_out.examples))
        require_several_labels(kept)
        if task == "classification" and all(len(example.labels) == 1 for example in kept):
            require_single_labels(known)
        labels = _ordered(label for example in kept for label in _labels_of(example))
        require_known_labels(known, labels, what="validation")
    else:
        kept, known = read.examples, held_out.examples
    kept = drawn(kept, data.train_examples, seed, "training")
    known = drawn(known, data.validation_examples, 0, "validation")
    return Examples(kept, known, labels, read.columns)


def drawn(examples: list[Any], count: int, seed: int, what: str) -> list[Any]:
    """So many of the examples, in their order; all of them for 0.

    Raises: ConfigurationError: there are fewer.
    """
    if not count:
        return examples
    if count > len(examples):
        raise ConfigurationError(
            f"--data.{what.removesuffix('ing')}-examples {count}: there are {len(examples)} {what} examples; "
            "ask for fewer"
        )
    chosen = permuted(seed, "examples", np.arange(count), len(examples))
    return [examples[number] for number in sorted(chosen.tolist())]


def checked(task: TaskName, examples: list[Any], *, skip_broken: bool) -> list[Any]:
    """The examples, with BIO tags checked, and brought to the usual form where they are of an older one."""
    return require_valid_bio(examples, skip_broken=skip_broken) if task == "tagging" else examples


def _labels_of(example: Any) -> tuple[str, ...]:
    labels: tuple[str, ...] = example.tags if hasattr(example, "tags") else example.labels
    return labels


def _ordered(labels: Any) -> tuple[str, ...]:
    """Each label once: numbers by value, all others by name, O first."""
    different = set(labels)
    if all(re.fullmatch("-?[0-9]+", label) for label in different):
        return tuple(sorted(different, key=int))
    return tuple(sorted(different, key=lambda label: (label != "O", label)))


def settings_for(task: TaskName, config: FinetuneConfig, examples: Examples, longest_row: int) -> TaskSettings:
    """How the task is set up: what the configuration says, and what the examples show."""
    longest = min(config.data.longest_tokens, longest_row)
    if longest < config.data.longest_tokens:
        say(f"rows have at most {longest} tokens, as many as the model takes")
    writes = task in WRITING_TASKS
    has_many = task == "classification" and any(len(example.labels) != 1 for example in examples.train)
    return TaskSettings(
        task,
        examples.labels,
        has_many,
        columns=dataclasses.asdict(examples.columns),
        longest_tokens=longest,
        longest_answer_tokens=config.data.longest_answer_tokens,
        window_overlap_tokens=min(config.data.window_overlap_tokens, longest // 3),
        generation=dataclasses.asdict(config.generation) if writes else {},
        label_smoothing=config.training.label_smoothing if writes else 0.0,
    )


def training_batches(
    task: Task[Any],
    rows: list[Row],
    config: FinetuneConfig,
    *,
    rank: int = 0,
    processes: int = 1,
) -> tuple[Callable[[int], list[MicroBatch]], int]:
    """The function from a step to this process's micro-batches, and how many steps an epoch has.

    A pure function of (seed, step): nothing has to be remembered to resume. The last batch of an epoch is filled up
    with rows from the epoch's beginning.

    Raises: ConfigurationError: fewer rows in a batch than processes.
    """
    batch_rows = min(config.training.batch_rows, len(rows))
    if batch_rows < processes:
        raise ConfigurationError(f"a step has {batch_rows} rows for {processes} processes; raise --training.batch-rows")
    per_epoch = -(-len(rows) // batch_rows)
    lengths = np.array([len(row.input_ids) for row in rows])
    micro_rows = config.training.micro_batch_rows or batch_rows

    @lru_cache(2)
    def order(epoch: int) -> NDArray[np.int64]:
        return epoch_order(lengths, batch_rows, config.training.seed, epoch)

    def of_step(step: int) -> list[MicroBatch]:
        epoch, place = divmod(step, per_epoch)
        own = order(epoch)[place, rank::processes].tolist()
        batches = []
        for first in range(0, len(own), micro_rows):
            collated = task.collate([rows[number] for number in own[first : first + micro_rows]])
            tensors = {**collated.tensors, "scored": collated.scored}
            batches.append(MicroBatch(tensors, None, {"task": collated.scored}, collated.tokens))
        return batches

    return of_step, per_epoch


def epoch_order(lengths: NDArray[np.int64], batch_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(batches, batch_rows) int64: every row once, similar lengths together, in an order of the epoch's own."""
    count = len(lengths)
    numbers = permuted(seed, f"epoch {epoch}", np.arange(count), count)
    batches = -(-count // batch_rows)
    numbers = np.concatenate([numbers, numbers[: batches * batch_rows - count]])
    pool = STEPS_PER_POOL * batch_rows
    for first in range(0, len(numbers), pool):
        part = numbers[first : first + pool]
        numbers[first : first + pool] = part[np.argsort(lengths[part], kind="stable")]
    return numbers.reshape(batches, batch_rows)[permuted(seed, f"batches {epoch}", np.arange(batches), batches)]

"""The probability from which on a label is given, chosen on validation data and kept in the model's folder."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.examples import TextExample
from electrain.data.labelled.reading import Example
from electrain.finetuning.card import write_use
from electrain.finetuning.tasks.classification import LABEL_THRESHOLD, Classification
from electrain.finetuning.tasks.metrics import library
from electrain.finetuning.tasks.settings import FineTuned, replace_task_settings
from electrain.finetuning.tasks.task import Answer
from electrain.finetuning.tasks.task_folder import load_task_settings
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import MANIFEST_NAME
from electrain.foundation.progress import counted, say
from electrain.inference.model import Source
from electrain.models.folders import configuration_of
from electrain.pretraining.run_folder import open_run_folder

# Of fewer, the standard error of recall can exceed 7 points (the root of 0.25 / 50), and F1 is no surer than that.
FEW_EXAMPLES = 50
_FLAG = "--tune-threshold"
_SHOWN_LABELS = 6


@dataclass(frozen=True)
class Tuned:
    """A model that decides by its new thresholds, its answers, and the scores of its answers before."""

    model: FineTuned
    answers: list[Answer]
    scores_before: dict[str, float]


@contextmanager
def folder_to_tune(model: Source) -> Iterator[None]:
    """Keeps others from writing the model's folder while the block runs.

    Raises: ConfigurationError: the model is on the hub, cannot be changed, or has no threshold. RunDirectoryError:
        another process writes the folder.
    """
    source = open_run_folder(model).model
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigurationError(f"{_FLAG}: {source} is a model of the hub; save it into a folder, and give that")
    settings = load_task_settings(source, configuration_of(source))
    if settings.task != "classification":
        raise ConfigurationError(f"{_FLAG}: {source} was fine-tuned for {settings.task}, not for classification")
    if not settings.has_many and len(settings.labels) != 2:
        raise ConfigurationError(
            f"{_FLAG}: {source} gives each text one of {len(settings.labels)} labels; a threshold decides between two "
            "labels, or for each label where a text can have several; leave it out"
        )
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(f"{_FLAG}: {folder} is read-only; copy the model to a folder that you can write")
    is_of_run = (folder.parent / MANIFEST_NAME).is_file()
    with locked(folder.parent if is_of_run else folder):
        yield


def tune_thresholds(tuned: FineTuned, given: Sequence[Example], answers: Sequence[Answer]) -> Tuned:
    """Chooses the thresholds with the best F1 on the examples, says so, and writes them into `task.json` and the card.

    Of two labels, the rarer one of these examples gets a threshold, for it is the one that a wrong threshold misses;
    of equally frequent ones, the second. Where a text can have several labels, each has its own.

    Args: given, answers: the examples, and the model's answers to them, whatever decided those.
    Raises: DataError: a label that gets a threshold does not occur, or nothing else does.
    """
    task, examples = tuned.task, [one for one in given if isinstance(one, TextExample)]
    assert isinstance(task, Classification)
    counts = Counter(label for example in examples for label in example.labels)
    wanted = task.labels if task.has_many else (min(reversed(task.labels), key=lambda label: counts[label]),)
    thresholds = {}
    for label in wanted:
        if not 0 < counts[label] < len(examples):
            if task.has_many:  # nothing tells where its threshold should be
                continue
            what = "no example has" if not counts[label] else "every example has"
            raise DataError(f'{_FLAG}: {what} the label "{label}"; give validation data with both labels')
        is_true = np.array([label in example.labels for example in examples])
        chances = np.array([answer["probabilities"][label] for answer in answers], np.float64)
        thresholds[label] = best_threshold(is_true, chances)
    if not thresholds:
        raise DataError(f"{_FLAG}: every label occurs in all examples or in none; give other validation data")
    better = replace(task, thresholds={**task.thresholds, **thresholds} if task.has_many else thresholds)
    decided = [
        {name: value for name, value in answer.items() if name in ("text", "pair")}
        | better.decided(answer["probabilities"])
        for answer in answers
    ]
    settings = replace(tuned.settings, thresholds=dict(better.thresholds))
    replace_task_settings(settings, Path(tuned.source))
    write_use(Path(tuned.source))
    before, after = task.score(examples, answers), better.score(examples, decided)
    _say_scores(task, better, {label: counts[label] for label in thresholds}, before, after)
    if not task.has_many:
        _say_f1(wanted[0], examples, answers, decided)
    return Tuned(replace(tuned, task=better, settings=settings), decided, before)


def best_threshold(is_true: NDArray[np.bool_], chances: NDArray[np.float64]) -> float:
    """The threshold with the highest F1; the label is given from it on.

    It lies halfway between two probabilities, so that no rounding tips a decision. Of equally good ones it is the
    nearest to one half, and one half itself where that is as good as any.

    Args:
        is_true: (examples,) bool; True and False occur.
        chances: (examples,) float64; the probability of the label.
    """
    curve = library("sklearn.metrics").precision_recall_curve
    precision, recall, given_from = curve(is_true, chances)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    # From the n-th probability on, all thresholds above the one before it decide the same.
    lowest = np.concatenate([[0.0], given_from[:-1]])
    is_half = (lowest < LABEL_THRESHOLD) & (given_from >= LABEL_THRESHOLD)
    values = np.where(is_half, LABEL_THRESHOLD, (lowest + given_from) / 2)
    best = values[np.isclose(f1, f1.max(), rtol=0, atol=1e-12)]
    return float(best[np.abs(best - LABEL_THRESHOLD).argmin()])


def _say_scores(
    task: Classification,
    better: Classification,
    counts: Mapping[str, int],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> None:
    changes = [
        f'"{label}" from {better.thresholds[label]:.3f} on (before: {task.thresholds.get(label, LABEL_THRESHOLD):.3f})'
        for label in counts
    ]
    more = f" and {len(changes) - _SHOWN_LABELS} more" if len(changes) > _SHOWN_LABELS else ""
    say(f"thresholds chosen, and kept in task.json: {', '.join(changes[:_SHOWN_LABELS])}{more}")
    scores = ", ".join(f"{name} {after[name]:.2f} (before: {value:.2f})" for name, value in before.items())
    say(f"on these data {scores}; they must be validation data: the test set, if it chose, would flatter the model")
    rare = {label: count for label, count in counts.items() if count < FEW_EXAMPLES}
    if rare:
        shown = ", ".join(f'{count} of "{label}"' for label, count in [*rare.items()][:_SHOWN_LABELS])
        say(f"warning: few examples decide ({shown}); with other ones, the best threshold may be quite another")


def _say_f1(label: str, examples: Sequence[TextExample], old: Sequence[Answer], new: Sequence[Answer]) -> None:
    measure = library("sklearn.metrics").f1_score
    truth = [example.labels[0] == label for example in examples]
    f1 = [100 * measure(truth, [one["label"] == label for one in side], zero_division=0) for side in (new, old)]
    changed = sum(one["label"] != other["label"] for one, other in zip(old, new, strict=True))
    gets = f"{changed:,} of {counted(len(new), 'text')} {'gets' if changed == 1 else 'get'} another label"
    say(f'F1 of "{label}" {f1[0]:.2f} (before: {f1[1]:.2f}); {gets}')

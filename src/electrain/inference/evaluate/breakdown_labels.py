"""What the scores of a classifier are made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from electrain.data.labelled.examples import TextExample
from electrain.finetuning.predictions import shown_texts
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.metrics import library
from electrain.finetuning.tasks.task import Answer
from electrain.inference.evaluate import calibration
from electrain.inference.evaluate.evaluation import (
    MOST_MATRIX_LABELS,
    MOST_MISTAKES,
    Breakdown,
    Calibration,
    Confusion,
    LabelScore,
    Mistake,
    Mixup,
)

Found = tuple[Breakdown, list[float]]  # with the 95% interval of the main score
NO_LABEL = "(none)"


def confusion_of(labels: Sequence[str], truth: Sequence[str], given: Sequence[str]) -> Confusion | None:
    """scikit-learn's confusion matrix; None for more labels than can be read."""
    if len(labels) > MOST_MATRIX_LABELS:
        return None
    counts = library("sklearn.metrics").confusion_matrix(truth, given, labels=list(labels)).tolist()
    return Confusion(tuple(labels), tuple(map(tuple, counts)))


def mixups_of(pairs: Iterable[tuple[str | None, str | None]]) -> tuple[Mixup, ...]:
    """The most frequent of the pairs of what was true and what was predicted instead."""
    return tuple(Mixup(*pair, count) for pair, count in Counter(pairs).most_common(MOST_MISTAKES))


def label_scores(labels: Sequence[str], truth: Any, given: Any) -> tuple[LabelScore, ...]:
    """scikit-learn's scores of each label; both sides hold the label of each element, or a table of 0 and 1."""
    names: list[object] = list(labels)
    if isinstance(truth, np.ndarray):
        names = list(range(len(labels)))
        predicted = Counter(dict(zip(names, given.sum(0).tolist(), strict=True)))
    else:
        predicted = Counter(given)
    measure = library("sklearn.metrics").precision_recall_fscore_support
    columns = [column.tolist() for column in measure(truth, given, labels=names, zero_division=0)]
    return tuple(
        LabelScore(
            label,
            100 * precision if predicted[name] else None,
            100 * recall if support else None,
            100 * f1 if support or predicted[name] else None,
            int(support),
            int(predicted[name]),
        )
        for label, name, precision, recall, f1, support in zip(labels, names, *columns, strict=True)
    )


def _with_losses(found: Calibration | None, brier: float, log_loss: float) -> Calibration | None:
    return None if found is None else replace(found, brier=brier, log_loss=log_loss)


def classification_breakdown(task: Classification, examples: Sequence[TextExample], answers: Sequence[Answer]) -> Found:
    """Of texts that have one label each. Args: examples, answers: see `broken_down`."""
    truth, given = [example.labels[0] for example in examples], [answer["label"] for answer in answers]
    is_right = np.array([true == said for true, said in zip(truth, given, strict=True)])
    chances = np.array([answer["probability"] for answer in answers], np.float64)
    table = np.array([[one["probabilities"][label] for label in task.labels] for one in answers], np.float64)
    numbers = np.array([task.labels.index(label) for label in truth])
    found = calibration.calibration_of("the label of a text", chances, is_right)
    mistakes = [
        Mistake(one.source, shown_texts(one.first, one.second), true, said, answer["probability"])
        for one, answer, true, said in zip(examples, answers, truth, given, strict=True)
        if true != said
    ]
    breakdown = Breakdown(
        labels=label_scores(task.labels, truth, given),
        confusion=confusion_of(task.labels, truth, given),
        mixups=mixups_of((true, said) for true, said in zip(truth, given, strict=True) if true != said),
        calibration=_with_losses(found, *calibration.brier_and_log_loss(numbers, table)),
        **worst(mistakes, "probability", highest_first=True),
    )
    return breakdown, calibration.binomial_interval(int(is_right.sum()), len(is_right))


def worst(mistakes: Sequence[Mistake], by: str, *, highest_first: bool) -> dict[str, Any]:
    """The fields of a `Breakdown` that tell of mistakes. Equal ones keep their order."""
    ordered = sorted(mistakes, key=lambda one: -one.value if highest_first else one.value)
    return {"wrong": len(mistakes), "mistakes": tuple(ordered[:MOST_MISTAKES]), "mistakes_by": by}


def several_labels_breakdown(task: Classification, examples: Sequence[TextExample], answers: Sequence[Answer]) -> Found:
    """Of texts that have any number of labels: each label of each text is a decision of its own."""
    truth = np.array([[label in one.labels for label in task.labels] for one in examples], np.int64)
    given = np.array([[label in one["labels"] for label in task.labels] for one in answers], np.int64)
    chances = np.array([[one["probabilities"][label] for label in task.labels] for one in answers], np.float64)
    flat = np.stack([1 - chances.ravel(), chances.ravel()], 1)
    found = calibration.calibration_of("a label of a text", chances.ravel(), truth.ravel() == 1)
    # How sure the model is of each of its decisions, as far as they are wrong.
    sure = np.where(truth == given, 0.0, np.where(given == 1, chances, 1 - chances)).max(1)
    mistakes = [
        Mistake(
            one.source,
            shown_texts(one.first, one.second),
            ", ".join(one.labels) or NO_LABEL,
            ", ".join(f"{label} ({answer['probabilities'][label]:.2f})" for label in answer["labels"]) or NO_LABEL,
            float(chance),
        )
        for one, answer, chance, is_same in zip(examples, answers, sure, (truth == given).all(1), strict=True)
        if not is_same
    ]
    breakdown = Breakdown(
        labels=label_scores(task.labels, truth, given),
        calibration=_with_losses(found, *calibration.brier_and_log_loss(truth.ravel(), flat)),
        **worst(mistakes, "probability", highest_first=True),
    )
    return breakdown, calibration.f1_interval(*((one.sum(1)) for one in (truth * given, truth, given)))

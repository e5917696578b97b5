"""What the scores of a fine-tuned model are made of, task by task."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from electrain.data.labelled.examples import PairedExample, QuestionExample, TextExample
from electrain.finetuning.predictions import NO_ANSWER, shortened, shown_texts
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.metrics import (
    answer_scores,
    bleu_interval,
    correlation,
    library,
    looks_chinese,
    sentence_chrf,
    sentence_rouge,
)
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.regression import Regression
from electrain.finetuning.tasks.sequence_to_sequence import (
    SequenceToSequence,
    are_chinese,
    bleu_tokenizer,
    references_of,
)
from electrain.finetuning.tasks.tagging import Tagging
from electrain.finetuning.tasks.task import Answer, AnyTask
from electrain.inference.evaluate import calibration
from electrain.inference.evaluate.breakdown_labels import (
    Found,
    classification_breakdown,
    confusion_of,
    several_labels_breakdown,
    worst,
)
from electrain.inference.evaluate.breakdown_tags import tagging_breakdown
from electrain.inference.evaluate.evaluation import Breakdown, Mistake


def broken_down(task: AnyTask, examples: Sequence[Any], answers: Sequence[Answer]) -> Found:
    """What the scores are made of, and the 95% interval of the main one; examples are not empty."""
    if isinstance(task, Classification):
        return (several_labels_breakdown if task.has_many else classification_breakdown)(task, examples, answers)
    if isinstance(task, Regression):
        return _numbers(examples, answers)
    if isinstance(task, Tagging):
        return tagging_breakdown(task, examples, answers)
    if isinstance(task, QuestionAnswering):
        return _questions(task, examples, answers)
    assert isinstance(task, SequenceToSequence)
    return _texts(task, examples, answers)


def truth_of(task: AnyTask, example: Any) -> object:
    """What is true of an example, ready for JSON: the field "gold" of predictions.

    A label, or a list of labels where a text can have several; a number; the tags; the accepted answers, none where the
    text has no answer; the target and further references.
    """
    if isinstance(task, Classification):
        return list(example.labels) if task.has_many else example.labels[0]
    if isinstance(task, Regression):
        return example.value
    if isinstance(task, Tagging):
        return list(example.tags)
    if isinstance(task, QuestionAnswering):
        return list(dict.fromkeys(text for text, _ in example.answers))
    return references_of(example)


def _quantiles(values: Sequence[float], parts: Sequence[int]) -> dict[str, float]:
    return {f"{part}%": float(np.quantile(values, part / 100)) for part in parts}


def _numbers(examples: Sequence[TextExample], answers: Sequence[Answer]) -> Found:
    truth = np.array([one.value for one in examples], np.float64)
    given = np.array([one["value"] for one in answers], np.float64)
    errors = np.abs(given - truth)
    mistakes = [
        Mistake(one.source, shown_texts(one.first, one.second), f"{true:g}", f"{said:.3g}", float(error))
        for one, true, said, error in zip(examples, truth, given, errors, strict=True)
        if error > 0
    ]
    breakdown = Breakdown(
        quantiles=_quantiles(errors.tolist(), (50, 90, 95, 100)),
        facts={
            "mean_absolute_error": float(library("sklearn.metrics").mean_absolute_error(truth, given)),
            "mean_error": float((given - truth).mean()),  # above 0: the model says too much
        },
        **worst(mistakes, "error", highest_first=True),
    )

    def spearman(drawn: Any) -> float:
        return 100 * correlation("spearmanr", truth[drawn], given[drawn])

    return breakdown, calibration.bootstrap_interval(len(truth), spearman)


def _f1_of_question(example: QuestionExample, said: str | None, *, by_characters: bool) -> tuple[float, bool]:
    """F1 of an answer in per cent, and whether it is exact."""
    accepted = [text for text, _ in example.answers]
    if not accepted or said is None:
        is_right = not accepted and said is None
        return 100.0 * is_right, is_right
    scores = answer_scores([accepted], [said], by_characters=by_characters)
    return scores["f1"], scores["exact_match"] > 0


def _questions(task: QuestionAnswering, examples: Sequence[QuestionExample], answers: Sequence[Answer]) -> Found:
    by_characters = looks_chinese(list({example.context for example in examples}))
    pairs = list(zip(examples, answers, strict=True))
    scored = [_f1_of_question(one, answer["answer"], by_characters=by_characters) for one, answer in pairs]
    f1 = [value for value, _ in scored]
    mistakes = [
        Mistake(
            one.source,
            shown_texts(one.question, one.context),
            " / ".join(dict.fromkeys(text for text, _ in one.answers)) or NO_ANSWER,
            f"{NO_ANSWER if answer['answer'] is None else answer['answer']} ({answer['score']:.2f})",
            value,
        )
        # Of equally bad answers, those that the model was surest of come first.
        for (one, answer), (value, is_exact) in sorted(
            zip(pairs, scored, strict=True), key=lambda both: -both[0][1]["score"]
        )
        if not is_exact
    ]
    kinds = ("answer", "no answer")
    truth, given = [kinds[not one.answers] for one in examples], [kinds[one["answer"] is None] for one in answers]
    chances = np.array([answer["score"] for answer in answers], np.float64)
    breakdown = Breakdown(
        confusion=None if task.null_threshold is None else confusion_of(kinds, truth, given),
        calibration=calibration.calibration_of("the exact answer", chances, np.array([right for _, right in scored])),
        quantiles=_quantiles(f1, (10, 25, 50)),
        **worst(mistakes, "f1", highest_first=False),
    )
    return breakdown, calibration.mean_interval(f1)


def _texts(task: SequenceToSequence, examples: Sequence[PairedExample], answers: Sequence[Answer]) -> Found:
    references = [references_of(example) for example in examples]
    outputs = [str(answer["output"]) for answer in answers]
    if task.name == "translation":
        by, own = "chrf", sentence_chrf(references, outputs)
        samples = calibration.BOOTSTRAP_SAMPLES
        interval = bleu_interval(references, outputs, tokenize=bleu_tokenizer(references), samples=samples)
    else:
        by = "rougeL"
        own = sentence_rouge(references, outputs, by_characters=are_chinese(references))[by]
        interval = calibration.mean_interval(own)
    rows = zip(examples, references, outputs, own, strict=True)
    mistakes = [
        Mistake(one.source, shortened(one.text), shortened(accepted[0]), shortened(said), score)
        for one, accepted, said, score in rows
        if said not in accepted
    ]
    lengths = sum(map(len, outputs)) / max(1, sum(len(accepted[0]) for accepted in references))
    breakdown = Breakdown(
        quantiles=_quantiles(own, (10, 25, 50, 75, 90)),
        facts={"length_ratio": lengths, "empty_outputs": sum(not text.strip() for text in outputs)},
        **worst(mistakes, by, highest_first=False),
    )
    return breakdown, interval

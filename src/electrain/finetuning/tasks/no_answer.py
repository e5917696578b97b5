"""Questions that their text does not answer: when a model says so, and how that is scored, as in SQuAD 2.0.

Source: Rajpurkar et al. 2018, and the evaluation script published with SQuAD 2.0 (evaluate-v2.0.py). Devlin et al.
2018, section 4.3, and google-research/bert, run_squad.py, for the difference of scores that a threshold is put on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.finetuning.tasks.metrics import answer_scores

# The names of the published script, but for those over all questions. A model can be chosen by each of them.
DECIDING_SCORES = (
    "exact_match",
    "f1",
    "HasAns_exact",
    "HasAns_f1",
    "NoAns_exact",
    "NoAns_f1",
    "best_exact",
    "best_f1",
)


@dataclass(frozen=True)
class Spans:
    """The best spans that a model found for some questions, with what the scores depend on; one entry per question.

    Attributes:
        is_answered: (questions,) bool; the question has an accepted answer.
        exact: (questions,) float64 in [0, 1]; exact match if the span is the answer.
        f1: (questions,) float64 in [0, 1]; F1 if the span is the answer.
        differences: (questions,) float64; score of "no answer" minus that of the span, infinite where there is no span.
    """

    is_answered: NDArray[np.bool_]
    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    differences: NDArray[np.float64]


def spans_of(
    truths: Sequence[Sequence[str]], spans: Sequence[str | None], differences: Sequence[float | None], **how: Any
) -> Spans:
    """The spans with their scores.

    Args:
        truths: for each question its accepted answers; none where the text has no answer.
        spans, differences: of each question; None where the text has no token.
        how: `by_characters`, see `answer_scores`.
    """
    exact, f1 = np.zeros(len(truths)), np.zeros(len(truths))
    for number, (accepted, span) in enumerate(zip(truths, spans, strict=True)):
        if accepted and span is not None:
            scores = answer_scores([accepted], [span], **how)
            exact[number], f1[number] = scores["exact_match"] / 100, scores["f1"] / 100
    apart = np.array([np.inf if one is None else one for one in differences], np.float64)
    return Spans(np.array([bool(accepted) for accepted in truths]), exact, f1, apart)


def best_threshold(spans: Spans, scores: NDArray[np.float64]) -> tuple[float, float]:
    """The threshold with the highest mean score, and that score in per cent.

    A question is left without an answer where its difference is above the threshold. The published script takes the
    difference of a question; the threshold here is halfway to the next one, which decides the same, and which no
    rounding tips. Of equal thresholds it is the lowest, as there.

    Args: scores: (questions,) float64 in [0, 1]; that of each span if it is the answer.
    """
    order = np.argsort(spans.differences, kind="stable")
    apart, unanswered = spans.differences[order], (~spans.is_answered).astype(np.float64)
    # By the number of questions that get an answer: those with the smallest differences.
    totals = unanswered.sum() + np.concatenate([[0.0], np.cumsum((scores - unanswered)[order])])
    finite = int(np.isfinite(apart).sum())
    # Questions with the same difference cannot be told apart.
    is_possible = np.concatenate([[True], apart[:-1] < apart[1:], [True]]) & (np.arange(len(totals)) <= finite)
    count = int(np.where(is_possible, totals, -np.inf).argmax())
    if not finite:
        threshold = 0.0
    elif count in (0, finite):
        threshold = apart[0] - 1.0 if count == 0 else apart[finite - 1] + 1.0
    else:
        threshold = (apart[count - 1] + apart[count]) / 2
    decided = np.where(spans.differences <= threshold, scores, unanswered)
    return float(threshold), 100 * float(decided.mean())


def no_answer_scores(spans: Spans, is_given: Sequence[bool]) -> dict[str, float]:
    """The scores of SQuAD 2.0 in per cent; the best thresholds in the unit of logits.

    Args: is_given: for each question whether the model gives its span as the answer.
    Returns: exact_match and f1 over all questions, HasAns_exact and HasAns_f1 over those with an answer, NoAns_exact
        and NoAns_f1 over those without, where there are any; and what exact_match and f1 could have been with the best
        threshold for these questions, and this threshold.
    """
    given, parts = np.array(is_given), {"HasAns": spans.is_answered, "NoAns": ~spans.is_answered}
    exact, f1 = (np.where(given, scores, ~spans.is_answered) for scores in (spans.exact, spans.f1))
    found = {"exact_match": exact.mean(), "f1": f1.mean()}
    for name, part in parts.items():
        if part.any():
            found |= {f"{name}_exact": exact[part].mean(), f"{name}_f1": f1[part].mean()}
    result = {name: 100 * float(value) for name, value in found.items()}
    for name, scores in (("exact", spans.exact), ("f1", spans.f1)):
        threshold, best = best_threshold(spans, scores)
        result |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
    return result

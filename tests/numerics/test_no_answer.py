"""Questions without an answer: the scores of SQuAD 2.0 by hand and by its published script, and what a network says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_question_answering import TOKENIZER, WORDS, example_of, tiny_model

from electrain.data.labelled.examples import QuestionExample
from electrain.finetuning.tasks.no_answer import Spans, best_threshold, no_answer_scores, spans_of
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.foundation.errors import ConfigurationError

# Two questions with an answer, one of them answered half right, and two without.
TRUTHS = [["Ada Lovelace"], ["the cat", "a black cat"], [], []]
SPANS = ["Ada Lovelace", "black cat", "London", "Paris"]
DIFFERENCES = [-4.0, 1.0, 0.0, 3.0]


def test_the_scores_by_hand() -> None:
    spans = spans_of(TRUTHS, SPANS, DIFFERENCES, by_characters=False)
    # "black cat" against "cat": precision 1/2, recall 1; against "black cat", once articles are gone, it is equal.
    assert spans.exact.tolist() == [1, 1, 0, 0]
    spans = spans_of([TRUTHS[0], ["the cat"], [], []], SPANS, DIFFERENCES, by_characters=False)
    assert spans.f1.tolist() == pytest.approx([1, 2 / 3, 0, 0])
    # Given answers where the difference is at most 0.5: the first and the third.
    scores = no_answer_scores(spans, [True, False, True, False])
    assert scores == pytest.approx(
        {
            "exact_match": 100 * 2 / 4,
            "f1": 100 * 2 / 4,
            "HasAns_exact": 50,
            "HasAns_f1": 50,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            # Answers by difference: -4 right, 0 takes one from "none", 1 gives 2/3 back. Best: the first alone.
            "best_exact": 75,
            "best_exact_threshold": -2,
            "best_f1": 75,
            "best_f1_threshold": -2,
        }
    )


@pytest.mark.parametrize(
    ("truths", "threshold", "best"),
    [
        ([["x"], ["x"], ["x"]], 4.0, 100.0),  # always an answer
        ([[], [], []], 0.0, 100.0),  # never one
        ([[], ["x"], ["x"]], 4.0, 100 * 2 / 3),
        ([["x"], [], []], 1.5, 100.0),
    ],
)
def test_thresholds_at_the_ends_and_between(truths: list[list[str]], threshold: float, best: float) -> None:
    spans = spans_of(truths, ["x", "x", "x"], [1.0, 2.0, 3.0], by_characters=False)
    assert best_threshold(spans, spans.f1) == (threshold, pytest.approx(best))


def test_questions_with_one_difference_are_decided_together() -> None:
    spans = spans_of([["x"], [], ["x"]], ["x", "x", "x"], [1.0, 1.0, 1.0], by_characters=False)
    threshold, best = best_threshold(spans, spans.f1)
    assert (threshold, best) == (2.0, pytest.approx(100 * 2 / 3))
    assert no_answer_scores(spans, [one <= threshold for one in spans.differences])["f1"] == pytest.approx(best)


def test_a_text_without_a_token_never_has_an_answer() -> None:
    spans = spans_of([[], ["x"]], [None, "x"], [None, 5.0], by_characters=False)
    assert best_threshold(spans, spans.f1) == (6.0, 100.0)
    alone = spans_of([[]], [None], [None], by_characters=False)
    assert best_threshold(alone, alone.f1) == (0.0, 100.0)


def published_best_threshold(spans: Spans, scores: list[float]) -> tuple[float, float]:
    """`find_best_thresh` of evaluate-v2.0.py, for spans that are never empty."""
    current = best = float((~spans.is_answered).sum())
    threshold = -np.inf  # the script has 0.0, which only probabilities are never below
    for number in sorted(range(len(scores)), key=lambda number: spans.differences[number]):
        current += scores[number] if spans.is_answered[number] else -1
        if current > best:
            best, threshold = current, spans.differences[number]
    return threshold, 100 * best / len(scores)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=12), st.randoms())
def test_the_threshold_decides_as_that_of_the_published_script(rows: list[tuple[bool, float]], random: Any) -> None:
    is_answered, scores = (np.array(column) for column in zip(*rows, strict=True))
    scores = np.where(is_answered, scores, 0.0)
    differences = np.array(random.sample(range(-20, 20), len(rows)), np.float64)
    spans = Spans(is_answered, scores, scores, differences)
    own, best = best_threshold(spans, scores)
    published, expected = published_best_threshold(spans, scores.tolist())
    assert best == pytest.approx(expected)
    assert (differences > own).tolist() == (differences > published).tolist()
    given = no_answer_scores(spans, (differences <= own).tolist())
    assert given["f1"] == given["best_f1"] == pytest.approx(best)


LONG = QuestionExample("long", "who is sad?", " ".join(WORDS[(n * n) % 11] for n in range(40)))
TASK = QuestionAnswering(TOKENIZER, 32, 5, longest_answer_tokens=4, null_threshold=0.0)


def test_all_windows_of_a_question_without_an_answer_point_at_cls() -> None:
    rows = TASK.rows([LONG, example_of(LONG.context, "cat")])
    targets: list[list[tuple[int, int]]] = [[row.target for row in rows if row.example == n] for n in (0, 1)]
    assert len(targets[0]) > 2
    assert set(targets[0]) == {(0, 0)}
    assert (0, 0) in targets[1]  # windows that do not hold the answer
    assert set(targets[1]) != {(0, 0)}
    assert "first_token" in TASK.collate(rows).tensors


def test_the_difference_is_that_of_the_best_span_and_the_least_null_score_of_any_window() -> None:
    model = tiny_model("electra")
    nulls, spans = [], {}
    for row in TASK.rows([LONG]):
        output = model(torch.tensor([row.input_ids]), token_type_ids=torch.tensor([row.token_type_ids]))
        start, end, window = output.start_logits[0].tolist(), output.end_logits[0].tolist(), row.places
        nulls.append(start[0] + end[0])
        shift = window.first - window.start
        for first in range(window.start, window.end):
            for last in range(first, min(first + 4, window.end)):
                spans.setdefault((first, last), []).append(start[first + shift] + end[last + shift])
    best = max(max(scores) for scores in spans.values())
    total = np.exp(min(nulls)) + sum(np.exp(scores).sum() for scores in spans.values())
    [answer] = TASK.answer(model, [LONG])
    assert answer["null_score_difference"] == pytest.approx(min(nulls) - best, abs=1e-4)
    assert answer["null_probability"] == pytest.approx(np.exp(min(nulls)) / total, rel=1e-3)
    told = answer["best_span"]
    assert LONG.context[told["start"] : told["end"]] == told["answer"]
    [plain] = replace(TASK, null_threshold=None).answer(model, [LONG])
    assert {**told, "score": 0} == {key: value for key, value in plain.items() if key != "id"} | {"score": 0}


@pytest.mark.parametrize("is_given", [True, False])
def test_the_threshold_decides(is_given: bool) -> None:
    model = tiny_model("electra")
    [answer] = TASK.answer(model, [LONG])
    threshold = answer["null_score_difference"] + (0.1 if is_given else -0.1)
    [decided] = replace(TASK, null_threshold=threshold).answer(model, [LONG])
    best = decided["best_span"]
    if is_given:
        assert {name: decided[name] for name in ("answer", "score", "start", "end")} == best
    else:
        assert (decided["answer"], decided["start"], decided["end"]) == (None, None, None)
        assert decided["score"] == decided["null_probability"]
    assert decided["id"] == "long"


def test_calibrated_answers_have_the_best_score() -> None:
    model = tiny_model("electra")
    examples = [
        QuestionExample(f"q{n}", "who is sad?", text, () if n % 2 else ((text.split()[0], 0),))
        for n in range(8)
        for text in [" ".join(WORDS[(n + m * m) % 11] for m in range(5 + n))]
    ]
    answers = TASK.calibrated(examples, TASK.answer(model, examples))
    scores = TASK.score(examples, answers)
    assert scores["f1"] == scores["best_f1"]
    tuned = replace(TASK, null_threshold=scores["best_f1_threshold"])
    again = tuned.answer(model, examples)
    assert [one["answer"] for one in again] == [one["answer"] for one in answers]
    assert tuned.score(examples, again) == scores
    assert tuned.score_settings(examples)["definition"] == "SQuAD 2.0, answers compared as in SQuAD 1.1"


def test_a_threshold_that_nothing_is_above_or_below_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="null_threshold = nan: must be a finite number"):
        replace(TASK, null_threshold=float("nan"))


def test_an_empty_context() -> None:
    example = QuestionExample("empty", "who?", " ")
    [answer] = TASK.answer(tiny_model("electra"), [example])
    assert (answer["answer"], answer["best_span"], answer["null_score_difference"]) == (None, None, None)
    assert TASK.score([example], [answer])["NoAns_exact"] == 100

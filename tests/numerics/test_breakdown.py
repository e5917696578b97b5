"""What scores are made of: by hand, and as scikit-learn, SciPy, seqeval, sacreBLEU and rouge-score compute it."""

import random
from typing import Any

import numpy as np
import pytest

from electrain.data.labelled.examples import PairedExample, QuestionExample, TaggedExample, TextExample
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.metrics import summary_scores, tagging_scores, translation_scores
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.regression import Regression
from electrain.finetuning.tasks.sequence_to_sequence import SequenceToSequence
from electrain.finetuning.tasks.tagging import Tagging
from electrain.inference.evaluate.breakdown import broken_down, truth_of
from electrain.inference.evaluate.calibration import binomial_interval, bootstrap_interval, calibration_of
from electrain.inference.evaluate.evaluation import Confusion, Evaluation, LabelScore, Mixup

NONE: Any = None  # the tokenizer, which no breakdown reads


def one_label(truth: str, chances: list[list[float]], labels: str = "ab") -> tuple[list[TextExample], list[Any]]:
    examples = [TextExample(f"text {n}", labels=(label,), source=f"v.tsv:{n}") for n, label in enumerate(truth, 2)]
    answers = []
    for row in chances:
        named = dict(zip(labels, row, strict=True))
        label = max(named, key=named.__getitem__)
        answers.append({"label": label, "probability": named[label], "probabilities": named})
    return examples, answers


def test_classification_by_hand() -> None:
    # True a a a b; said a (0.9), a (0.6), b (0.8), b (0.7).
    examples, answers = one_label("aaab", [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    found, interval = broken_down(Classification(NONE, labels=("a", "b")), examples, answers)
    assert found.labels == (
        LabelScore("a", 100.0, pytest.approx(200 / 3), pytest.approx(80.0), 3, 2),
        LabelScore("b", 50.0, 100.0, pytest.approx(200 / 3), 1, 2),
    )
    assert found.confusion == Confusion(("a", "b"), ((2, 1), (0, 1)))
    assert found.mixups == (Mixup("a", "b", 1),)
    assert (found.wrong, found.mistakes_by) == (1, "probability")
    assert [(one.source, one.expected, one.predicted, one.value) for one in found.mistakes] == [
        ("v.tsv:4", "a", "b", 0.8)
    ]
    calibration = found.calibration
    assert calibration is not None
    # Four bins with one decision each: 0.1, 0.4, 0.8 and 0.3 away from what happened.
    assert calibration.expected_error == pytest.approx((0.1 + 0.4 + 0.8 + 0.3) / 4)
    assert calibration.brier == pytest.approx((0.1**2 + 0.4**2 + 0.8**2 + 0.3**2) / 4)
    assert calibration.log_loss == pytest.approx(-np.log([0.9, 0.6, 0.2, 0.7]).mean())
    # Wilson 1927 for 3 of 4, worked out with z = 1.96.
    assert interval == pytest.approx([30.06, 95.44], abs=0.01)


def test_a_label_that_is_never_true_or_never_predicted_has_no_score() -> None:
    examples, answers = one_label("aa", [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], "abc")
    found, _ = broken_down(Classification(NONE, labels=("a", "b", "c")), examples, answers)
    assert [(one.label, one.precision, one.recall) for one in found.labels] == [
        ("a", 100.0, 50.0),
        ("b", 0.0, None),
        ("c", None, None),
    ]
    assert found.labels[2].f1 is None


@pytest.mark.parametrize("labels", ["ab", "acb"])
def test_classification_equals_scikit_learn(labels: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    numbers = np.random.default_rng(4)
    truth = "".join(numbers.choice(list(labels), 300))
    chances = numbers.dirichlet(np.ones(len(labels)), 300)
    examples, answers = one_label(truth, chances.tolist(), labels)
    found, _ = broken_down(Classification(NONE, labels=tuple(labels)), examples, answers)
    given = [answer["label"] for answer in answers]
    report = metrics.classification_report(list(truth), given, output_dict=True)
    for one in found.labels:
        wanted = report[one.label]
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (100 * wanted["precision"], 100 * wanted["recall"], 100 * wanted["f1-score"], wanted["support"])
        )
    assert found.confusion is not None
    assert (np.array(found.confusion.counts) == metrics.confusion_matrix(list(truth), given, labels=list(labels))).all()
    assert found.calibration is not None
    in_order = chances[:, np.argsort(list(labels))]
    assert found.calibration.log_loss == pytest.approx(metrics.log_loss(list(truth), in_order))
    is_true = np.array([[label == one for label in labels] for one in truth])
    whole = ((chances - is_true) ** 2).sum(1).mean()
    assert found.calibration.brier == pytest.approx(whole / 2 if len(labels) == 2 else whole)
    sure = np.array([answer["probability"] for answer in answers])
    right = np.array([one == said for one, said in zip(truth, given, strict=True)])
    accuracies, confidences = curve(right, sure, n_bins=10)
    assert [one.accuracy for one in found.calibration.bins] == pytest.approx(accuracies)
    assert [one.confidence for one in found.calibration.bins] == pytest.approx(confidences)
    assert sum(one.count for one in found.calibration.bins) == 300


def test_probabilities_at_the_edges_of_bins() -> None:
    calibration = calibration_of("x", np.array([0.0, 0.1, 0.1000001, 1.0]), np.array([False, False, True, True]))
    assert calibration is not None
    assert [(one.lowest, one.count) for one in calibration.bins] == [(0.0, 2), (0.1, 1), (pytest.approx(0.9), 1)]
    assert calibration_of("x", np.zeros(0), np.zeros(0, bool)) is None


def test_several_labels_by_hand() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    examples = [TextExample("t", labels=("a",), source="v:1"), TextExample("u", labels=("a", "b"), source="v:2")]
    chances = [{"a": 0.9, "b": 0.7}, {"a": 0.2, "b": 0.6}]
    answers = [{"labels": ["a", "b"], "probabilities": chances[0]}, {"labels": ["b"], "probabilities": chances[1]}]
    task = Classification(NONE, labels=("a", "b"), has_many=True)
    found, interval = broken_down(task, examples, answers)
    assert [(one.label, one.precision, one.recall, one.support, one.predicted) for one in found.labels] == [
        ("a", 100.0, 50.0, 2, 1),
        ("b", 50.0, 100.0, 1, 2),
    ]
    assert found.confusion is None
    # The surest wrong decisions: that u has no a (0.8), that t has b (0.7).
    assert [(one.text, one.expected, one.predicted, one.value) for one in found.mistakes] == [
        ("u", "a, b", "b (0.60)", pytest.approx(0.8)),
        ("t", "a", "a (0.90), b (0.70)", pytest.approx(0.7)),
    ]
    assert found.calibration is not None
    flat, true = [0.9, 0.7, 0.2, 0.6], [1, 0, 1, 1]
    assert found.calibration.brier == pytest.approx(np.mean((np.array(flat) - true) ** 2))
    assert found.calibration.log_loss == pytest.approx(metrics.log_loss(true, flat))
    low, high = interval
    assert low <= 100 * 2 * 2 / 6 <= high
    assert [truth_of(task, one) for one in examples] == [["a"], ["a", "b"]]


def test_numbers_by_hand() -> None:
    truth, given = [1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 2.0, 7.0]
    examples = [TextExample("t", value=value, source=f"v:{value:g}") for value in truth]
    found, _ = broken_down(Regression(NONE), examples, [{"value": value} for value in given])
    assert found.quantiles == pytest.approx({"50%": 0.75, "90%": 2.4, "95%": 2.7, "100%": 3.0})
    assert found.facts == pytest.approx({"mean_absolute_error": 4.5 / 4, "mean_error": 2.5 / 4})
    assert [(one.source, one.expected, one.predicted, one.value) for one in found.mistakes] == [
        ("v:4", "4", "7", 3.0),
        ("v:3", "3", "2", 1.0),
        ("v:2", "2", "2.5", 0.5),
    ]


def test_the_interval_of_a_correlation_is_that_of_scipys_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    numbers = np.random.default_rng(1)
    truth = numbers.normal(size=80)
    given = truth + numbers.normal(size=80)
    examples = [TextExample("t", value=float(value)) for value in truth]
    _, interval = broken_down(Regression(NONE), examples, [{"value": float(value)} for value in given])
    wanted = stats.bootstrap(
        (truth, given), lambda *both: stats.spearmanr(*both).statistic, paired=True, vectorized=False,
        n_resamples=1000, method="percentile", rng=2,
    ).confidence_interval  # fmt: skip
    assert interval == pytest.approx([100 * wanted.low, 100 * wanted.high], abs=2.5)  # two draws of 1,000 samples


def test_intervals_hold_what_they_should() -> None:
    assert binomial_interval(10, 10)[1] == pytest.approx(100)
    assert binomial_interval(10, 10)[0] == pytest.approx(72.2, abs=0.05)  # the bootstrap would say 100
    values = np.random.default_rng(0).normal(50, 10, 400)
    low, high = bootstrap_interval(400, lambda drawn: float(values[drawn].mean()))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert bootstrap_interval(400, lambda drawn: float(values[drawn].mean())) == [low, high]


def tagged(rows: list[tuple[str, str, list[float]]]) -> tuple[list[TaggedExample], list[Any]]:
    examples, answers = [], []
    for number, (true, said, chances) in enumerate(rows):
        words = tuple(f"w{place}" for place in range(len(true.split())))
        examples.append(TaggedExample(words, tuple(true.split()), source=f"v:{number}"))
        answers.append({"words": list(words), "tags": said.split(), "probabilities": chances})
    return examples, answers


def test_entities_by_hand() -> None:
    examples, answers = tagged(
        [
            ("B-P I-P O B-L", "B-P I-P O B-O", [0.9, 0.9, 0.9, 0.6]),  # one right, L taken for O
            ("B-P I-P O O", "B-P O O B-L", [0.5, 0.8, 0.9, 0.7]),  # P with the wrong words, an invented L
            ("B-L O O O", "O O O O", [0.4, 1.0, 1.0, 1.0]),  # L missed
        ]
    )
    task = Tagging(NONE, labels=("O", "B-P", "I-P", "B-L", "B-O"))
    found, interval = broken_down(task, examples, answers)
    assert [(one.label, one.support, one.predicted, one.precision, one.recall) for one in found.labels] == [
        ("L", 2, 1, 0.0, 0.0),
        ("O", 0, 1, 0.0, None),
        ("P", 2, 2, 50.0, 50.0),
    ]
    assert set(found.mixups) == {Mixup("L", "O", 1), Mixup("P", "P", 1), Mixup(None, "L", 1), Mixup("L", None, 1)}
    assert [(one.source, one.expected, one.predicted, one.value) for one in found.mistakes] == [
        ("v:1", "nothing", "L: w3", 0.7),
        ("v:0", "L: w3", "O: w3", 0.6),
        ("v:1", "P: w0 w1", "P: w0", 0.5),
        ("v:2", "L: w0", "nothing", 0.4),
    ]
    assert found.mistakes[0].text == "w3 | w0 w1 w2 w3"
    assert found.calibration is not None
    assert sum(one.count for one in found.calibration.bins) == 12
    low, high = interval
    assert low <= 100 * 2 * 1 / (4 + 4) <= high
    # 9 words of 12 would be right by accuracy; entities count: 1 of 4.
    assert tagging_scores([one.tags for one in examples], [one["tags"] for one in answers], scheme="bio")["f1"] == 25


def test_the_probability_of_an_entity_is_that_of_its_tags() -> None:
    examples, answers = tagged([("O O O", "O B-P I-P", [0.9, 0.5, 0.4])])
    found, _ = broken_down(Tagging(NONE, labels=("O", "B-P", "I-P")), examples, answers)
    assert found.mistakes[0].value == pytest.approx(0.2)


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_entities_equal_seqeval(scheme: str) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    choice = random.Random(5)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in ("BI" if scheme == "bio" else "BIES") for kind in ("PER", "LOC"))]
    truth = [[choice.choice(tags) for _ in range(9)] for _ in range(40)]
    said = [[tag if choice.random() < 0.7 else choice.choice(tags) for tag in sentence] for sentence in truth]
    rows = [(" ".join(true), " ".join(own), [0.5] * 9) for true, own in zip(truth, said, strict=True)]
    found, interval = broken_down(Tagging(NONE, labels=tuple(tags)), *tagged(rows))
    how = {} if scheme == "bio" else {"mode": "strict", "scheme": pytest.importorskip("seqeval.scheme").IOBES}
    report = seqeval.classification_report(truth, said, output_dict=True, zero_division=0, **how)
    for one in found.labels:
        wanted = report[one.label]
        assert (one.precision, one.recall, one.f1) == pytest.approx(
            tuple(100 * wanted[name] for name in ("precision", "recall", "f1-score"))
        )
        assert one.support == wanted["support"]
        if one.predicted:  # precision = hits / predicted, recall = hits / support
            assert one.precision * one.predicted == pytest.approx(one.recall * one.support)
    low, high = interval
    assert low < 100 * report["micro avg"]["f1-score"] < high


def test_words_by_hand() -> None:
    examples, answers = tagged([("N V N", "N N N", [0.9, 0.8, 0.7]), ("V N", "V V", [0.6, 0.5])])
    found, interval = broken_down(Tagging(NONE, labels=("N", "V")), examples, answers)
    assert found.confusion == Confusion(("N", "V"), ((2, 1), (1, 1)))
    assert [(one.label, one.support, one.predicted) for one in found.labels] == [("N", 3, 3), ("V", 2, 2)]
    assert [(one.text, one.expected, one.predicted, one.value) for one in found.mistakes] == [
        ("w1 | w0 w1 w2", "V", "N", 0.8),
        ("w1 | w0 w1", "N", "V", 0.5),
    ]
    assert interval == pytest.approx([50.0, 200 / 3])  # whole sentences are drawn: 1 of 2, 3 of 5, 2 of 3


def test_questions_by_hand() -> None:
    examples = [
        QuestionExample("1", "who", "the black cat", (("black cat", 4),), "v:1"),
        QuestionExample("2", "who", "the black cat", (("cat", 10),), "v:2"),
        QuestionExample("3", "who", "the black cat", (("cat", 10), ("black", 4)), "v:3"),
    ]
    answers = [
        {"answer": "cat", "score": 0.5},  # F1 2/3
        {"answer": "the", "score": 0.7},
        {"answer": "black", "score": 0.9},
    ]
    task = QuestionAnswering(NONE)
    found, interval = broken_down(task, examples, answers)
    assert [(one.source, one.value) for one in found.mistakes] == [("v:2", 0.0), ("v:1", pytest.approx(200 / 3))]
    assert found.mistakes[0].predicted == "the (0.70)"
    assert found.quantiles["50%"] == pytest.approx(200 / 3)
    assert found.confusion is None
    assert interval[0] < 500 / 9 < interval[1]
    assert truth_of(task, examples[2]) == ["cat", "black"]


def test_questions_without_an_answer_by_hand() -> None:
    found_answer = (("cat", 10),)
    examples = [QuestionExample(str(n), "who", "the black cat", found_answer if n < 2 else ()) for n in range(4)]
    answers = [{"answer": said, "score": 0.5} for said in ("cat", None, None, "black")]
    found, interval = broken_down(QuestionAnswering(NONE, null_threshold=0.0), examples, answers)
    assert found.confusion == Confusion(("answer", "no answer"), ((1, 1), (1, 1)))
    assert (found.wrong, [one.expected for one in found.mistakes]) == (2, ["cat", "(no answer)"])
    assert interval[0] < 50 < interval[1]


def test_translations_equal_sacrebleu() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    examples = [PairedExample("a", "the cat sat on the mat", source="v:1"), PairedExample("b", "a dog", ("the dog",))]
    outputs = ["the cat sat on a mat", "the dog"]
    task = SequenceToSequence(NONE, name="translation", target_tokenizer=NONE)
    found, (low, high) = broken_down(task, examples, [{"output": text} for text in outputs])
    chrf = metrics.CHRF()
    own = [chrf.sentence_score(outputs[0], ["the cat sat on the mat"]).score, 100.0]
    assert [(one.source, one.value) for one in found.mistakes] == [("v:1", pytest.approx(own[0]))]
    assert found.quantiles["50%"] == pytest.approx(sum(own) / 2)
    assert found.facts == {"length_ratio": pytest.approx((20 + 7) / (22 + 5)), "empty_outputs": 0}
    bleu = translation_scores([["the cat sat on the mat"], ["a dog", "the dog"]], outputs, tokenize="13a")["bleu"]
    assert low < bleu < high
    assert truth_of(task, examples[1]) == ["a dog", "the dog"]


def test_summaries_equal_rouge_score() -> None:
    pytest.importorskip("rouge_score")
    examples = [PairedExample("a", "the cat sat"), PairedExample("b", "dogs bark"), PairedExample("c", "x")]
    outputs = ["the cat", "cats", ""]
    found, interval = broken_down(
        SequenceToSequence(NONE, name="summarization", target_tokenizer=NONE),
        examples,
        [{"output": text} for text in outputs],
    )
    own = [
        summary_scores([[one.target]], [said], by_characters=False)["rougeL"]
        for one, said in zip(examples, outputs, strict=True)
    ]
    assert [one.value for one in found.mistakes] == pytest.approx(sorted(own))
    assert found.mistakes_by == "rougeL"
    assert found.facts["empty_outputs"] == 1
    assert interval[0] <= np.mean(own) <= interval[1]


def test_json_is_what_the_dataclass_says() -> None:
    examples, answers = one_label("ab", [[0.9, 0.1], [0.6, 0.4]])
    found, interval = broken_down(Classification(NONE, labels=("a", "b")), examples, answers)
    scored = Evaluation("classification", {"model": "m"}, {"examples": 2}, {"accuracy": 50.0}, "accuracy",
                        {"accuracy": interval}, found, answers)  # fmt: skip
    record = scored.to_dict()
    assert list(record) == ["task", "settings", "examples", "main_score", "scores", "intervals_95", "breakdown"]
    assert record["breakdown"]["labels"][0]["label"] == "a"
    plain = Evaluation("detection", {}, {"rows": 3}, {"discriminator": None}, intervals_95={"auc": [0.1, 0.2]})
    assert plain.to_dict() == {
        "task": "detection", "settings": {}, "rows": 3, "discriminator": None, "intervals_95": {"auc": [0.1, 0.2]}
    }  # fmt: skip

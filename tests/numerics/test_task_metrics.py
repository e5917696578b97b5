"""The tasks' scores equal the libraries' that the field uses, and values worked by hand from the definitions."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electrain.data.labelled.tag_schemes import scheme_of_labels
from electrain.finetuning.tasks.metrics import (
    answer_scores,
    classification_scores,
    looks_chinese,
    regression_scores,
    require_scorer,
    summary_scores,
    tagging_scores,
    translation_scores,
    translation_signature,
)
from electrain.foundation.errors import ConfigurationError, DataError


def test_classification_by_hand() -> None:
    truth, predicted = ["a", "a", "a", "b", "b"], ["a", "a", "b", "b", "c"]
    # F1: a 4/5, b 2/4, c 0. Matthews: (5*3 - (3*2 + 2*2)) / sqrt((25 - 9 - 4) * (25 - 4 - 4 - 1)).
    assert classification_scores(truth, predicted) == pytest.approx(
        {"accuracy": 60, "f1_macro": 130 / 3, "matthews": 100 * 5 / (12 * 16) ** 0.5}
    )


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1))
def test_classification_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    truth, predicted = [list(side) for side in zip(*pairs, strict=True)]
    assert classification_scores(truth, predicted) == pytest.approx(
        {
            "accuracy": 100 * sklearn_metrics.accuracy_score(truth, predicted),
            "f1_macro": 100 * sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0),
            "matthews": 100 * sklearn_metrics.matthews_corrcoef(truth, predicted),
        }
    )


def test_several_labels_by_hand() -> None:
    truth: list[tuple[str, ...]] = [("x", "y"), (), ("y",)]
    predicted: list[tuple[str, ...]] = [("y", "x"), (), ("x",)]
    # x: 1 right, 1 wrong; y: 1 right, 1 left out.
    assert classification_scores(truth, predicted) == pytest.approx(
        {"exact_match": 200 / 3, "f1_micro": 200 / 3, "f1_macro": 200 / 3}
    )
    assert classification_scores([()], [()]) == {"exact_match": 100, "f1_micro": 0, "f1_macro": 0}
    # A single label is no binary problem, in which its absence would count as a second one.
    one = classification_scores([("x",), (), ("x",)], [("x",), ("x",), ()])
    assert one == pytest.approx({"exact_match": 100 / 3, "f1_micro": 50, "f1_macro": 50})


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc"))), min_size=1))
def test_several_labels_equal_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    labels = sorted(set().union(*(side for pair in pairs for side in pair)))
    marks = [[[label in pair[side] for label in labels] for pair in pairs] for side in (0, 1)]
    scores = classification_scores([tuple(true) for true, _ in pairs], [tuple(found) for _, found in pairs])
    if not labels:
        assert scores == {"exact_match": 100, "f1_micro": 0, "f1_macro": 0}
        return
    truth, predicted = np.array(marks)
    assert scores == pytest.approx(
        {
            "exact_match": 100 * sklearn_metrics.accuracy_score(truth, predicted),
            "f1_micro": 100 * sklearn_metrics.f1_score(truth, predicted, average="micro", zero_division=0),
            "f1_macro": 100 * sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0),
        }
    )


def test_regression_by_hand() -> None:
    scores = regression_scores([1, 2, 3], [1, 3, 2])
    assert scores == pytest.approx({"pearson": 50, "spearman": 50, "mean_squared_error": 2 / 3})
    assert regression_scores([1, 2, 3], [1, 10, 100])["spearman"] == pytest.approx(100)
    assert regression_scores([1], [3]) == {"pearson": 0, "spearman": 0, "mean_squared_error": 4}


def test_a_missing_library_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("electrain.finetuning.tasks.metrics.importlib.import_module", missing)
    for task, library in {"classification": "sklearn", "regression": "scipy", "translation": "sacrebleu"}.items():
        with pytest.raises(
            ConfigurationError, match=f"scoring needs {library}, which is not installed; run pip install"
        ):
            require_scorer(task)
    require_scorer("question-answering")


def test_regression_equals_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    numbers = np.random.default_rng(3)
    truth = numbers.integers(0, 6, 200) / 5
    predicted = np.round(truth + numbers.normal(size=200), 1)
    scores = regression_scores(truth.tolist(), predicted.tolist())
    assert scores["pearson"] == pytest.approx(100 * stats.pearsonr(truth, predicted).statistic)
    assert scores["spearman"] == pytest.approx(100 * stats.spearmanr(truth, predicted).statistic)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3, float("nan")])
def test_a_constant_prediction_is_uncorrelated(constant: float) -> None:
    scores = regression_scores([1.0, 2.0, 5.5, 0.1, 3.0, 4.0, 7.0], [constant] * 7)
    assert (scores["pearson"], scores["spearman"]) == (0, 0)


def test_tagging_by_hand() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "O"], ["I-LOC", "B-LOC"]]  # I-LOC after a beginning is an entity: conlleval
    assert tagging_scores(truth, predicted, scheme="bio") == pytest.approx(
        {"accuracy": 400 / 6, "precision": 200 / 3, "recall": 200 / 3, "f1": 200 / 3, "f1_PER": 100, "f1_LOC": 50}
    )


def test_parts_of_speech_have_no_entities() -> None:
    scores = tagging_scores([["DET", "NOUN"], ["B-NOUN"]], [["DET", "VERB"], ["B-NOUN"]], scheme="none")
    assert scores == pytest.approx({"accuracy": 200 / 3})
    assert scheme_of_labels(["O", "B-"]) == "none"
    assert scheme_of_labels(["O", "S-x"]) == "bioes"


def test_no_entity_to_be_found() -> None:
    nothing = {"precision": 0, "recall": 0, "f1": 0}
    assert tagging_scores([["O", "O"]], [["O", "O"]], scheme="bio") == {"accuracy": 100} | nothing
    assert tagging_scores([["O", "O"]], [["B-x", "O"]], scheme="bio") == {"accuracy": 50, "f1_x": 0} | nothing


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_tagging_equals_seqeval(prefixes: str) -> None:
    seqeval_metrics = pytest.importorskip("seqeval.metrics")
    choice = random.Random(5)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))]
    truth = [[choice.choice(tags) for _ in range(9)] for _ in range(40)]
    predicted = [[tag if choice.random() < 0.7 else choice.choice(tags) for tag in sentence] for sentence in truth]
    scores = tagging_scores(truth, predicted, scheme="bio")
    for name in ("precision", "recall", "f1"):
        assert scores[name] == pytest.approx(100 * getattr(seqeval_metrics, f"{name}_score")(truth, predicted))
    of_types = seqeval_metrics.f1_score(truth, predicted, average=None)
    assert [scores["f1_LOC"], scores["f1_PER"]] == pytest.approx(list(100 * of_types))
    assert scores["accuracy"] == pytest.approx(100 * seqeval_metrics.accuracy_score(truth, predicted))


@pytest.mark.parametrize(
    ("truths", "answer", "exact_match", "f1"),
    [
        (["the Broncos"], "Broncos!", 100, 100),  # article and punctuation do not count
        (["A  B.C."], "b bc", 0, 2 / 3 * 100),  # "A" is an article: {bc} against {b, bc}
        (["in the year 1066", "1066"], "year 1066", 0, 80),  # {in, year, 1066}: 2*2/5; {1066}: 2*1/3
        (["one two two"], "two two three", 0, 2 / 3 * 100),  # a word counts as often as both hold it
        (["theatre"], "atre", 0, 0),  # "the" is an article as a whole word only
        (["Beyoncé"], "beyoncé", 100, 100),
        (["x"], "", 0, 0),
    ],
)
def test_squad_by_hand(truths: list[str], answer: str, exact_match: float, f1: float) -> None:
    scores = answer_scores([truths], [answer], by_characters=False)
    assert scores == pytest.approx({"exact_match": exact_match, "f1": f1})


@pytest.mark.parametrize(
    ("truths", "answer", "exact_match", "f1"),
    [
        (["《红楼梦》"], "红楼梦", 100, 100),
        (["北京大学"], "北京的大学", 0, 200 * 2 / 9),  # the longest unbroken run both hold has 2 characters, not 4
        (["1998年"], "1998", 0, 200 / 3),  # 1998 is one segment
        (["1998年"], "98年", 0, 50),  # 98 is not 1998
        (["Windows 10系统"], "windows 10", 0, 200 * 2 / 6),
        (["NBA总冠军"], "nba-总冠军", 100, 100),
        (["10%"], "10", 0, 200 / 3),  # % is not among what is left out
        (["上海", "上海市"], "上海市", 100, 100),
        (["。"], "，", 100, 0),
        (["南京"], "北京大学", 0, 200 / 6),
    ],
)
def test_cmrc_by_hand(truths: list[str], answer: str, exact_match: float, f1: float) -> None:
    scores = answer_scores([truths], [answer], by_characters=True)
    assert scores == pytest.approx({"exact_match": exact_match, "f1": f1})


def test_answers_are_averaged_over_questions() -> None:
    scores = answer_scores([["red"], ["blue sky"], ["no"]], ["red", "sky", "yes"], by_characters=False)
    assert scores == pytest.approx({"exact_match": 100 / 3, "f1": 100 * (1 + 2 / 3) / 3})


def test_bleu_by_hand() -> None:
    scores = translation_scores([["a b c d e"]], ["a b c d"], tokenize="13a")
    assert scores["bleu"] == pytest.approx(100 * np.exp(1 - 5 / 4))  # every n-gram is right; one word is missing
    scores = translation_scores([["a b c d e f"]], ["a b c d x f"], tokenize="13a")
    assert scores["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_translation_equals_sacrebleu_with_several_references() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    outputs = ["The cat, it sat.", "Dogs bark at night."]
    references = [["The cat sat.", "A cat was sitting."], ["Dogs bark by night."]]
    streams = [["The cat sat.", "Dogs bark by night."], ["A cat was sitting.", None]]
    scores = translation_scores(references, outputs, tokenize="13a")
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, streams).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, streams).score)
    assert 0 < scores["bleu"] < scores["chrf"] < 100


def test_chinese_translation_needs_its_tokenizer() -> None:
    outputs, references = ["我们今天去公园玩了"], [["我们今天去公园玩吧"]]
    assert translation_scores(references, outputs, tokenize="zh")["bleu"] == pytest.approx(
        100 * (8 / 9 * 7 / 8 * 6 / 7 * 5 / 6) ** 0.25
    )
    assert translation_scores(references, outputs, tokenize="13a")["bleu"] == 0
    with pytest.raises(ConfigurationError, match=r"choose one of .*zh"):
        translation_scores(references, outputs, tokenize="chinese")


def test_translation_signature() -> None:
    signature = translation_signature([["a"], ["b"]], tokenize="zh")
    assert signature["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:")
    assert signature["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert translation_signature([["a", "b"], ["c"]], tokenize="13a")["bleu"].startswith("nrefs:var|")


def test_rouge_by_hand() -> None:
    scores = summary_scores([["the cats sat on a mat"]], ["the cat sat"], by_characters=False)
    # cats and cat have one stem: 3 words of 3 and of 6; 2 pairs of 2 and of 5.
    assert scores == pytest.approx({"rouge1": 200 / 3, "rouge2": 400 / 7, "rougeL": 200 / 3})


def test_chinese_rouge_by_hand() -> None:
    scores = summary_scores([["在2024年，Python很流行。"]], ["python流行在2024年"], by_characters=True)
    # 在 2024 年 python 很 流 行 against python 流 行 在 2024 年: all 6 of the output; pairs 在2024, 2024年, 流行;
    # in order 在 2024 年 alone, or python 流 行.
    assert scores == pytest.approx({"rouge1": 100 * 12 / 13, "rouge2": 100 * 6 / 11, "rougeL": 100 * 6 / 13})
    assert summary_scores([["很流行"]], ["很流行"], by_characters=False)["rouge1"] == 0  # why characters are needed


def test_summaries_equal_rouge_score_and_take_the_best_reference() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    references = [["meeting on Monday", "Monday's meeting moved"], ["the quarterly numbers"]]
    outputs = ["moving the Monday meeting", "numbers for the quarter"]
    scores = summary_scores(references, outputs, by_characters=False)
    for name, value in scores.items():
        best = [
            max(scorer.score(reference, output)[name].fmeasure for reference in accepted)
            for accepted, output in zip(references, outputs, strict=True)
        ]
        assert value == pytest.approx(50 * sum(best))


def test_looks_chinese() -> None:
    assert looks_chinese(["我喜欢吃Pie", "2024 年 12345"])  # 5 characters of 8 letters; digits are none
    assert not looks_chinese(["我喜欢吃Pie", "pie"])  # 4 of 10
    assert not looks_chinese(["苹果 ab"])  # half is not more than half
    assert not looks_chinese([])


@pytest.mark.parametrize(
    "score",
    [
        lambda: classification_scores([], []),
        lambda: regression_scores([], []),
        lambda: tagging_scores([[]], [[]], scheme="bio"),
        lambda: answer_scores([], [], by_characters=False),
        lambda: answer_scores([[]], ["x"], by_characters=True),
        lambda: translation_scores([["x"], []], ["x", "x"], tokenize="13a"),
        lambda: summary_scores([[]], ["x"], by_characters=False),
    ],
)
def test_nothing_to_score_is_said(score) -> None:
    with pytest.raises(DataError, match=r"nothing to score|no accepted answer|no reference"):
        score()

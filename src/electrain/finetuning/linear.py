"""What counting words reaches on the same examples, in seconds: a fine-tuned network should be worth more than that."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from electrain.data.labelled.examples import TaskName, TextExample, texts_of
from electrain.finetuning.examples import drawn
from electrain.finetuning.tasks.detokenize import IDEOGRAPHS
from electrain.finetuning.tasks.metrics import classification_scores, library, regression_scores

# So that it takes seconds: characters of each text, and of all training texts together.
LONGEST_TEXT, MOST_CHARACTERS = 2_000, 1_500_000
# Labels times features. The solver holds 22 tables of that size: 180 MB.
MOST_WEIGHTS = 1_000_000
# Fixed, so that nothing is chosen on the examples that score it.
INVERSE_PENALTY = 10.0
# A word, or a sign, or a character of a script without spaces between words: Chinese and Japanese.
_PART = rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+|[^\w\s]"

LINEAR_MODELS: dict[str, str] = {
    "classification": "a linear model that counts words",
    "regression": "the letters that the two texts share",
}


def linear_scores(task: TaskName, train: list[Any], held_out: list[Any]) -> dict[str, float]:
    """The scores of `linear_answers` on the held-out examples, by name; empty where it has no answers.

    Args: train, held_out: with one label each, or a number.
    """
    answers = linear_answers(task, train, held_out)
    if answers is None:
        return {}
    if task == "classification":
        return classification_scores([example.labels[0] for example in held_out], answers)
    return regression_scores([example.value for example in held_out], answers)


def linear_answers(task: TaskName, train: list[Any], asked: list[Any]) -> list[Any] | None:
    """The answers of a linear model of the training examples: labels or numbers. None where there is none to compare.

    Labels: logistic regression on TF-IDF of words, of characters in Chinese and Japanese, and of pairs of neighbours;
    both texts of a pair are one. Numbers of pairs: the cosine of their texts' TF-IDF of two to four letters, on the
    scale of the examples, by least squares.
    """
    is_of_pairs = task == "regression" and all(example.second for example in train)
    if not (is_of_pairs or task == "classification"):
        return None
    characters = sum(len(text) for example in train for text in _texts(example))
    learned = drawn(train, max(1, len(train) * MOST_CHARACTERS // max(characters, MOST_CHARACTERS)), 0, "training")
    if is_of_pairs:
        return _by_shared_letters(learned, asked)
    return _by_counted_words(learned, asked) if len({example.labels for example in learned}) > 1 else None


def _by_counted_words(train: Sequence[TextExample], asked: Sequence[TextExample]) -> list[str]:
    known, texts = ([" ".join(_texts(example)) for example in examples] for examples in (train, asked))
    labels = [example.labels[0] for example in train]
    counts = library("sklearn.feature_extraction.text").TfidfVectorizer(
        token_pattern=_PART, ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_WEIGHTS // len(set(labels))
    )
    model = library("sklearn.linear_model").LogisticRegression(C=INVERSE_PENALTY, max_iter=200)
    with warnings.catch_warnings(action="ignore", category=library("sklearn.exceptions").ConvergenceWarning):
        model.fit(counts.fit_transform(known), labels)
    return [str(label) for label in model.predict(counts.transform(texts))]


def _by_shared_letters(train: Sequence[TextExample], asked: Sequence[TextExample]) -> list[float]:
    counts = library("sklearn.feature_extraction.text").TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True
    )
    known, texts = ([text for example in examples for text in _texts(example)] for examples in (train, asked))
    designs = []
    for rows in (counts.fit_transform(known), counts.transform(texts)):
        cosines = np.asarray(rows[::2].multiply(rows[1::2]).sum(1)).ravel()
        designs.append(np.stack([cosines, np.ones(len(cosines))], 1))
    slope_and_offset, *_ = np.linalg.lstsq(designs[0], np.array([example.value for example in train], np.float64))
    return [float(value) for value in designs[1] @ slope_and_offset]


def _texts(example: TextExample) -> list[str]:
    return [text[:LONGEST_TEXT] for text in texts_of(example)]

"""What counting words reaches on the same examples, in seconds: a fine-tuned network should be worth more than that."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.examples import TaskName, TextExample, texts_of
from electrain.finetuning.examples import drawn
from electrain.finetuning.tasks.metrics import classification_scores, library, looks_chinese, regression_scores

# So that it takes seconds: training examples, and characters of each text.
MOST_EXAMPLES, MOST_CHARACTERS = 20_000, 2_000
# Fixed: nothing is chosen on the examples that score it. The best or nearly so of five on sst2 and chnsenticorp.
INVERSE_PENALTY = 10.0

LINEAR_MODELS: dict[str, str] = {
    "classification": "a linear model that counts words",
    "regression": "the letters that the two texts share",
}


def linear_scores(task: TaskName, train: list[Any], held_out: list[Any]) -> dict[str, float]:
    """The scores of `linear_answers` on the held-out examples, by name; empty where it has no answers."""
    if task == "classification" and not _have_one_label_each(held_out):
        return {}
    answers = linear_answers(task, train, held_out)
    if answers is None:
        return {}
    if task == "classification":
        return classification_scores([example.labels[0] for example in held_out], answers)
    return regression_scores([example.value for example in held_out], answers)


def linear_answers(task: TaskName, train: list[Any], asked: list[Any]) -> list[Any] | None:
    """The answers of a linear model of the training examples: labels or numbers. None where there is none to compare.

    Texts or pairs with one label each: logistic regression on TF-IDF of words and pairs of neighbours, or of characters
    where the texts are Chinese. Pairs of texts with a number: the cosine of their TF-IDF of two to four letters, on the
    scale of the examples, by least squares.
    """
    learned = drawn(train, min(len(train), MOST_EXAMPLES), 0, "training")
    if task == "classification":
        is_comparable = _have_one_label_each(learned) and len({example.labels for example in learned}) > 1
        return _by_counted_words(learned, asked) if is_comparable else None
    if task == "regression" and all(example.second for example in learned):
        return _by_shared_letters(learned, asked)
    return None


def _have_one_label_each(examples: Sequence[TextExample]) -> bool:
    return all(len(example.labels) == 1 for example in examples)


def _by_counted_words(train: Sequence[TextExample], asked: Sequence[TextExample]) -> list[str]:
    known, texts = ([" ".join(_texts(example)) for example in examples] for examples in (train, asked))
    parts = {"analyzer": "char"} if looks_chinese(known) else {"token_pattern": r"\w+|[^\w\s]"}
    counts = library("sklearn.feature_extraction.text").TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **parts)
    model = library("sklearn.linear_model").LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    with warnings.catch_warnings(action="ignore"):  # iterations that end before the last digit is right
        model.fit(counts.fit_transform(known), [example.labels[0] for example in train])
    return [str(label) for label in model.predict(counts.transform(texts))]


def _by_shared_letters(train: Sequence[TextExample], asked: Sequence[TextExample]) -> list[float]:
    counts = library("sklearn.feature_extraction.text").TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True
    )
    counts.fit([text for example in train for text in _texts(example)])

    def design(examples: Sequence[TextExample]) -> NDArray[np.float64]:
        """(examples, 2) float64: the cosine, and 1 for the offset."""
        one, other = (counts.transform(texts) for texts in zip(*map(_texts, examples), strict=True))
        return np.stack([np.asarray(one.multiply(other).sum(1)).ravel(), np.ones(len(examples))], 1)

    slope_and_offset, *_ = np.linalg.lstsq(design(train), np.array([example.value for example in train], np.float64))
    return [float(value) for value in design(asked) @ slope_and_offset]


def _texts(example: TextExample) -> list[str]:
    return [text[:MOST_CHARACTERS] for text in texts_of(example)]

"""What the sets of `finetune_table.py` give without any network: trivial answers, and linear models."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import SGDClassifier

from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.tag_schemes import scheme_of_labels
from electrain.finetuning.linear import linear_answers
from electrain.finetuning.tasks.metrics import (
    answer_scores,
    classification_scores,
    looks_chinese,
    regression_scores,
    summary_scores,
    tagging_scores,
    translation_scores,
)
from electrain.finetuning.tasks.sequence_to_sequence import first_words

Learned = Callable[[list[Any]], list[Any]]

# Of the features of a word's context.
TAGGING_PENALTIES = (1e-6, 1e-5)
# So many are seen, over and over.
TAGGED_WORDS = 2_000_000


def _majority(train: list[Any]) -> Learned:
    label = Counter(example.labels[0] for example in train).most_common(1)[0][0]
    return lambda examples: [label] * len(examples)


def _mean(train: list[Any]) -> Learned:
    mean = statistics.fmean(example.value for example in train)
    return lambda examples: [mean] * len(examples)


def _unigram_tagger(train: list[Any]) -> Learned:
    """Each word's commonest tag; the commonest of words seen once for unknown ones."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        for word, tag in zip(example.words, example.tags, strict=True):
            counts[word][tag] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    rare: Counter[str] = Counter(best[word] for word, tags in counts.items() if tags.total() == 1)
    unknown = rare.most_common(1)[0][0] if rare else next(iter(best.values()))
    return lambda examples: [[best.get(word, unknown) for word in example.words] for example in examples]


def _first_words_of_context(train: list[Any]) -> Learned:
    length = round(statistics.median(len(example.answers[0][0]) for example in train))
    return lambda examples: [first_words(example.context, length) for example in examples]


def _first_words(train: list[Any]) -> Learned:
    length = round(statistics.median(len(example.target) for example in train))
    return lambda examples: [first_words(example.text, length) for example in examples]


def _copy(train: list[Any]) -> Learned:
    del train
    return lambda examples: [example.text for example in examples]


def _references(examples: list[Any]) -> list[list[str]]:
    return [[example.target, *example.references] for example in examples]


def _is_chinese(examples: list[Any]) -> bool:
    return looks_chinese([example.target for example in examples])


def _tagging_scores(truth: list[list[str]], told: list[list[str]]) -> dict[str, float]:
    scheme = scheme_of_labels({tag for tags in truth for tag in tags})
    return tagging_scores(truth, told, scheme=scheme)


def _as_the_run_says(task: TaskName, train: list[Any], validation: list[Any]) -> Learned:
    """The linear model with which every fine-tuning compares itself; validation examples choose nothing in it."""
    del validation

    def answers(examples: list[Any]) -> list[Any]:
        found = linear_answers(task, train, examples)
        assert found is not None
        return found

    return answers


def _features(words: Sequence[str]) -> Iterator[set[str]]:
    """Of each word: itself and two neighbours on each side, the ends of the nearest three, pairs, and its shape."""
    around = ["", "", *(word.lower() for word in words), "", ""]
    for place, word in enumerate(words):
        near = around[place : place + 5]
        found = {f"{offset}={other}" for offset, other in enumerate(near)}
        found |= {f"{offset}-{length}={near[offset][-length:]}" for offset in (1, 2, 3) for length in (1, 2, 3)}
        found |= {f"before={near[1]} {near[2]}", f"after={near[2]} {near[3]}", f"capital={word[:1].isupper()}"}
        found |= {f"digit={any(map(str.isdigit, word))}", f"hyphen={'-' in word}"}
        yield found


def _word_in_context(train: list[Any], validation: list[Any]) -> Learned:
    """Logistic regression on a word's letters and neighbours; each word is tagged by itself."""
    counts = CountVectorizer(analyzer=set)

    def rows(examples: list[Any]) -> list[set[str]]:
        return [features for example in examples for features in _features(example.words)]

    features, tags = counts.fit_transform(rows(train)), [tag for example in train for tag in example.tags]
    held_out, truth = counts.transform(rows(validation)), [tag for example in validation for tag in example.tags]
    models = [
        SGDClassifier(
            "log_loss",
            alpha=penalty,
            max_iter=max(1, TAGGED_WORDS // len(tags)),
            tol=None,
            average=True,
            random_state=0,
        ).fit(features, tags)
        for penalty in TAGGING_PENALTIES
    ]
    best = max(models, key=lambda model: model.score(held_out, truth))
    return lambda examples: [
        [str(tag) for tag in best.predict(counts.transform(list(_features(example.words))))] for example in examples
    ]


TRIVIAL: dict[str, Callable[[list[Any]], Learned]] = {
    "classification": _majority,
    "regression": _mean,
    "tagging": _unigram_tagger,
    "question-answering": _first_words_of_context,
    "summarization": _first_words,
    "translation": _copy,
}
# Of training and validation examples. What a linear model cannot do is not here.
LINEAR: dict[str, Callable[[list[Any], list[Any]], Learned]] = {
    "classification": partial(_as_the_run_says, "classification"),
    "regression": partial(_as_the_run_says, "regression"),
    "tagging": _word_in_context,
}
# Of examples, and the answers to them.
SCORES: dict[str, Callable[[list[Any], list[Any]], dict[str, float]]] = {
    "classification": lambda x, told: classification_scores([one.labels[0] for one in x], told),
    "regression": lambda x, told: regression_scores([one.value for one in x], told),
    "tagging": lambda x, told: _tagging_scores([list(one.tags) for one in x], told),
    "question-answering": lambda x, told: answer_scores(
        [[text for text, _ in one.answers] for one in x], told, by_characters=looks_chinese([one.context for one in x])
    ),
    "summarization": lambda x, told: summary_scores(_references(x), told, by_characters=_is_chinese(x)),
    "translation": lambda x, told: translation_scores(_references(x), told, tokenize="zh" if _is_chinese(x) else "13a"),
}

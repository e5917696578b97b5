"""The scores of the tasks as the field publishes them: in per cent, except the squared error.

The libraries that compute them are imported only here and only when they score, since training needs none of them.
"""

import importlib
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from electrain.data.labelled.tag_schemes import PLAIN, SCHEMES, SchemeName, chunks_of_tags, in_seqevals_letters
from electrain.foundation.errors import ConfigurationError, DataError

_SCORERS = {
    "classification": "sklearn",
    "regression": "scipy",
    "summarization": "rouge_score",
    "translation": "sacrebleu",
}
_ENTITY_SCORES = {"precision": "precision", "recall": "recall", "f1": "f1-score"}  # ours, and seqeval's name of it
ALL_KINDS = "micro avg"  # seqeval's name for the entities of all types
_OTHER_AVERAGES = {"macro avg", "weighted avg"}
NO_KIND = "_"  # seqeval's name for the type of tags that are a letter alone
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WITHOUT_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What the evaluation script of CMRC 2018 removes from an answer; it keeps all other ASCII punctuation.
_CMRC_PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# A segment for CMRC 2018: one Chinese character, a word in any other script, or one ASCII sign.
_OTHER_WRITING = r"[^\s!-/:-@\[-`{-~\u4e00-\u9fa5]+"
_CMRC_SEGMENT = re.compile(rf"[\u4e00-\u9fa5]|{_OTHER_WRITING}(?:[.,']{_OTHER_WRITING})*|[!-/:-@\[-`{{-~]")
# A token of a Chinese summary: an ASCII word or number, or one character of any other script.
_SUMMARY_TOKEN = re.compile(r"[a-z0-9]+|[^\W_]")
# Ideographs, their extensions, and the compatibility blocks.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def classification_scores(
    truth: Sequence[str] | Sequence[tuple[str, ...]], predicted: Sequence[str] | Sequence[tuple[str, ...]]
) -> dict[str, float]:
    """Scores of predicted labels, in per cent.

    Args:
        truth, predicted: one label for each example; or, where an example can have several or none, a tuple of labels.
    Returns: accuracy, f1_macro and matthews (0 where either side has a single label); for tuples exact_match,
        f1_micro and f1_macro. The macro mean is over the labels that occur in `truth` or `predicted`.
    Raises: DataError: no example.
    Source: Gorodkin 2004, for Matthews' correlation of more than two labels; computed by scikit-learn.
    """
    _require_examples(truth)
    if not isinstance(truth[0], str):
        return _scores_of_several_labels([set(labels) for labels in truth], [set(labels) for labels in predicted])
    sklearn = library("sklearn.metrics")
    with warnings.catch_warnings(action="ignore"):  # a single label, for which 0 is returned
        matthews = sklearn.matthews_corrcoef(truth, predicted)
    return {
        "accuracy": 100 * float(sklearn.accuracy_score(truth, predicted)),
        "f1_macro": 100 * float(sklearn.f1_score(truth, predicted, average="macro", zero_division=0)),
        "matthews": 100 * float(matthews),
    }


def _scores_of_several_labels(truth: Sequence[set[str]], predicted: Sequence[set[str]]) -> dict[str, float]:
    labels = sorted(set().union(*truth, *predicted))
    is_true, is_given = (np.array([[label in one for label in labels] for one in side]) for side in (truth, predicted))
    if not labels:
        return {"exact_match": 100.0, "f1_micro": 0.0, "f1_macro": 0.0}
    # scikit-learn takes a table of one column for a binary problem, and scores the absent label too: each label, and
    # all of them together, are scored as binary problems here.
    f1 = partial(library("sklearn.metrics").f1_score, zero_division=0)
    return {
        "exact_match": 100 * float(np.mean((is_true == is_given).all(1))),
        "f1_micro": 100 * float(f1(is_true.ravel(), is_given.ravel())),
        "f1_macro": 100 * float(np.mean([f1(*columns) for columns in zip(is_true.T, is_given.T, strict=True)])),
    }


def regression_scores(truth: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation times 100, and mean_squared_error.

    A correlation is 0 where it is undefined: a side is constant, or there is a single example.

    Raises: DataError: no example.
    """
    _require_examples(truth)
    wanted, given = np.array(truth, np.float64), np.array(predicted, np.float64)
    return {
        "pearson": 100 * correlation("pearsonr", wanted, given),
        "spearman": 100 * correlation("spearmanr", wanted, given),
        "mean_squared_error": float(np.mean((wanted - given) ** 2)),
    }


def correlation(name: Literal["pearsonr", "spearmanr"], one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """SciPy's correlation of that name of two sides, each (examples,); 0 where it is undefined."""
    if len(one) < 2:
        return 0.0
    with warnings.catch_warnings(action="ignore"):  # constant sides, for which NaN is returned
        value = float(getattr(library("scipy.stats"), name)(one, other).statistic)
    return value if np.isfinite(value) else 0.0


def tagging_scores(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, scheme: SchemeName
) -> dict[str, float]:
    """Accuracy over words, in per cent; of entities also precision, recall, f1, and the f1_TYPE of each type.

    Entities in BIO and IOB1 are read as conlleval reads them, and seqeval by default: I-X after O or after another type
    begins an entity too. In the schemes that mark the end of an entity, seqeval's strict mode counts whole ones only.

    Args:
        truth, predicted: for each sentence a tag for each word.
        scheme: of the tags; "none" scores words only.
    Raises: DataError: no word.
    Source: Tjong Kim Sang and De Meulder 2003; seqeval.
    """
    pairs = [pair for true, given in zip(truth, predicted, strict=True) for pair in zip(true, given, strict=True)]
    _require_examples(pairs)
    scores = {"accuracy": 100 * float(np.mean([true == given for true, given in pairs]))}
    if scheme == PLAIN:
        return scores
    report = entity_report(truth, predicted, scheme)
    total = report.pop(ALL_KINDS, dict.fromkeys(_ENTITY_SCORES, 0.0))
    scores |= {name: total[name] for name in _ENTITY_SCORES}
    return scores | {f"f1_{kind}": own["f1"] for kind, own in report.items() if kind != NO_KIND}


def entity_report(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: SchemeName
) -> dict[str, dict[str, float]]:
    """precision, recall and f1 in per cent, and support, of each type of entity and of `ALL_KINDS`, by seqeval.

    Args: see `tagging_scores`.
    Returns: empty if there is no entity on either side.
    """
    sides = [[in_seqevals_letters(tags, scheme) for tags in side] for side in (truth, predicted)]
    if not any(chunks_of_tags(tags, scheme) for side in (truth, predicted) for tags in side):
        return {}
    how = {"mode": "strict", "scheme": library("seqeval.scheme").IOBES} if SCHEMES[scheme].end else {}
    report = library("seqeval.metrics").classification_report(*sides, output_dict=True, zero_division=0, **how)
    return {
        kind: {name: 100 * float(own[key]) for name, key in _ENTITY_SCORES.items()} | {"support": int(own["support"])}
        for kind, own in report.items()
        if kind not in _OTHER_AVERAGES
    }


def answer_scores(
    truths: Sequence[Sequence[str]], predicted: Sequence[str], *, by_characters: bool
) -> dict[str, float]:
    """exact_match and f1 of answers to questions, each the best over the accepted answers, in per cent.

    Args:
        truths: for each question its accepted answers.
        by_characters: False scores as SQuAD 1.1 does: case, punctuation, articles and white space do not count, and F1
            counts the words that both texts hold. True scores as CMRC 2018 does: case and punctuation do not count, and
            F1 counts the longest run of characters that both texts hold; words of other scripts stay whole.
    Raises: DataError: no question, or one without an accepted answer.
    Source: Rajpurkar et al. 2016, section 6.1; Cui et al. 2019, whose "longest common sequence" is contiguous in the
        published evaluation script, as here. That script splits other scripts with NLTK, which makes a difference in 1
        answer of 100 ("don't" is two words there).
    """
    _require_examples(truths)
    if not all(truths):
        raise DataError("a question has no accepted answer to score against; add one or remove the question")
    normalised, overlap = (_cmrc_text, _cmrc_f1) if by_characters else (_squad_text, _squad_f1)
    pairs = list(zip(truths, predicted, strict=True))
    return {
        "exact_match": _mean_of_best(pairs, lambda one, other: float(normalised(one) == normalised(other))),
        "f1": _mean_of_best(pairs, overlap),
    }


def _mean_of_best(pairs: Sequence[tuple[Sequence[str], str]], measure: Callable[[str, str], float]) -> float:
    """In per cent."""
    return 100 * float(np.mean([max(measure(truth, given) for truth in truths) for truths, given in pairs]))


def _f1(shared: int, only_one: int) -> float:
    """F1, in [0, 1], of two collections by the number of elements that both, and that only one of them has."""
    return 2 * shared / (2 * shared + only_one) if shared else 0.0


def _squad_text(text: str) -> str:
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_WITHOUT_ASCII_PUNCTUATION)).split())


def _squad_f1(truth: str, given: str) -> float:
    true_words, given_words = Counter(_squad_text(truth).split()), Counter(_squad_text(given).split())
    shared = (true_words & given_words).total()
    return _f1(shared, true_words.total() + given_words.total() - 2 * shared)


def _cmrc_text(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CMRC_PUNCTUATION)


def _cmrc_f1(truth: str, given: str) -> float:
    true_segments, given_segments = _CMRC_SEGMENT.findall(_cmrc_text(truth)), _CMRC_SEGMENT.findall(_cmrc_text(given))
    shared = SequenceMatcher(None, true_segments, given_segments, autojunk=False).find_longest_match().size
    return _f1(shared, len(true_segments) + len(given_segments) - 2 * shared)


def translation_scores(
    references: Sequence[Sequence[str]], outputs: Sequence[str], *, tokenize: str
) -> dict[str, float]:
    """Corpus-level bleu and chrf, in per cent, by sacreBLEU; `translation_signature` describes how.

    Args:
        references: for each output one or more good translations.
        tokenize: sacreBLEU's tokenizer for BLEU: 13a for languages with spaces, zh for Chinese.
    Raises: DataError: no output, or one without a reference. ConfigurationError: no such tokenizer.
    Source: Post 2018; Popović 2015.
    """
    streams = _reference_streams(references)
    bleu, chrf = _translation_metrics(tokenize)
    return {
        "bleu": float(bleu.corpus_score(list(outputs), streams).score),
        "chrf": float(chrf.corpus_score(list(outputs), streams).score),
    }


def bleu_interval(
    references: Sequence[Sequence[str]], outputs: Sequence[str], *, tokenize: str, samples: int
) -> list[float]:
    """The 95% confidence interval of bleu, by sacreBLEU's bootstrap over `samples` samples (Koehn 2004)."""
    bleu, _ = _translation_metrics(tokenize)
    score = bleu.corpus_score(list(outputs), _reference_streams(references), n_bootstrap=samples)
    return [float(score._mean - score._ci), float(score._mean + score._ci)]


def sentence_chrf(references: Sequence[Sequence[str]], outputs: Sequence[str]) -> list[float]:
    """sacreBLEU's chrF of each output by itself, in per cent; of several references, the best."""
    chrf = library("sacrebleu.metrics").CHRF()
    pairs = zip(references, outputs, strict=True)
    return [float(chrf.sentence_score(output, list(accepted)).score) for accepted, output in pairs]


def translation_signature(references: Sequence[Sequence[str]], *, tokenize: str) -> dict[str, str]:
    """sacreBLEU's signatures of bleu and chrf, to be published with `translation_scores` of the same references."""
    # A signature depends on the number of references, not on their text.
    streams = _reference_streams([["x"] * len(accepted) for accepted in references])
    signatures = {}
    for name, metric in zip(("bleu", "chrf"), _translation_metrics(tokenize), strict=True):
        metric.corpus_score(["x"] * len(references), streams)
        signatures[name] = str(metric.get_signature())
    return signatures


def _translation_metrics(tokenize: str) -> tuple[Any, Any]:
    metrics = library("sacrebleu.metrics")
    if tokenize not in metrics.BLEU.TOKENIZERS:
        known = ", ".join(metrics.BLEU.TOKENIZERS)
        raise ConfigurationError(f"tokenize = '{tokenize}': sacreBLEU has no such tokenizer; choose one of {known}")
    return metrics.BLEU(tokenize=tokenize), metrics.CHRF()


def _reference_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """A list of all first references, one of all second ones and so on; None where an output has fewer."""
    _require_references(references)
    return [list(stream) for stream in zip_longest(*references)]


class _CharacterTokenizer:
    """A tokenizer for rouge-score, whose own drops everything but ASCII letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        return _SUMMARY_TOKEN.findall(text.lower())


def summary_scores(
    references: Sequence[Sequence[str]], outputs: Sequence[str], *, by_characters: bool
) -> dict[str, float]:
    """rouge1, rouge2 and rougeL by rouge-score: the mean F-measure of the outputs, in per cent.

    Where an output has several references, each score takes the one that is best for it.

    Args:
        references: for each output one or more good summaries.
        by_characters: False compares words, reduced by Porter's stemmer for English. True compares characters, and
            ASCII words and numbers as a whole.
    Raises: DataError: no output, or one without a reference.
    Source: Lin 2004.
    """
    scores = sentence_rouge(references, outputs, by_characters=by_characters)
    return {name: float(np.mean(own)) for name, own in scores.items()}


def sentence_rouge(
    references: Sequence[Sequence[str]], outputs: Sequence[str], *, by_characters: bool
) -> dict[str, list[float]]:
    """rouge1, rouge2 and rougeL of each output, see `summary_scores`."""
    _require_references(references)
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = library("rouge_score.rouge_scorer").RougeScorer(
        names, use_stemmer=not by_characters, tokenizer=_CharacterTokenizer() if by_characters else None
    )
    pairs = zip(references, outputs, strict=True)
    scores = [scorer.score_multi(list(accepted), output) for accepted, output in pairs]
    return {name: [100 * float(score[name].fmeasure) for score in scores] for name in names}


def looks_chinese(texts: Sequence[str]) -> bool:
    """True where more than half of the letters are Chinese characters."""
    chinese = sum(len(_IDEOGRAPH.findall(text)) for text in texts)
    return 2 * chinese > sum(sum(map(str.isalpha, text)) for text in texts)


def _require_references(references: Sequence[Sequence[str]]) -> None:
    _require_examples(references)
    if not all(references):
        raise DataError("an example has no reference to score against; add one or remove the example")


def _require_examples(examples: Sequence[object]) -> None:
    if not examples:
        raise DataError("there is nothing to score; give at least one example")


def require_scorer(task: str, *, has_entities: bool = False) -> None:
    """Raises ConfigurationError where the library that scores a task is not installed; to be called before any work."""
    if task == "tagging" and has_entities:
        library("seqeval")
    elif task in _SCORERS:
        library(_SCORERS[task])


def library(module: str) -> Any:
    """A library that scores. Raises: ConfigurationError: it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"scoring needs {module.split('.')[0]}, which is not installed; run pip install 'electrain[tasks]'"
        ) from error

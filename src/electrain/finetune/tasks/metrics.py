"""The tasks' scores as the field publishes them: in per cent, except the squared error."""

import importlib
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.foundation.errors import ConfigurationError, DataError

_ENTITY_TAG = re.compile(r"O|[BIES]-.+", re.DOTALL)
_ENTITY_SCORES = {"precision": "precision", "recall": "recall", "f1": "f1-score"}  # ours, and seqeval's name of it
_AVERAGES = {"micro avg", "macro avg", "weighted avg"}  # what seqeval reports beside the types
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WITHOUT_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What CMRC 2018 leaves out of an answer. Other ASCII punctuation stays.
_CMRC_PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# A segment for CMRC 2018: one Chinese character, a word of any other writing, or one ASCII sign.
_OTHER_WRITING = r"[^\s!-/:-@\[-`{-~\u4e00-\u9fa5]+"
_CMRC_SEGMENT = re.compile(rf"[\u4e00-\u9fa5]|{_OTHER_WRITING}(?:[.,']{_OTHER_WRITING})*|[!-/:-@\[-`{{-~]")
# A token of a Chinese summary: an ASCII word or number, or one character of any other writing.
_SUMMARY_TOKEN = re.compile(r"[a-z0-9]+|[^\W_]")
# Ideographs, their extensions, and the compatibility blocks.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def classification_scores(
    truth: Sequence[str] | Sequence[tuple[str, ...]], predicted: Sequence[str] | Sequence[tuple[str, ...]]
) -> dict[str, float]:
    """How well labels were given, in per cent.

    Args:
        truth, predicted: a label for each example; or, where an example can have several or none, a tuple of them.
    Returns: accuracy, f1_macro and matthews (0 where either side has one label only); for tuples exact_match,
        f1_micro and f1_macro. The macro mean is over the labels that occur in `truth` or `predicted`.
    Raises: DataError: no example.
    Source: Gorodkin 2004, for Matthews' correlation of more than two labels.
    """
    _require_examples(truth)
    if not isinstance(truth[0], str):
        true_sets, predicted_sets = [set(labels) for labels in truth], [set(labels) for labels in predicted]
        hits, misses = _hits_and_misses(true_sets, predicted_sets)
        equal = [one == other for one, other in zip(true_sets, predicted_sets, strict=True)]
        return {
            "exact_match": 100 * float(np.mean(equal)),
            "f1_micro": 100 * _f1(hits.sum(), misses.sum()),
            "f1_macro": _macro_f1(hits, misses),
        }
    return {
        "accuracy": 100 * float(np.mean([one == other for one, other in zip(truth, predicted, strict=True)])),
        "f1_macro": _macro_f1(*_hits_and_misses([{label} for label in truth], [{label} for label in predicted])),
        "matthews": 100 * _matthews(truth, predicted),
    }


def _hits_and_misses(
    truth: Sequence[set[Any]], predicted: Sequence[set[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels,) int64 each: how often a label was rightly given, and how often wrongly given or left out."""
    hits, misses = Counter[Any](), Counter[Any]()
    for true_labels, given_labels in zip(truth, predicted, strict=True):
        hits.update(true_labels & given_labels)
        misses.update(true_labels ^ given_labels)
    labels = sorted(hits | misses)
    return np.array([hits[label] for label in labels]), np.array([misses[label] for label in labels])


def _f1(hits: float, misses: float) -> float:
    """In [0, 1]; 0 where nothing was to be found and nothing was given."""
    return float(2 * hits / (2 * hits + misses)) if hits else 0.0


def _macro_f1(hits: NDArray[np.int64], misses: NDArray[np.int64]) -> float:
    """In per cent."""
    return 100 * float(np.mean([_f1(*pair) for pair in zip(hits, misses, strict=True)] or [0.0]))


def _matthews(truth: Sequence[Any], predicted: Sequence[Any]) -> float:
    """In [-1, 1]."""
    total, right = len(truth), sum(one == other for one, other in zip(truth, predicted, strict=True))
    in_truth, in_predicted = Counter(truth), Counter(predicted)
    covariance = total * right - sum(count * in_predicted[label] for label, count in in_truth.items())
    spreads = [total**2 - sum(count**2 for count in counts.values()) for counts in (in_truth, in_predicted)]
    return covariance / (spreads[0] * spreads[1]) ** 0.5 if all(spreads) else 0.0


def regression_scores(truth: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation times 100, 0 where either side is constant; and mean_squared_error.

    Raises: DataError: no example.
    """
    _require_examples(truth)
    wanted, given = np.array(truth, np.float64), np.array(predicted, np.float64)
    return {
        "pearson": 100 * _correlation(wanted, given),
        "spearman": 100 * _correlation(_ranks(wanted), _ranks(given)),
        "mean_squared_error": float(np.mean((wanted - given) ** 2)),
    }


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's, in [-1, 1]; 0 where either is constant, up to the rounding of its mean."""
    centred = [values - values.mean() for values in (one, other)]
    sizes = [float(np.linalg.norm(values)) for values in centred]
    rounding = [1e-13 * float(np.linalg.norm(values)) for values in (one, other)]
    if not all(size > limit for size, limit in zip(sizes, rounding, strict=True)):  # of NaN, too, nothing is known
        return 0.0
    return float(np.clip(centred[0] / sizes[0] @ (centred[1] / sizes[1]), -1, 1))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


def tagging_scores(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, has_entities: bool
) -> dict[str, float]:
    """Accuracy over words, in per cent; of entities also precision, recall, f1, and the f1_TYPE of each type.

    Entities are read as conlleval reads them, and seqeval by default: I-X after O or after another type begins an
    entity too. seqeval's strict mode would not count such a one, and gives lower scores.

    Args:
        truth, predicted: for each sentence a tag for each word.
        has_entities: the tags are BIO or BIOES; see `are_entity_tags`.
    Raises: DataError: no word.
    Source: Tjong Kim Sang and De Meulder 2003; seqeval.
    """
    pairs = [pair for true, given in zip(truth, predicted, strict=True) for pair in zip(true, given, strict=True)]
    _require_examples(pairs)
    scores = {"accuracy": 100 * float(np.mean([true == given for true, given in pairs]))}
    if not has_entities:
        return scores
    scores |= {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    if any(tag != "O" for pair in pairs for tag in pair):
        report = _library("seqeval.metrics").classification_report(
            [list(tags) for tags in truth], [list(tags) for tags in predicted], output_dict=True, zero_division=0
        )
        total = report["micro avg"]
        scores |= {name: 100 * float(total[key]) for name, key in _ENTITY_SCORES.items()}
        types = [kind for kind in report if kind not in _AVERAGES]
        scores |= {f"f1_{kind}": 100 * float(report[kind]["f1-score"]) for kind in types}
    return scores


def are_entity_tags(tags: Collection[str]) -> bool:
    """True where each tag is O, or B-, I-, E- or S- followed by a type: then entities are scored, not only words."""
    return all(_ENTITY_TAG.fullmatch(tag) for tag in tags)


def answer_scores(
    truths: Sequence[Sequence[str]], predicted: Sequence[str], *, by_characters: bool
) -> dict[str, float]:
    """exact_match and f1 of answers to questions, each the best over the accepted answers, in per cent.

    Args:
        truths: for each question its accepted answers.
        by_characters: False: as SQuAD 1.1: case, punctuation, articles and white space do not count, and F1 is over the
            words that both hold. True: as CMRC 2018: case and punctuation do not count, and F1 is over the longest
            run of characters that both hold; words of other writing are whole.
    Raises: DataError: no question, or one without an accepted answer.
    Source: Rajpurkar et al. 2016, section 6.1; Cui et al. 2019, whose "longest common sequence" is an
        unbroken one in the published evaluation, as here. That evaluation cuts other writing by NLTK, which differs
        from this in 1 answer of 100 ("don't" is two words there).
    """
    _require_examples(truths)
    if not all(truths):
        raise DataError("a question has no accepted answer, so that none can be scored; add one, or leave it out")
    normalised, overlap = (_cmrc_text, _cmrc_f1) if by_characters else (_squad_text, _squad_f1)
    pairs = list(zip(truths, predicted, strict=True))
    return {
        "exact_match": _mean_of_best(pairs, lambda one, other: float(normalised(one) == normalised(other))),
        "f1": _mean_of_best(pairs, overlap),
    }


def _mean_of_best(pairs: Sequence[tuple[Sequence[str], str]], measure: Callable[[str, str], float]) -> float:
    """In per cent."""
    return 100 * float(np.mean([max(measure(truth, given) for truth in truths) for truths, given in pairs]))


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
    """bleu and chrf of the whole, in per cent, by sacreBLEU; `translation_signature` says how.

    Args:
        references: for each output one good translation or more.
        tokenize: sacreBLEU's tokenizer for BLEU: 13a for languages with spaces, zh for Chinese.
    Raises: DataError: no output, or one without a reference. ConfigurationError: no such tokenizer.
    Source: Post 2018; Popović 2015.
    """
    _require_examples(references)
    streams = _reference_streams(references)
    bleu, chrf = _translation_metrics(tokenize)
    return {
        "bleu": float(bleu.corpus_score(list(outputs), streams).score),
        "chrf": float(chrf.corpus_score(list(outputs), streams).score),
    }


def translation_signature(references: Sequence[Sequence[str]], *, tokenize: str) -> dict[str, str]:
    """sacreBLEU's signatures of bleu and chrf, to publish with `translation_scores` of the same references."""
    streams = _reference_streams([["x"] * len(accepted) for accepted in references])  # only their number is told
    signatures = {}
    for name, metric in zip(("bleu", "chrf"), _translation_metrics(tokenize), strict=True):
        metric.corpus_score(["x"] * len(references), streams)
        signatures[name] = str(metric.get_signature())
    return signatures


def _translation_metrics(tokenize: str) -> tuple[Any, Any]:
    metrics = _library("sacrebleu.metrics")
    if tokenize not in metrics.BLEU.TOKENIZERS:
        known = ", ".join(name for name in metrics.BLEU.TOKENIZERS)
        raise ConfigurationError(f"tokenize = '{tokenize}': sacreBLEU has no such tokenizer; choose one of {known}")
    return metrics.BLEU(tokenize=tokenize), metrics.CHRF()


def _reference_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """The first reference of each output, then the second of each, None where an output has fewer."""
    if not all(references):
        raise DataError("an example has no reference, so that its output cannot be scored; add one, or leave it out")
    most = max(map(len, references))
    return [[accepted[n] if n < len(accepted) else None for accepted in references] for n in range(most)]


class _CharacterTokenizer:
    """For rouge-score, whose own tokenizer knows ASCII letters only."""

    def tokenize(self, text: str) -> list[str]:
        return _SUMMARY_TOKEN.findall(text.lower())


def summary_scores(
    references: Sequence[Sequence[str]], outputs: Sequence[str], *, by_characters: bool
) -> dict[str, float]:
    """rouge1, rouge2 and rougeL, the mean over outputs of the F-measure, in per cent, by rouge-score.

    Of several references the best counts, for each score by itself.

    Args:
        references: for each output one good summary or more.
        by_characters: False: words, their English endings cut by Porter's stemmer. True: characters; ASCII words and
            numbers stay whole.
    Raises: DataError: no output, or one without a reference.
    Source: Lin 2004.
    """
    _require_examples(references)
    if not all(references):
        raise DataError("an example has no reference, so that its output cannot be scored; add one, or leave it out")
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = _library("rouge_score.rouge_scorer").RougeScorer(
        names, use_stemmer=not by_characters, tokenizer=_CharacterTokenizer() if by_characters else None
    )
    pairs = zip(references, outputs, strict=True)
    scores = [scorer.score_multi(list(accepted), output) for accepted, output in pairs]
    return {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def looks_chinese(texts: Sequence[str]) -> bool:
    """True where more than half of the letters are Chinese characters."""
    chinese = sum(len(_IDEOGRAPH.findall(text)) for text in texts)
    return 2 * chinese > sum(sum(map(str.isalpha, text)) for text in texts)


def _require_examples(examples: Sequence[Any]) -> None:
    if not examples:
        raise DataError("there is nothing to score; give at least one example")


def require_scorer(task: str, labels: Sequence[str] = ()) -> None:
    """Raises ConfigurationError, before any work is done, where the library that scores a task is not installed."""
    modules = {"summarization": "rouge_score", "translation": "sacrebleu"}
    if task == "tagging" and are_entity_tags(labels):
        _library("seqeval")
    elif task in modules:
        _library(modules[task])


def _library(module: str) -> Any:
    """An optional library. Raises: ConfigurationError: it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"scoring needs {module.split('.')[0]}, which is not installed; pip install 'electrain[tasks]'"
        ) from error

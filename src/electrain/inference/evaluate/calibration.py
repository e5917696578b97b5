"""How well probabilities tell how often a model is right, and how much of a score is noise."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from electrain.finetuning.tasks.metrics import library
from electrain.inference.evaluate.evaluation import Bin, Calibration

# Source: Naeini et al. 2015, who introduced the expected calibration error, with ten bins of equal width.
BINS = 10
# Efron and Tibshirani 1993, section 13.3: percentile intervals need about 1,000 samples.
BOOTSTRAP_SAMPLES = 1000
_SEED = 0  # the same examples give the same interval
Floats = NDArray[np.float64]


def calibration_of(of: str, chances: Floats, is_right: NDArray[np.bool_]) -> Calibration | None:
    """The calibration of some decisions; None without any.

    Args:
        of: what is decided.
        chances: (decisions,) float64 in [0, 1]; the probability that each is right, as the model says.
        is_right: (decisions,) bool.
    """
    if not len(chances):
        return None
    edges = np.linspace(0, 1, BINS + 1)
    places = np.searchsorted(edges[1:-1], chances)
    bins = []
    for place in np.unique(places):
        own = places == place
        low, high = float(edges[place]), float(edges[place + 1])
        bins.append(Bin(low, high, int(own.sum()), float(chances[own].mean()), float(is_right[own].mean())))
    error = sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / len(chances)
    return Calibration(of, tuple(bins), error)


def brier_and_log_loss(truth: NDArray[np.int64], chances: Floats) -> tuple[float, float]:
    """scikit-learn's Brier score and mean negative log-likelihood in nats.

    Args:
        truth: (examples,) int64; the number of the label that is true.
        chances: (examples, labels) float64; the probability of each label.
    """
    chances = chances / chances.sum(1, keepdims=True)  # float32 sums to 1 only nearly
    labels, metrics = list(range(chances.shape[1])), library("sklearn.metrics")
    given = chances[:, 1] if len(labels) == 2 else chances
    return (
        float(metrics.brier_score_loss(truth, given, labels=labels)),
        float(metrics.log_loss(truth, chances, labels=labels)),
    )


def binomial_interval(right: int, count: int) -> list[float]:
    """The 95% confidence interval, in per cent, of the part of decisions that are right (Wilson 1927), by SciPy."""
    interval = library("scipy.stats").binomtest(right, count).proportion_ci(method="wilson")
    return [100 * float(interval.low), 100 * float(interval.high)]


def bootstrap_interval(count: int, score: Callable[[NDArray[np.int64]], float]) -> list[float]:
    """The 95% confidence interval of a score: 2.5% and 97.5% percentiles over samples of examples, with replacement.

    Args: score: of some examples, given as their numbers; (examples,) int64, a number can occur several times.
    Source: Efron and Tibshirani 1993, section 13.3.
    """
    random = np.random.default_rng(_SEED)
    values = [score(random.integers(count, size=count)) for _ in range(BOOTSTRAP_SAMPLES)]
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def mean_interval(values: Sequence[float]) -> list[float]:
    """The bootstrap interval of a mean."""
    array = np.array(values, np.float64)
    return bootstrap_interval(len(array), lambda drawn: float(array[drawn].mean()))


def f1_interval(hits: Sequence[int], true: Sequence[int], given: Sequence[int]) -> list[float]:
    """The bootstrap interval, in per cent, of F1 over all labels or entities of the examples.

    Args: hits, true, given: of each example the number that are right, that there are, and that are predicted.
    """
    counts = np.array([hits, true, given], np.float64)

    def f1(drawn: NDArray[np.int64]) -> float:
        right, *both = counts[:, drawn].sum(1)
        return float(200 * right / max(1.0, sum(both)))

    return bootstrap_interval(len(hits), f1)

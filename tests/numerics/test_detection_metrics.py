"""Detection metrics equal scikit-learn's, ties included, and hand-worked cases."""

import math

import numpy as np
import pytest

from electrain.pretraining.objectives.detection_metrics import detection_metrics, rank_auc, unigram_auc


@pytest.mark.parametrize("levels", [3, 50, None])
def test_equals_scikit_learn(levels: int | None) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(7)
    is_replaced = random.random(2000) < 0.13
    scores = random.normal(size=2000) + is_replaced
    if levels is not None:
        scores = np.round(scores * levels / 8)
    metrics = detection_metrics(scores, is_replaced)
    assert metrics.auc == pytest.approx(sklearn_metrics.roc_auc_score(is_replaced, scores), abs=1e-12)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        is_replaced, scores > 0, average="binary"
    )
    assert (metrics.precision, metrics.recall, metrics.f1) == pytest.approx((precision, recall, f1))
    assert metrics.replaced_fraction == pytest.approx(is_replaced.mean())


def test_worked_by_hand() -> None:
    scores = np.array([2.0, 1.0, 1.0, -1.0, -3.0])
    is_replaced = np.array([True, True, False, False, True])
    metrics = detection_metrics(scores, is_replaced)
    # pairs (replaced, original): 2>1, 2>-1, 1=1 (half), 1>-1, -3<1, -3<-1
    assert metrics.auc == pytest.approx(3.5 / 6)
    assert metrics.precision == pytest.approx(2 / 3)
    assert metrics.recall == pytest.approx(2 / 3)


def test_an_absent_class_gives_no_auc() -> None:
    metrics = detection_metrics(np.array([-1.0, -2.0]), np.array([False, False]))
    assert math.isnan(metrics.auc)
    assert (metrics.precision, metrics.recall, metrics.replaced_fraction) == (0.0, 0.0, 0.0)
    assert math.isnan(rank_auc(np.zeros(0), np.zeros(0, dtype=bool)))


def test_nan_scores_give_no_auc() -> None:
    assert math.isnan(rank_auc(np.array([np.nan, 1.0, 2.0]), np.array([True, False, True])))


def test_large_counts_do_not_overflow() -> None:
    is_positive = np.arange(300_000) % 2 == 0
    assert rank_auc(is_positive.astype(np.float32), is_positive) == 1.0


def test_unigram_auc_takes_the_better_orientation() -> None:
    counts = np.array([1, 10, 100, 1000])
    ids = np.array([0, 1, 2, 3])
    assert unigram_auc(ids, np.array([True, False, False, False]), counts) == 1.0
    assert unigram_auc(ids, np.array([False, False, False, True]), counts) == 1.0
    assert unigram_auc(ids, np.array([False, True, True, False]), counts) == 0.5

"""Warnings in words: each trouble is told once when it begins, and a healthy run is left alone."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electrain.pretrain.health import HealthMonitor, entropy_of
from electrain.training.loop import MOST_REFUSED_IN_A_ROW, RunState
from electrain.training.settings import TrainingConfig

TRAINING = TrainingConfig(steps=1000, batch_rows=32, peak_learning_rate=1e-3, warmup_steps=50)
COUNTS = np.full(1000, 7, dtype=np.int64)  # entropy ln 1000 = 6.9 nats
HEALTHY: dict[str, Any] = {
    "generator_loss": 3.0,
    "generator_accuracy": 0.45,
    "generator_entropy": 2.5,
    "discriminator_auc": 0.85,
    "discriminator_recall": 0.4,
    "unigram_auc": 0.6,
    "replaced_fraction": 0.09,
    "gradient_norm": 0.8,
    "refused_updates": 0,
}
BASELINE = {"masked_language_model_loss": 3.0, "masked_language_model_accuracy": 0.4, "gradient_norm": 0.8}


def monitor() -> HealthMonitor:
    return HealthMonitor(TRAINING, COUNTS)


def told(health: HealthMonitor, first: int, last: int, **changes: Any) -> list[str]:
    lines = range(first, last + 1, 20)
    return [warning for step in lines for warning in health.observe({"step": step, **HEALTHY, **changes})]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"discriminator_auc": 0.51, "unigram_auc": 0.5}, "collapsed: AUC 0.51"),
        ({"discriminator_auc": 0.59}, "no better than word frequency"),
        ({"generator_accuracy": 0.8}, "little is left to detect"),
        ({"replaced_fraction": 0.01}, "only 1.0% of the tokens"),
        ({"generator_loss": 6.8}, "not learned from the context"),
        ({"generator_entropy": 0.1}, "collapsed to 0.10 nats"),
        ({"refused_updates": 1}, "1 update was refused"),
    ],
)
def test_each_trouble_is_told_once_until_it_is_over(changes: dict[str, Any], words: str) -> None:
    health = monitor()
    assert told(health, 20, 400) == []
    first = told(health, 420, 600, **changes)
    assert len(first) == 1
    assert words in first[0]
    assert told(health, 620, 800, **{key: HEALTHY[key] for key in changes if key != "refused_updates"}) == []
    if "refused_updates" not in changes:
        assert len(told(health, 820, 1000, **changes)) == 1


GAME = {"generator_reward": 0.5, "game_value": -1.0}
WRITTEN = {"correction_accuracy": 0.2, "correction_accuracy_written": 0.3, "discriminator_auc": 0.99}


@pytest.mark.parametrize(
    ("usual", "changes", "words"),
    [
        (GAME, {"generator_entropy": 0.7}, "losing its variety (entropy 0.70 nats)"),
        (GAME, {"game_value": -0.05}, "has won the game (value -0.05"),
        (WRITTEN, {"correction_accuracy_written": 0.5}, "learns the generator's style"),
    ],
)
def test_troubles_of_the_game(usual: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    health = monitor()
    assert told(health, 20, 400, **usual) == []
    first = told(health, 420, 600, **{**usual, **changes})
    assert len(first) == 1
    assert words in first[0]
    # without a game, or without written text, the same numbers are nobody's trouble
    kept = {key: value for key, value in changes.items() if key == "generator_entropy"}
    assert told(monitor(), 20, 600, **kept) == []


def test_a_low_recall_alone_is_no_collapse() -> None:
    assert told(monitor(), 20, 800, discriminator_recall=0.008, discriminator_auc=0.69) == []


def test_nothing_is_expected_of_an_early_run() -> None:
    untrained = {"discriminator_auc": 0.5, "discriminator_recall": 0.0, "generator_loss": 6.9}
    assert told(monitor(), 20, 80, **untrained) == []
    assert any("not learned" in warning for warning in told(monitor(), 20, 120, **untrained))
    assert not any("collapsed" in warning for warning in told(monitor(), 20, 320, **untrained))


def test_one_odd_line_is_not_a_trouble() -> None:
    health = monitor()
    told(health, 20, 400)
    assert health.observe({"step": 420, **HEALTHY, "discriminator_recall": 0.0}) == []


def test_a_jump_of_the_gradient_is_told_once() -> None:
    health = monitor()
    told(health, 20, 200)
    (warning,) = told(health, 220, 240, gradient_norm=30.0)
    assert "jumped to 30 from about 0.8" in warning
    assert told(health, 260, 300, gradient_norm=2.0) == []


def test_the_baseline_is_judged_by_its_own_loss() -> None:
    health = monitor()
    lines = [{"step": step, **BASELINE, "masked_language_model_loss": 6.9} for step in range(20, 300, 20)]
    (warning,) = [warning for line in lines for warning in health.observe(line)]
    assert warning.startswith("the model has not learned")
    assert [warning for step in range(320, 1000, 20) for warning in health.observe({"step": step, **BASELINE})] == []


def test_start_and_stop() -> None:
    health = monitor()
    assert "8 tokens" not in "".join(health.at_start(2048))
    assert "a step has 512 tokens" in health.at_start(512)[0]
    assert not health.must_stop(RunState(refused_in_a_row=MOST_REFUSED_IN_A_ROW - 1))
    assert health.must_stop(RunState(refused_in_a_row=MOST_REFUSED_IN_A_ROW))


def test_entropy_in_nats() -> None:
    assert entropy_of(np.array([5, 5, 0])) == pytest.approx(np.log(2))


def test_a_resumed_run_does_not_repeat_its_warnings() -> None:
    before, after = monitor(), monitor()
    assert len(told(before, 20, 600, generator_entropy=0.1)) == 1
    after.restore(before.to_dict())
    assert told(after, 620, 800, generator_entropy=0.1) == []


numbers = st.one_of(st.none(), st.just(float("nan")), st.floats(0, 1), st.floats(0, 20))
norms = {"gradient_norm": st.sampled_from([0.5, 0.6, 0.7, 30.0])}
others = {name: numbers for name in HEALTHY if name not in norms}
journals = st.lists(st.fixed_dictionaries(norms, optional=others), max_size=12)


@settings(max_examples=50, deadline=None)
@given(journals, st.integers(0, 12))
def test_a_resumed_monitor_says_what_an_uninterrupted_one_says(journal: list[dict[str, Any]], cut: int) -> None:
    """Whatever is missing, null or not a number in the lines, and wherever the run is stopped."""
    lines = [
        {"step": 100 * (number + 1), **line, "refused_updates": number // 4} for number, line in enumerate(journal)
    ]
    whole, before, after = monitor(), monitor(), monitor()
    expected = [whole.observe(line) for line in lines]
    said = [before.observe(line) for line in lines[:cut]]
    after.restore(json.loads(json.dumps(before.to_dict())))
    assert said + [after.observe(line) for line in lines[cut:]] == expected


def test_the_end_of_the_generators_own_stage_is_no_jump() -> None:
    health = HealthMonitor(TRAINING, COUNTS, own_stage_steps=300)
    assert told(health, 20, 300) == []
    again = HealthMonitor(TRAINING, COUNTS, own_stage_steps=300)
    again.restore(json.loads(json.dumps(health.to_dict())))
    for one in (health, again):
        assert told(one, 320, 600, gradient_norm=40.0) == []
        assert len(told(one, 620, 640, gradient_norm=4000.0)) == 1

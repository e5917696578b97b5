"""Warnings in words: each trouble is told once when it begins, and a healthy run is left alone."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electrain.pretraining.health import HealthMonitor, entropy_of
from electrain.pretraining.run import pretrain
from electrain.training.settings import TrainingConfig
from tiny_pretraining import tiny_configuration

STEP_TOKENS = 25_000  # the generator is judged from step 20 on, after the warm-up at 50; the discriminator from 200
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
# What an earlier version's checkpoint holds, with a trouble that is no longer looked for.
OLD_STATE: dict[str, Any] = {
    "lines": [{"generator_loss": 6.8, "generator_entropy": 0.1}] * 5,
    "norms": [0.8] * 20,
    "troubles": ["collapsed entropy", "generator on plateau"],
    "refused_updates": 2,
    "was_alone": False,
}
BASELINE = {"masked_language_model_loss": 3.0, "masked_language_model_accuracy": 0.4, "gradient_norm": 0.8}


def monitor() -> HealthMonitor:
    return HealthMonitor(TRAINING, COUNTS)


def told(health: HealthMonitor, first: int, last: int, **changes: Any) -> list[str]:
    lines = range(first, last + 1, 20)
    return [warning for step in lines for warning in health.observe(line(step, **HEALTHY | changes))]


def line(step: int, **numbers: Any) -> dict[str, Any]:
    return {"step": step, "tokens": STEP_TOKENS * step, **numbers}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"discriminator_auc": 0.51, "unigram_auc": 0.5}, "collapsed: AUC 0.51"),
        ({"discriminator_auc": 0.59}, "no better than word frequency"),
        ({"generator_accuracy": 0.8}, "little is left to detect"),
        (
            {"replaced_fraction": 0.01},
            "only 1.0% of the tokens are replaced; lower generator.size_fraction, raise "
            "corruption.masked_fraction or, if it is above 0, lower corruption.missing_fraction",
        ),
        ({"generator_loss": 6.8}, "not learned from the context"),
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


def test_a_low_recall_alone_is_no_collapse() -> None:
    assert told(monitor(), 20, 800, discriminator_recall=0.008, discriminator_auc=0.69) == []


UNTRAINED = {"discriminator_auc": 0.5, "discriminator_recall": 0.0, "generator_loss": 7.0, "unigram_auc": 0.55}


def test_nothing_is_expected_before_enough_tokens() -> None:
    assert told(monitor(), 1, 41, **UNTRAINED) == []  # the warm-up
    few = {"tokens": 400_000}
    assert told(monitor(), 60, 980, **UNTRAINED, **few) == []
    (warning,) = told(monitor(), 20, 980, **UNTRAINED)
    assert "not learned from the context" in warning
    reading = UNTRAINED | {"generator_loss": 3.0}
    assert told(monitor(), 20, 180, **reading) == []
    (warning,) = told(monitor(), 20, 980, **reading)
    assert "collapsed" in warning


def test_a_short_run_says_once_that_it_is_too_early() -> None:
    (warning,) = told(monitor(), 20, 1000, **UNTRAINED, tokens=9600)
    assert warning.startswith("too early to tell how well the run learns: it ends after 9,600 tokens")
    (warning,) = told(monitor(), 20, 1000, **UNTRAINED | {"generator_loss": 3.0}, tokens=2_000_000)
    assert warning.startswith("too early to tell whether the discriminator learns")
    assert told(monitor(), 20, 1000, tokens=2_000_000) == []  # it learns already
    (warning,) = monitor().observe(line(1000, **UNTRAINED))
    assert "after 1 line of the journal" in warning


@pytest.mark.parametrize(
    ("loss", "words"), [(7.6, "7.60 nats is above the 6.91"), (6.8, "6.80 nats is close to the 6.91")]
)
def test_a_loss_is_compared_truthfully(loss: float, words: str) -> None:
    (warning,) = told(monitor(), 20, 400, generator_loss=loss)
    assert words in warning


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("objective", ["replaced-token-detection", "masked-language-modelling"])
def test_fifty_steps_of_a_tiny_run_get_no_contradicting_advice(
    tiny_shards: Path, tmp_path: Path, objective: str
) -> None:
    steps = {"steps": 50, "warmup_steps": 5, "log_every_steps": 1, "checkpoint_every_steps": 50}
    pretrain(tiny_configuration(training={**steps, "objective": objective}), tiny_shards, tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    warnings = [line["message"] for line in lines if line["event"] == "warning"]
    assert [warning.split(";")[0].split(":")[0] for warning in warnings] == [
        "a step has 192 tokens",
        "too early to tell how well the run learns",
    ]


def test_one_odd_line_is_not_a_trouble() -> None:
    health = monitor()
    told(health, 20, 400)
    assert health.observe(line(420, **HEALTHY | {"discriminator_recall": 0.0})) == []


def test_a_jump_of_the_gradient_is_told_once() -> None:
    health = monitor()
    told(health, 20, 200)
    (warning,) = told(health, 220, 240, gradient_norm=30.0)
    assert "jumped to 30 from about 0.8" in warning
    assert told(health, 260, 300, gradient_norm=2.0) == []


def test_a_run_whose_gradient_jumps_again_and_again_is_told_once() -> None:
    """Until the norm has been usual for as many lines as the usual norm is the median of."""
    health = monitor()
    told(health, 20, 200)
    noisy = [told(health, step, step, gradient_norm=30.0 if step % 3 == 0 else 0.8) for step in range(201, 300)]
    assert [bool(warnings) for warnings in noisy] == [True] + [False] * 98
    resumed = monitor()
    resumed.restore(json.loads(json.dumps(health.to_dict())))
    for one in (health, resumed):
        assert told(one, 300, 300, gradient_norm=30.0) == []
        assert [told(one, step, step) for step in range(301, 321)] == [[]] * 20
        assert len(told(one, 321, 321, gradient_norm=30.0)) == 1


def test_the_baseline_is_judged_by_its_own_loss() -> None:
    health = monitor()
    lines = [line(step, **BASELINE | {"masked_language_model_loss": 6.9}) for step in range(20, 300, 20)]
    (warning,) = [warning for one in lines for warning in health.observe(one)]
    assert warning.startswith("the model has not learned")
    assert [warning for step in range(320, 1020, 20) for warning in health.observe(line(step, **BASELINE))] == []


def test_a_small_step_is_told_at_the_start() -> None:
    health = monitor()
    assert "8 tokens" not in "".join(health.at_start(2048))
    assert "a step has 512 tokens" in health.at_start(512)[0]


def test_entropy_in_nats() -> None:
    assert entropy_of(np.array([5, 5, 0])) == pytest.approx(np.log(2))


def test_a_resumed_run_does_not_repeat_its_warnings() -> None:
    before, after = monitor(), monitor()
    assert len(told(before, 20, 600, generator_accuracy=0.8)) == 1
    after.restore(before.to_dict())
    assert told(after, 620, 800, generator_accuracy=0.8) == []


def test_a_checkpoint_of_an_earlier_version_is_restored() -> None:
    health = monitor()
    health.restore(OLD_STATE)
    assert told(health, 420, 600, generator_loss=6.8, refused_updates=2) == []  # told before it was stopped
    assert told(health, 620, 700, refused_updates=2) == []
    assert len(told(health, 720, 800, generator_loss=6.8, refused_updates=2)) == 1


numbers = st.one_of(st.none(), st.just(float("nan")), st.floats(0, 1), st.floats(0, 20))
norms = {"gradient_norm": st.sampled_from([0.5, 0.6, 0.7, 30.0])}
others = {name: numbers for name in HEALTHY if name not in norms}
journals = st.lists(st.fixed_dictionaries(norms, optional=others), max_size=12)


@settings(max_examples=50, deadline=None)
@given(journals, st.integers(0, 12))
def test_a_resumed_monitor_says_what_an_uninterrupted_one_says(journal: list[dict[str, Any]], cut: int) -> None:
    """Whatever is missing, null or not a number in the lines, and wherever the run is stopped."""
    lines = [
        line(100 * (number + 1), **numbers | {"refused_updates": number // 4}) for number, numbers in enumerate(journal)
    ]
    whole, before, after = monitor(), monitor(), monitor()
    expected = [whole.observe(line) for line in lines]
    said = [before.observe(line) for line in lines[:cut]]
    after.restore(json.loads(json.dumps(before.to_dict())))
    assert said + [after.observe(line) for line in lines[cut:]] == expected


ADVICE = re.compile(r"\b(raise|lower|higher|longer|shorter|larger|smaller)\b (?:the )?([\w.]+(?: rate)?)")
DIRECTION = {"raise": 1, "higher": 1, "longer": 1, "larger": 1, "lower": -1, "shorter": -1, "smaller": -1}
CAUSES = ["not learned from the context yet", "little is left", "has collapsed", "no better than", "too early"]


@settings(max_examples=300, deadline=None)
@given(journals, st.sampled_from([100, 5_000, 10_000, 50_000]), st.integers(0, 12), st.booleans())
def test_no_two_pieces_of_advice_contradict_each_other(
    journal: list[dict[str, Any]], tokens: int, own_stage: int, is_constant: bool
) -> None:
    """Whatever a run shows: one cause at a time, and nothing to be raised by one warning and lowered by another."""
    health = HealthMonitor(TRAINING, COUNTS, own_stage_steps=80 * own_stage)
    directions: dict[str, int] = {}
    journal = journal[:1] * 12 if is_constant else journal
    for number, numbers in enumerate(journal):
        step = 80 * number + 120
        warnings = health.observe({"step": step, "tokens": tokens * step, **numbers, "refused_updates": number // 4})
        assert sum(cause in warning for warning in warnings for cause in CAUSES) <= 1
        for warning in warnings:
            for verb, thing in ADVICE.findall(warning):
                assert directions.setdefault(thing, DIRECTION[verb]) == DIRECTION[verb], warning


def test_the_end_of_the_generators_own_stage_is_no_jump() -> None:
    health = HealthMonitor(TRAINING, COUNTS, own_stage_steps=300)
    assert told(health, 20, 300) == []
    again = HealthMonitor(TRAINING, COUNTS, own_stage_steps=300)
    again.restore(json.loads(json.dumps(health.to_dict())))
    for one in (health, again):
        assert told(one, 320, 600, gradient_norm=40.0) == []
        assert len(told(one, 620, 640, gradient_norm=4000.0)) == 1

"""Fifty steps of each objective give the committed losses: an edit that means to change nothing changes nothing."""

import json
from pathlib import Path

import pytest
from regenerate import FOLDER, OBJECTIVES, STEPS, losses_of


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_the_committed_ones(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    """To a ten-thousandth, in float32. If a change is meant, run `python tests/golden/regenerate.py`."""
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    losses = losses_of(name, tiny_shards, tmp_path / "run")
    assert losses.keys() == expected.keys()
    assert len(losses["loss"]) == STEPS
    for key, values in losses.items():
        assert len(values) == len(expected[key])
        # Norms add up the rounding of every weight.
        assert values == pytest.approx(expected[key], rel=1e-3 if key == "gradient_norm" else 1e-4), key


def test_committed_losses_fall() -> None:
    """They show learning, not noise: the mean of the last ten steps is below that of the first ten."""
    # Two stages sum different losses; a game's sum is no measure of learning.
    for name in OBJECTIVES.keys() - {"two_stage", "policy_gradient"}:
        losses = json.loads((FOLDER / f"{name}.json").read_text())["loss"]
        assert sum(losses[-10:]) < sum(losses[:10]), name

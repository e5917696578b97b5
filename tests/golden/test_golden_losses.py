"""Fifty steps of each objective give the committed losses: an edit that means to change nothing changes nothing."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from regenerate import FOLDER, OBJECTIVES, STEPS, losses_of
from safetensors import safe_open


def draws_truncated_normals_as_then() -> bool:
    """False in PyTorch 2.11, so that ModernBERT, which alone starts from such numbers, starts from other weights."""
    torch.manual_seed(0)
    drawn = torch.nn.init.trunc_normal_(torch.empty(5), std=0.02, a=-0.04, b=0.04)
    return drawn.tolist() == pytest.approx([0.0308, -0.0059, 0.0168, 0.0114, -0.0217], abs=1e-4)


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_the_committed_ones(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    """To a ten-thousandth, in float32. If a change is meant, run `python tests/golden/regenerate.py`."""
    backbone = OBJECTIVES[name].get("encoder", {}).get("backbone")
    if backbone == "modernbert" and not draws_truncated_normals_as_then():
        pytest.skip(f"PyTorch {torch.__version__} draws ModernBERT's first weights otherwise")
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    losses = losses_of(name, tiny_shards, tmp_path / "run")
    assert losses.keys() == expected.keys()
    assert len(losses["loss"]) == STEPS
    for key, values in losses.items():
        assert len(values) == len(expected[key])
        # Norms add up the rounding of every weight.
        assert values == pytest.approx(expected[key], rel=1e-3 if key == "gradient_norm" else 1e-4), key
    names = json.loads((FOLDER / "checkpoint_names.json").read_text())
    assert names_in(tmp_path / f"run/checkpoints/step-{STEPS}") == names[name], "runs of version 0.1.0 cannot resume"


def names_in(checkpoint: Path) -> str:
    """A hash of the names and shapes of every tensor in a checkpoint; the committed ones are those of version 0.1.0."""
    lines = []
    for kind in ("model", "optimizer"):
        with safe_open(checkpoint / f"{kind}.safetensors", "pt") as file:
            lines += [f"{kind} {name} {list(file.get_slice(name).get_shape())}" for name in sorted(file.keys())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_committed_losses_fall() -> None:
    """They show learning, not noise: the mean of the last ten steps is below that of the first ten."""
    # Two stages sum different losses; a game's sum is no measure of learning.
    for name in OBJECTIVES.keys() - {"two_stage", "policy_gradient"}:
        losses = json.loads((FOLDER / f"{name}.json").read_text())["loss"]
        assert sum(losses[-10:]) < sum(losses[:10]), name

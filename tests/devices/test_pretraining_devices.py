"""Pretraining on each device: every objective takes steps, logs, shows examples, is saved and resumes exactly."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from regenerate import OBJECTIVES
from short_runs import CUDA, short_configuration, take_device

from electrain.pretraining.run import pretrain

pytestmark = [pytest.mark.usefixtures("quick_pretraining"), pytest.mark.slow]
MODERNBERT = "replaced_token_detection_modernbert"
# Nothing is detected there.
SHOWS_NOTHING = ("masked_language_modelling", "replace_mlm", "recurrent", "sampled_softmax_masked_language_modelling")
# Beside the objectives, what may depend on a device's own random numbers, dtypes and kernels.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in OBJECTIVES},
    "dropout": ("replaced_token_detection_electra", {"training": {"dropout": 0.1, "micro_batch_rows": 3}}),
    "muon": (MODERNBERT, {"training": {"optimizer": "muon", "schedule": "warmup-stable-decay"}}),
    "bfloat16": (MODERNBERT, {"training": {"precision": "bfloat16"}}),
}


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.glob("*/*.safetensors"))}


@pytest.mark.parametrize("case", CASES)
def test_every_objective_trains_and_resumes_exactly(device: str, case: str, tiny_shards: Path, tmp_path: Path) -> None:
    """Four steps, then the last two again from the checkpoint before them: the same weights, bit for bit."""
    name, sections = CASES[case]
    config, run = short_configuration(name, **sections), tmp_path / "run"
    assert pretrain(config, tiny_shards, run).is_finished
    logged = [line for line in lines_of(run / "metrics.jsonl") if line["event"] == "log"]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for line in logged for key, value in line.items() if key.endswith("loss"))
    if name in SHOWS_NOTHING:
        assert not (run / "examples.jsonl").exists()
    else:
        assert len(lines_of(run / "examples.jsonl")) == (2 if name == "two_stage" else 4)
    straight = weights_of(run)
    assert straight
    shutil.rmtree(run / "checkpoints" / "step-4")
    shutil.rmtree(run / "model")
    assert pretrain(config, tiny_shards, run, resume=True).is_finished
    assert weights_of(run) == straight


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_compiled_step_gives_the_losses_of_a_plain_one(
    device: str, monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path
) -> None:
    """Also from a checkpoint on."""
    if device == "cpu":
        take_device(monkeypatch, device)
    losses = []
    for is_compiled in (True, False):
        run = tmp_path / str(is_compiled)
        config = short_configuration("replaced_token_detection_electra", training={"compile": is_compiled})
        assert pretrain(config, tiny_shards, run).is_finished
        shutil.rmtree(run / "checkpoints" / "step-4")
        assert pretrain(config, tiny_shards, run, resume=True).is_finished
        machines = [line for line in lines_of(run / "metrics.jsonl") if line["event"] == "machine"]
        if is_compiled and not all(line["compiled"] for line in machines):
            pytest.skip("torch.compile does not work on this machine")
        losses.append([line["loss"] for line in lines_of(run / "metrics.jsonl") if line["event"] == "log"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

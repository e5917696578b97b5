"""Fine-tuning that was killed or stopped, and batches that were divided, give what one straight run gives."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from electrain.finetuning.batches import epoch_order
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.run import finetune
from electrain.foundation.configuration import build_configuration, read_toml
from electrain.foundation.errors import ConfigurationError, RunDirectoryError
from electrain.training import sitting as module
from killed_runs import Killed


def configuration(**training: Any) -> FinetuneConfig:
    """Two epochs of batches of eight, evaluated four times, with dropout."""
    fields = {"epochs": 2.0, "batch_rows": 8, "peak_learning_rate": 1e-3, "evaluations_per_epoch": 2, **training}
    return build_configuration(FinetuneConfig, {"training": fields}, "test")


@pytest.fixture
def examples(tmp_path: Path) -> str:
    """60 sentences of one to nine words, of two labels."""
    random = np.random.default_rng(0)
    words = ["cat", "dog", "sees", "happy", "sad", "quick"]
    lines = ["sentence\tlabel"]
    for _ in range(60):
        chosen = random.choice(words, size=int(random.integers(1, 10)))
        lines.append(f"{' '.join(chosen)}\t{int('happy' in chosen)}")
    (tmp_path / "examples.tsv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "examples.tsv")


def results_of(run: Path) -> dict[str, str]:
    """Hashes of the kept model and of the last checkpoint."""
    files = [*run.glob("model/*.safetensors"), *run.glob("checkpoints/step-16/*.safetensors")]
    assert len(files) == 3
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    "fields",
    [{"precision": "float32"}, {"precision": "bfloat16"}, {"precision": "float32", "optimizer": "muon"}],
    ids=["float32", "bfloat16", "muon"],
)
@pytest.mark.parametrize("killed_at", [4, 8, 12])
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    tiny_run: Any,
    examples: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
    fields: dict[str, str],
) -> None:
    config = configuration(**fields)
    straight = finetune("classification", config, tiny_run(), [examples], [examples], tmp_path / "straight")
    save = module.save_checkpoint

    def save_and_die(root: Path, step: int, *more: Any, **named: Any) -> Path:
        path = save(root, step, *more, **named)
        if step == killed_at:
            raise Killed
        return path

    monkeypatch.setattr(module, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        finetune("classification", config, tiny_run(), [examples], [examples], tmp_path / "killed")
    monkeypatch.setattr(module, "save_checkpoint", save)
    again = finetune("classification", config, tiny_run(), [examples], [examples], tmp_path / "killed", resume=True)
    assert again.scores == straight.scores
    assert again.best_step == straight.best_step
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "straight")


def test_micro_batches_change_nothing_but_rounding(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    whole, parts = (
        configuration(dropout=0.0, precision="float32"),
        configuration(dropout=0.0, precision="float32", micro_batch_rows=3),
    )
    for name, config in (("whole", whole), ("parts", parts)):
        finetune("classification", config, tiny_run(), [examples], [examples], tmp_path / name)
    one, other = (load_file(tmp_path / name / "checkpoints/step-16/model.safetensors") for name in ("whole", "parts"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_nothing(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    """With dropout, whose masks are drawn twice."""
    for is_checkpointed in (False, True):
        config = configuration(gradient_checkpointing=is_checkpointed)
        finetune("classification", config, tiny_run(), [examples], [examples], tmp_path / str(is_checkpointed))
    assert results_of(tmp_path / "True") == results_of(tmp_path / "False")


def test_full_memory_is_mended_by_going_on(
    tiny_run: Any, examples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a forward pass are the one field that may change when a run is resumed."""

    def fill_the_memory(*_: Any) -> bool:
        raise torch.OutOfMemoryError

    run, files = tmp_path / "run", ([examples], [examples])
    with monkeypatch.context() as patched:
        patched.setattr(module, "train", fill_the_memory)
        with pytest.raises(ConfigurationError, match="lower --training"):
            finetune("classification", configuration(), tiny_run(), *files, run)
    fewer = configuration(micro_batch_rows=3)
    assert finetune("classification", fewer, tiny_run(), *files, run, resume=True).is_finished
    assert read_toml(run / "config.toml")["training"]["micro_batch_rows"] == 3


def test_two_processes_equal_one(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    """Under torchrun with gloo: the rows of a step are divided, losses and weights stay, one of the two speaks."""
    model = tiny_run()
    config = configuration(dropout=0.0, precision="float32")
    one = finetune("classification", config, model, [examples], [examples], tmp_path / "one")
    fields = ["epochs", "2.0", "batch-rows", "8", "peak-learning-rate", "1e-3", "evaluations-per-epoch", "2"]
    fields += ["dropout", "0.0", "precision", "float32"]
    flags = [word if number % 2 else f"--training.{word}" for number, word in enumerate(fields)]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "electrain.cli.app",
    ]
    files = ["--train", examples, "--validation", examples, "--output", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, "finetune", "classification", "--model", str(model), *files, *flags],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"] == pytest.approx(one.scores)
    weights = [load_file(tmp_path / name / "checkpoints/step-16/model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


DISAGREEING = """
import os, sys
from electrain.cli.app import main
from electrain.finetuning.tasks.classification import Classification

score = Classification.score

def another_score(self, examples, answers):
    # What rounding does between machines, made large: the first process thinks that every model is better than the one
    # before, and the second that it is worse.
    Classification.calls = getattr(Classification, "calls", 0) + 1
    change = Classification.calls if os.environ["RANK"] == "0" else -Classification.calls
    return {name: 1000 * change for name in score(self, examples, answers)}

Classification.score = another_score
main(sys.argv[1:])
"""


def test_processes_that_score_differently_stop_together(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    """All go by the first one's scores: else one would end by its patience, and the other wait for it for ever."""
    script = tmp_path / "disagreeing.py"
    script.write_text(DISAGREEING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    files = ["--train", examples, "--validation", examples, "--output", str(tmp_path / "run")]
    flags = ["--training.epochs", "3", "--training.patience-evaluations", "2", "--training.evaluations-per-epoch", "2"]
    done = subprocess.run(
        [*launch, "finetune", "classification", "--model", str(tiny_run()), *files, *flags],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]
    assert json.loads(done.stdout)["scores"]["accuracy"] == 6000  # six evaluations: no patience was lost


def test_resuming_with_something_else_is_refused(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune("classification", configuration(), tiny_run(), [examples], [examples], run)
    with pytest.raises(RunDirectoryError, match="is not empty"):
        finetune("classification", configuration(), tiny_run(), [examples], [examples], run)
    with pytest.raises(
        RunDirectoryError, match=r"epochs was 2\.0 and is now 3\.0; .* to train longer, fine-tune .*model"
    ):
        finetune("classification", configuration(epochs=3.0), tiny_run(), [examples], [examples], run, resume=True)
    other = tiny_run("modernbert")
    with pytest.raises(RunDirectoryError, match="model changed"):
        finetune("classification", configuration(), other, [examples], [examples], run, resume=True)
    Path(examples).write_text(Path(examples).read_text().replace("quick", "dog"))
    with pytest.raises(RunDirectoryError, match="train changed"):
        finetune("classification", configuration(), tiny_run(), [examples], [examples], run, resume=True)


def test_a_finished_run_is_not_trained_again(tiny_run: Any, examples: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = finetune("classification", configuration(), tiny_run(), [examples], [examples], run)
    lines = (run / "metrics.jsonl").read_text()
    again = finetune("classification", configuration(), tiny_run(), [examples], [examples], run, resume=True)
    assert dataclasses.replace(again, directory=first.directory) == first
    assert (run / "metrics.jsonl").read_text() == lines
    assert json.loads((run / "manifest.json").read_text())["finished"]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=200),
    st.integers(1, 16),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_an_epoch_has_every_row(lengths: list[int], batch_rows: int, seed: int, epoch: int) -> None:
    batch_rows = min(batch_rows, len(lengths))
    order = epoch_order(np.array(lengths), batch_rows, seed, epoch)
    assert order.shape[1] == batch_rows
    counts = np.bincount(order.ravel(), minlength=len(lengths))
    assert counts.min() == 1
    assert counts.sum() - len(lengths) < batch_rows  # the last batch is filled up


def test_rows_of_a_batch_are_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3200)
    order = epoch_order(lengths, 32, 0, 0)
    spread = lengths[order].max(1) - lengths[order].min(1)
    assert np.median(spread) < 10
    assert (order != epoch_order(lengths, 32, 0, 1)).any()
    means = lengths[order].mean(1)
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3  # and yet batches do not come sorted

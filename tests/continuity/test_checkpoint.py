"""Checkpoints are whole or absent, verified before use, and survive a full disk; bad updates are refused."""

import errno
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from electrain.foundation.errors import CheckpointError, RunDirectoryError
from electrain.pretraining.objectives import replaced_token_detection
from electrain.pretraining.run import RunResult, pretrain
from electrain.training import checkpoint
from electrain.training.checkpoint import find_checkpoint
from electrain.training.journal import Journal
from tiny_pretraining import tiny_configuration

pytestmark = pytest.mark.usefixtures("quick_pretraining")


def run(shards: Path, output: Path, *, resume: bool = False, **training: Any) -> RunResult:
    return pretrain(tiny_configuration(training=training), shards, output, resume=resume)


@pytest.fixture
def finished(tiny_shards: Path, tmp_path: Path) -> Path:
    """A run of ten steps with checkpoints at 5 and 10, as if killed just before its results were written."""
    run(tiny_shards, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    shutil.rmtree(tmp_path / "run/generator")
    return tmp_path / "run"


def final_weights(output: Path) -> bytes:
    return (output / "model/model.safetensors").read_bytes() + (output / "generator/model.safetensors").read_bytes()


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def rewrite(folder: Path, **changed: Any) -> None:
    """Changes keys of `state.json`, and of the run's state in it, without its own hash, which older versions lack."""
    content: dict[str, Any] = json.loads((folder / "state.json").read_text())
    content.pop("sha256")
    run = {name: changed.pop(name) for name in [*changed] if name in content["state"]["run"] and name != "step"}
    content["state"]["run"].update(run)
    (folder / "state.json").write_text(json.dumps(content | changed))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "one bit of the weights": lambda folder: spoil(folder / "model.safetensors"),
    "one bit of the optimizer": lambda folder: spoil(folder / "optimizer.safetensors"),
    "weights cut short": lambda folder: (folder / "model.safetensors").write_bytes(b"abc"),
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "state gone": lambda folder: (folder / "state.json").unlink(),
    "state empty": lambda folder: (folder / "state.json").write_text(""),
    "state without hashes": lambda folder: (folder / "state.json").write_text('{"step": 10}'),
    "state is a list": lambda folder: (folder / "state.json").write_text("[]"),
    "hashes are null": lambda folder: (folder / "state.json").write_text('{"step": 10, "hashes": null}'),
    "another step": lambda folder: rewrite(folder, step=9),
    "no hash": lambda folder: rewrite(folder, hashes={}),
    "hash of one file": lambda folder: rewrite(folder, hashes={"model.safetensors": "0"}),
    "state of another type": lambda folder: rewrite(folder, state=[1]),
    "one digit of the state": lambda folder: (folder / "state.json").write_text(
        (folder / "state.json").read_text().replace('"seconds": ', '"seconds": 1')
    ),
    "the run's state of another step": lambda folder: rewrite(folder, state={"run": {"step": 7, "seconds": 1.0}}),
    "nested a hundred thousand times": lambda folder: (folder / "state.json").write_text("[" * 100_000),
    "state is not text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used_and_said(finished: Path, damage: str) -> None:
    DAMAGES[damage](finished / "checkpoints/step-10")
    said: list[str] = []
    found = find_checkpoint(finished / "checkpoints", said.append)
    assert found is not None
    assert found.step == 5
    assert len(said) == 1
    assert "step-10: damaged" in said[0]
    assert "\n" not in said[0]
    DAMAGES[damage](finished / "checkpoints/step-5")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged") as raised:
        find_checkpoint(finished / "checkpoints", said.append)
    assert "\n" not in str(raised.value)


def test_a_run_goes_on_from_the_one_before(
    finished: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_shards, tmp_path / "straight")
    spoil(finished / "checkpoints/step-10/model.safetensors")
    capsys.readouterr()
    result = run(tiny_shards, finished, resume=True)
    assert result.is_finished
    error = capsys.readouterr().err
    assert "step-10: damaged" in error
    assert "from step 5 to 10" in error
    assert final_weights(finished) == final_weights(tmp_path / "straight")
    spoil(finished / "checkpoints/step-10/model.safetensors")
    spoil(finished / "checkpoints/step-5/optimizer.safetensors")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged; start again"):
        run(tiny_shards, finished, resume=True)


def test_what_a_checkpoint_holds(finished: Path) -> None:
    """Two are kept; both networks, both heads, the optimizer and the state; shared tensors once; nothing pickled."""
    folder = finished / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-10", "step-5"]
    newest = folder / "step-10"
    assert sorted(path.name for path in newest.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    names = list(load_file(newest / "model.safetensors"))
    assert any("generator_lm_head" in name for name in names)
    assert any("discriminator_predictions" in name for name in names)
    assert sum("word_embeddings" in name for name in names) == 1
    moments = load_file(newest / "optimizer.safetensors")
    assert len(moments) == 3 * len(names)
    state = json.loads((newest / "state.json").read_text())["state"]["run"]
    assert state["step"] == 10
    assert state["tokens"] == 10 * 8 * 24


def test_older_checkpoints_go(tiny_shards: Path, tmp_path: Path) -> None:
    run(tiny_shards, tmp_path / "run", checkpoint_every_steps=2)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-10", "step-8"]


def test_leftovers_of_a_killed_write_go(finished: Path, tiny_shards: Path) -> None:
    """What a kill left half written or half removed is neither used nor kept."""
    folder = finished / "checkpoints"
    shutil.copytree(folder / "step-5", folder / ".step-7.writing")
    shutil.copytree(folder / "step-5", folder / ".step-3.removed")
    shutil.rmtree(folder / "step-10")
    assert run(tiny_shards, finished, resume=True).is_finished
    assert sorted(path.name for path in folder.iterdir()) == ["step-10", "step-5"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_full_disk_keeps_the_old_checkpoint(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save_file = checkpoint.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "step-10" in str(path) and path.name.startswith("optimizer"):
            raise error
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"step-10: cannot be written .*No space left.* --resume") as raised:
        run(tiny_shards, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-5"]
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    assert run(tiny_shards, tmp_path / "run", resume=True).is_finished
    run(tiny_shards, tmp_path / "straight")
    assert final_weights(tmp_path / "run") == final_weights(tmp_path / "straight")


def make_losses_bad(
    monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool], value: float = float("nan")
) -> None:
    """Multiplies the generator's loss by `value` in the forward passes whose number, from 0, is bad."""
    word_loss = replaced_token_detection.word_loss
    calls = [0]

    def sometimes_bad(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        loss = word_loss(*arguments)
        return loss * value if is_bad(calls[0] - 1) else loss

    monkeypatch.setattr(replaced_token_detection, "word_loss", sometimes_bad)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_refused(
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: float,
) -> None:
    make_losses_bad(monkeypatch, lambda number: number == 4, value)
    result = run(tiny_shards, tmp_path / "run", checkpoint_every_steps=1, steps=5, log_every_steps=1)
    assert result.is_finished
    assert not result.is_failed
    assert result.metrics["refused_updates"] == 1
    before, after = (load_file(tmp_path / f"run/checkpoints/step-{step}/model.safetensors") for step in (4, 5))
    assert all(torch.equal(before[name], after[name]) for name in before)
    state = json.loads((tmp_path / "run/checkpoints/step-5/state.json").read_text())["state"]["run"]
    assert (state["step"], state["refused_updates"], state["refused_in_a_row"]) == (5, 1, 1)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line["event"] == "log"][-1] is None
    assert "1 update was refused" in capsys.readouterr().err


def test_nine_in_a_row_go_on(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_losses_bad(monkeypatch, lambda number: number < 9)
    result = run(tiny_shards, tmp_path / "run")
    assert result.is_finished
    assert not result.is_failed
    assert result.metrics["refused_updates"] == 9


def test_ten_in_a_row_stop_with_a_checkpoint(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted over sittings: seven, a stop, and three."""
    make_losses_bad(monkeypatch, lambda number: number >= 2)
    result = run(tiny_shards, tmp_path / "run", steps=40, checkpoint_every_steps=100)
    assert (result.step, result.is_finished, result.is_failed) == (12, False, True)
    assert (tmp_path / "run/checkpoints/step-12/state.json").is_file()
    assert "10 updates in a row were not finite" in capsys.readouterr().err


def test_a_run_that_never_learned_can_be_saved(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All refused from the start: the optimizer's moments are still zero."""
    make_losses_bad(monkeypatch, lambda _: True)
    assert run(tiny_shards, tmp_path / "run", steps=40).is_failed
    saved = load_file(tmp_path / "run/checkpoints/step-10/optimizer.safetensors")
    assert saved
    assert not any(value.any() for value in saved.values())
    assert run(tiny_shards, tmp_path / "run", steps=40, resume=True).step == 11


def test_a_run_is_not_written_over(finished: Path, tiny_shards: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not empty; give a new folder, or --resume"):
        run(tiny_shards, finished)


@pytest.mark.parametrize("left", [["config.toml"], [".config.toml.writing"], ["config.toml", "tokenizer"]])
def test_a_run_killed_in_its_first_second_can_be_resumed(
    finished: Path, tiny_shards: Path, tmp_path: Path, left: list[str]
) -> None:
    """Before the manifest stands there is nothing to lose: it is begun anew."""
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in left:
        source = finished / name.removeprefix(".").removesuffix(".writing")
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    assert run(tiny_shards, folder, resume=True).is_finished


def test_a_folder_of_something_else_is_not_resumed(tiny_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match="not empty"):
        run(tiny_shards, tmp_path / "run", resume=True)
    assert (tmp_path / "run/thesis.tex").read_text() == "precious"


def test_a_checkpoint_without_a_hash_of_its_own_is_read(finished: Path) -> None:
    """As an older version wrote it."""
    rewrite(finished / "checkpoints/step-10")
    found = find_checkpoint(finished / "checkpoints", lambda line: pytest.fail(line))
    assert found is not None
    assert found.step == 10


def test_a_state_that_cannot_be_restored_is_one_line(finished: Path, tiny_shards: Path) -> None:
    rewrite(finished / "checkpoints/step-10", seconds="long")
    with pytest.raises(
        CheckpointError, match=r"step-10/state.json: damaged \(.*'long'.*; remove .*step-10, then resume"
    ):
        run(tiny_shards, finished, resume=True)


def test_a_journal_that_ends_inside_a_character_is_cut_back(tmp_path: Path) -> None:
    """A full disk ends it anywhere. A line break that only text counts as one stays in its line."""
    journal = Journal(tmp_path / "examples.jsonl")
    for step in (1, 2):
        journal.write({"step": step, "tokens": ["für", "a\u2028b"]})
    whole = journal.path.read_bytes()
    third = json.dumps({"step": 3, "tokens": ["für"]}, ensure_ascii=False).encode()
    for more in (third[:-4], b"[1]\n", b'{"step": "3"}\n', b"[" * 100_000, b"\xff\n"):
        journal.path.write_bytes(whole + more)
        journal.cut_back(5)
        assert journal.path.read_bytes() == whole
    journal.cut_back(1)
    assert [json.loads(line)["step"] for line in journal.path.read_text().split("\n") if line] == [1]

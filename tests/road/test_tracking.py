"""Curves that a run sends elsewhere while it trains: read back as TensorBoard reads them, or from a stand-in."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from command_line import refuse
from electrain.finetuning.configuration import load_finetune_configuration
from electrain.finetuning.run import finetune
from electrain.foundation.errors import ConfigurationError
from electrain.pretraining.run import pretrain
from electrain.training import loop, tracking
from tiny_pretraining import tiny_configuration

pytestmark = pytest.mark.usefixtures("quick_pretraining")


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each curve, as TensorBoard shows them."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def journal_of(run: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def interrupted_then_resumed(config: Any, shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 steps that dies after the log line of step 8 and goes on from the checkpoint at step 5."""
    take_step = loop._take_step

    def die_after_8(training: Any, *rest: Any) -> Any:
        if training.state.step == 8:
            raise KeyboardInterrupt
        return take_step(training, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_take_step", die_after_8)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, shards, run)
    assert journal_of(run, "log")[-1]["step"] == 8
    pretrain(config, shards, run, resume=True)


def test_tensorboard_draws_what_the_journal_holds_and_a_resumed_run_goes_on_with_it(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = tmp_path / "run", tiny_configuration(training={"report_to": ["tensorboard"]})
    interrupted_then_resumed(config, tiny_shards, run, monkeypatch)
    lines, curves = journal_of(run, "log"), curves_of(run)
    assert [step for step, _ in curves["train/loss"]] == [2, 4, 6, 8, 10]
    for name in ("loss", "discriminator_auc", "learning_rate", "tokens_per_second"):
        assert [value for _, value in curves[f"train/{name}"]] == pytest.approx([line[name] for line in lines])
    assert len(list((run / "tensorboard").iterdir())) == 2


def test_trackers_change_nothing_and_may_come_when_a_run_goes_on(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "run")
    assert not (tmp_path / "run/tensorboard").exists()
    config = tiny_configuration(training={"report_to": ["tensorboard"]})
    assert pretrain(config, tiny_shards, tmp_path / "run", resume=True).is_finished  # another configuration is refused


def fine_tune(tiny_run: Any, folder: Path, **training: Any) -> Path:
    lines = [f"{'happy' if number % 2 else 'sad'} the cat\t{'yes' if number % 2 else 'no'}" for number in range(32)]
    (folder / "data.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    tables = {"training": {"batch_rows": 8, "epochs": 10, "precision": "float32", **training}}
    data = [str(folder / "data.tsv")]
    finetune("classification", load_finetune_configuration(None, tables), tiny_run(), data, data, folder / "tuned")
    return folder / "tuned"


def test_validations_of_a_fine_tuning_are_drawn(tiny_run: Any, tmp_path: Path) -> None:
    run = fine_tune(tiny_run, tmp_path, report_to=["tensorboard"])
    curves, validations = curves_of(run), journal_of(run, "validation")
    assert [step for step, _ in curves["train/loss"]] == [20, 40]
    expected = [(line["step"], pytest.approx(line["accuracy"])) for line in validations]
    assert curves["validation/accuracy"] == expected
    assert len(expected) == 10
    assert "validation/is_best" not in curves


class PretendRun:
    """A run of the stand-in for wandb, whose steps can only rise."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.lines, self.exit_code = given, [], None  # type: ignore[var-annotated]

    def log(self, values: dict[str, float], step: int) -> None:
        assert not self.lines or step >= self.lines[-1][0]
        self.lines.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PretendRun]:
    """The runs that the stand-in made."""
    runs: list[PretendRun] = []

    def init(**given: Any) -> PretendRun:
        runs.append(PretendRun(given))
        return runs[-1]

    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(origin="wandb.py")  # type: ignore[assignment]
    module.init = init  # type: ignore[attr-defined]
    module.login = lambda **_: module.has_account  # type: ignore[attr-defined]
    module.has_account = True  # type: ignore[attr-defined]
    settings = types.SimpleNamespace(mode="online", project=None)
    module.setup = lambda: types.SimpleNamespace(settings=settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_is_one_run_over_all_sittings_without_a_step_twice(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: list[PretendRun]
) -> None:
    config = tiny_configuration(training={"report_to": ["wandb"], "seed": 3})
    interrupted_then_resumed(config, tiny_shards, tmp_path / "run", monkeypatch)
    first, second = wandb
    assert first.given["id"] == second.given["id"]
    assert second.given["resume"] == "allow"
    assert second.given["config"]["training"]["seed"] == 3
    assert (first.exit_code, second.exit_code) == (1, 0)
    lines = [*first.lines, *second.lines]
    assert [step for step, _ in lines] == [2, 4, 6, 8, 10]
    logged = [line["loss"] for line in journal_of(tmp_path / "run", "log")]
    assert [values["train/loss"] for _, values in lines] == logged


def test_a_tracker_that_fails_stops_no_training(
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wandb: list[PretendRun],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(self: PretendRun, values: dict[str, float], step: int) -> None:
        raise OSError("the network is gone.\nand more")

    monkeypatch.setattr(PretendRun, "log", fail)
    config = tiny_configuration(training={"report_to": ["wandb", "tensorboard"]})
    assert pretrain(config, tiny_shards, tmp_path / "run").is_finished
    warnings = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert warnings == ["warning: wandb failed (the network is gone); the training goes on without it"]
    assert [step for step, _ in curves_of(tmp_path / "run")["train/loss"]] == [2, 4, 6, 8, 10]


def test_a_tracker_that_cannot_begin_stops_no_training(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", tiny_configuration(training={"report_to": ["tensorboard"]})
    run.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tracking, "TENSORBOARD_FOLDER", "config.toml")  # a file, where a folder is needed
        assert pretrain(config, tiny_shards, run).is_finished
    assert capsys.readouterr().err.count("warning: tensorboard failed (") == 1


def test_what_is_missing_is_said_before_the_run_begins(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find, folder = tracking.find_spec, types.SimpleNamespace(origin=None)
    given = ["pretrain", "--config", "tiny", "--shards", str(tiny_shards), "--output", str(tmp_path / "run")]
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    line = refuse([*given, "--training.report-to", "tensorboard"], capsys)
    assert 'tensorboard is not installed; run `pip install "electrain[track]"`' in line
    # A folder of this name, such as a tracker leaves, is a package to Python.
    monkeypatch.setattr(tracking, "find_spec", lambda name: folder)
    line = refuse([*given, "--training.report-to", "wandb"], capsys)
    assert "wandb is not installed; run `pip install wandb`" in line
    line = refuse([*given, "--training.report-to", "mlflow"], capsys)
    assert "choose one of tensorboard, wandb" in line
    assert not (tmp_path / "run").exists()


def test_without_an_account_wandb_is_refused_unless_it_is_offline(
    monkeypatch: pytest.MonkeyPatch, wandb: list[PretendRun]
) -> None:
    monkeypatch.setattr(sys.modules["wandb"], "has_account", False)
    with pytest.raises(ConfigurationError, match="run `wandb login`, or set WANDB_MODE=offline"):
        tracking.require_trackers(["wandb"])
    sys.modules["wandb"].setup().settings.mode = "offline"
    tracking.require_trackers(["wandb"])

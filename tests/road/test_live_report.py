"""The live report of a run, as its folder grows."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from electrain.foundation.configuration import to_toml
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.output_folder import LOCK_NAME, Manifest, write_manifest
from electrain.inference.serve.runs import ALIVE_SECONDS, MOST_POINTS, report_of, require_run
from electrain.training.journal import Journal
from tiny_pretraining import tiny_configuration


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A pretraining run of 100 steps at its very beginning."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(tiny_configuration(training={"steps": 100})))
    write_manifest(folder, Manifest("run", False, {}, {}))
    return folder


def log(folder: Path, step: int, **numbers: object) -> None:
    line = {"event": "log", "step": step, "tokens": 1000 * step, "seconds": 2.0 * step, "loss": 9.0 - step / 100}
    Journal(folder / "metrics.jsonl").write(line | numbers)


def test_a_run_is_waiting_training_stopped_and_finished(run):
    assert report_of("a", run).state == "waiting"
    lock = run / LOCK_NAME
    lock.write_text("{}")
    assert report_of("a", run).state == "training"
    log(run, 10)
    past = time.time() - ALIVE_SECONDS - 1
    os.utime(lock, (past, past))
    assert report_of("a", run).state == "stopped"
    write_manifest(run, Manifest("run", True, {}, {}))
    assert report_of("a", run).state == "finished"


def test_steps_tokens_and_the_time_that_is_left(run):
    (run / LOCK_NAME).write_text("{}")
    log(run, 10, seconds=500.0)  # the first steps take long
    assert report_of("a", run).seconds_left is None
    for step in range(11, 41):
        log(run, step, seconds=500.0 + 3 * (step - 10))
    report = report_of("a", run)
    assert (report.step, report.steps, report.tokens, report.seconds) == (40, 100, 40_000, 590.0)
    assert report.seconds_left == pytest.approx(60 * 3)
    assert report.recent["loss"] == pytest.approx(9 - 0.38)  # the mean of the last five
    assert "step" not in report.recent


def test_only_newer_points_are_given_and_few_of_very_many(run):
    for step in range(1, 4 * MOST_POINTS + 3):
        log(run, step, learning_rate=0.1, processor_seconds=1.0)
    points = report_of("a", run).points
    assert len(points) <= MOST_POINTS
    assert points[-1].step == 4 * MOST_POINTS + 2
    assert points[-1].values.keys() == {"loss", "learning_rate"}, "what no figure draws is left out"
    newer = report_of("a", run, after_step=4 * MOST_POINTS)
    assert [point.step for point in newer.points] == [4 * MOST_POINTS + 1, 4 * MOST_POINTS + 2]


def test_figures_are_those_of_the_numbers_that_there_are(run):
    log(run, 1, discriminator_auc=0.6, unigram_auc=0.5, tokens_per_second=None)
    figures = {figure.name: figure for figure in report_of("a", run).figures}
    assert figures["discriminator_auc"].curves == ["discriminator_auc", "unigram_auc"]
    assert figures["loss"].unit == "nats"
    assert "generator_loss" not in figures


def test_a_line_that_is_being_written_and_odd_values_do_no_harm(run):
    log(run, 1, loss=None, learning_rate=True)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"event": "log", "step": "x", "loss": 3}\n{"event": "log", "step": 2, "lo')
    (run / "examples.jsonl").write_text('{"step": 1, "tokens": ["a"], "originals": [], "probabilities": [2]}\nx')
    report = report_of("a", run)
    assert [point.values for point in report.points] == [{"loss": None, "learning_rate": None}]
    assert report.examples is None
    (run / "config.toml").write_text("no toml <b>")
    (run / "manifest.json").write_text("[")
    assert report_of("a", run).steps is None
    assert report_of("a", run).configuration == "no toml <b>"


def test_warnings_and_examples(run):
    journal, examples = Journal(run / "metrics.jsonl"), Journal(run / "examples.jsonl")
    for step in range(60):
        journal.write({"event": "warning", "step": step, "message": f"<b>{step}</b>"})
        tokens = {"tokens": ["a", "##b"], "originals": ["a", "##c"], "is_replaced": [False, True]}
        examples.write({"step": step, **tokens, "probabilities": [None, 0.25]})
    report = report_of("a", run)
    assert [warning.step for warning in report.warnings] == list(range(10, 60))
    assert report.examples is not None
    assert [example.step for example in report.examples] == [0, 20, 39, 59]
    assert [(one.token, one.probability_replaced, one.original) for one in report.examples[0].tokens] == [
        ("a", 0.0, None),
        ("##b", 0.25, "##c"),
    ]
    assert report_of("a", run, after_step=58).examples == report.examples
    assert report_of("a", run, after_step=59).examples is None, "the page has them already"


def test_a_fine_tuning_run(tmp_path):
    (tmp_path / "config.toml").write_text("[training]\nepochs = 2.0\n")
    write_manifest(tmp_path, Manifest("fine-tuning", False, {"task": "regression"}, {"steps": 40}))
    journal = Journal(tmp_path / "metrics.jsonl")
    log(tmp_path, 20)
    names = ("mean_squared_error", "pearson", "spearman", "c", "d", "e")
    scores = {name: float(place) for place, name in enumerate(names)}
    journal.write({"event": "validation", "step": 20, "is_best": True, **scores})
    journal.write({"event": "validation", "step": 40, "is_best": False, **scores, "pearson": 0.5})
    report = report_of("a", tmp_path, after_step=19)
    assert (report.kind, report.task, report.step, report.steps) == ("fine-tuning", "regression", 40, 40)
    assert [figure.name for figure in report.figures] == ["scores", "squared_error", "training_loss"]
    assert report.figures[0].curves == ["pearson", "spearman", "c", "d"]
    assert [point.step for point in report.points] == [20, 20, 40]
    assert report.best == scores
    assert report.recent["pearson"] == 0.5


def test_a_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no config\.toml; give the folder of a run"):
        require_run(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such folder"):
        require_run(tmp_path / "nowhere")
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "config.toml").touch()
    with pytest.raises(RunDirectoryError, match=r"give .*seed-0"):
        require_run(tmp_path)
    with pytest.raises(RunDirectoryError):
        report_of("a", tmp_path)


def test_no_torch_is_needed():
    code = "import sys, electrain.inference.serve.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_report_is_json(run):
    log(run, 1)
    assert json.loads(json.dumps(dataclasses.asdict(report_of("a", run))))["points"] == [
        {"step": 1, "values": {"loss": 8.99}}
    ]

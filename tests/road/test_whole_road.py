"""From text to prediction through the real command line, and the demo."""

import json
import os
import random
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command_line import command
from electrain.cli import demo
from electrain.cli.demo import run_demo
from electrain.foundation.configuration import to_toml
from electrain.pretraining.speed import seconds_per_step
from tiny_pretraining import invented_text, tiny_configuration

WORDS = ("the", "a", "small", "big", "old", "cat", "dog", "bird", "house", "tree", "sees", "likes", "near", "under")
SMALL = """
[encoder]
backbone = "modernbert"
layers = 1
hidden_size = 16
feed_forward_size = 16
heads = 1

[data]
sequence_length = 16

[training]
steps = 6
batch_rows = 4
peak_learning_rate = 1e-3
warmup_steps = 1
checkpoint_every_steps = 4
log_every_steps = 2
compile = false
"""


def electrain(*arguments: object, folder, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "electrain.cli.app", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the road has been walked from text to a run."""
    folder = tmp_path_factory.mktemp("road")
    chance = random.Random(0)
    with open(folder / "text.jsonl", "w") as file:
        for _ in range(200):
            file.write(json.dumps({"text": " ".join(chance.choices(WORDS, k=30)) + "."}) + "\n")
    (folder / "small.toml").write_text(SMALL)
    electrain("tokenizer", "text.jsonl", "--output", "tok", "--vocab-size", 60, folder=folder)
    electrain("prepare", "text.jsonl", "--tokenizer", "tok", "--output", "shards", folder=folder)
    electrain("pretrain", "--config", "small.toml", "--shards", "shards", "--output", "run", folder=folder)
    return folder


def test_the_run_folder_is_whole(folder):
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["facts"]["step"] == 6
    names = {path.name for path in (folder / "run").iterdir()}
    assert names >= {"model", "generator", "checkpoints", "config.toml", "metrics.jsonl", "report.html"}
    assert not [name for name in names if name.startswith(".")]


def test_evaluate_and_predict_take_the_run(folder):
    output, _ = electrain("evaluate", "detection", "--model", "run", "--data", "text.jsonl", folder=folder)
    scores = json.loads(output)
    assert 0 <= scores["discriminator"]["auc"] <= 1
    assert 0 <= scores["baselines"]["unigram_auc"] <= 1
    output, _ = electrain("predict", "detect", "--model", "run", "The cat sees a dog.", folder=folder)
    answer = json.loads(output)
    assert [answer["text"][token["start"] : token["end"]] for token in answer["tokens"]][:2] == ["The", "cat"]
    output, _ = electrain("predict", "fill", "--model", "run", "the [MASK] sees a dog.", folder=folder)
    assert len(json.loads(output)["masks"][0]["candidates"]) == 5


def test_progress_without_a_terminal_is_lines_on_stderr(folder):
    output, errors = electrain(
        *("pretrain", "--config", "small.toml", "--shards", "shards", "--output", "quiet"), folder=folder
    )
    assert "finished 6 steps in" in errors
    assert "\x1b" not in errors
    assert "\r" not in errors
    assert len(output.splitlines()) == 1


def test_a_compiler_that_fails_is_said_and_the_run_goes_on(folder, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "no_cache"))
    _, errors = electrain(
        *("pretrain", "--config", "small.toml", "--shards", "shards", "--output", "uncompiled"),
        *("--training.compile", "true"),
        folder=folder,
    )
    assert "torch.compile does not work here" in errors
    assert (folder / "uncompiled" / "model" / "model.safetensors").exists()


def test_mistakes_on_the_way_are_one_line(folder):
    for arguments, expected in [
        (("pretrain", "--config", "small.toml", "--shards", "shards", "--output", "run"), "is not empty"),
        (("pretrain", "--config", "small.toml", "--shards", "tok", "--output", "new"), "holds tokenizer, not shards"),
        (("report", "--run", "nowhere"), "nowhere"),
        (("prepare", "text.jsonl", "--tokenizer", "tok", "--output", "new", "--text-column", "body"), "text"),
        (("predict", "fill", "--model", "run", "no gap"), "[MASK]"),
    ]:
        _, errors = electrain(*arguments, folder=folder, code=2)
        assert len(errors.strip().splitlines()) == 1, errors
        assert expected in errors


def test_demo_walks_the_road(tmp_path, capsys):
    overrides = {"training": {"steps": 12, "warmup_steps": 2, "batch_rows": 4}, "encoder": {"layers": 1}}
    run_demo(tmp_path / "demo", overrides, characters=400_000)
    said = capsys.readouterr().out
    assert "Held-out detection AUC" in said
    assert "by word frequency alone" in said
    assert "if the file does not [MASK] , an exception is raised .\n" in said
    assert (tmp_path / "demo" / "run" / "report.html").exists()


def test_the_demo_takes_the_steps_that_fit(tmp_path, monkeypatch, capsys):
    """On a machine that is too slow for any, the fewest; the warm-up goes with them."""
    monkeypatch.setattr(demo, "seconds_per_step", lambda *_, **__: 1e9)
    monkeypatch.setattr(demo, "LEAST_STEPS", 12)
    overrides = {"training": {"batch_rows": 4}, "encoder": {"layers": 1}, "discriminator": {"heads": ["detection"]}}
    run_demo(tmp_path / "demo", overrides, characters=400_000)
    shown, said = capsys.readouterr()
    assert "[MASK]" not in shown  # no network restores words
    assert "of 4 rows, so 12 steps (the preset has 2,000) take" in said
    assert "warmup_steps is lowered from 100 to 1 " in said
    assert tomllib.loads((tmp_path / "demo/run/config.toml").read_text())["training"]["steps"] == 12


@pytest.mark.parametrize(
    ("row_seconds", "elapsed", "given", "expected"),
    [
        (0.001, 60, {}, {}),
        (0.005, 60, {}, {"steps": 1443}),
        (0.008, 60, {}, {"batch_rows": 16, "steps": 1773}),
        (0.008, 60, {"batch_rows": 8}, {}),
        (0.02, 60, {"batch_rows": 32}, {"steps": 360}),
        (0.02, 400, {}, {"batch_rows": 16, "steps": 200}),
    ],
)
def test_the_steps_fill_the_time_that_is_left(monkeypatch, tmp_path, row_seconds, elapsed, given, expected):
    """Of 325 seconds, less 4 for every timing, less one and a half times what the stages before training took."""
    monkeypatch.setattr(demo, "seconds_per_step", lambda config, *_, **__: row_seconds * config.training.batch_rows)
    found = demo.with_fitting_steps({"training": given}, tmp_path, elapsed)["training"]
    assert found == given | expected


def test_real_steps_are_timed(tiny_shards):
    config = tiny_configuration(training={"steps": 10_000, "compile": True})
    before = sorted(tiny_shards.parent.rglob("*"))
    assert 0 < seconds_per_step(config, tiny_shards, seconds=0.1) < 60
    assert sorted(tiny_shards.parent.rglob("*")) == before
    assert seconds_per_step(tiny_configuration(training={"steps": 3}), tiny_shards) == 0


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_have_the_permissions_that_the_umask_grants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], umask: int
) -> None:
    """A service that runs as another user of the group can read what training wrote."""
    corpus, labelled = tmp_path / "corpus.jsonl", tmp_path / "labelled.tsv"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in invented_text(120, seed=1)))
    labelled.write_text("sentence\tlabel\n" + "bak bal\tyes\nbam ban\tno\n" * 8)
    config = tmp_path / "run.toml"
    config.write_text(to_toml(tiny_configuration(encoder={"backbone": "modernbert"})))
    made = tmp_path / "made"
    made.mkdir()
    before = os.umask(umask)
    try:
        for line in (
            f"tokenizer {corpus} --output {made}/tokenizer --vocab-size 150",
            f"prepare {corpus} --tokenizer {made}/tokenizer --output {made}/shards",
            f"pretrain --config {config} --shards {made}/shards --output {made}/run",
            f"finetune classification --model {made}/run --train {labelled} --validation {labelled} "
            f"--output {made}/tuned --training.epochs 1 --training.precision float32",
            f"evaluate classification --model {made}/tuned --data {labelled} --output {made}/scores.json",
            f"predict classify bak --model {made}/tuned --output {made}/answers.jsonl",
        ):
            code, _, err = command(capsys, *line.split())
            assert code == 0, err
    finally:
        os.umask(before)
    modes = {str(path.relative_to(made)): path.stat().st_mode & 0o777 for path in made.rglob("*")}
    wrong = {name: oct(mode) for name, mode in modes.items() if mode not in (0o666 & ~umask, 0o777 & ~umask)}
    assert not wrong

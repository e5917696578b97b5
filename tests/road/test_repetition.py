"""How often a run reads its text is said where it is too often, with advice that can be followed as printed."""

import re
from pathlib import Path
from typing import Any

import pytest

from command_line import command
from electrain.foundation.configuration import to_toml
from electrain.pretraining.configuration import load_configuration
from tiny_pretraining import tiny_configuration

Capture = pytest.CaptureFixture[str]
SAID = re.compile(r"the text will be read about ([\d,]+) times\..* or give (--training.steps .*)$", re.MULTILINE)


@pytest.mark.parametrize("objective", [{}, {"generator": {"kind": "frozen", "own_stage_steps": 90_000}}])
def test_plan_advises_steps(
    tiny_shards: Path, tmp_path: Path, capsys: Capture, objective: dict[str, dict[str, Any]]
) -> None:
    config = tiny_configuration(training={"steps": 100_000, "warmup_steps": 1_000}, **objective)
    (tmp_path / "c.toml").write_text(to_toml(config))
    plan = ["plan", "--config", tmp_path / "c.toml", "--shards", tiny_shards]
    code, [result], stderr = command(capsys, *plan)
    assert code == 0
    assert result["vocabulary_size"] == 106
    # About 10,000 tokens are 476 rows of 21 tokens beside [CLS] and two [SEP]; a step reads 8 of them.
    assert 1_500 < result["times_read"] < 1_800
    said = SAID.search(stderr)
    assert said is not None
    assert said[1] in ("1,600", "1,700")
    code, [result], stderr = command(capsys, *plan, *said[2].split())
    assert code == 0
    assert 39 < result["times_read"] <= 40
    assert "times" not in stderr


def test_the_advice_is_what_pretrain_does_by_itself(tiny_shards: Path, capsys: Capture) -> None:
    _, _, stderr = command(capsys, "plan", "--config", "tiny", "--shards", tiny_shards)
    said = SAID.search(stderr)
    assert said is not None
    _, steps, _, warmup = said[2].split()
    shortened = load_configuration("tiny", {"training": {"steps": int(steps)}}).training
    assert (shortened.steps, shortened.warmup_steps) == (int(steps), int(warmup))
    assert int(warmup) == round(0.1 * int(steps))


def test_plan_without_shards_does_not_know(capsys: Capture) -> None:
    code, [result], stderr = command(capsys, "plan", "--config", "tiny")
    assert (code, result["times_read"], result["vocabulary_size"], stderr) == (0, None, 30522, "")


@pytest.mark.usefixtures("quick_pretraining")
def test_pretrain_says_it_once(
    tiny_shards: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electrain.pretraining.repetition.MOST_READINGS", 0.02)
    (tmp_path / "c.toml").write_text(to_toml(tiny_configuration(training={"steps": 2, "warmup_steps": 0})))
    run = ["pretrain", "--config", tmp_path / "c.toml", "--shards", tiny_shards, "--output", tmp_path / "run"]
    _, _, stderr = command(capsys, *run)
    assert stderr.count("pretrain: the text will be read about") == 1
    _, _, stderr = command(capsys, *run, "--resume")
    assert "will be read" not in stderr


@pytest.mark.usefixtures("quick_pretraining")
def test_an_ordinary_run_says_nothing(tiny_shards: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "c.toml").write_text(to_toml(tiny_configuration(training={"steps": 2, "warmup_steps": 0})))
    run = ["pretrain", "--config", tmp_path / "c.toml", "--shards", tiny_shards, "--output", tmp_path / "run"]
    assert "will be read" not in command(capsys, *run)[2]

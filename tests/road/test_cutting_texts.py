"""Long texts through the command line: what training, scores and predictions say and read of them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import command
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.run import finetune
from electrain.foundation.configuration import build_configuration
from electrain.training import sitting

Runs = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def write(path: Path, count: int, seed: int) -> Path:
    """Texts of 60 words; the last eight of them decide the label."""
    draw, lines = random.Random(seed), ["text\tlabel"]
    for _ in range(count):
        last = draw.choice(["happy", "sad"])
        words = draw.choices(["cat", "dog", "cats", "dogs"], k=52)
        lines.append(f"{' '.join([*words, *[last] * 8])}\t{last}")
    path.write_text("\n".join(lines) + "\n")
    return path


def fine_tune(
    capsys: Capture, model: Path, train: Path, run: Path, *more: object, longest: int = 24
) -> tuple[Any, str]:
    code, results, err = command(
        capsys, "finetune", "classification", "--model", model, "--train", train, "--validation", train,
        "--output", run, "--training.precision", "float32", "--data.longest-tokens", longest, *more,
    )  # fmt: skip
    assert code == 0, err
    return results[0], err


def test_what_is_cut_is_said_when_training_starts(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = write(tmp_path / "train.tsv", 60, 0)
    _, err = fine_tune(capsys, tiny_run(), train, tmp_path / "run", "--training.epochs", "1")
    told = "60 of 60 training texts are longer than 24 tokens: only the beginning is read; "
    assert told + "read more with --data.cut ends or windows" in err  # the model takes no longer rows
    assert err.index(told) < err.index("60 training examples")
    _, err = fine_tune(capsys, tiny_run(), train, tmp_path / "shorter", longest=16)
    assert "are longer than 16 tokens" in err
    assert "raise --data.longest-tokens (the model takes 24), or read more with --data.cut" in err


@pytest.mark.parametrize(("cut", "unread"), [("ends", "the middle is not read"), ("windows", "")])
def test_what_decides_at_the_end_is_learned(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, cut: str, unread: str
) -> None:
    train, known, run = write(tmp_path / "train.tsv", 120, 0), write(tmp_path / "known.tsv", 40, 1), tmp_path / "run"
    quick = ["--training.peak-learning-rate", "1e-2", "--training.layer-decay", "1", "--training.dropout", "0"]
    result, err = fine_tune(capsys, tiny_run(), train, run, "--data.cut", cut, "--training.epochs", "8", *quick)
    assert result["scores"]["accuracy"] > 95
    assert ("are longer than 24 tokens" in err) is bool(unread)
    assert unread in err
    assert json.loads((run / "model/task.json").read_text())["cut"] == cut
    _, [scored], _ = command(capsys, "evaluate", "classification", "--model", run, "--data", known)
    assert scored["scores"]["accuracy"] > 95
    assert scored["settings"]["cut"] == cut
    text = "dog cat " * 26 + "happy " * 8
    _, [answer], err = command(capsys, "predict", "classify", text, "--model", run)
    assert answer["label"] == "happy"
    assert unread in err


def test_a_folder_of_an_older_version_reads_the_beginning(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = write(tmp_path / "train.tsv", 8, 0)
    fine_tune(capsys, tiny_run(), train, tmp_path / "run", "--training.epochs", "1")
    path = tmp_path / "run/model/task.json"
    settings = json.loads(path.read_text())
    assert settings.pop("cut") == "beginning"
    (path.parent / "SHA256SUMS").unlink()  # which older versions did not write
    path.write_text(json.dumps(settings))
    code, _, err = command(capsys, "predict", "classify", "dog " * 60, "--model", tmp_path / "run")
    assert code == 0
    assert "1 of 1 text is longer than 24 tokens: only the beginning is read" in err
    path.write_text(json.dumps(settings | {"cut": "middle"}))
    code, _, err = command(capsys, "predict", "classify", "dog", "--model", tmp_path / "run")
    assert code == 2
    assert "task.json" in err


def test_tasks_that_read_all_of_a_text_refuse_a_cut(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = write(tmp_path / "train.tsv", 8, 0)
    arguments = ["finetune", "tagging", "--model", tiny_run(), "--train", train, "--validation", train,
                 "--output", tmp_path / "run"]  # fmt: skip
    code, _, err = command(capsys, *arguments, "--data.cut", "ends")
    assert (code, err.count("\n")) == (2, 1)
    assert "--data.cut: tagging does not read it, only classification, regression" in err


def test_a_question_that_is_cut_is_said(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    row = {"question": "who sees " * 9, "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps(row))
    _, _, err = command(
        capsys, "finetune", "question-answering", "--model", tiny_run(), "--train", train, "--validation", train,
        "--output", tmp_path / "run", "--training.epochs", "1", "--data.longest-tokens", "24",
    )  # fmt: skip
    assert "1 of 1 training question is longer than 6 tokens" in err


def test_a_run_that_was_killed_goes_on_exactly(tiny_run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electrain.finetuning.report.write_report", lambda folder: folder / "report.html")
    files = [str(write(tmp_path / "train.tsv", 8, 0))]
    fields = {"epochs": 2.0, "batch_rows": 8, "precision": "float32", "class_weights": "balanced"}
    tables = {"training": fields, "data": {"longest_tokens": 24, "cut": "windows"}}
    config = build_configuration(FinetuneConfig, tables, "test")
    straight = finetune("classification", config, tiny_run(), files, files, tmp_path / "straight")
    assert straight.best_step > 2  # eight texts have 32 rows
    save = sitting.save_checkpoint

    def save_and_die(*given: Any, **named: Any) -> Path:
        save(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(sitting, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        finetune("classification", config, tiny_run(), files, files, tmp_path / "killed")
    monkeypatch.setattr(sitting, "save_checkpoint", save)
    again = finetune("classification", config, tiny_run(), files, files, tmp_path / "killed", resume=True)
    assert (again.scores, again.best_step) == (straight.scores, straight.best_step)
    for name in ("model/task.json", "model/model.safetensors", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()

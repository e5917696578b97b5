"""Questions that their text does not answer, from a file in SQuAD 2's form to scores and predictions."""

import json
import random
import re
import shutil
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
WORDS = ["cat", "dog", "cats", "dogs", "happy", "sad", "quick", "who"]
PLAIN_KEYS = ["id", "answer", "score", "start", "end"]


def write(path: Path, count: int, seed: int, *, unanswered_every: int = 2) -> Path:
    """The answer is the word that is asked for, if the text has it; every second text does not, unless told."""
    draw, paragraphs = random.Random(seed), []
    for number in range(count):
        words = draw.sample(WORDS, 4)
        is_missing = bool(unanswered_every) and number % unanswered_every == 0
        asked = draw.choice([word for word in WORDS if word not in words] if is_missing else words)
        answers = [] if is_missing else [{"text": asked, "answer_start": f" {' '.join(words)} ".index(f" {asked} ")}]
        asked_about = {"id": str(number), "question": asked, "is_impossible": is_missing, "answers": answers}
        if is_missing:
            asked_about["plausible_answers"] = [{"text": words[0], "answer_start": 0}]
        paragraphs.append({"context": " ".join(words), "qas": [asked_about]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def fine_tune(capsys: Capture, model: Path, files: tuple[Path, Path], run: Path, *more: object) -> tuple[Any, str]:
    code, results, err = command(
        capsys, "finetune", "question-answering", "--model", model, "--train", files[0], "--validation", files[1],
        "--output", run, "--training.precision", "float32", "--data.longest-tokens", "24", *more,
    )  # fmt: skip
    assert code == 0, err
    return results[0], err


def _is_right(told: dict[str, Any], answers: list[dict[str, Any]]) -> bool:
    return told["answer"] == (answers[0]["text"] if answers else None)


def test_no_answer_is_learned_scored_and_told(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    files = write(tmp_path / "train.json", 400, 0), write(tmp_path / "known.json", 60, 1)
    quick = ["--training.peak-learning-rate", "1e-2", "--training.layer-decay", "1", "--training.dropout", "0"]
    run = tmp_path / "run"
    result, err = fine_tune(capsys, tiny_run(), files, run, "--training.epochs", "14", *quick)
    assert "200 of 400 training questions have no answer" in err
    scores = result["scores"]
    assert min(scores[name] for name in ("f1", "HasAns_f1", "NoAns_f1", "HasAns_exact", "NoAns_exact")) > 80
    assert scores["f1"] == scores["best_f1"]
    threshold = json.loads((run / "model/task.json").read_text())["null_threshold"]
    assert threshold == scores["best_f1_threshold"]
    assert json.loads((run / "scores.json").read_text())["settings"]["null_threshold"] == threshold
    _, [again], _ = command(capsys, "evaluate", "question-answering", "--model", run, "--data", files[1])
    assert again["scores"] == pytest.approx(scores, rel=1e-3)
    assert again["settings"]["null_threshold"] == threshold
    _, told, _ = command(capsys, "predict", "answer", "--model", run, "--input", files[1])
    assert sum(one["answer"] is None for one in told) == pytest.approx(30, abs=6)
    assert all((one["answer"] is None) == (one["null_score_difference"] > threshold) for one in told)
    # One question that was answered rightly and one that rightly was not: which ones depends on the machine's rounding.
    known = [part for paragraphs in json.loads(files[1].read_text())["data"] for part in paragraphs["paragraphs"]]
    right = [number for number, one in enumerate(told) if _is_right(one, known[number]["qas"][0]["answers"])]
    wrong = [number for number in range(len(told)) if number not in right]
    is_shown = any(told[number]["answer"] is None or number % 2 == 0 for number in wrong)  # the report shows mistakes
    assert ("(no answer)" in (run / "report.html").read_text()) == is_shown
    numbers = [next(number for number in right if number % 2 == is_answered) for is_answered in (1, 0)]
    lines = [f"{known[number]['qas'][0]['question']}\t{known[number]['context']}" for number in numbers]
    _, [found, none], _ = command(capsys, "predict", "answer", *lines, "--model", run)
    (gold,) = known[numbers[0]]["qas"][0]["answers"]
    start = gold["answer_start"]
    assert (found["answer"], found["start"], found["end"]) == (gold["text"], start, start + len(gold["text"]))
    assert (none["answer"], none["start"], none["end"]) == (None, None, None)
    assert found["null_score_difference"] <= threshold < none["null_score_difference"]
    assert none["best_span"]["answer"] in known[numbers[1]]["context"]
    # A folder of an older version, which has no threshold, always answers.
    settings = json.loads((run / "model/task.json").read_text())
    del settings["null_threshold"], settings["class_weights"]
    (run / "model/task.json").write_text(json.dumps(settings))
    (run / "model/SHA256SUMS").unlink()
    _, [_, always], _ = command(capsys, "predict", "answer", *lines, "--model", run)
    assert list(always) == PLAIN_KEYS
    assert always["answer"] == none["best_span"]["answer"]
    _, [left], err = command(capsys, "evaluate", "question-answering", "--model", run, "--data", files[1])
    assert left["examples"] == 30
    assert "30 evaluation questions without an answer are left out, because the model gives an answer to every" in err
    assert set(left["scores"]) == {"exact_match", "f1"}


def test_a_training_set_in_which_every_question_has_an_answer(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    files = write(tmp_path / "train.json", 20, 0, unanswered_every=0), write(tmp_path / "known.json", 20, 1)
    result, err = fine_tune(capsys, tiny_run(), files, tmp_path / "run", "--training.epochs", "1")
    assert "10 validation questions without an answer are left out, because every training question has one" in err
    assert set(result["scores"]) == {"exact_match", "f1"}
    _, [answer], _ = command(capsys, "predict", "answer", "dog\tcat sad dog", "--model", tmp_path / "run")
    assert list(answer) == PLAIN_KEYS


def test_a_validation_set_of_one_kind_is_said(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    files = write(tmp_path / "train.json", 20, 0), write(tmp_path / "known.json", 20, 1, unanswered_every=0)
    result, err = fine_tune(capsys, tiny_run(), files, tmp_path / "run", "--training.epochs", "1")
    assert "give some with an answer and some without" in err
    assert "NoAns_f1" not in result["scores"]
    nothing = write(tmp_path / "nothing.json", 20, 0, unanswered_every=1)
    code, _, err = command(
        capsys, "finetune", "question-answering", "--model", tiny_run(), "--train", nothing, "--validation", nothing,
        "--output", tmp_path / "other", "--data.longest-tokens", "24",
    )  # fmt: skip
    assert code == 2
    assert "nothing.json: question 0: no training question has an answer; give some that have" in err


def test_the_threshold_survives_a_kill(tiny_run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electrain.finetuning.report.write_report", lambda folder: folder / "report.html")
    files = [str(write(tmp_path / "train.json", 40, 0))], [str(write(tmp_path / "known.json", 30, 1))]
    fields = {"epochs": 2.0, "batch_rows": 8, "evaluations_per_epoch": 2, "precision": "float32"}
    tables = {"training": fields, "data": {"longest_tokens": 24}}
    config = build_configuration(FinetuneConfig, tables, "test")
    straight = finetune("question-answering", config, tiny_run(), *files, tmp_path / "straight")
    save = sitting.save_checkpoint

    def save_and_die(root: Path, step: int, *more: Any, **named: Any) -> Path:
        path = save(root, step, *more, **named)
        if step == 5:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(sitting, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        finetune("question-answering", config, tiny_run(), *files, tmp_path / "killed")
    monkeypatch.setattr(sitting, "save_checkpoint", save)
    again = finetune("question-answering", config, tiny_run(), *files, tmp_path / "killed", resume=True)
    assert (again.scores, again.best_step) == (straight.scores, straight.best_step)
    for name in ("model/task.json", "model/model.safetensors", "scores.json", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_model_of_others_leaves_questions_unanswered_once_its_folder_says_so(
    tiny_run: Runs, tmp_path: Path, capsys: Capture
) -> None:
    """By the `task.json` of docs/tasks.md; the threshold is set so that every question has none."""
    run, folder = tmp_path / "run", tmp_path / "hub"
    files = write(tmp_path / "train.json", 8, 0), write(tmp_path / "known.json", 8, 1)
    fine_tune(capsys, tiny_run(), files, run, "--training.epochs", "1")
    shutil.copytree(run / "model", folder, ignore=shutil.ignore_patterns("task.json", "SHA256SUMS"))
    question = ["predict", "answer", "--model", folder, "cat\tthe happy cat"]
    text = (Path(__file__).parents[2] / "docs/tasks.md").read_text("utf-8")
    (written,) = re.findall(r"^  `(\{.*\})`$", text, re.MULTILINE)
    assert json.loads(written)["null_threshold"] == 0.0
    fitting = json.loads(written) | {"longest_tokens": 24, "window_overlap_tokens": 2}  # the model's own, as in 512
    for threshold, is_answered in ((1000.0, True), (-1000.0, False)):
        (folder / "task.json").write_text(json.dumps(fitting | {"null_threshold": threshold}))
        _, [answer], err = command(capsys, *question)
        assert (answer["answer"] is not None) == is_answered, err

"""Which model of a fine-tuning run is kept, by which score, and what labels weigh in the loss."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from command_line import command
from electrain.data.labelled.examples import QuestionExample, TaggedExample, TextExample
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.finetuning.choosing import Best, says_the_same
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.tagging import Tagging
from electrain.inference.evaluate.tasks import evaluate_task

Runs = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
# 312 ordinary texts and 10 rare ones: always "ordinary" is right in 96.9% of them.
TRUTH = ["ordinary"] * 312 + ["rare"] * 10
CONSTANT = ["ordinary"] * 322
USEFUL = ["ordinary"] * 309 + ["rare"] * 3 + ["ordinary"] * 9 + ["rare"]  # 96.3% right, and finds a rare one


def write(path: Path, labels: Sequence[str]) -> Path:
    words = {"ordinary": "cat", "rare": "dog"}
    lines = [f"the {words[label]} sees {'cats ' * (place % 5)}\t{label}" for place, label in enumerate(labels)]
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """80 balanced training texts, 322 unbalanced validation texts."""
    train = write(tmp_path / "train.tsv", ["ordinary", "rare"] * 40)
    return ["--train", train, "--validation", write(tmp_path / "known.tsv", TRUTH)]


def answer_in_turn(monkeypatch: pytest.MonkeyPatch, *said: Sequence[str]) -> None:
    """At its first evaluation the model says the first of these, and so on; then it begins anew."""
    turns = iter([])

    def answer(_: Any, __: Any, examples: Sequence[TextExample]) -> list[dict[str, Any]]:
        nonlocal turns
        labels = next(turns, None)
        if labels is None:
            turns = iter(said)
            labels = next(turns)
        chances = {"ordinary": 0.5, "rare": 0.5}
        pairs = zip(examples, labels, strict=True)
        return [{"text": one.first, "label": label, "probabilities": chances} for one, label in pairs]

    monkeypatch.setattr(Classification, "answer", answer)


def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than everything else here."""
    monkeypatch.setattr("electrain.finetuning.report.write_report", lambda folder: folder / "report.html")


def fine_tune(capsys: Capture, model: Path, output: Path, *more: object) -> tuple[int, Any, str]:
    code, [result], err = command(
        capsys, "finetune", "classification", "--model", model, "--output", output, "--training.epochs", "2",
        "--training.batch-rows", "80", *more,
    )  # fmt: skip
    return code, result, err


@pytest.mark.parametrize("order", [(CONSTANT, USEFUL), (USEFUL, CONSTANT)])
def test_a_constant_answer_yields_to_any_that_varies(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, files: list[object], order: Any
) -> None:
    answer_in_turn(monkeypatch, *order)
    code, result, err = fine_tune(capsys, tiny_run(), tmp_path / "run", *files)
    assert code == 0
    assert result["best_step"] == order.index(USEFUL) + 1
    assert result["scores"]["accuracy"] == pytest.approx(100 * 310 / 322)
    assert "validation accuracy 96.89" in err
    assert "one and the same answer to every example" in err
    assert "learned nothing" not in err
    kept = [json.loads(line)["answer"]["label"] for line in (tmp_path / "run/predictions.jsonl").open()]
    assert kept == USEFUL
    assert json.loads((tmp_path / "run/scores.json").read_text())["is_constant"] is False
    page = (tmp_path / "run/report.html").read_text()
    assert "accuracy decides" in page
    assert page.index("96.27") < page.index("96.89")  # the figures on top are those of the model that was kept


def test_no_seed_whose_answers_vary_is_thrown_away(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, files: list[object]
) -> None:
    answer_in_turn(monkeypatch, CONSTANT, USEFUL)
    without_curves(monkeypatch)
    _, result, _ = fine_tune(capsys, tiny_run(), tmp_path / "run", *files, "--seeds", "2")
    assert (result["restarted_seeds"], result["diverged"], result["seeds"]) == ([], 0, 2)
    assert sorted(folder.name for folder in (tmp_path / "run").glob("seed-*")) == ["seed-0", "seed-1"]


def test_of_several_seeds_one_that_varies_is_the_best(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, files: list[object]
) -> None:
    answer_in_turn(monkeypatch, USEFUL, USEFUL, *[CONSTANT] * 6)
    without_curves(monkeypatch)
    _, result, err = fine_tune(capsys, tiny_run(), tmp_path / "run", *files, "--seeds", "2")
    assert result["restarted_seeds"] == [1, 1001]
    assert result["best"] == "seed-0"
    assert err.count("it has learned nothing") == 3


def test_a_single_seed_that_never_varies_is_said(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, files: list[object]
) -> None:
    answer_in_turn(monkeypatch, CONSTANT)
    without_curves(monkeypatch)
    _, result, err = fine_tune(capsys, tiny_run(), tmp_path / "run", *files)
    assert result["best_step"] == 1
    assert "it has learned nothing; try another seed" in err
    assert "--training.class-weights balanced" in err
    assert json.loads((tmp_path / "run/scores.json").read_text())["is_constant"] is True


def test_another_score_can_decide(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, files: list[object]
) -> None:
    finds_more = ["ordinary"] * 290 + ["rare"] * 32  # a lower accuracy, but every rare text is found
    without_curves(monkeypatch)
    for number, (score, best_step) in enumerate((("", 1), ("mcc", 2), ("macro-f1", 2), ("f1_macro", 2))):
        answer_in_turn(monkeypatch, USEFUL, finds_more)
        chosen = ["--training.choose-by", score] if score else []
        _, result, err = fine_tune(capsys, tiny_run(), tmp_path / str(number), *files, *chosen)
        assert result["best_step"] == best_step
        written = json.loads((tmp_path / str(number) / "scores.json").read_text())
        expected = {"": "accuracy", "mcc": "matthews"}.get(score, "f1_macro")
        assert (written["main_score"], written["chosen_by"]) == ("accuracy", expected)
        assert f"step 2: validation {expected} " in err
        assert json.loads((tmp_path / str(number) / "manifest.json").read_text())["facts"]["chosen_by"] == expected


def test_a_score_that_the_task_does_not_report_is_refused(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, files: list[object]
) -> None:
    arguments = ["finetune", "classification", "--model", tiny_run(), *files, "--output", tmp_path / "run"]
    code, out, err = command(capsys, *arguments, "--training.choose-by", "bleu", "--data.longest-tokens", "24")
    assert (code, out, err.count("\n")) == (2, [], 1)
    assert 'choose_by = "bleu": classification of these examples reports accuracy, f1_macro, matthews;' in err
    assert not list((tmp_path / "run").glob("*"))


def test_the_smaller_error_is_the_better_one() -> None:
    best = Best()
    for step, error, is_better in ((1, 5.0, True), (2, 4.0, True), (3, 4.5, False)):
        assert best.offer(step, {"mean_squared_error": error}, "mean_squared_error", is_constant=False) is is_better
    assert (best.best_step, best.evaluations_since_best) == (2, 1)


def test_answers_of_other_tasks_are_constant_too() -> None:
    asked = [QuestionExample("a", "who?", "cat", (("cat", 0),)), QuestionExample("b", "who?", "dog")]
    assert says_the_same("question-answering", asked, [{"answer": None}, {"answer": None}])
    assert not says_the_same("question-answering", asked, [{"answer": "cat"}, {"answer": None}])


def test_balanced_weights_are_those_of_scikit_learn_and_are_recorded(
    tiny_run: Runs, tmp_path: Path, capsys: Capture
) -> None:
    labels = ["b", "a", "b", "c", "b", "b", "a"]
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\n" + "".join(f"the cat sees\t{label}\n" for label in labels))
    sources = ["--train", train, "--validation", train, "--training.class-weights", "balanced"]
    fine_tune(capsys, tiny_run(), tmp_path / "run", *sources)
    written = json.loads((tmp_path / "run/model/task.json").read_text())["class_weights"]
    assert written == pytest.approx(compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist())
    result = evaluate_task("classification", tmp_path / "run", [str(train)])  # the folder is read again
    assert result.counts["examples"] == 7
    several = tmp_path / "several.jsonl"
    several.write_text('{"text": "cat", "label": ["a", "b"]}\n{"text": "dog", "label": []}\n')
    arguments = ["finetune", "classification", "--model", tiny_run(), "--train", several, "--validation", several,
                 "--output", tmp_path / "other", "--training.class-weights", "balanced"]  # fmt: skip
    code, _, err = command(capsys, *arguments)
    assert code == 2
    assert "is for one label each" in err


class Fixed:
    """A network that gives the same logits whatever it reads."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, **_: Any) -> "Fixed":
        return self


def test_weighted_losses_by_hand(tiny_run: Runs) -> None:
    tokenizer = load_tokenizer(tiny_run() / "model")
    logits = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 0.0]])
    losses = -functional.log_softmax(logits, -1)
    task = Classification(tokenizer, 16, ("a", "b"), class_weights=(0.75, 1.5))
    targets = torch.tensor([0, 0, 1])
    expected = 0.75 * (losses[0, 0] + losses[1, 0]) + 1.5 * losses[2, 1]
    assert task.loss(Fixed(logits), {"targets": targets}).item() == pytest.approx(expected.item())  # type: ignore[arg-type]
    tagging = Tagging(tokenizer, 16, ("a", "b"), (0.75, 1.5))
    rows = tagging.rows([TaggedExample(("cat",), ("b",))])  # [CLS] cat [SEP]
    loss = tagging.loss(Fixed(logits.unsqueeze(0)), tagging.collate(rows).tensors)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(1.5 * losses[1, 1].item())

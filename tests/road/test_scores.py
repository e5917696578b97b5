"""What `electrain evaluate` prints and writes for each task of fine-tuning."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import command
from electrain.finetuning.configuration import load_finetune_configuration
from electrain.finetuning.run import finetune
from electrain.inference.evaluate.tasks import evaluate_task

Capture = pytest.CaptureFixture[str]
Runs = Callable[..., Path]
FILES = {
    "classification": ("tsv", "text\tlabel\nthe cat\ta\nthe dog\tb\na happy cat\ta\na sad dog\tb\nthe sad cat\tb\n"),
    "several": ("jsonl", '{"text": "the cat", "label": ["a", "b"]}\n{"text": "a dog", "label": []}\n'),
    "regression": ("tsv", "text\tscore\nthe cat\t1\nthe dog\t2\na happy cat\t3\na sad dog\t4\n"),
    "tagging": ("conll", "the O\ncat B-X\n\na O\ndog B-Y\n\n"),
    "words": ("conll", "the D\ncat N\n\na D\ndog N\n\n"),
    "question-answering": (
        "jsonl",
        '{"id": "1", "question": "who", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}\n'
        '{"id": "2", "question": "a", "context": "the dog", '
        '"answers": {"text": ["dog", "the dog"], "answer_start": [4, 0]}}\n',
    ),
    "unanswerable": (
        "jsonl",
        '{"id": "1", "question": "who", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}\n'
        '{"id": "2", "question": "who", "context": "the dog", "answers": {"text": [], "answer_start": []}}\n',
    ),
    "summarization": ("jsonl", '{"text": "the cat sees", "summary": "cat"}\n{"text": "a dog", "summary": "dog"}\n'),
    "translation": ("jsonl", '{"en": "the cat sees", "de": "cat"}\n{"en": "a dog", "de": "dog"}\n'),
}
TASKS = {"several": "classification", "words": "tagging", "unanswerable": "question-answering"}
GOLD = {
    "classification": ["a", "b", "a", "b", "b"],
    "several": [["a", "b"], []],
    "regression": [1.0, 2.0, 3.0, 4.0],
    "tagging": [["O", "B-X"], ["O", "B-Y"]],
    "words": [["D", "N"], ["D", "N"]],
    "question-answering": [["cat"], ["dog", "the dog"]],
    "unanswerable": [["cat"], []],
    "summarization": [["cat"], ["dog"]],
    "translation": [["cat"], ["dog"]],
}
Tuned = Callable[[str], tuple[str, Path, Path]]


@pytest.fixture(scope="module")
def tuned(tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """`tuned(kind)`: the task, a run that was fine-tuned for it for one step, and its examples; do not change them."""
    made: dict[str, tuple[str, Path, Path]] = {}

    def make(kind: str) -> tuple[str, Path, Path]:
        if kind not in made:
            folder, (suffix, text) = tmp_path_factory.mktemp(kind), FILES[kind]
            data = folder / f"data.{suffix}"
            data.write_text(text)
            config = load_finetune_configuration(None, {"training": {"epochs": 1, "precision": "float32"}})
            with pytest.MonkeyPatch.context() as patch:  # no curves are needed
                patch.setattr("electrain.finetuning.report.write_report", lambda run: run / "report.html")
                finetune(TASKS.get(kind, kind), config, tiny_run(), [str(data)], [str(data)], folder / "run")
            made[kind] = (TASKS.get(kind, kind), folder / "run", data)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", FILES)
def test_predictions_carry_what_is_true(tuned: Tuned, tmp_path: Path, capsys: Capture, kind: str) -> None:
    task, run, data = tuned(kind)
    capsys.readouterr()
    arguments = ["--model", run, "--data", data, "--predictions", tmp_path / "p.jsonl", "--output", tmp_path / "o.json"]
    code, [printed], err = command(capsys, "evaluate", task, *arguments)
    assert code == 0, err
    assert json.loads((tmp_path / "o.json").read_text()) == printed
    answers = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [answer.pop("gold") for answer in answers] == GOLD[kind]
    verbs = {"classification": "classify", "regression": "regress", "tagging": "tag", "question-answering": "answer",
             "summarization": "summarize", "translation": "translate"}  # fmt: skip
    _, asked, _ = command(capsys, "predict", verbs[task], "--model", run, "--input", data)
    assert answers == asked  # what was there before is unchanged
    scored = evaluate_task(task, run, [str(data)])
    assert json.loads(json.dumps(scored.to_dict())) == printed
    assert [answer["gold"] for answer in scored.answers] == GOLD[kind]
    low, high = printed["intervals_95"][printed["main_score"]]
    assert low <= high
    wrong = printed["breakdown"]["mistakes"]
    assert len(wrong) == min(20, printed["breakdown"]["wrong"])

"""What `electrain evaluate` prints and writes for each task of fine-tuning."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from test_report import Page

from command_line import command, refuse
from electrain.cli.app import main
from electrain.data.labelled.examples import TextExample
from electrain.finetuning.configuration import load_finetune_configuration
from electrain.finetuning.run import finetune
from electrain.finetuning.tasks.classification import Classification
from electrain.inference.evaluate.breakdown import broken_down
from electrain.inference.evaluate.evaluation import Evaluation
from electrain.inference.evaluate.report import evaluation_page
from electrain.inference.evaluate.table import print_evaluation
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


def made_up(labels: list[str], text: str, count: int = 400) -> Evaluation:
    """An evaluation of a classifier that errs often."""
    numbers = np.random.default_rng(3)
    examples, answers = [], []
    for number in range(count):
        chances = dict(zip(labels, numbers.dirichlet(np.ones(len(labels))).tolist(), strict=True))
        label = max(chances, key=chances.__getitem__)
        true = labels[number % len(labels)]
        examples.append(TextExample(text, labels=(true,), source=f"/d/v.tsv:{number + 2}"))
        answers.append({"label": label, "probability": chances[label], "probabilities": chances})
    task = Classification(None, labels=tuple(labels))  # type: ignore[arg-type]
    found, interval = broken_down(task, examples, answers)
    settings = {"model": "run/model", "data": ["/d/v.tsv"], "columns": {"text": "<sentence>"}}
    scores = task.score(examples, answers)
    return Evaluation(
        "classification", settings, {"examples": count}, scores, "accuracy", {"accuracy": interval}, found
    )


def shown_on_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *arguments: object) -> tuple[str, str]:
    """Standard output and error where the first is a terminal of 80 columns without colours."""
    for name, value in {"COLUMNS": "80", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code
    shown = capsys.readouterr()
    return re.sub("\x1b\\[[0-9;]*m", "", shown.out), shown.err


def on_terminal(evaluation: Evaluation, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    print_evaluation(evaluation, console)
    return console.file.getvalue().splitlines()


ODD_TEXT = "\x1b[31mred\x1b[0m [bold]<b>中文文本</b>[/bold]\nnew line \u202e" + "很长的文本" * 40


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_a_table_fits_its_terminal_and_commands_it_nothing(width: int) -> None:
    lines = on_terminal(made_up(["负面", "[red]b[/red]", "c\x1b]0;title\x07"], ODD_TEXT), width)
    assert lines[:2] == ["classification of run/model on /d/v.tsv: 400 examples", ""]
    assert max(cell_len(line) for line in lines[1:]) <= width  # the first line, with the paths, may be longer
    text = "\n".join(lines)
    assert not set(text) & set("\x1b\x07\u202e")
    assert "Most confident errors" in text
    assert "[red]b" in text  # no markup of rich
    assert "\\x1b]0" in text
    start = next(place for place, line in enumerate(lines) if line.startswith("label"))
    names, rows = lines[start].split(), lines[start + 1 : start + 4]
    assert names[:5] == ["label", "precision", "recall", "F1", "true"]
    # A character of Chinese takes two cells: what follows it is in its column all the same.
    assert len({cell_len(row.rstrip()) for row in rows}) == 1
    assert all(len(re.findall(r"\d+\.\d", row)) == 3 for row in rows)
    assert ("is too narrow for 1 more column" in " ".join(text.split())) == (width == 40)


def test_one_example_is_one() -> None:
    assert on_terminal(made_up(["a", "b"], "text", 1), 80)[0] == "classification of run/model on /d/v.tsv: 1 example"


def test_many_labels_do_not_flood_a_terminal() -> None:
    evaluation = made_up([f"label {number}" for number in range(77)], "text", 2000)
    lines = on_terminal(evaluation, 80)
    assert len(lines) < 80
    assert any("20 of 77 labels, those with the most errors" in line for line in lines)
    assert any(line.startswith("20 of 1,9") for line in lines)  # the wrong answers
    page = evaluation_page(evaluation)
    assert "label 76" in page
    assert "Confusion matrix" not in page
    assert "Most frequent mix-ups" in page


@pytest.mark.parametrize("kind", FILES)
def test_a_terminal_gets_a_table_and_files_get_all(
    tuned: Tuned, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    task, run, data = tuned(kind)
    files = {"--output": tmp_path / "o.json", "--predictions": tmp_path / "p.jsonl", "--report": tmp_path / "r.html"}
    capsys.readouterr()
    flags = [word for file in files.items() for word in file]
    shown, _ = shown_on_terminal(monkeypatch, capsys, "evaluate", task, "--model", run, "--data", data, *flags)
    assert not shown.startswith("{")
    written = json.loads(files["--output"].read_text())
    main_score = written["main_score"]
    assert re.search(rf"^{main_score} +{written['scores'][main_score]:.2f}", shown, re.MULTILINE)
    assert "95% interval" in shown
    assert len(files["--predictions"].read_text().splitlines()) == written["examples"]
    page = files["--report"].read_text("utf-8")
    assert Page(page).open == []
    assert f"Evaluation of {run}" in page
    assert f"<dd>{written['scores'][main_score]:.2f}</dd>" in page
    assert f'<td class="word">{data}</td>' in page
    assert "http" not in page.split("</style>")[1]


def test_pretrained_models_have_tables_too(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, pairs, report = tmp_path / "a.txt", tmp_path / "pairs.jsonl", tmp_path / "r.html"
    text.write_text("the cat sees a dog . " * 100)
    names = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    pairs.write_text(json.dumps(dict(zip(names, ("the cat sees", "the cat see", "u", "agreement", "m"), strict=True))))
    for task, data, said in (("detection", text, "auc"), ("blimp", pairs, "agreement")):
        arguments = ["evaluate", task, "--model", tiny_run(), "--data", data, "--report", report]
        shown, err = shown_on_terminal(monkeypatch, capsys, *arguments)
        assert re.search(rf"^{said} ", shown, re.MULTILINE)
        assert "{" not in shown
        assert "agreement" not in err  # the table is not printed twice
        page = report.read_text("utf-8")
        assert Page(page).open == []
        assert f'<td class="word">{said}</td>' in page


def test_a_pipe_gets_json_whatever_the_terminal_is_forced_to(
    tuned: Tuned, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    task, run, data = tuned("classification")
    _, printed, _ = command(capsys, "evaluate", task, "--model", run, "--data", data)
    assert len(printed) == 1


def test_a_page_shows_markup_as_text() -> None:
    page = evaluation_page(made_up(["<i>a</i>", "b\x1b[1m"], "<script>alert(1)</script> " + ODD_TEXT))
    assert Page(page).open == []
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;sentence&gt;" in page
    assert not set(page) & set("\x1b\u202e")
    counts = made_up(["<i>a</i>", "b\x1b[1m"], "x").breakdown.confusion.counts
    cells = re.findall(r'<td style="background: rgba\((.*?)\)">(.*?)</td>', page)
    assert [int(count) for _, count in cells] == [count for row in counts for count in row]
    assert cells[0][0] == f"0, 114, 178, {0.85 * counts[0][0] / sum(counts[0]):.3f}"
    assert page.count('<rect class="right"') == 2 * len(made_up(["a", "b"], "x").breakdown.calibration.bins)


def test_files_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["evaluate", "classification", "--model", str(tmp_path / "absent"), "--data", "absent.tsv"]
    assert "no folder" in refuse([*arguments, "--report", str(tmp_path / "no" / "r.html")], capsys)
    assert "is a folder" in refuse([*arguments, "--report", str(tmp_path)], capsys)
    one = str(tmp_path / "one")
    line = refuse([*arguments, "--report", one, "--output", one], capsys)
    assert f"--report {one}: is also --output; give another file" in line

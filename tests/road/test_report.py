"""The report of a pretraining or fine-tuning run: one file that needs nothing else, whatever state the run is in."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import command
from electrain.data.labelled.examples import PairedExample, QuestionExample, TaggedExample, TextExample
from electrain.finetuning.predictions import write_predictions
from electrain.finetuning.report import write_report as write_finetune_report
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.output_folder import Manifest, write_manifest
from electrain.foundation.report_curves import Curve, FigurePlan, draw_curves, smoothed
from electrain.pretraining.report import write_report

EXAMPLE = {
    "step": 40,
    "tokens": ["the", "<b>", "##ing", "sat"],
    "originals": ["the", "cat", "##ing", "sat"],
    "probabilities": [0.1, 0.9, 0.2, 0.3],
    "is_replaced": [False, True, False, False],
}


def log(step: int, **changes: Any) -> dict[str, Any]:
    numbers = {"tokens": 640 * step, "seconds": 0.5 * step, "tokens_per_second": 1280.0, "refused_updates": 3}
    losses = {"loss": 20.0 - step / 100, "generator_loss": 5.0, "discriminator_auc": 0.75, "unigram_auc": 0.625}
    return {"event": "log", "step": step, **numbers, **losses, **changes}


def write_run(folder: Path, records: list[Any], examples: list[Any], *, tail: str = "") -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text('[training]\nsteps = 60 # "<script>"\n')
    write_manifest(folder, Manifest("run", True, {}, {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    return folder


def full_run(folder: Path) -> Path:
    machine = {"event": "machine", "step": 0, "device": "a <CPU>", "matrix_rate_flops": 1.05e11}
    warning = {"event": "warning", "step": 40, "message": "it <b>jumped</b>"}
    return write_run(folder, [machine, *(log(step) for step in range(20, 80, 20)), warning], [EXAMPLE])


class Page(HTMLParser):
    """Collects tags, and fails on nesting that a browser would have to guess."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    text = write_report(full_run(tmp_path / "run")).read_text("utf-8")
    page = Page(text)
    assert page.open == []
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "img", "iframe", "b>"}
    addresses = [attributes.get(name) or "" for _, attributes in page.seen for name in ("src", "href", "xlink:href")]
    assert all(address.startswith("#") for address in addresses if address)
    assert all(attributes.get("aria-label") for tag, attributes in page.seen if tag == "svg")
    identities = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert set(re.findall(r"url\(#(.*?)\)", text)) <= set(identities)


def test_headline_figures_and_words(tmp_path: Path) -> None:
    text = write_report(full_run(tmp_path / "run")).read_text("utf-8")
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert figures["step"] == "60"
    assert figures["tokens"] == "38,400"
    assert figures["hours of training"] == "0.01"
    assert figures["tokens/s, median"] == "1,280"
    assert figures["detection AUC"] == "0.750"
    assert figures["AUC of word frequency alone"] == "0.625"
    assert figures["refused updates"] == "3"
    assert "105.0 GFLOP/s" in text
    assert "run, finished" in text
    assert "Detection against word frequency" in text
    assert "Masked-word loss" not in text


def test_everything_from_the_run_is_escaped(tmp_path: Path) -> None:
    text = write_report(full_run(tmp_path / "<i>run")).read_text("utf-8")
    assert "Step 40: it &lt;b&gt;jumped&lt;/b&gt;" in text
    assert "a &lt;CPU&gt;" in text
    assert "&lt;script&gt;" in text
    assert "&lt;i&gt;run" in text
    assert not re.search(r"<(i|script)>", text)


def test_marks_of_the_discriminator(tmp_path: Path) -> None:
    text = write_report(full_run(tmp_path / "run")).read_text("utf-8")
    sentence = re.search(r'<p class="example">(.*?)</p>', text)
    assert sentence is not None
    words = re.findall(r"<span(.*?)>(.*?)</span>", sentence[1])
    assert [word for _, word in words] == ["the", "&lt;b&gt;", "ing", "sat"]
    assert ["replaced" in attributes.split("style")[0] for attributes, _ in words] == [False, True, False, False]
    assert "the original is cat" in words[1][0]
    assert "<small>cat</small><span" in sentence[1]  # a continued word has no space before it


def test_a_run_that_is_still_going(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "run")
    (folder / "manifest.json").unlink()
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write('{"event": "log", "step": 80, "tok\xe9'.encode("latin-1"))
    text = write_report(folder).read_text("utf-8")
    assert "run, not finished" in text
    assert "<dt>step</dt><dd>60</dd>" in text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")
    assert "Nothing was logged yet" in write_report(folder).read_text("utf-8")
    with pytest.raises(RunDirectoryError, match="holds no config"):
        write_report(tmp_path)


def test_the_baseline_has_its_own_curves(tmp_path: Path) -> None:
    lines = [
        {"event": "log", "step": step, "masked_language_model_loss": 5.0, "masked_language_model_accuracy": 0.25}
        for step in (20, 40)
    ]
    text = write_report(write_run(tmp_path / "run", lines, [])).read_text("utf-8")
    assert "Masked-word loss" in text
    assert "<dt>masked-word accuracy</dt><dd>0.250</dd>" in text
    assert "Generator loss" not in text
    assert "What the discriminator sees" not in text


def test_missing_null_and_odd_values_are_left_out(tmp_path: Path) -> None:
    odd = [
        log(20, loss=None),
        log(40, loss=None, discriminator_auc="x"),
        {"event": "log"},
        [1],
        "x",
        log(60, loss=True),
        log(80),
    ]
    broken = [EXAMPLE | {"tokens": ["one"]}, {"step": 1}, EXAMPLE | {"probabilities": [None] * 4}]
    text = write_report(write_run(tmp_path / "run", odd, broken)).read_text("utf-8")
    assert "<dt>step</dt><dd>80</dd>" in text
    assert "<b>Loss.</b>" not in text  # one number alone draws no line
    assert text.count('class="example"') == 1


def test_steps_of_a_short_run_are_told_apart() -> None:
    plan = FigurePlan("Loss", "", "nats", (Curve("loss", "total"),))
    (figure,) = draw_curves([{"step": step, "loss": 9.0 - step} for step in (1, 2)], [plan])
    labels = re.findall(r"<!-- (.+?) -->", figure.svg)
    assert labels[: labels.index("step")] == ["1", "2"]


def test_smoothing_ignores_one_wild_value() -> None:
    values = np.ones(100)
    values[50] = 1000.0
    assert smoothed(values).tolist() == [1.0] * 100
    assert smoothed(np.arange(4.0)).tolist() == [0.0, 1.0, 2.0, 3.0]


def write_finetune_run(folder: Path, task: str, examples: list[Any], answers: list[dict[str, Any]]) -> str:
    """A run's folder with two evaluations; the first is the better one. Returns its page."""
    folder.mkdir()
    (folder / "config.toml").write_text("[training]\nepochs = 2.0\n")
    facts = {"model": "<encoder>", "train_examples": 60}
    write_manifest(folder, Manifest("fine-tuning", True, {"task": task}, facts))
    scores: dict[str, list[float]] = {
        "classification": {"accuracy": [75.0, 70.0], "f1_macro": [60.0, 65.0]},
        "regression": {"pearson": [10.0, 20.0], "spearman": [30.0, 25.0], "mean_squared_error": [0.5, 0.4]},
    }.get(task, {"f1": [75.0, 70.0]})
    events = [{"event": "validation", "step": 10 * (k + 1)} | {n: v[k] for n, v in scores.items()} for k in (0, 1)]
    lines = [*(log(step) for step in (10, 20)), *events]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_predictions(folder, examples, answers)
    text = write_finetune_report(folder).read_text("utf-8")
    assert Page(text).open == []
    return text


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the first table after a title, without its first row."""
    table = text.split(f">{title}</h")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[1:]]
    return rows[1:]


def test_classification_shows_scores_labels_confusion_and_errors(tmp_path: Path) -> None:
    truth, said = "aaabb", "aabbb"
    examples = [TextExample(f"text <{n}>", labels=(label,), source=f"v.tsv:{n}") for n, label in enumerate(truth)]
    answers = [{"label": label, "probabilities": {"a": 0.0, "b": 0.0} | {label: 0.9}} for label in said]
    text = write_finetune_run(tmp_path / "run", "classification", examples, answers)
    assert "Fine-tuning run for classification of &lt;encoder&gt;, finished" in text
    assert "<dt>accuracy</dt><dd>75.00</dd>" in text
    assert rows_of(text, "Scores by evaluation") == [["10", "75.00", "60.00"], ["20", "70.00", "65.00"]]
    assert text.count('class="best"') == 1
    assert rows_of(text, "Labels") == [
        ["a", "3", "2", "100.0", "66.7", "80.0"],
        ["b", "2", "3", "66.7", "100.0", "80.0"],
    ]
    assert rows_of(text, "Confusion matrix") == [["a", "2", "1"], ["b", "0", "2"]]
    assert rows_of(text, "Worst errors") == [["v.tsv:2", "text &lt;2&gt;", "a", "b (0.90)", "1"]]
    assert "<b>Scores.</b>" in text
    assert "Pretraining" not in text


def test_several_labels_have_a_table_but_no_matrix(tmp_path: Path) -> None:
    examples = [TextExample("one", labels=("x", "y")), TextExample("two", labels=())]
    answers = [
        {"labels": ["x"], "probabilities": {"x": 0.7, "y": 0.2}},
        {"labels": [], "probabilities": {"x": 0, "y": 0}},
    ]
    text = write_finetune_run(tmp_path / "run", "classification", examples, answers)
    assert rows_of(text, "Labels") == [["x", "1", "1", "100.0", "100.0", "100.0"], ["y", "1", "0", "–", "0.0", "0.0"]]
    assert "Confusion matrix" not in text
    assert rows_of(text, "Worst errors") == [["", "one", "x, y", "x (0.70)", "0.8"]]


def test_errors_of_each_other_task(tmp_path: Path) -> None:
    numbers = [TextExample("far", "away", value=1.0), TextExample("near", value=1.0)]
    text = write_finetune_run(tmp_path / "numbers", "regression", numbers, [{"value": 3.0}, {"value": 1.5}])
    assert [row[1:] for row in rows_of(text, "Worst errors")] == [
        ["far | away", "1", "3", "2"],
        ["near", "1", "1.5", "0.5"],
    ]
    assert "<dt>mean_squared_error</dt><dd>0.50</dd>" in text
    sentence = TaggedExample(("the", "cat", "sat"), ("O", "B-X", "O"))
    text = write_finetune_run(
        tmp_path / "tags", "tagging", [sentence] * 2, [{"tags": ["O", "O", "B-X"]}, {"tags": list(sentence.tags)}]
    )
    assert [row[1:] for row in rows_of(text, "Worst errors")] == [
        ["the cat sat", "cat B-X, sat O", "cat O, sat B-X", "2"]
    ]
    assert rows_of(text, "Confusion matrix") == [["B-X", "1", "1"], ["O", "1", "3"]]
    question = QuestionExample("q", "who", "the cat sat", (("cat", 4), ("the cat", 0)))
    text = write_finetune_run(
        tmp_path / "answers", "question-answering", [question], [{"answer": "cat sat", "score": 0.5}]
    )
    assert [row[1:] for row in rows_of(text, "Worst errors")] == [
        ["who | the cat sat", "cat / the cat", "cat sat (0.50)", "0.333"]
    ]
    pairs = [PairedExample("long", "abcd"), PairedExample("other", "x", ("yy",))]
    text = write_finetune_run(tmp_path / "texts", "summarization", pairs, [{"output": "abce"}, {"output": "yy"}])
    assert [row[1:] for row in rows_of(text, "Worst errors")] == [["long", "abcd", "abce", "0.333"]]


FILES = {
    "classification": "text\tlabel\nthe cat\ta\nthe dog\tb\na happy cat\ta\na sad dog\tb\n",
    "regression": "text\tscore\nthe cat\t1\nthe dog\t2\na happy cat\t3\na sad dog\t4\n",
    "tagging": "the O\ncat B-X\n\na O\ndog B-Y\n\n",
    "question-answering": json.dumps(
        {"question": "who", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}
    ),
    "summarization": '{"text": "the happy cat sees", "summary": "cat sees"}',
    "translation": '{"en": "the happy cat sees", "de": "cat sees"}',
}


@pytest.mark.parametrize("task", FILES)
def test_a_fine_tuning_run_has_its_own_report(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    suffix = {"classification": "tsv", "regression": "tsv", "tagging": "conll"}.get(task, "jsonl")
    data, run = tmp_path / f"data.{suffix}", tmp_path / "run"
    data.write_text(FILES[task])
    options = ["--train", data, "--validation", data, "--output", run, "--training.epochs", "2"]
    code, [result], err = command(capsys, "finetune", task, "--model", tiny_run(), *options)
    assert code == 0, err
    page = (run / "report.html").read_text("utf-8")
    assert f"report: {run / 'report.html'}" in err
    assert f"Fine-tuning run for {task} of" in page
    assert f"<dd>{result['scores'][next(iter(result['scores']))]:.2f}</dd>" in page
    assert "Worst errors" in page
    assert page.count('class="best"') == 1
    (run / "report.html").unlink()
    code, [told], _ = command(capsys, "report", "--run", run)
    assert (code, told) == (0, {"report": str(run / "report.html")})
    assert (run / "report.html").read_text("utf-8") == page
    (run / "predictions.jsonl").unlink()  # as runs of an earlier version
    command(capsys, "report", "--run", run)
    assert "electrain evaluate --predictions" in (run / "report.html").read_text("utf-8")

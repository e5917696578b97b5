"""The report of a run: one file that needs nothing else, whatever state the run is in."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electrain.foundation.errors import RunDirectoryError
from electrain.pretrain.report import write_report
from electrain.pretrain.report_curves import smoothed

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
    (folder / "manifest.json").write_text('{"finished": true}')
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


def test_smoothing_ignores_one_wild_value() -> None:
    values = np.ones(100)
    values[50] = 1000.0
    assert smoothed(values).tolist() == [1.0] * 100
    assert smoothed(np.arange(4.0)).tolist() == [0.0, 1.0, 2.0, 3.0]

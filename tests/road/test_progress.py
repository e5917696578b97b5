"""What long work shows on stderr: it moves from the first step on, and names the figures that decide."""

import re
from pathlib import Path

import pytest

from electrain.data.text.corpus import CorpusCounts
from electrain.finetuning.tasks.long_texts import cut_notice
from electrain.foundation import progress
from electrain.foundation.progress import Progress, counted, format_seconds, said_once, say
from electrain.pretraining.run import pretrain
from tiny_pretraining import tiny_configuration

LINE = re.compile(r"training: (\d+) of 10 steps, ([\d,]+) tokens/s(.*), (\d+ s) left")


@pytest.mark.usefixtures("quick_pretraining")
def test_every_step_moves_the_line(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also before the first logged line, which is that of step 4: rate and time left, later the figures that decide."""
    monkeypatch.setattr(progress, "SECONDS_BEFORE_FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    pretrain(tiny_configuration(training={"log_every_steps": 4}), tiny_shards, tmp_path / "run")
    shown = [found for line in capsys.readouterr().err.splitlines() if (found := LINE.fullmatch(line))]
    assert [int(one[1]) for one in shown] == list(range(1, 11))
    figures = r", AUC 0\.\d{3} \(word frequency alone 0\.\d{3}\), generator loss \d\.\d{3}, \d+% of the matrix rate"
    assert [bool(re.fullmatch(figures, one[3])) for one in shown] == [False] * 3 + [True] * 7
    assert {one[3] for one in shown[:3]} == {""}


def test_a_terminal_gets_one_moving_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("reading", "rows", 10) as shown:
        shown.update(4, "AUC 0.612")
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "reading: 4 of 10 rows, AUC 0.612" in text


def test_one_thing_is_no_plural(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert [counted(count, "empty document") for count in (0, 1, 2850)] == [
        "0 empty documents",
        "1 empty document",
        "2,850 empty documents",
    ]
    assert CorpusCounts(1, 9, 1, 1, 1, 1).describe() == (
        "1 document, 0.0 MB of text; left out: 1 empty document, 1 empty file, 1 control character, 1 byte that is not "
        "UTF-8"
    )
    assert cut_notice(1, 2, 128) == "1 of 2 texts is longer than 128 tokens: only the beginning is read"
    monkeypatch.setattr(progress, "SECONDS_BEFORE_FIRST_LINE", 0.0)
    for total in (None, 1, 5):
        Progress("prepare", "documents", total).update(1, "fast")
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in shown] == [
        "prepare: 1 document",
        "prepare: 1 of 1 document",
        "prepare: 1 of 5 documents",
    ]


def test_short_work_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("reading", "rows", 10) as shown:
        shown.update(10)
    assert capsys.readouterr().err == ""


def test_seconds_for_a_person() -> None:
    assert [format_seconds(seconds) for seconds in (45, 130, 3900)] == ["45 s", "2 min 10 s", "1 h 05 min"]


def test_work_that_is_done_twice_says_each_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with said_once():
            for line in ("one", "other", "one"):
                say(line)
    say("one")
    assert capsys.readouterr().err == "one\nother\none\nother\none\n"

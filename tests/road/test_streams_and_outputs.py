"""Closed streams, full disks, stopped runs, outputs that cannot be written, and names that would forge a message."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from command_line import command, refuse
from electrain.cli import app
from electrain.foundation import output_folder
from electrain.foundation.errors import DataError, RunDirectoryError
from electrain.foundation.json_output import to_json
from electrain.foundation.output_file import written_output
from electrain.foundation.output_folder import replaced_directory, replaced_file, write_text_durably
from electrain.foundation.progress import say
from electrain.training import loop
from tiny_pretraining import tiny_configuration

Run = Callable[..., Path]
FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EFBIG, "File too large"),
    OSError("1048576 requested and 4096 written"),  # numpy's, without a number
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]
SOURCE = str(Path(app.__file__).parents[2])


def test_names_cannot_forge_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nelectrain: all is well\r\x1b[31m\x9b2J \u2028\u202e \udcff \ud800 ü 中")
    shown = r"a\nelectrain: all is well\r\x1b[31m\x9b2J \u2028\u202e \xff \ud800 ü 中"
    assert capsys.readouterr().err == shown + "\n"


def test_a_refusal_of_a_hostile_name_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"te\nelectrain: done\x1b[2J"\nx\n')
    error = refuse(
        ["tokenizer", str(tmp_path / "t.csv"), "--output", str(tmp_path / "a\nelectrain tokenizer: b")], capsys
    )
    assert r"te\nelectrain: done\x1b[2J" in error


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], {"a": {"b": (float("-inf"), 2)}}])
def test_json_has_no_numbers_that_json_has_not(value: object) -> None:
    def refuse_constant(name: str) -> None:
        raise AssertionError(name)

    assert "null" in to_json(value)
    json.loads(to_json(value), parse_constant=refuse_constant)


def test_json_can_be_written_and_shown() -> None:
    text = "ü\x9b31m\ud800\x1b"
    assert to_json(text) == '"ü\\u009b31m\\ud800\\u001b"'
    assert json.loads(to_json(text)) == text


def test_closed_streams_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_run: Run
) -> None:
    model = str(tiny_run())
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        error = refuse(["predict", "detect", "--model", model], capsys)
        assert "standard input is closed; give texts" in error
    for arguments in (["predict", "detect", "a cat", "--model", model], ["fields"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            with pytest.raises(SystemExit) as ended:
                app.main(arguments)
        assert ended.value.code == 2
        assert "standard output is closed" in capsys.readouterr().err


def test_a_closed_standard_error_does_not_mix_messages_and_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("a message")
    assert capsys.readouterr().out == ""


def test_files_never_take_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a library prints on a closed standard error must not go into the file that was opened next."""
    code = (
        "import os; os.close(2); from electrain.foundation.process import fill_closed_streams as fill; fill();"
        f"f = open({str(tmp_path / 'kept')!r}, 'w'); os.write(2, b'noise'); f.write('result')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": SOURCE})
    assert (tmp_path / "kept").read_text() == "result"


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_one_line_wherever_it_is_met(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(_: object) -> str:
        raise error

    monkeypatch.setattr("electrain.cli.training.describe_fields", full)
    assert "the disk is full; free some space" in refuse(["fields"], capsys)


@pytest.mark.parametrize("error", FULL)
def test_a_disk_that_is_full_for_the_first_files_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path, error: Any
) -> None:
    from electrain.pretraining import run

    def full(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run.np, "save", full)
        with pytest.raises(RunDirectoryError, match=r"cannot be written .* free some space, .* --resume") as raised:
            run.pretrain(tiny_configuration(), tiny_shards, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert run.pretrain(tiny_configuration(), tiny_shards, tmp_path / "run", resume=True).is_finished


@pytest.mark.parametrize("error", [FULL[0], FULL[3]])
def test_a_full_disk_keeps_the_best_model_that_there_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_run: Run, tmp_path: Path, error: Any
) -> None:
    from electrain.finetuning import run

    rows = [f"the cat sees\t{'ab'[number % 2]}" for number in range(8)]
    (tmp_path / "t.tsv").write_text("\n".join(["text\tlabel", *rows]))
    data = str(tmp_path / "t.tsv")
    arguments = ["finetune", "classification", "--model", str(tiny_run()), "--train", data, "--validation", data]
    arguments += ["--output", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch-rows", "4"]
    save = run.save_task_model

    def full(*given: Any) -> None:
        save(*given)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_task_model", full)
        code, _, shown = command(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in shown
    assert "free some space, then give the same command with --resume" in shown.splitlines()[-1]
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert command(capsys, *arguments, "--resume")[0] in (0, 1)
    assert (tmp_path / "run/model/model.safetensors").is_file()


def test_what_is_replaced_is_not_written_through_a_link(tmp_path: Path) -> None:
    """The temporary file has a name that nobody can foresee, and a link with any name would be refused."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".a.json.writing").symlink_to(victim)
    write_text_durably(tmp_path / "a.json", "new")
    assert victim.read_text() == "precious"
    names = {output_folder.temporary_beside(tmp_path / "a.json").name for _ in range(8)}
    assert len(names) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.writing", "a.json", "victim"]


def test_a_link_with_the_very_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(output_folder.secrets, "token_hex", lambda _: "foreseen")
    (tmp_path / ".a.json.foreseen.writing").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text_durably(tmp_path / "a.json", "new")
    assert victim.read_text() == "precious"


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    (tmp_path / ".model.writing").mkdir()  # by an older version that was killed
    (tmp_path / ".model.1234abcd.writing").mkdir()
    with suppress(ZeroDivisionError), replaced_directory(tmp_path / "model") as folder:
        (folder / "weights").write_text("half")
        raise ZeroDivisionError
    with suppress(ZeroDivisionError), replaced_file(tmp_path / "file") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_output_lose_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    def both() -> None:
        with written_output(output) as first:
            first.write("first\n")
            with written_output(output) as second:
                second.write("second\n")

    with pytest.raises(DataError, match=r"another process wrote it meanwhile; .* in .*out-2\.jsonl"):
        both()
    assert output.read_text() == "second\n"
    assert (tmp_path / "out-2.jsonl").read_text() == "first\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with written_output(pipe) as file:
        file.write("answer\n")
    reader.join()
    assert read == ["answer\n"]
    assert pipe.is_fifo()


def test_a_score_is_printed_though_it_cannot_be_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Run,
    tiny_shards: Path,
    tmp_path: Path,
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    fields = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    (tmp_path / "b.jsonl").write_text(json.dumps(dict.fromkeys(fields, "the cat")))
    monkeypatch.setattr("electrain.foundation.output_file.os.replace", read_only)
    arguments = ["evaluate", "blimp", "--model", tiny_run(), "--data", tmp_path / "b.jsonl"]
    code, (result,), error = command(capsys, *arguments, "--output", tmp_path / "scores.json")
    assert code == 2
    assert result["task"] == "blimp"
    assert "scores.json: cannot be written (Read-only file system)" in error


def test_a_read_only_output_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("electrain.foundation.output_file.os.access", lambda *_: False)
    for arguments in (["predict", "detect", "a"], ["evaluate", "blimp", "--data", "absent"]):
        error = refuse([*arguments, "--model", "absent", "--output", str(tmp_path / "out")], capsys)
        assert "is read-only; give the path of a file in a folder that you can write" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_exits_as_a_stopped_process_does(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_shards: Path,
    tmp_path: Path,
    number: signal.Signals,
    quick_pretraining: None,
) -> None:
    from electrain.foundation.configuration import to_toml

    (tmp_path / "tiny.toml").write_text(to_toml(tiny_configuration()))
    update = loop._update

    def then_ask(run: Any, *arguments: Any, **named: Any) -> None:
        update(run, *arguments, **named)
        if run.state.step == 3:
            signal.raise_signal(number)

    arguments = ["pretrain", "--config", tmp_path / "tiny.toml", "--shards", tiny_shards, "--output", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", then_ask)
        code, (result,), error = command(capsys, *arguments)
    assert (code, result["finished"]) == (128 + number, False)
    assert "continue with --resume" in error
    code, (result,), _ = command(capsys, *arguments, "--resume")
    assert (code, result["finished"]) == (0, True)


def test_an_interrupted_demo_starts_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a full disk ends it, the message says to run it again, which then must work."""
    from electrain.cli import demo

    def full(folder: Path, characters: int) -> None:
        folder.mkdir()
        (folder / "train.jsonl.gz").write_bytes(b"half")
        raise FULL[0]

    monkeypatch.setattr(demo, "_collect", full)
    for _ in range(2):
        code, _, error = command(capsys, "demo", "--output", tmp_path / "demo", "--training.steps", 10)
        assert code == 2
        assert "the disk is full; free some space, then run the command again" in error
    assert "holds an interrupted demo; starting over" in error
    (tmp_path / "demo" / "mine.txt").write_text("precious")
    code, _, error = command(capsys, "demo", "--output", tmp_path / "demo")
    assert (code, (tmp_path / "demo" / "mine.txt").read_text()) == (2, "precious")
    assert "is not empty" in error


def test_a_stopped_demo_does_not_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from electrain.cli import demo
    from electrain.pretraining.run import RunResult

    for name in ("_collect", "train_tokenizer", "prepare"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    stopped = RunResult(3, False, False, True, {}, int(signal.SIGTERM))
    monkeypatch.setattr(demo, "pretrain", lambda *_: stopped)
    code, _, error = command(capsys, "demo", "--output", tmp_path / "demo", "--training.steps", 10)
    assert code == 143
    assert error.endswith(f"electrain demo --output {tmp_path / 'demo'} starts over\n")


def test_ctrl_c_outside_training_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("electrain.cli.training.describe_fields", interrupted)
    assert command(capsys, "fields") == (130, [], "electrain fields: interrupted\n")


def test_sigterm_leaves_no_temporary_text(tmp_path: Path) -> None:
    """The tokenizer's text waits in a file of up to 500 MB, which a stopped process removes."""
    os.mkfifo(tmp_path / "text.txt")  # gives one block and then keeps the reader waiting
    arguments = ["tokenizer", str(tmp_path / "text.txt"), "--output", str(tmp_path / "tok")]
    process = subprocess.Popen(
        [sys.executable, "-m", "electrain.cli.app", *arguments],
        env=os.environ | {"PYTHONPATH": SOURCE},
        stderr=subprocess.PIPE,
    )
    with open(tmp_path / "text.txt", "wb") as pipe:  # returns once the reader is there
        assert (tmp_path / "tok").is_dir()
        process.terminate()
        _, error = process.communicate()
    assert (process.returncode, error) == (143, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    assert pipe.closed


def test_a_path_that_is_not_utf8_is_refused_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path / "tok") + b"\xff")
    for arguments in (["tokenizer", "absent.txt", "--output", bad], ["prepare", bad, "--tokenizer", "x"]):
        assert r"tok\xff: is not UTF-8; rename the file or folder" in refuse(arguments, capsys)


@pytest.fixture(scope="module")
def long_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of eight texts that are longer than a row of the tiny models, and one that is not."""
    path = tmp_path_factory.mktemp("long") / "t.tsv"
    long = [f"{'the cat sees dogs ' * 10}\t{'ab'[number % 2]}" for number in range(8)]
    path.write_text("\n".join(["text\tlabel", *long, "a cat\ta"]))
    return path


def test_evaluate_says_what_is_cut(
    capsys: pytest.CaptureFixture[str], tiny_run: Run, tmp_path: Path, long_texts: Path
) -> None:
    data = ["--train", long_texts, "--validation", long_texts, "--training.epochs", 1, "--training.batch-rows", 8]
    model = tmp_path / "run"
    command(capsys, "finetune", "classification", "--model", tiny_run(), *data, "--output", model)
    code, (result,), error = command(capsys, "evaluate", "classification", "--model", model, "--data", long_texts)
    assert (code, result["cut_examples"]) == (0, 8)
    assert "8 of 9 texts are longer than 24 tokens: only the beginning is read" in error
    assert "indexing errors" not in error

"""Two processes never write one folder: the second is refused, and what a killed process left is recognised."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from command_line import command
from electrain.foundation import lock
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import LOCK_NAME, require_empty

# Holds the lock until it is killed. With "fork", a child goes on for longer than that.
HOLDER = """
import os, sys, time
from pathlib import Path
from electrain.foundation.lock import locked
with locked(Path(sys.argv[1])):
    is_parent = sys.argv[2] != "fork" or os.fork() != 0
    if sys.argv[2] != "fork" or not is_parent:  # of the two, the child tells: it drops the lock while it begins
        print("held", flush=True)
    time.sleep(60 if is_parent else 20)
    os._exit(0)
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`hold(folder)`: another process that holds the folder's lock."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, how: str = "alone") -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-c", HOLDER, str(folder), how]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_second_process_is_refused(
    hold: Callable[..., "subprocess.Popen[str]"],
    tiny_run: Callable[..., Path],
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By every verb that writes a folder for long, whatever is in the folder by then."""
    model, folder, corpus = str(tiny_run()), tmp_path / "folder", str(tiny_shards.parent / "corpus.jsonl")
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "the cat\tone\nthe dog\ttwo\n" * 4)
    labels = str(tmp_path / "a.tsv")
    process = hold(folder)
    capsys.readouterr()
    finetune = ["finetune", "classification", "--model", model, "--train", labels, "--validation", labels]
    tokenizer = ["tokenizer", corpus, "--vocab-size", "80"]
    prepare = ["prepare", corpus, "--tokenizer", str(tiny_shards.parent / "tokenizer"), "--processes", "1"]
    pretrain = ["pretrain", "--config", "tiny", "--shards", str(tiny_shards), "--training.precision", "float32"]
    for arguments in (tokenizer, prepare, pretrain, finetune, [*finetune, "--seeds", "2"], [*pretrain, "--resume"]):
        code, shown, err = command(capsys, *arguments, "--output", folder)
        assert (code, shown) == (2, [])
        line = err.splitlines()[-1]
        assert f"{folder}: process {process.pid} on {socket.gethostname()} (since 2" in line
        assert "is writing this folder; wait for it or stop it, or give another folder" in line
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
    process.kill()
    process.wait()
    code, _, err = command(capsys, *tokenizer, "--output", folder)
    assert code == 0, err
    assert not (folder / LOCK_NAME).exists()


def test_the_lock_of_a_killed_process_is_free_at_once(
    hold: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """Also while a child that it forked lives on."""
    process = hold(tmp_path / "folder", "fork")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "folder" / LOCK_NAME).read_text())["pid"] == process.pid
    with locked(tmp_path / "folder"):
        assert json.loads((tmp_path / "folder" / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_one_process_cannot_take_it_twice(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunDirectoryError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        require_empty(tmp_path / "new")  # the lock does not count
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "used"):
        (tmp_path / "used" / "file").write_text("")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]
    (tmp_path / "file").write_text("")
    with locked(tmp_path / "file"):  # whatever follows says that it is no folder
        pass
    assert (tmp_path / "file").is_file()


def leave(folder: Path, host: str, pid: int) -> Path:
    (folder / LOCK_NAME).write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-01 00:00:00"}))
    return folder / LOCK_NAME


def test_the_lock_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the file system keeps locks to one machine, its holder is known by the touches of the file."""
    monkeypatch.setattr(lock, "WATCHED_SECONDS", 0.4)
    path = leave(tmp_path, "elsewhere", 12)
    with locked(tmp_path):
        assert "process 12 on elsewhere left its lock; looking whether it still runs" in capsys.readouterr().err
    leave(tmp_path, "elsewhere", 12)
    is_over = threading.Event()

    def touch() -> None:
        while not is_over.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(RunDirectoryError, match=r"process 12 on elsewhere \(since 2026"), locked(tmp_path):
            pass
    finally:
        is_over.set()
        thread.join()
    assert json.loads(path.read_text())["pid"] == 12


def test_the_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TOUCHED_EVERY_SECONDS", 0.02)
    with locked(tmp_path):
        first = (tmp_path / LOCK_NAME).stat().st_mtime_ns
        until = time.monotonic() + 10
        while (tmp_path / LOCK_NAME).stat().st_mtime_ns == first and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / LOCK_NAME).stat().st_mtime_ns > first


def test_without_locks_the_number_of_the_process_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Lustre, where a folder may be mounted without them."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    leave(tmp_path, socket.gethostname(), os.getppid())
    with pytest.raises(RunDirectoryError, match=f"process {os.getppid()} on"), locked(tmp_path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave(tmp_path, socket.gethostname(), dead.pid)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}', "\xff"])
def test_a_half_written_lock_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text, "latin-1")
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("important")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / LOCK_NAME).symlink_to(tmp_path / "precious")
    with locked(tmp_path / "folder"):
        pass
    assert (tmp_path / "precious").read_text() == "important"

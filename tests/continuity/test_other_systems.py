"""What Windows and macOS lack is hidden here: every stage must do without it, and leave the same files."""

import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from command_line import command
from conftest import VOCABULARY
from electrain.data.tokenizer.tokenizer import save_tokenizer, word_piece_tokenizer, wrap
from electrain.foundation import limits, lock, process, system
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import LOCK_NAME
from electrain.pretraining.hardware import Hardware
from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection
from electrain.pretraining.plan import _largest_micro_batch
from electrain.pretraining.run import pretrain
from tiny_pretraining import tiny_configuration, write_invented_shards

ABSENT = {
    "os": "sched_getaffinity sysconf O_NOFOLLOW fork pread pwrite getuid geteuid killpg getloadavg",
    "signal": "SIGHUP SIGPIPE SIGALRM SIGCHLD SIGUSR1 alarm setitimer pause",
}
# Runs before anything else in each process, as Python does with every module of this name.
HIDING = f"""
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, names in {ABSENT!r}.items():
    for name in names.split():
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
"""


def test_the_stages_of_text_without_what_windows_lacks(tmp_path: Path) -> None:
    """In processes of their own, children included: a table is prepared."""
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDING)
    texts = ["the cat saw a dog ."] * 80
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "text.parquet")
    code = "import sys; from electrain.cli.app import main; import os; assert not hasattr(os, 'fork'); main()"
    hidden = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), str(Path(process.__file__).parents[2])])}

    def run(*arguments: str) -> dict[str, Any]:
        whole = [sys.executable, "-c", code, *arguments]
        ended = subprocess.run(whole, cwd=tmp_path, env=os.environ | hidden, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout)
        return result

    save_tokenizer(wrap(word_piece_tokenizer(VOCABULARY, cased=False)), tmp_path / "tok")
    assert (
        run("prepare", "text.parquet", "--tokenizer", "tok", "--output", "shards", "--processes", "1")["documents"]
        == 80
    )


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """This process as far as it can be told that it runs on Windows. Yields what was done to files that were open.

    Windows neither removes nor renames a file that anybody holds open or maps, nor the folders above it.
    """
    for name in ("fcntl", "resource"):
        monkeypatch.setattr(system, name, None)
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    for module, names in (("os", "sched_getaffinity sysconf O_NOFOLLOW pread pwrite"), ("signal", "SIGHUP SIGPIPE")):
        for name in names.split():
            monkeypatch.delattr(sys.modules[module], name)
    monkeypatch.setattr(os, "supports_fd", os.supports_fd - {os.utime})
    kill = os.kill

    def real_kill(pid: int, number: int) -> None:
        assert number, "os.kill with signal 0 presses Ctrl-C on Windows"
        kill(pid, number)

    monkeypatch.setattr(os, "kill", real_kill)
    broken: list[str] = []

    def strict(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **options: Any) -> Any:
            for one in (path, *more[:1]) if function.__name__ == "replace" else (path,):
                for name in opened_below(one):
                    if not name.endswith(LOCK_NAME):  # which is removed once more when it is closed
                        broken.append(f"{function.__name__} {name}")
                    raise PermissionError(errno.EACCES, "is open (as on Windows)", str(one))
            return function(path, *more, **options)

        return call

    for module, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, strict(getattr(module, name)))
    yield broken
    assert not broken


def opened_below(path: Any) -> list[str]:
    """The files at or below a path that this process has open or mapped."""
    if not isinstance(path, str | os.PathLike):
        return []
    wanted = os.path.abspath(os.fspath(path))
    held = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    held |= {
        line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line
    }
    return sorted(name for name in held if name == wanted or name.startswith(wanted + os.sep))


def test_what_is_open_is_seen(windows: list[str], tmp_path: Path) -> None:
    with open(tmp_path / "held", "wb"):
        for forbidden in (
            lambda: os.replace(tmp_path / "held", tmp_path / "other"),
            lambda: (tmp_path / "held").unlink(),
            lambda: shutil.rmtree(tmp_path),
        ):
            with pytest.raises(PermissionError):
                forbidden()
    assert len(windows) == 3
    windows.clear()


@pytest.mark.usefixtures("quick_pretraining", "windows")
def test_a_run_without_what_windows_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards, a run that checkpoints and is resumed, a prediction that replaces a file, and a check of everything."""
    write_invented_shards(tmp_path, documents=60)
    short = tiny_configuration(training={"steps": 6, "checkpoint_every_steps": 1})
    run = tmp_path / "run"
    assert pretrain(short, tmp_path / "shards", run).exit_code == 0
    shutil.copytree(run, tmp_path / "copy")
    assert pretrain(short, tmp_path / "shards", run, resume=True).exit_code == 0
    for _ in range(2):
        code, _, said = command(capsys, "predict", "detect", "bak .", "--model", run, "--output", tmp_path / "answers")
        assert code == 0, said
    for folder in (run, tmp_path / "shards"):
        code, (found,), said = command(capsys, "check", folder)
        assert (code, found["finished"]) == (0, True), said
    assert not list(tmp_path.rglob("*.writing"))
    assert not list(tmp_path.rglob(LOCK_NAME))


class FakeLocks:
    """`msvcrt.locking` by the locks of POSIX: fails at once where another descriptor holds the byte."""

    LK_NBLCK = 2
    held: dict[tuple[int, int], int]

    def __init__(self) -> None:
        self.held = {}

    def locking(self, descriptor: int, mode: int, size: int) -> None:
        status = os.fstat(descriptor)
        key, place = (status.st_dev, status.st_ino), os.lseek(descriptor, 0, os.SEEK_CUR)
        assert place > status.st_size, "the content must stay readable to others"
        if self.held.get(key, descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held[key] = descriptor


def test_a_folder_is_locked_by_windows_own_locks(
    windows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "msvcrt", FakeLocks())
    with locked(tmp_path):
        holder = json.loads((tmp_path / LOCK_NAME).read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(RunDirectoryError, match=f"process {holder['pid']} on"), locked(tmp_path):
            pass
    assert not (tmp_path / LOCK_NAME).exists()


def test_without_any_locks_a_left_one_is_watched(
    windows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows cannot be asked whether a process runs without ending it, so the touches of its file tell."""
    monkeypatch.setattr(lock, "WATCHED_SECONDS", 0.05)
    left = json.dumps({"host": lock.socket.gethostname(), "pid": 1, "since": "then"})
    (tmp_path / LOCK_NAME).write_text(left)
    with locked(tmp_path):
        pass
    (tmp_path / LOCK_NAME).write_text(left)
    times = iter(range(100))
    monkeypatch.setattr(lock, "_touched", lambda path: next(times))
    with pytest.raises(RunDirectoryError, match="process 1 on"), locked(tmp_path):
        pass


def test_locks_are_fcntls_where_there_is_fcntl(tmp_path: Path) -> None:
    assert system.fcntl is fcntl
    descriptor, other = (system.open_to_lock(tmp_path / "file") for _ in range(2))
    assert system.lock_file(descriptor) is True
    assert system.lock_file(other) is False
    for one in (descriptor, other):
        os.close(one)


def test_the_lock_without_fork() -> None:
    code = "import os; del os.fork, os.register_at_fork; import electrain.foundation.lock"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signals_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.ending_signals() == [signal.SIGTERM, signal.SIGHUP]
    monkeypatch.delattr(signal, "SIGHUP")
    assert system.ending_signals() == [signal.SIGTERM]


def test_a_file_system_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[[int], None]:
        def fsync(_: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    system.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        system.sync_directory(tmp_path)


GROUPS = {
    "version 2": (
        "0::/box/inner\n",
        {"box/cpu.max": "150000 100000", "box/memory.max": "3000000000", "box/inner/memory.max": "max"},
        (1.5, 3_000_000_000),
    ),
    "version 1": (
        "4:memory:/box\n1:cpu,cpuacct:/box\n",
        {
            "cpu/box/cpu.cfs_quota_us": "50000",
            "cpu/box/cpu.cfs_period_us": "100000",
            "memory/box/memory.limit_in_bytes": "2000000000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        (0.5, 2_000_000_000),
    ),
    "no limit": ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, (None, None)),
    "the root is ours": ("0::/outside/name\n", {"memory.max": "1000000000"}, (None, 1_000_000_000)),
    "damaged": ("0::/\n", {"cpu.max": "many", "memory.max": ""}, (None, None)),
    "none": ("", {}, (None, None)),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_limits_of_a_container(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, files, expected = GROUPS[case]
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "groups")
    assert (limits.core_quota(), limits.container_memory_bytes()) == expected
    monkeypatch.setattr(limits, "allowed_cores", lambda: 8)
    monkeypatch.setattr(limits, "machine_memory_bytes", lambda: 5_000_000_000)
    assert limits.available_cores() == {1.5: 2, 0.5: 1}.get(expected[0] or 0, 8)
    assert limits.memory_bytes() == (expected[1] or 5_000_000_000)
    monkeypatch.setattr(limits, "machine_memory_bytes", lambda: 0)
    assert limits.memory_bytes() == (expected[1] or 0)


def test_cores_and_memory_without_posix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert limits.allowed_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert limits.allowed_cores() == 1
    assert limits.machine_memory_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.delattr(os, "sysconf")
    assert limits.machine_memory_bytes() == 0

    def fill(pointer: Any) -> int:
        status = pointer._obj
        assert status.length == ctypes.sizeof(status) == 64  # of MEMORYSTATUSEX
        status.total = 7 << 30
        return 1

    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert limits.machine_memory_bytes() == 7 << 30


def test_a_plan_for_a_machine_that_does_not_tell_its_memory() -> None:
    hardware = Hardware("this", 1e11, 0.0, 0.0, device="cpu")
    assert _largest_micro_batch(tiny_configuration(), torch.float32, hardware, 100) is None


def test_results_have_the_same_line_ends_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would write a carriage return before each line feed, and no hash would agree."""
    code = "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, newline='\\r\\n'); "
    code += "from electrain.foundation.process import write_utf8; write_utf8(); print('a')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stdout == b"a\n"


def faults_of_a_tensor() -> int:
    """Pages that the system hands out for 32 MiB, of which this process has just given back as many."""
    for _ in range(10):  # glibc keeps what lies behind the first seven aligned blocks, which are then not joined
        torch.ones(1 << 23)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
class TestFreedMemory:
    def test_it_is_kept_and_given_back_at_the_end(self) -> None:
        with system.freed_memory_kept():
            assert faults_of_a_tensor() < 1000
            held = resident_bytes()
        assert resident_bytes() < held - (30 << 20)

    @pytest.mark.parametrize("name", ["", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
    def test_what_the_environment_says_is_left_alone(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Without it, glibc is told what to do, and at the end to go back to what it does."""
        told: list[tuple[int, ...]] = []
        library = SimpleNamespace(mallopt=lambda *values: told.append(values), malloc_trim=lambda _: None)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        for variable in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
            monkeypatch.delenv(variable, raising=False)
        if name:
            monkeypatch.setenv(name, "1000")
        with system.freed_memory_kept():
            begun = list(told)
        assert begun == ([] if name else [(-4, 0), (-1, -1)])
        assert told[len(begun) :] == ([] if name else [(-4, 65_536), (-1, 64 << 20)])

    def test_a_library_without_these_functions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
        with system.freed_memory_kept():
            pass

    def test_training_keeps_it(self, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        begin, faults = ReplacedTokenDetection.begin_step, []

        def noting(self: ReplacedTokenDetection, step: int) -> None:
            faults.append(faults_of_a_tensor())
            begin(self, step)

        monkeypatch.setattr(ReplacedTokenDetection, "begin_step", noting)
        pretrain(tiny_configuration(training={"steps": 3, "warmup_steps": 1}), tiny_shards, tmp_path / "run")
        assert max(faults) < 1000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

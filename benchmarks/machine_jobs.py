"""Jobs of `machine_check.py`: each in a process of its own with a time limit, and every result written at once."""

import ctypes
import faulthandler
import fcntl
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHORTEST_JOB_SECONDS = 10.0
KEPT_LOG_LINES = 15
# A job that hangs writes where each of its threads is, so long before it is killed.
SECONDS_FOR_LAST_WORDS = 2.0
# Lines on stderr of a job that does not fail, which explain a bad figure.
TELLING = re.compile(r"do(es)? not work here|deterministic implementation|does not have a determ|fell? ?back|warning: ")
RECORDED_BY_THE_JOB = 3  # exit status
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """A piece of work for a process of its own."""

    section: str
    name: str
    work: str  # the function that does it, as module:function; it takes a `Task`
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 120.0  # it is killed after so long, or at the end of its stage
    cache: str = "shared"  # folder of the compiler's cache below the work folder
    compiles_in_a_trial: bool = False  # `--quick` compiles only these


@dataclass(frozen=True)
class Record:
    """A file of JSON lines. A line is written in one piece, so that processes can share the file."""

    path: Path
    run: str  # in every line, so that several checks can share the file
    began: float  # seconds since 1970

    def add(self, section: str, name: str, **facts: Any) -> None:
        """Appends a line."""
        at = round(time.time() - self.began, 1)
        line = json.dumps({"run": self.run, "at": at, "section": section, "name": name, **facts}, default=str)
        with open(self.path, "a") as file:
            file.write(line + "\n")

    def say(self, text: str) -> None:
        """Prints a line for a person, with the seconds since the beginning."""
        print(f"[{time.time() - self.began:6.1f} s] {text}", flush=True)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of this check."""
        if not self.path.exists():
            return []
        every = [json.loads(line) for line in self.path.read_text().splitlines() if line.startswith("{")]
        return [line for line in every if line.get("run") == self.run]


@dataclass(frozen=True)
class Task:
    """A job as its own process sees it."""

    job: Job
    record: Record
    work: Path  # folder for files, shared by all jobs
    is_quick: bool
    spawned: float  # when the process was started, in seconds since 1970
    ends: float  # when it will be killed, in seconds since 1970

    def note(self, text: str, *, name: str = "", **facts: Any) -> None:
        """Writes a JSON line and prints `text` for a person."""
        self.record.add(self.job.section, name or self.job.name, **facts)
        self.record.say(f"{self.job.section}: {name or self.job.name}: {text}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other job measures while the block runs; others may compile meanwhile."""
        with open(self.work / "measuring.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def since_spawned(self) -> float:
        """Seconds since the process was started, imports included."""
        return time.time() - self.spawned

    @property
    def seconds_left(self) -> float:
        """Seconds until the process is killed."""
        return self.ends - time.time()

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Notes an exception of the block as a failure, and goes on after it. What is not installed is left out."""
        try:
            yield
        except Exception as error:
            if "not installed" in str(error):
                self.note(f"left out: {_first_line(error)}", name=name, left_out=_first_line(error))
                return
            self.note(f"FAILED: {_first_line(error)}", name=name, **failure_of(error))


def failure_of(error: BaseException) -> dict[str, Any]:
    """The error and the end of its traceback, for a JSON line."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"failed": _first_line(error), "tail": [line[:300] for line in lines[-KEPT_LOG_LINES:]]}


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"


# ---------------------------------------------------------------- the side of the command


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    ends: float
    started: float


@dataclass(frozen=True)
class Runner:
    """Starts jobs, and kills those that take too long."""

    record: Record
    work: Path
    is_quick: bool
    hides_gpus: bool
    patience: float = 1.0  # factor of every job's limit

    def run(self, jobs: Sequence[Job], deadline: float, together: int = 1) -> None:
        """Runs the jobs in order, up to `together` at once. At the deadline, what runs is killed and the rest left out.

        Args: deadline: in seconds since 1970.
        """
        waiting, running = list(jobs), list[_Running]()
        try:
            while waiting or running:
                if waiting and deadline - time.time() < SHORTEST_JOB_SECONDS:
                    for job in waiting:
                        self.record.add(job.section, job.name, left_out="no time left")
                    self.record.say(f"left out, no time: {', '.join(job.name for job in waiting)}")
                    waiting.clear()
                while waiting and len(running) < together:
                    running.append(self._start(waiting.pop(0), deadline, beside=together > 1))
                running = [one for one in running if not self._has_ended(one)]
                time.sleep(0.02)
        finally:
            for one in running:
                kill(one.process)

    def _start(self, job: Job, deadline: float, *, beside: bool) -> _Running:
        logs = self.work / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / (re.sub(r"[^A-Za-z0-9.-]+", "_", f"{job.section}.{job.name}") + ".log")
        now = time.time()
        ends = min(now + self.patience * job.seconds, deadline)
        told = {
            "job": asdict(job),
            "record": {**asdict(self.record), "path": str(self.record.path)},
            "work": str(self.work),
            "is_quick": self.is_quick,
            "spawned": now,
            "ends": ends,
        }
        command = [sys.executable, "-u", str(Path(__file__).with_name("machine_check.py")), "--job", json.dumps(told)]
        environment = self._environment(job, beside=beside)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stderr=file, process_group=0, cwd=self.work
            )
        return _Running(job, process, log, ends, now)

    def _environment(self, job: Job, *, beside: bool) -> dict[str, str]:
        source = Path(__file__).parents[1] / "src"
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
        environment = {**os.environ, **offline, "TORCHINDUCTOR_CACHE_DIR": str(self.work / f"cache-{job.cache}")}
        environment.pop("TRITON_CACHE_DIR", None)  # by default inside the other
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH", "")]))
        environment["TOKENIZERS_PARALLELISM"] = "false"
        # With CUDA graphs, a profiler that was taken down crashes when it starts again (torch/profiler/profiler.py).
        environment |= {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
        if self.hides_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if beside:  # the compilers of several jobs share the cores
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(1, (os.cpu_count() or 1) // 4))
        if self.is_quick and not job.compiles_in_a_trial:  # compiling each takes minutes of a busy core
            environment["TORCHDYNAMO_DISABLE"] = "1"
        return environment

    def _has_ended(self, one: _Running) -> bool:
        status = one.process.poll()
        if status is None and time.time() < one.ends:
            return False
        kill(one.process)  # also what an ended job left behind
        seconds = round(time.time() - one.started, 1)
        lines = log_lines(one.log)
        job = one.job
        if status is None:
            self.record.add(job.section, job.name, failed=f"stopped after {seconds} s", tail=_where_it_hung(lines))
            self.record.say(f"{job.section}: {job.name}: FAILED: stopped after {seconds} s")
        elif status not in (0, RECORDED_BY_THE_JOB):
            self.record.add(job.section, job.name, failed=f"exit status {status}", tail=lines[-KEPT_LOG_LINES:])
            last = lines[-1] if lines else ""
            self.record.say(f"{job.section}: {job.name}: FAILED: exit status {status}: {last[:150]}")
        else:
            telling = list(dict.fromkeys(line for line in lines if TELLING.search(line)))[:8]
            self.record.add(job.section, job.name, seconds=seconds, **({"said": telling} if telling else {}))
            for line in telling:
                self.record.say(f"{job.section}: {job.name}: said: {line[:200]}")
        return True


def _where_it_hung(lines: list[str]) -> list[str]:
    """What the log says before the stacks that were dumped, the top of each stack, and our own functions in them."""
    kept, depth = list[str](), 0
    for line in lines:
        depth = depth + 1 if line.startswith("  File") else 0
        if depth <= 6 or "electrain" in line or "machine_" in line:
            kept.append(line)
    return kept[-4 * KEPT_LOG_LINES :]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a job and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_lines(path: Path) -> list[str]:
    """The lines of a log without empty ones, each cut to a sensible length."""
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    return [line[:300] for line in text.splitlines() if line.strip()]


# ---------------------------------------------------------------- the side of the job


def serve(told: str) -> None:
    """Does the job that the command described, in this process, and ends it."""
    with suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a job does not outlive the command
    content = json.loads(told)
    record = Record(**{**content["record"], "path": Path(content["record"]["path"])})
    job = Job(**content["job"])
    task = Task(job, record, Path(content["work"]), content["is_quick"], content["spawned"], content["ends"])
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(1.0, task.seconds_left - SECONDS_FOR_LAST_WORDS))
    try:
        module, _, function = job.work.partition(":")
        work: Callable[[Task], None] = getattr(importlib.import_module(module), function)
        work(task)
    except BaseException as error:
        task.note(f"FAILED: {_first_line(error)}", **failure_of(error))
        traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(RECORDED_BY_THE_JOB)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of a compiler or of CUDA must not hold up the next job

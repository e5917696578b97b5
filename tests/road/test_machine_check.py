"""The check of a machine never seen: what fails or hangs costs only itself, and all that is measured stays."""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from regenerate import OBJECTIVES  # noqa: E402

from machine_check import SAME_AS_SMALL, SECTIONS, chosen, stages_of  # noqa: E402
from machine_jobs import Job, Record, Runner  # noqa: E402
from machine_table import print_table  # noqa: E402
from machine_trace import summary_of  # noqa: E402

WORKS = """
import os, subprocess, sys, time

def answers(task):
    task.note("42", answer=42, is_quick=task.is_quick)

def raises(task):
    task.note("before", half=True)
    raise ValueError("no such thing")

def dies(task):
    print("killed by itself", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 9)

def hangs(task):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (task.work / "child").write_text(str(child.pid))
    time.sleep(600)

def measures(task):
    with task.alone():
        begun = time.time()
        time.sleep(0.3)
        task.note("measured", begun=begun, ended=time.time())
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    (tmp_path / "works.py").write_text(WORKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    record = Record(tmp_path / "lines.jsonl", "now", time.time())
    return Runner(record, tmp_path, is_quick=True, hides_gpus=True)


def lines_by_name(runner: Runner) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in runner.record.lines():
        found.setdefault(line["name"], {}).update(line)
    return found


def is_alive(process: int) -> bool:
    """False for one that has ended, whether or not somebody has asked for its status."""
    path = Path(f"/proc/{process}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_fails_or_hangs_costs_only_itself(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    """With its reason, what it measured before, and without leaving processes behind."""
    names = ("raises", "dies", "hangs", "answers")
    jobs = [Job("part", name, f"works:{name}", seconds=5.0 if name == "hangs" else 100.0) for name in names]
    runner.run(jobs, time.time() + 300)
    found = lines_by_name(runner)
    assert found["raises"]["failed"] == "ValueError: no such thing"
    assert found["raises"]["half"]
    assert any("raise ValueError" in line for line in found["raises"]["tail"])
    assert found["dies"]["failed"] == "exit status -9"
    assert "killed by itself" in found["dies"]["tail"]
    assert found["hangs"]["failed"].startswith("stopped after")
    assert any("in hangs" in line for line in found["hangs"]["tail"]), "where it hung"
    assert not is_alive(int((runner.work / "child").read_text()))
    assert found["answers"]["answer"] == 42
    assert "part: answers: 42" in capfd.readouterr().out


def test_at_the_deadline_the_rest_is_left_out(runner: Runner) -> None:
    """And said to be."""
    runner.run([Job("part", "hangs", "works:hangs"), Job("part", "answers", "works:answers")], time.time() + 11)
    found = lines_by_name(runner)
    assert found["hangs"]["failed"].startswith("stopped after")
    assert found["answers"]["left_out"] == "no time left"


def test_only_one_measures_at_a_time(runner: Runner) -> None:
    """Although all run at once."""
    runner.run([Job("part", f"{number}", "works:measures") for number in range(3)], time.time() + 200, together=3)
    times = sorted((line["begun"], line["ended"]) for line in lines_by_name(runner).values())
    assert len(times) == 3
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(times))


def event(category: str, name: str, start: float, microseconds: float) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": microseconds}


def test_a_trace_is_summed_per_step() -> None:
    """By hand: two kernels overlap for 50 microseconds, and the profiler's own marks are no work of the GPU."""
    events = [
        event("kernel", "product", 0, 200),
        event("kernel", "sum", 150, 100),
        event("kernel", "product", 1000, 100),
        event("gpu_memcpy", "Memcpy HtoD", 2000, 50),
        event("gpu_user_annotation", "Optimizer.step", 0, 5000),
        event("cuda_runtime", "cudaLaunchKernelExC", 0, 5),
        event("cuda_driver", "cuLaunchKernelEx", 10, 5),
        event("cuda_runtime", "cudaGraphLaunch", 20, 5),
        event("cuda_runtime", "cudaStreamSynchronize", 30, 5),
        {"ph": "M", "name": "process_name"},
    ]
    summed = summary_of(events, steps=2)
    assert summed["gpu_milliseconds_per_step"] == pytest.approx((250 + 100 + 50) / 2 / 1000)
    assert (summed["kernels_per_step"], summed["copies_per_step"]) == (1.5, 0.5)
    assert (summed["launches_per_step"], summed["waits_per_step"]) == (1.5, 0.5)
    first = summed["dearest_kernels"][0]
    assert (first["name"], first["count"], first["milliseconds_per_step"]) == ("product", 1.0, 0.15)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_section_and_every_objective_has_a_job(device: str) -> None:
    """Each under a name of its own; the files of golden losses are the list of objectives."""
    jobs = [job for stage in stages_of(device, 4) for job in stage.jobs]
    assert {job.section for job in jobs} == set(SECTIONS)
    assert len({(job.section, job.name) for job in jobs}) == len(jobs)
    assert {job.name for job in jobs if job.section == "objectives"} == OBJECTIVES.keys() - set(SAME_AS_SMALL)
    some = chosen(stages_of(device, 4), only=["verbs"], skip=[])
    assert {job.section for stage in some for job in stage.jobs} == {"facts", "verbs"}


def test_the_table_shows_speeds_ratios_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where figures are missing."""
    rate = {"median": 2000.0, "least": 1900.0, "greatest": 2100.0}
    half = {name: value / 2 for name, value in rate.items()}
    print_table(
        [
            {"section": "small", "name": "compiled, adamw, cold", "tokens_per_second": rate, "peak_gib": 1.5},
            {"section": "plain", "name": "eager", "tokens_per_second": half},
            {"section": "verbs", "name": "plan", "ok": True},
            {"section": "tests", "name": "test_x", "failed": "AssertionError"},
            {"section": "resume", "name": "compiled", "equal": True},
        ]
    )
    shown = capsys.readouterr().out
    assert "2.00 times as fast (1.81 to 2.21) as eager" in shown
    assert "2,000" in shown
    assert "worked: plan" in shown
    assert "compiled True" in shown
    assert "tests: test_x: AssertionError" in shown

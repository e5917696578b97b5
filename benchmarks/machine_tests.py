"""Runs the repository's own tests of devices, and notes each failure as it happens; see `machine_check.py`."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from machine_jobs import Task

ROOT = Path(__file__).parents[1]
KEPT_LINES = 12


class Reporter:
    """A pytest plugin: counts, and writes a line for each test that fails."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.counts = {"passed": 0, "failed": 0, "skipped": 0, "left out": 0}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended."""
        if report.failed:
            self._note(report.nodeid, report.longreprtext)
        elif report.when == "call" or report.skipped:
            self.counts[report.outcome] += 1

    def pytest_collectreport(self, report: Any) -> None:
        """A file was imported."""
        if report.failed:
            self._note(report.nodeid, report.longreprtext)

    def _note(self, name: str, text: str) -> None:
        lines = [line[:240] for line in text.splitlines() if line.strip()][-KEPT_LINES:]
        missing = re.search(r"No module named '([^']+)'", text)
        reason = f"{missing.group(1)} is not installed" if missing else (lines[-1] if lines else "")
        self.counts["left out" if missing else "failed"] += 1
        key = "left_out" if missing else "failed"
        self.task.note(
            f"{'left out' if missing else 'FAILED'}: {reason[:150]}", name=name, **{key: reason, "tail": lines}
        )


def run_tests(task: Task) -> None:
    """The job: `pytest -m cuda tests/devices`; without a GPU, the tests of the pretend device instead."""
    if importlib.util.find_spec("pytest") is None:
        task.note("left out: pytest is not installed", left_out="pytest is not installed")
        return
    import pytest
    import torch

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    has_gpu = torch.cuda.is_available()
    arguments = ["-q", "--tb=short", "-p", "no:cacheprovider", "--continue-on-collection-errors", "tests/devices"]
    arguments += ["-m", "cuda"] if has_gpu else ["-k", "pretend and (muon or article or predict)"]
    cores = os.cpu_count() or 1
    if importlib.util.find_spec("xdist") is not None and has_gpu and cores >= 8:
        arguments += ["-n", "4"]
    reporter = Reporter(task)
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)  # pytest's own words go into the log; ours, through the kept descriptor, to the person
    sys.stdout = os.fdopen(kept, "w", buffering=1)
    status = pytest.main(arguments, plugins=[reporter])
    counts = ", ".join(f"{number} {name}" for name, number in reporter.counts.items())
    task.note(f"{counts} (pytest's status {int(status)})", event="tests", counts=reporter.counts, status=int(status))

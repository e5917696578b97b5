"""What a run writes about itself while it runs: metrics, examples, and progress on stderr."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

# Without a terminal a line of progress is printed at most so often.
SECONDS_BETWEEN_LINES = 30.0


class Journal:
    """A file of JSON lines that a resumed run cuts back to its checkpoint and goes on with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Removes the lines written after `step`, and a last line that a crash cut short."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text("utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("step", 0) <= step:
                kept.append(line)
        temporary = self.path.with_name(f".{self.path.name}.writing")
        temporary.write_text("".join(line + "\n" for line in kept), "utf-8")
        os.replace(temporary, self.path)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line; numbers that are not finite become null."""
        clean = {
            key: None if isinstance(value, float) and not abs(value) < float("inf") else value
            for key, value in record.items()
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(clean, ensure_ascii=False) + "\n")


def say(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


class ProgressDisplay:
    """Step, rate and time left on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total_steps: int, first_step: int, *, is_silent: bool = False) -> None:
        self.total_steps = total_steps
        self.first_step = first_step
        self.is_silent = is_silent
        self.started = time.monotonic()
        self.last_line = self.started
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> "ProgressDisplay":
        console = Console(stderr=True)
        if console.is_terminal and not self.is_silent:
            columns = (TextColumn("{task.completed}/{task.total} steps"), BarColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=console)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total_steps, completed=self.first_step)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(
        self, step: int, *, tokens_per_second: float, loss: float, matrix_rate_fraction: float | None = None
    ) -> None:
        """Shows that `step` steps are finished."""
        if self.is_silent:
            return
        elapsed = time.monotonic() - self.started
        left = elapsed / max(1, step - self.first_step) * (self.total_steps - step)
        fraction = "" if matrix_rate_fraction is None else f"{matrix_rate_fraction:.0%} of the matrix rate  "
        text = f"{tokens_per_second:,.0f} tokens/s  {fraction}loss {loss:.3f}  {format_seconds(left)} left"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=step, description=text)
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or step == self.total_steps:
            self.last_line = time.monotonic()
            say(f"step {step}/{self.total_steps}  {text}")


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds for a person: 1 h 05 min, 2 min 10 s, 45 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"

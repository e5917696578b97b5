"""One line on stderr every few seconds while something long runs: how far, how fast, how long still."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_ITEM_LINES = 5.0


class Progress:
    """Counts finished items and says so on stderr; silent when all is done within a few seconds."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self.started = self.last_line = time.monotonic()

    def advance(self, count: int) -> None:
        """`count` more items are finished."""
        self.done += count
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_ITEM_LINES:
            return
        self.last_line = now
        rate = self.done / (now - self.started)
        left = (self.total - self.done) / rate
        print(
            f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} per second, {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )


# Without a terminal a line of progress is printed at most so often.
SECONDS_BETWEEN_LINES = 30.0


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
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> "ProgressDisplay":
        console = Console(stderr=True)
        if console.is_terminal and not self.is_silent:
            columns = (TextColumn("{task.completed}/{task.total} steps"), BarColumn(), TextColumn("{task.description}"))
            self.bar = Bar(*columns, console=console)
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

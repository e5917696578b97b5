"""Messages on stderr while a command runs: single lines, and the progress of long work."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

# The first plain line comes early, to show that the command works.
SECONDS_BEFORE_FIRST_LINE = 5.0
SECONDS_BETWEEN_LINES = 30.0
# Control characters, line and paragraph separators, marks that reverse the direction of writing, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What becomes of messages that name flags where a program calls a function, which has none.
wording: ContextVar[Callable[[str], str]] = ContextVar("wording", default=str)
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


def say(message: str) -> None:
    """Prints one line on stderr. All messages of the package pass here; see `printable`."""
    said = _said.get()
    if sys.stderr is None or (said is not None and message in said):
        return  # closed: `print` would write to standard output, among the results
    if said is not None:
        said.add(message)
    with suppress(OSError, ValueError):  # where nobody reads any more, the results still count
        print(printable(wording.get()(message)), file=sys.stderr, flush=True)


@contextmanager
def said_once() -> Iterator[None]:
    """While the block runs, a message is printed once, however often it is said."""
    before = _said.set(set())
    try:
        yield
    finally:
        _said.reset(before)


def printable(text: str) -> str:
    """The text as a terminal may be shown it.

    Names of files and columns, labels and ids come from whoever made the data. Their line breaks could forge a second
    message, and their escape sequences could command the terminal, so they are shown as backslash escapes.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def counted(count: int, thing: str) -> str:
    """A number and what it counts, for a person: 1 document, 2,850 documents, 0 documents."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


class Progress:
    """The progress of long work: a bar on a terminal, otherwise a plain line now and then.

    Without a terminal, work that ends within a few seconds prints nothing.
    """

    def __init__(
        self, what: str, unit: str, total: int | None = None, *, first: int = 0, is_silent: bool = False
    ) -> None:
        """
        Args:
            what: the work, such as "evaluate detection".
            unit: the counted things in the plural, such as "rows".
            total: the number of units; None if it is unknown, and then no remaining time is shown.
            first: the number of units that an interrupted run did before.
            is_silent: True shows nothing, as for all processes of a run but the first.
        """
        self.what, self.unit, self.total, self.first = what, unit, total, first
        self.done = first
        self.is_silent = is_silent
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BEFORE_FIRST_LINE
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if console.is_terminal and not self.is_silent:
            self._bar = Bar(BarColumn(), TextColumn("{task.description}"), console=console)
            self._bar.start()
            self._task = self._bar.add_task(self._text(""), total=self.total, completed=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Shows that `count` more units are done."""
        self.update(self.done + count)

    def update(self, done: int, details: str = "") -> None:
        """Shows that `done` units are done, with details in words."""
        self.done = done
        if self.is_silent:
            return
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=self._text(details))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            say(self._text(details))

    def _text(self, details: str) -> str:
        seconds = time.monotonic() - self._started
        rate = (self.done - self.first) / max(seconds, 1e-9)
        of_total = "" if self.total is None else f" of {self.total:,}"
        unit = self.unit.removesuffix("s") if (self.done if self.total is None else self.total) == 1 else self.unit
        parts = [f"{self.what}: {self.done:,}{of_total} {unit}", details or f"{rate:,.1f} per second"]
        if self.total is not None and rate:
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds for a person: 1 h 05 min, 2 min 10 s, 45 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"

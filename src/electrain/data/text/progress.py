"""How far a preparation is, on stderr: one moving line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PLAIN_EVERY_SECONDS = 10.0
_TERMINAL_EVERY_SECONDS = 0.2


class TextProgress:
    """Counts documents, bytes of text and tokens, and shows them with their rates."""

    def __init__(self, is_terminal: bool) -> None:
        self._started = self._shown = time.monotonic()
        self._every_seconds = _TERMINAL_EVERY_SECONDS if is_terminal else _PLAIN_EVERY_SECONDS
        self._show_line = print_line
        self.line = ""

    def show_with(self, show_line: "object") -> None:
        """Lines go to `show_line(text)` instead of plainly to stderr."""
        assert callable(show_line)
        self._show_line = show_line

    def update(self, documents: int, text_bytes: int, tokens: int, *, last: bool = False) -> None:
        """Shows the totals so far, if it is time to."""
        now = time.monotonic()
        if not last and now - self._shown < self._every_seconds:
            return
        self._shown = now
        seconds = max(now - self._started, 1e-9)
        self.line = (
            f"prepare: {documents:,} documents, {text_bytes / 1e6:,.1f} MB of text, {tokens:,} tokens "
            f"({text_bytes / 1e6 / seconds:,.2f} MB/s, {tokens / seconds:,.0f} tokens/s)"
        )
        self._show_line(self.line)


def print_line(line: str) -> None:
    """Prints to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def text_progress() -> Iterator[TextProgress]:
    """A `TextProgress` that suits stderr."""
    if not sys.stderr.isatty():
        yield TextProgress(is_terminal=False)
        return
    from rich.console import Console

    progress = TextProgress(is_terminal=True)
    with Console(stderr=True).status("prepare: starting") as status:
        progress.show_with(status.update)
        yield progress
    print_line(progress.line)

"""One line on stderr every few seconds while something long runs: how far, how fast, how long still."""

import sys
import time

SECONDS_BETWEEN_LINES = 5.0


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
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        rate = self.done / (now - self.started)
        left = (self.total - self.done) / rate
        print(
            f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} per second, {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )

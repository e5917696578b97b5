"""What benchmarks share that are filled over several sittings: lines that stay, and jobs that one process does."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def claimed(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Whether this process may do a job: False while another one does it, unless it `waits` for that to end."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

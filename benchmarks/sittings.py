"""What benchmarks share that are filled over several sittings: lines that stay, and jobs that one process does."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def claimed(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Whether this process may do a job: False while another one does it, unless it `waits` for that to end.

    A child process that is started with `close_fds=False` keeps the claim, even where it outlives this process.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.set_inheritable(file.fileno(), True)
        yield True


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines that are there. A last line without its end was cut short by a crash, and is left out."""
    content = path.read_bytes() if path.is_file() else b""
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Appends a JSON line so that it stays whatever happens next; several processes may do so at once."""
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

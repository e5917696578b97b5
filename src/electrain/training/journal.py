"""Files of JSON lines that a run writes: its metrics and its examples."""

from pathlib import Path
from typing import Any

from electrain.foundation.errors import DataError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import parse_json
from electrain.foundation.output_folder import write_bytes_durably


class Journal:
    """A file of JSON lines. A resumed run cuts it back to its checkpoint and appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Removes the lines after `step`, and a last line that a crash cut short."""
        if not self.path.exists():
            return
        kept = []
        # Bytes, and split at line feeds alone: a full disk can end the file inside a character, and an example may hold
        # any other character that text counts as a line break.
        for line in self.path.read_bytes().split(b"\n"):
            if _is_up_to(step, line):
                kept.append(line)
        write_bytes_durably(self.path, b"".join(line + b"\n" for line in kept))

    def last_step(self) -> int:
        """The last step of which there is a line; 0 if there is none. A crash may have cut the last line short."""
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        return max((_step_of(line) or 0 for line in lines), default=0)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line. Numbers that are not finite become null, since JSON has no others."""
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(to_json(record) + "\n")


def _is_up_to(step: int, line: bytes) -> bool:
    number = _step_of(line)
    return number is not None and number <= step


def _step_of(line: bytes) -> int | None:
    """The step that a line names, or 0; None if it is no line of ours."""
    try:
        record = parse_json(line, "")
    except DataError:
        return None
    number = record.get("step", 0) if isinstance(record, dict) else None
    return number if isinstance(number, int) else None

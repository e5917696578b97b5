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

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line. Numbers that are not finite become null, since JSON has no others."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")


def _is_up_to(step: int, line: bytes) -> bool:
    try:
        record = parse_json(line, "")
    except DataError:
        return False
    number = record.get("step", 0) if isinstance(record, dict) else None
    return isinstance(number, int) and number <= step

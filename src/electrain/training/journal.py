"""Files of JSON lines that a run writes: its metrics and its examples."""

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines. A resumed run cuts it back to its checkpoint and appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Removes the lines after `step`, and a last line that a crash cut short."""
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
        """Appends one line. Numbers that are not finite become null, since JSON has no others."""
        clean = {
            key: None if isinstance(value, float) and not abs(value) < float("inf") else value
            for key, value in record.items()
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(clean, ensure_ascii=False) + "\n")

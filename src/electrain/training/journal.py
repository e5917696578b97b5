"""Files of JSON lines that a run writes: its metrics and its examples."""

import json
from pathlib import Path
from typing import Any

from electrain.foundation.json_output import to_json
from electrain.foundation.output_folder import write_text_durably


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
        write_text_durably(self.path, "".join(line + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line. Numbers that are not finite become null, since JSON has no others."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")

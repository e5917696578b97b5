"""Small labelled files for the tests that read them."""

import json
from pathlib import Path
from typing import Any

from electrain.data.labelled.reading import Columns, read_examples


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def read(path: Path | str, task: str = "classification", columns: Columns | None = None, **options: Any) -> list[Any]:
    return read_examples(task, [str(path)], columns or Columns(), **options).examples  # type: ignore[arg-type]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path

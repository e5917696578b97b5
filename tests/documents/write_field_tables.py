"""Writes the tables of configuration fields into the documents, from the docstrings of the configuration classes.

python tests/documents/write_field_tables.py
"""

import inspect
import re
import typing
from pathlib import Path
from typing import Any

from electrain.finetuning.configuration import FinetuneConfig
from electrain.foundation.configuration import field_descriptions
from electrain.pretraining.configuration import PretrainConfig

DOCS = Path(__file__).parents[2] / "docs"
TABLES: dict[str, type[Any]] = {"guide.md": PretrainConfig, "finetuning.md": FinetuneConfig}
BEGIN, END = "<!-- fields: written by tests/documents/write_field_tables.py -->\n", "<!-- end of fields -->\n"


def field_tables(kind: type[Any]) -> str:
    """Markdown with a table of fields for each section of a configuration."""
    lines = []
    for section, part in typing.get_type_hints(kind).items():
        summary = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())
        lines += [f"**`[{section}]`** {summary}", "", "| field | meaning | default |", "|---|---|---|"]
        for field in field_descriptions(kind):
            if field.section == section:
                default = "required" if field.default == "required" else f"`{field.default}`"
                lines.append(f"| `{field.name}` | {_with_code(field.text, field.choices)} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _with_code(text: str, choices: tuple[str, ...]) -> str:
    """Each choice as code where the text explains it, and what Markdown would read as a mark."""
    for choice in choices:
        text = re.sub(rf"(?<=\. ){choice}(?= )|(?<=; ){choice}(?= )|(?<=, and ){choice}(?= )", f"`{choice}`", text)
    return text.replace("[", "\\[").replace("*", "\\*").replace("|", "\\|")


def with_tables(document: str, kind: type[Any]) -> str:
    """The document with what stands between its two markers replaced."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{field_tables(kind)}\n{END}{after}"


if __name__ == "__main__":
    for name, kind in TABLES.items():
        path = DOCS / name
        path.write_text(with_tables(path.read_text("utf-8"), kind), "utf-8")

"""Parts of every `report.html`: reading the files of a run, formatting numbers, and writing the page."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from electrain.foundation.errors import DataError, RunDirectoryError
from electrain.foundation.json_reading import parse_json, parse_json_file
from electrain.foundation.output_folder import CONFIGURATION_NAME, MANIFEST_NAME, write_text_durably

REPORT_NAME = "report.html"
ABSENT = "–"
Record = dict[str, Any]


def write_page(directory: Path, template: str, values: Record) -> Path:
    """Writes `report.html` into a run folder from a template of this package, and returns its path.

    The template gets the given values, the folder's name, its configuration and whether the run is finished.

    Raises: RunDirectoryError: the folder is not of a run.
    """
    configuration = directory / CONFIGURATION_NAME
    if not configuration.is_file():
        what = f"holds no {CONFIGURATION_NAME}" if directory.is_dir() else "no such folder"
        raise RunDirectoryError(f"{directory}: {what}; give the folder of a run")
    values = values | {
        "name": directory.resolve().name,
        "is_finished": json_object(directory / MANIFEST_NAME).get("finished") is True,
        "configuration": configuration.read_text("utf-8", errors="replace"),
    }
    text = rendered(template, values)
    write_text_durably(directory / REPORT_NAME, text)
    return directory / REPORT_NAME


def rendered(template: str, values: Record) -> str:
    """A page from a template of this package, given by its path in it. All text in the values is escaped."""
    environment = Environment(
        loader=PackageLoader("electrain", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(values)


def json_lines(path: Path) -> list[Record]:
    """The objects in a file of JSON lines. A line that a running process has written only in part is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            record: object = parse_json(line, "")
        except DataError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def json_object(path: Path) -> Record:
    """The JSON object in a file; empty if there is none."""
    try:
        content: object = parse_json_file(path)
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def step_of(record: Record) -> int:
    """The step of a record; 0 if it has none."""
    step = record.get("step")
    return step if isinstance(step, int) else 0


def number(record: Record, name: str) -> float | None:
    """The value of that name; None if it is missing or not a finite number."""
    value = record.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if is_number else None


def last(lines: Sequence[Record], name: str) -> float | None:
    """The newest number of that name."""
    return next((value for line in reversed(lines) if (value := number(line, name)) is not None), None)


def training_figures(lines: Sequence[Record]) -> list[tuple[str, str]]:
    """Labels and values of a run's steps, tokens, hours and median speed."""
    seconds = last(lines, "seconds")
    rates = [rate for line in lines if (rate := number(line, "tokens_per_second")) is not None]
    return [
        ("step", whole(last(lines, "step"))),
        ("tokens", short(last(lines, "tokens"))),
        ("hours of training", ABSENT if seconds is None else f"{seconds / 3600:.2f}"),
        ("tokens/s, median", short(statistics.median(rates)) if rates else ABSENT),
    ]


def whole(value: float | None) -> str:
    """A count such as 12,300."""
    return ABSENT if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A count such as 12,300 or 1.23 M or 4.56 G."""
    if value is None:
        return ABSENT
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return whole(value)

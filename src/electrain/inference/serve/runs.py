"""The live report of a run, as the service gives it: read anew from the run's folder each time that it is asked for.

Neither the run nor its network is opened, and torch is not imported.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from electrain.foundation.configuration import Tables, read_toml
from electrain.foundation.errors import ElectrainError, RunDirectoryError
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    EXAMPLES_NAME,
    JOURNAL_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
)
from electrain.foundation.report_page import Record, json_lines, json_object, last, number, step_of
from electrain.pretraining.report import judged_tokens, shown_examples
from electrain.pretraining.report_figures import FIGURES

State = Literal["waiting", "training", "finished", "stopped"]
# The holder of a folder's lock touches it every 5 seconds; this allows for a slow file server.
ALIVE_SECONDS = 30.0
# In the first answer for a long run. More points cannot be told apart at the size of the figures.
MOST_POINTS = 1000
MOST_WARNINGS = 50
# One line of a journal shows a single micro-batch, so what is shown as a number is the mean of the last few lines.
_RECENT_LINES = 5
# The speed of the last lines tells how long the rest takes.
_RATE_LINES = 10
# Four curves can be told apart in one figure; scores of single entity types come after those of the whole.
_MOST_SCORES = 4
_OF_EVERY_LINE = ("event", "step", "tokens", "seconds", "is_best")


@dataclass(frozen=True)
class FigureReport:
    """A figure: the names of the numbers that it draws, and the unit of its vertical axis."""

    name: str
    unit: str
    curves: list[str]


@dataclass(frozen=True)
class PointReport:
    """The numbers that were logged or scored at a step; None for one that was not finite."""

    step: int
    values: dict[str, float | None]


@dataclass(frozen=True)
class WarningReport:
    """What the run said at a step."""

    step: int
    message: str


@dataclass(frozen=True)
class TokenReport:
    """A token that the discriminator read; `original` is None where it is the original."""

    token: str
    probability_replaced: float
    original: str | None


@dataclass(frozen=True)
class ExampleReport:
    """A row that the discriminator read at a step."""

    step: int
    tokens: list[TokenReport]


@dataclass(frozen=True)
class RunReport:
    """What a run has done so far. Whatever its folder does not tell is None."""

    name: str
    kind: Literal["pretraining", "fine-tuning"]
    task: str | None  # of a fine-tuning run
    state: State
    began: float  # when its configuration was written, in seconds since 1970; another number is another run
    step: int
    steps: int | None
    tokens: int | None
    seconds: float | None  # of training, over all sittings
    seconds_left: float | None
    recent: dict[str, float]  # mean over the last few lines of each number; of scores, the newest value
    best: dict[str, float]  # scores of the model that is kept, of a fine-tuning run
    figures: list[FigureReport]
    points: list[PointReport]  # of the steps after `after_step`, in order
    warnings: list[WarningReport]  # the newest ones, at most MOST_WARNINGS
    examples: list[ExampleReport] | None  # None where none is newer than `after_step`
    machine: dict[str, str]
    configuration: str  # config.toml as it stands


def require_run(directory: Path) -> None:
    """Raises RunDirectoryError: the folder is not of a run."""
    if (directory / CONFIGURATION_NAME).is_file():
        return
    what = f"holds no {CONFIGURATION_NAME}" if directory.is_dir() else "no such folder"
    seeds = sorted(path.parent for path in directory.glob(f"seed-*/{CONFIGURATION_NAME}"))
    raise RunDirectoryError(f"{directory}: {what}; give {seeds[0] if seeds else 'the folder of a run'}")


def report_of(name: str, directory: Path, after_step: int = 0) -> RunReport:
    """What the run in the folder has done so far, with the numbers of the steps after `after_step`.

    Raises: RunDirectoryError: the folder is not of a run, any more.
    """
    require_run(directory)
    records, manifest = json_lines(directory / JOURNAL_NAME), json_object(directory / MANIFEST_NAME)
    tables = _tables(directory / CONFIGURATION_NAME)
    lines = [record for record in records if record.get("event") == "log"]
    scores = [record for record in records if record.get("event") == "validation"]
    is_tuning = manifest.get("kind") == "fine-tuning" or "epochs" in tables.get("training", {})
    facts, inputs = manifest.get("facts"), manifest.get("inputs")
    steps = number(facts if isinstance(facts, dict) else {}, "steps") or number(tables.get("training", {}), "steps")
    state = _state(directory, records, manifest)
    figures = _figures_of_tuning(lines, scores) if is_tuning else _figures_of_pretraining(lines)
    drawn = {name for figure in figures for name in figure.curves}
    kept = [_numbers(record) for record in scores if record.get("is_best") is True]
    return RunReport(
        name=name,
        kind="fine-tuning" if is_tuning else "pretraining",
        task=str(inputs.get("task", "")) if is_tuning and isinstance(inputs, dict) else None,
        state=state,
        began=(directory / CONFIGURATION_NAME).stat().st_mtime,
        step=max(map(step_of, records), default=0),
        steps=None if steps is None else int(steps),
        tokens=_whole(last(lines, "tokens")),
        seconds=last(lines, "seconds"),
        seconds_left=None if state in ("finished", "stopped") else _seconds_left(lines, steps),
        recent=_recent(lines) | (_numbers(scores[-1]) if scores else {}),
        best=kept[-1] if kept else {},
        figures=figures,
        points=[
            PointReport(step_of(one), {name: number(one, name) for name in one if name in drawn})
            for one in _newer(lines, scores, after_step)
        ],
        warnings=[
            WarningReport(step_of(record), str(record.get("message", "")))
            for record in records
            if record.get("event") == "warning"
        ][-MOST_WARNINGS:],
        examples=_examples(directory, after_step),
        machine=_machine(records),
        configuration=(directory / CONFIGURATION_NAME).read_text("utf-8", errors="replace"),
    )


def _tables(path: Path) -> Tables:
    """The configuration; empty where it cannot be read, since a damaged one is shown as it is."""
    try:
        return read_toml(path)
    except ElectrainError:
        return {}


def _state(directory: Path, records: Sequence[Record], manifest: Record) -> State:
    if manifest.get("finished") is True:
        return "finished"
    try:
        is_alive = time.time() - (directory / LOCK_NAME).stat().st_mtime < ALIVE_SECONDS
    except OSError:
        is_alive = False
    if is_alive:
        return "training"
    return "stopped" if records else "waiting"


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _numbers(record: Record) -> dict[str, float]:
    """The finite numbers of a line of the journal."""
    pairs = ((name, number(record, name)) for name in record if name not in _OF_EVERY_LINE)
    return {name: value for name, value in pairs if value is not None}


def _recent(lines: Sequence[Record]) -> dict[str, float]:
    newest = [_numbers(line) for line in lines[-_RECENT_LINES:]]
    names = {name: None for numbers in newest for name in numbers}
    return {name: statistics.fmean(numbers[name] for numbers in newest if name in numbers) for name in names}


def _seconds_left(lines: Sequence[Record], steps: float | None) -> float | None:
    """By the speed of the last lines; None while that is unknown."""
    newest = [(step_of(line), seconds) for line in lines[-_RATE_LINES:] if (seconds := number(line, "seconds"))]
    # The first line alone tells little: its steps compiled and warmed up.
    if steps is None or len(newest) < 2 or newest[-1][0] <= newest[0][0]:
        return None
    rate = (newest[-1][1] - newest[0][1]) / (newest[-1][0] - newest[0][0])
    return max(0.0, rate * (steps - newest[-1][0]))


def _figures_of_pretraining(lines: Sequence[Record]) -> list[FigureReport]:
    """The figures of `report.html` for which there are numbers, each by the name of its first curve."""
    names = {name for line in lines for name in line}
    figures = []
    for figure in FIGURES:
        curves = [curve.name for curve in figure.curves if curve.name in names]
        figures += [FigureReport(figure.curves[0].name, figure.unit, curves)] if curves else []
    return figures


def _figures_of_tuning(lines: Sequence[Record], scores: Sequence[Record]) -> list[FigureReport]:
    names = list(_numbers(scores[-1])) if scores else []
    plans = [
        FigureReport("scores", "", [name for name in names if name != "mean_squared_error"][:_MOST_SCORES]),
        FigureReport("squared_error", "", [name for name in names if name == "mean_squared_error"]),
    ]
    logged = {name for line in lines for name in line}
    for name, unit in (("loss", ""), ("learning_rate", ""), ("gradient_norm", ""), ("tokens_per_second", "tokens/s")):
        plans.append(FigureReport("training_loss" if name == "loss" else name, unit, [name] if name in logged else []))
    return [plan for plan in plans if plan.curves]


def _newer(lines: Sequence[Record], scores: Sequence[Record], after_step: int) -> list[Record]:
    """The lines and scores after a step, in order; of very many lines, some."""
    new = [line for line in lines if step_of(line) > after_step]
    every = max(1, math.ceil(len(new) / MOST_POINTS))
    # Counted from the end, so that the newest line is among them.
    thinned = [line for place, line in enumerate(new) if (len(new) - 1 - place) % every == 0]
    return sorted(thinned + [one for one in scores if step_of(one) > after_step], key=step_of)


def _examples(directory: Path, after_step: int) -> list[ExampleReport] | None:
    shown = shown_examples(json_lines(directory / EXAMPLES_NAME))
    if not shown or step_of(shown[-1]) <= after_step:
        return None
    return [ExampleReport(step_of(one), [TokenReport(*token) for token in judged_tokens(one)]) for one in shown]


def _machine(records: Sequence[Record]) -> dict[str, str]:
    """The machine of the newest sitting."""
    found = next((record for record in reversed(records) if record.get("event") == "machine"), {})
    return {name: str(value) for name, value in found.items() if name in ("device", "processes", "precision")}

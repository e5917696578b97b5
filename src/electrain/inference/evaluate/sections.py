"""An evaluation as small tables of texts, which the terminal and the report both show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electrain.inference.evaluate.evaluation import Breakdown, Calibration, Evaluation, LabelScore, Mistake

ABSENT = "–"
MISTAKE_TITLES = {
    "probability": "Most confident errors",
    "error": "Largest errors",
    "f1": "Worst answers by F1",
    "chrf": "Worst outputs by chrF",
    "rougeL": "Worst outputs by ROUGE-L",
}
NAMES = {
    "mean_absolute_error": "mean absolute error",
    "mean_error": "mean error (above 0: too high)",
    "length_ratio": "length of outputs / references",
    "empty_outputs": "empty outputs",
}


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    is_text: bool = False  # texts stand on the left and may be cut, numbers on the right
    may_go: bool = False  # a terminal that is too narrow may leave the column out


@dataclass(frozen=True)
class Section:
    """A table with a title, and a line below it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def number(value: float | None, digits: int = 1) -> str:
    """A number for a person; a dash for None."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def score(name: str, value: float) -> str:
    """A score: per cent with two digits, and what has a unit of its own with three significant ones."""
    return f"{value:.3g}" if name == "mean_squared_error" else f"{value:.2f}"


def counts_of(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What was scored, by its name, and how much of it."""
    return [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
        for name, value in evaluation.counts.items()
    ]


def data_of(evaluation: Evaluation) -> str:
    """The files that were scored."""
    data = evaluation.settings.get("data", "")
    return data if isinstance(data, str) else ", ".join(map(str, data))


def scores_section(evaluation: Evaluation) -> Section:
    """The scores of a fine-tuned model, the main one first, with its interval."""
    names = sorted(evaluation.scores, key=lambda name: name != evaluation.main_score)
    has_types = any(name.startswith("f1_") and name not in ("f1_macro", "f1_micro") for name in names)
    # The F1 of each type of entity stands in the table of types.
    shown = [name for name in names if not (has_types and name.startswith("f1_"))]
    rows: list[tuple[str, ...]] = []
    for name in shown:
        interval = evaluation.intervals_95.get(name)
        between = "" if interval is None else f"{score(name, interval[0])} to {score(name, interval[1])}"
        rows.append((name, score(name, evaluation.scores[name]), between))
    columns: tuple[Column, ...] = (Column("score", is_text=True), Column(""), Column("95% interval", is_text=True))
    if evaluation.scores_before:
        columns = (*columns, Column("before"))
        rows = [(*row, score(row[0], evaluation.scores_before[row[0]])) for row in rows]
    note = ""
    if evaluation.intervals_95:
        note = "With this number of examples, differences within the interval may be chance."
    return Section("Scores", columns, tuple(rows), note)


def labels_section(labels: Sequence[LabelScore], most: int, where: str) -> Section:
    """The scores of labels: of all, or of the `most` with the most errors. Args: where: who has the others."""
    shown, note = list(labels), ""
    if len(shown) > most:
        worst = sorted(labels, key=lambda one: -_errors(one))[:most]
        shown = [one for one in labels if one in worst]
        note = f"{most} of {len(labels)} labels, those with the most errors; {where} has all."
    columns = (
        Column("label", is_text=True),
        Column("precision"),
        Column("recall"),
        Column("F1"),
        Column("true"),
        Column("predicted", may_go=True),
    )
    rows = [
        (one.label, number(one.precision), number(one.recall), number(one.f1), f"{one.support:,}", f"{one.predicted:,}")
        for one in shown
    ]
    return Section("Labels", columns, tuple(rows), note)


def _errors(one: LabelScore) -> float:
    """How often the label was missed or given wrongly."""
    hits = one.support * (one.recall or 0.0) / 100
    return one.support + one.predicted - 2 * hits


def mixups_section(breakdown: Breakdown, most: int) -> Section:
    """The most frequent mix-ups."""
    rows = []
    for one in breakdown.mixups[:most]:
        said = one.predicted or "nothing"
        rows.append((one.true or "nothing", f"{said}, other words" if one.true == one.predicted else said))
    counts = [f"{one.count:,}" for one in breakdown.mixups]
    columns = (Column("true", is_text=True), Column("predicted", is_text=True), Column("times"))
    whole = [(*pair, count) for pair, count in zip(rows, counts, strict=False)]
    return Section("Most frequent mix-ups", columns, tuple(whole))


def calibration_section(calibration: Calibration) -> Section:
    """The reliability table."""
    rows = tuple(
        (f"{one.lowest:.1f}-{one.highest:.1f}", f"{one.count:,}", f"{one.confidence:.3f}", f"{one.accuracy:.3f}")
        for one in calibration.bins
    )
    columns = (Column("probability", is_text=True), Column("decisions"), Column("mean"), Column("right"))
    return Section(f"Calibration of {calibration.of}", columns, rows, calibration_note(calibration))


def calibration_note(calibration: Calibration) -> str:
    """The measures of calibration in one line."""
    parts = [f"Expected calibration error {calibration.expected_error:.3f}"]
    if calibration.brier is not None:
        parts.append(f"Brier score {calibration.brier:.3f}")
    if calibration.log_loss is not None:
        parts.append(f"log loss {calibration.log_loss:.3f} nats")
    return ", ".join(parts) + "."


def figures_section(breakdown: Breakdown) -> Section | None:
    """Further figures and quantiles; None where there are none."""
    of = {"error": "absolute error", "f1": "F1 of an answer", "chrf": "chrF of an output", "rougeL": "ROUGE-L"}
    what = of.get(breakdown.mistakes_by, breakdown.mistakes_by)
    rows = [(NAMES.get(name, name), f"{value:.3g}") for name, value in breakdown.facts.items()]
    for part, value in breakdown.quantiles.items():
        named = {"50%": f"median {what}", "100%": f"largest {what}"}.get(part, f"{part} of examples: {what} at most")
        rows.append((named, f"{value:.3g}"))
    return Section("Further figures", (Column("", is_text=True), Column("")), tuple(rows)) if rows else None


def mistakes_section(breakdown: Breakdown) -> Section:
    """The worst or most confident errors, a row for each."""
    files = {one.source.rpartition(":")[0] for one in breakdown.mistakes}
    rows = [
        (_value(one, breakdown.mistakes_by), _place(one.source, len(files) > 1), one.expected, one.predicted, one.text)
        for one in breakdown.mistakes
    ]
    columns = (
        Column(breakdown.mistakes_by if breakdown.mistakes_by != "probability" else "prob."),
        Column("line", is_text=True, may_go=True),
        Column("expected", is_text=True),
        Column("predicted", is_text=True),
        Column("text", is_text=True),
    )
    count = len(breakdown.mistakes)
    note = f"{count} of {breakdown.wrong:,} wrong answers." if breakdown.wrong > count else ""
    return Section(MISTAKE_TITLES.get(breakdown.mistakes_by, "Errors"), columns, tuple(rows), note)


def _value(one: Mistake, by: str) -> str:
    return f"{one.value:.3f}" if by == "probability" else f"{one.value:.3g}"


def _place(source: str, is_with_file: bool) -> str:
    """The line, and the file where there are several."""
    file, _, line = source.rpartition(":")
    return f"{Path(file).name}:{line}" if is_with_file and file else line


def pretrained_sections(evaluation: Evaluation) -> list[Section]:
    """The tables of detection and blimp."""
    return _blimp(evaluation) if evaluation.task == "blimp" else _detection(evaluation)


def _detection(evaluation: Evaluation) -> list[Section]:
    columns = (Column("", is_text=True), Column(""), Column("95% interval", is_text=True))
    titles = {
        "generator": "Generator",
        "correction": "Correction of words",
        "baselines": "Without reading the text",
        "discriminator": "Detection of replaced tokens",
    }
    sections = []
    for part, title in titles.items():
        values = evaluation.scores.get(part) or {}
        rows = []
        for name, value in values.items():
            interval = evaluation.intervals_95.get(name) if part in ("discriminator", "baselines") else None
            between = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
            shown = f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            rows.append((name.replace("_", " "), ABSENT if shown is None else shown, between))
        if any(row[2] for row in rows):
            sections.append(Section(title, columns, tuple(rows)))
        elif rows:
            sections.append(Section(title, (columns[0], Column("")), tuple(row[:2] for row in rows)))
    above = evaluation.intervals_95.get("auc_above_unigram")
    if sections and above is not None:
        note = f"AUC above that of word frequency alone: {above[0]:.3f} to {above[1]:.3f} (95% interval, over rows)."
        last = sections[-1]
        sections[-1] = Section(last.title, last.columns, last.rows, note)
    return sections


def _blimp(evaluation: Evaluation) -> list[Section]:
    """A table of all scorers, and for each scorer one of the phenomena."""
    scorers: Mapping[str, Any] = evaluation.scores["scorers"]
    columns = (Column("phenomenon", is_text=True), Column("pairs"), Column("accuracy"), Column("± standard error"))
    sections = []
    for name, groups in scorers.items():
        rows = [_blimp_row(kind, own) for kind, own in groups["by_phenomenon"].items()]
        sections.append(Section(f"By {name.replace('_', ' ')}", columns, tuple(rows)))
    overall = [_blimp_row(name.replace("_", " "), groups["overall"]) for name, groups in scorers.items()]
    columns = (Column("scorer", is_text=True), *columns[1:])
    return [*sections, Section("All pairs", columns, tuple(overall), "Chance is 50.")]


def _blimp_row(name: str, own: Mapping[str, float]) -> tuple[str, ...]:
    return name, f"{own['pairs']:,}", f"{100 * own['accuracy']:.1f}", f"{100 * own['standard_error']:.1f}"

"""`report.html`: how a run went, in one file that needs nothing else; written during the run or after it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.output_folder import CONFIGURATION_NAME, MANIFEST_NAME, write_text_durably
from electrain.pretrain.report_curves import draw_curves

REPORT_NAME = "report.html"
SHOWN_EXAMPLES = 4
# The discriminator's colour, Okabe and Ito's vermilion, which the colour-blind tell from blue and grey.
MARK_COLOUR = "213, 94, 0"


@dataclass(frozen=True)
class RunRecords:
    """What a run folder says about its run.

    Attributes:
        lines: of the journal, in order of steps.
        warnings: as (step, message).
        machines: facts, one for each sitting.
        examples: sentences with the discriminator's marks.
        configuration: the resolved TOML text.
        is_finished: as the manifest says.
    """

    name: str
    lines: list[dict[str, Any]]
    warnings: list[tuple[int, str]]
    machines: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    configuration: str
    is_finished: bool


def write_report(run_directory: Path) -> Path:
    """Writes `report.html` into a run folder, finished or not, and returns its path.

    Raises: RunDirectoryError: the folder is not a run's.
    """
    records = read_records(run_directory)
    path = run_directory / REPORT_NAME
    write_text_durably(path, render(records))
    return path


def read_records(run_directory: Path) -> RunRecords:
    """Reads what a run has written so far; a last line that is only half there is left out.

    Raises: RunDirectoryError: the folder is not a run's.
    """
    configuration = run_directory / CONFIGURATION_NAME
    if not configuration.is_file():
        raise RunDirectoryError(f"{run_directory}: holds no config.toml; give the folder of a pretraining run")
    records = _json_lines(run_directory / "metrics.jsonl")
    return RunRecords(
        name=run_directory.resolve().name,
        lines=[record for record in records if record.get("event") == "log"],
        warnings=[
            (_step(record), str(record.get("message"))) for record in records if record.get("event") == "warning"
        ],
        machines=[record for record in records if record.get("event") == "machine"],
        examples=[record for record in _json_lines(run_directory / "examples.jsonl") if _is_example(record)],
        configuration=configuration.read_text("utf-8", errors="replace"),
        is_finished=_is_finished(run_directory / MANIFEST_NAME),
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _step(record: dict[str, Any]) -> int:
    step = record.get("step")
    return step if isinstance(step, int) else 0


def _is_example(record: dict[str, Any]) -> bool:
    names = ("tokens", "originals", "probabilities", "is_replaced")
    columns = [record.get(name) for name in names]
    return all(isinstance(column, list) for column in columns) and len({len(column or []) for column in columns}) == 1


def _is_finished(manifest: Path) -> bool:
    records = _json_object(manifest)
    return records.get("finished") is True


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def render(records: RunRecords) -> str:
    """The page as HTML text. Whatever comes from the run is escaped."""
    state = "finished" if records.is_finished else "not finished"
    parts = [
        f"<h1>{escape(records.name)}</h1>",
        f'<p class="state">Pretraining run, {state}.</p>',
        _headline(records),
        _machine(records),
        _warnings(records),
        "<h2>Curves</h2>",
        _curves(records.lines),
        _examples(records.examples),
        "<h2>Configuration</h2>",
        f"<details><summary>config.toml</summary><pre>{escape(records.configuration)}</pre></details>",
    ]
    title = escape(f"{records.name}: electrain report")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _headline(records: RunRecords) -> str:
    lines = records.lines
    if not lines:
        return "<p>Nothing was logged yet.</p>"
    figures = [("step", _whole(_last(lines, "step"))), ("tokens", _short(_last(lines, "tokens")))]
    seconds = _last(lines, "seconds")
    figures.append(("hours of training", "–" if seconds is None else f"{seconds / 3600:.2f}"))
    rates = [line["tokens_per_second"] for line in lines if _number(line, "tokens_per_second") is not None]
    figures.append(("tokens/s, median", _short(statistics.median(rates)) if rates else "–"))
    for label, name in _FINAL_FIGURES:
        value = _recent(lines, name)
        if value is not None:
            figures.append((label, f"{value:.3f}"))
    refused = _last(lines, "refused_updates") or 0
    figures.append(("refused updates", _whole(refused)))
    cells = [f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in figures]
    note = f"Losses, AUC and accuracy are means over the last {_RECENT_LINES} logged lines."
    return f'<dl class="figures">{"".join(cells)}</dl><p class="note">{note}</p>'


_RECENT_LINES = 5
_FINAL_FIGURES = [
    ("loss", "loss"),
    ("detection AUC", "discriminator_auc"),
    ("AUC of word frequency alone", "unigram_auc"),
    ("masked-word accuracy", "masked_language_model_accuracy"),
    ("generator accuracy", "generator_accuracy"),
]


def _number(line: dict[str, Any], name: str) -> float | None:
    value = line.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if is_number else None


def _last(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    """The newest number of that name."""
    return next((value for line in reversed(lines) if (value := _number(line, name)) is not None), None)


def _recent(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [value for line in lines[-_RECENT_LINES:] if (value := _number(line, name)) is not None]
    return statistics.fmean(values) if values else None


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _short(value: float | None) -> str:
    """A count for a person: 12,300 or 1.23 M or 4.56 G."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}"


def _machine(records: RunRecords) -> str:
    if not records.machines:
        return ""
    facts = {key: value for key, value in records.machines[-1].items() if key not in ("event", "step")}
    described = []
    for key, value in facts.items():
        shown = f"{value / 1e9:,.1f} GFLOP{'/s' if 'rate' in key else ''}" if key.endswith("_flops") else str(value)
        described.append(f"{escape(key.removesuffix('_flops').replace('_', ' '))}: {escape(shown)}")
    sittings = len(records.machines)
    note = f" Trained in {sittings} sittings; the machine of the last is shown." if sittings > 1 else ""
    return f'<p class="machine">Machine: {"; ".join(described)}.{note}</p>'


def _warnings(records: RunRecords) -> str:
    if not records.warnings:
        return '<h2>Health</h2><p class="healthy">No warnings.</p>'
    items = "".join(f"<li>Step {step:,}: {escape(message)}</li>" for step, message in records.warnings)
    return f'<h2>Health</h2><ul class="warnings">{items}</ul>'


def _curves(lines: Sequence[dict[str, Any]]) -> str:
    figures = draw_curves(lines)
    if not figures:
        return "<p>There is nothing to draw before two lines are logged.</p>"
    cells = "".join(
        f"<figure>{figure.svg}<figcaption><b>{escape(figure.title)}.</b> {escape(figure.caption)}</figcaption></figure>"
        for figure in figures
    )
    return f'<div class="curves">{cells}</div><p class="note">Thin lines: as logged. Thick lines: smoothed.</p>'


def _examples(examples: Sequence[dict[str, Any]]) -> str:
    if not examples:
        return ""
    middle = [examples[round(k * (len(examples) - 1) / (SHOWN_EXAMPLES - 1))] for k in range(SHOWN_EXAMPLES)]
    shown = {_step(example): example for example in middle}
    legend = (
        "<p>The darker a word's background, the surer the discriminator is that it was replaced. "
        'Words that <span class="replaced">were replaced</span> are underlined, '
        "with the original in small letters after them.</p>"
    )
    rows = "".join(
        f'<h3>Step {step:,}</h3><p class="example">{_marked(example)}</p>' for step, example in sorted(shown.items())
    )
    return f"<h2>What the discriminator sees</h2>{legend}{rows}"


def _marked(example: dict[str, Any]) -> str:
    columns = (example[name] for name in ("tokens", "originals", "probabilities", "is_replaced"))
    pieces: list[str] = []
    for token, original, probability, is_replaced in zip(*columns, strict=True):
        text = str(token)
        chance = min(1.0, max(0.0, float(probability or 0.0)))
        title = f"replaced with probability {chance:.2f}" + (f"; the original is {original}" if is_replaced else "")
        kind = ' class="replaced"' if is_replaced else ""
        shade = f"background: rgba({MARK_COLOUR}, {0.75 * chance:.2f})"
        joined = "" if text.startswith("##") or not pieces else " "
        word = f'<span{kind} style="{shade}" title="{escape(title)}">{escape(text.removeprefix("##"))}</span>'
        pieces.append(joined + word + (f"<small>{escape(str(original))}</small>" if is_replaced else ""))
    return "".join(pieces)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1100px; margin: 0 auto;
  padding: 1rem; }
h1 { margin: 0; overflow-wrap: anywhere; } h2 { margin: 2rem 0 .5rem; } h3 { margin: 1rem 0 0; font-size: 1rem; }
.state, .note, .machine { margin: .3rem 0; color: #444; font-size: .9rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.figures div { border: 1px solid #ccc; border-radius: 4px; padding: .4rem .6rem; display: flex; flex-direction: column;
  justify-content: space-between; }
dt { font-size: .85rem; color: #444; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.warnings { background: #fff4e5; border-left: 4px solid #d55e00; margin: 0; padding: .6rem 1rem .6rem 2rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; break-inside: avoid; } figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; color: #333; }
.example { line-height: 2; margin: .2rem 0; overflow-wrap: anywhere; } .example span { padding: .1em 0; }
.replaced { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px; }
.example small { color: #444; margin-left: .2em; font-size: .75em; }
pre { overflow-x: auto; background: #f5f5f5; padding: .8rem; font-size: .85rem; } summary { cursor: pointer; }
@media print { body { max-width: none; font-size: 11pt; } * { print-color-adjust: exact; } }
"""

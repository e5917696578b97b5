"""Writes `report.html` of a pretraining run, a file that needs no other, during the run or after it."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from electrain.foundation.output_folder import CONFIGURATION_NAME, EXAMPLES_NAME, JOURNAL_NAME
from electrain.foundation.report_curves import draw_curves
from electrain.foundation.report_page import (
    Record,
    json_lines,
    last,
    number,
    step_of,
    training_figures,
    whole,
    write_page,
)
from electrain.foundation.sums import require_as_written
from electrain.pretraining.best_checkpoint import (
    BEST_FOLDER,
    PROBE_EVENT,
    best_of,
    choice_of,
    chosen_of,
    probed_steps,
    step_in_folder,
)
from electrain.pretraining.report_figures import FIGURES

SHOWN_EXAMPLES = 4
# The discriminator's colour: Okabe and Ito's vermilion, which colour-blind readers tell apart from blue and grey.
MARK_COLOUR = "213, 94, 0"
_RECENT_LINES = 5
_FINAL_FIGURES = {
    "loss": "loss",
    "discriminator_auc": "detection AUC",
    "unigram_auc": "AUC of word frequency alone",
    "masked_language_model_accuracy": "masked-word accuracy",
    "generator_accuracy": "generator accuracy",
}


def write_report(run_directory: Path) -> Path:
    """Writes `report.html` into the folder of a pretraining run, finished or not, and returns its path.

    Raises: RunDirectoryError: the folder is not of a run.
    """
    require_as_written(run_directory, (CONFIGURATION_NAME, JOURNAL_NAME))
    # Whoever wants no text of theirs in the page may remove this file.
    require_as_written(run_directory, (EXAMPLES_NAME,), may_be_missing=True)
    records = json_lines(run_directory / JOURNAL_NAME)
    lines = [record for record in records if record.get("event") == "log"]
    machines = [record for record in records if record.get("event") == "machine"]
    values = {
        "figures": _figures(lines),
        "recent_lines": _RECENT_LINES,
        "machine": _facts(machines[-1]) if machines else [],
        "sittings": len(machines),
        "warnings": [
            (whole(step_of(one)), str(one.get("message"))) for one in records if one.get("event") == "warning"
        ],
        "choice": _choice(records, run_directory),
        "curves": draw_curves([one for one in records if one.get("event") in ("log", PROBE_EVENT)], FIGURES),
        "examples": _examples(json_lines(run_directory / EXAMPLES_NAME)),
        "colour": MARK_COLOUR,
    }
    return write_page(run_directory, "pretraining/report.html", values)


def _choice(records: Sequence[Record], run_directory: Path) -> str:
    """Which checkpoint the probe found best; empty without a probe."""
    probed = probed_steps(records)
    best, chosen = best_of(probed), chosen_of(probed)
    told = choice_of(run_directory)
    if told or best is None or chosen is None:
        return told
    held = step_in_folder(run_directory)
    older = f" {BEST_FOLDER}/ still holds step {held:,}." if held not in (None, chosen.step) else ""
    return f"So far the probe is best at step {best.step:,}: {best}.{older}"


def _figures(lines: Sequence[Record]) -> list[tuple[str, str]]:
    if not lines:
        return []
    figures = training_figures(lines)
    for name, label in _FINAL_FIGURES.items():
        recent = [value for line in lines[-_RECENT_LINES:] if (value := number(line, name)) is not None]
        if recent:
            figures.append((label, f"{statistics.fmean(recent):.3f}"))
    return [*figures, ("refused updates", whole(last(lines, "refused_updates") or 0))]


def _facts(machine: Record) -> list[str]:
    described = []
    for key, value in machine.items():
        if key in ("event", "step"):
            continue
        is_flops = key.endswith("_flops") and isinstance(value, int | float)
        shown = f"{value / 1e9:,.1f} GFLOP{'/s' if 'rate' in key else ''}" if is_flops else str(value)
        label = "operations per row" if key == "row_flops" else key.removesuffix("_flops").replace("_", " ")
        described.append(f"{label}: {shown}")
    return described


def shown_examples(records: Sequence[Record]) -> list[Record]:
    """Some of the examples, from the first to the last, by their steps; records that are none are left out."""
    examples = list(filter(_is_example, records))
    if not examples:
        return []
    spread = [examples[round(k * (len(examples) - 1) / (SHOWN_EXAMPLES - 1))] for k in range(SHOWN_EXAMPLES)]
    shown = {step_of(example): example for example in spread}
    return [example for _, example in sorted(shown.items())]


def _is_example(record: Record) -> bool:
    columns = [record.get(name) for name in ("tokens", "originals", "probabilities", "is_replaced")]
    return all(isinstance(column, list) for column in columns) and len({len(column or []) for column in columns}) == 1


def _examples(records: Sequence[Record]) -> list[tuple[str, list[dict[str, str]]]]:
    """Each example that is shown as its step and its words."""
    return [(whole(step_of(example)), _words(example)) for example in shown_examples(records)]


def judged_tokens(example: Record) -> list[tuple[str, float, str | None]]:
    """Each token of an example, the probability that it was replaced, and the original where it was."""
    columns = (example[name] for name in ("tokens", "originals", "probabilities", "is_replaced"))
    return [
        (str(token), min(1.0, max(0.0, float(probability or 0.0))), str(original) if is_replaced else None)
        for token, original, probability, is_replaced in zip(*columns, strict=True)
    ]


def _words(example: Record) -> list[dict[str, str]]:
    words: list[dict[str, str]] = []
    for text, chance, original in judged_tokens(example):
        title = f"replaced with probability {chance:.2f}" + (f"; the original is {original}" if original else "")
        words.append(
            {
                "space": "" if text.startswith("##") or not words else " ",
                "text": text.removeprefix("##"),
                "shade": f"{0.75 * chance:.2f}",
                "title": title,
                "original": original or "",
            }
        )
    return words

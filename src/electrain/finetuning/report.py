"""`report.html` of a fine-tuning run: its scores, its curves, and where the best model errs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from electrain.finetuning.linear import LINEAR_MODELS
from electrain.finetuning.predictions import PREDICTIONS_NAME, Judged, read_judged
from electrain.foundation.configuration import read_toml
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.output_folder import CONFIGURATION_NAME, JOURNAL_NAME, MANIFEST_NAME
from electrain.foundation.report_curves import BLACK, BLUE, GREEN, VERMILION, Curve, FigurePlan, draw_curves
from electrain.foundation.report_page import (
    ABSENT,
    Record,
    json_lines,
    json_object,
    last,
    number,
    step_of,
    training_figures,
    whole,
    write_page,
)
from electrain.foundation.sums import require_as_written

SHOWN_ERRORS = 20
# A larger matrix cannot be read; the table of labels has them all.
MOST_MATRIX_LABELS = 15
# Manifests of older runs do not name the score that decides: it is the first of these that there is.
_MAIN_SCORES = ("f1_micro", "bleu", "rougeL", "spearman", "f1", "accuracy")
_ERROR_MEASURES = {
    "classification": "the largest error of a label's probability",
    "regression": "the difference of the numbers",
    "tagging": "the number of wrong words",
    "question-answering": "1 - F1 of the answer",
    "summarization": "1 - F1 of the pairs of characters that both texts have",
    "translation": "1 - F1 of the pairs of characters that both texts have",
}
_TRAINING_PLANS = (
    FigurePlan("Loss", "Mean training loss at each logged step.", "", (Curve("loss", "loss", BLACK),)),
    FigurePlan("Learning rate", "At each step.", "", (Curve("learning_rate", "learning rate", BLACK),)),
    FigurePlan(
        "Gradient norm", "Norm over all parameters, before clipping.", "", (Curve("gradient_norm", "norm", BLACK),)
    ),
    FigurePlan(
        "Speed", "Tokens per second, padding not counted.", "tokens/s", (Curve("tokens_per_second", "", GREEN),)
    ),
)


def is_fine_tuning(run_directory: Path) -> bool:
    """True for the folder of a fine-tuning run, as its manifest says.

    Raises: RunDirectoryError: it is one, but the manifest, which a run writes first, is missing.
    """
    configuration = run_directory / CONFIGURATION_NAME
    has_manifest = (run_directory / MANIFEST_NAME).exists()
    if not has_manifest and configuration.is_file() and "epochs" in read_toml(configuration).get("training", {}):
        raise RunDirectoryError(f"{run_directory / MANIFEST_NAME}: missing; copy the run again")
    return json_object(run_directory / MANIFEST_NAME).get("kind") == "fine-tuning"


def write_report(run_directory: Path) -> Path:
    """Writes `report.html` into the folder of a fine-tuning run, finished or not, and returns its path.

    Raises: RunDirectoryError: the folder is not a run's.
    """
    require_as_written(run_directory, (CONFIGURATION_NAME, JOURNAL_NAME))
    # Whoever wants no text of theirs in the page may remove this file.
    require_as_written(run_directory, (PREDICTIONS_NAME,), may_be_missing=True)
    manifest, records = json_object(run_directory / MANIFEST_NAME), json_lines(run_directory / JOURNAL_NAME)
    inputs, facts = manifest.get("inputs") or {}, manifest.get("facts") or {}
    task = str(inputs.get("task", ""))
    lines = [record for record in records if record.get("event") == "log"]
    evaluations = [record for record in records if record.get("event") == "validation"]
    judged = read_judged(run_directory, task)
    figures = training_figures(lines) if lines else []
    figures += [("training examples", whole(number(facts, "train_examples")))] if facts else []
    figures += [("validation examples", whole(len(judged)))] if judged else []
    figures += [("refused updates", whole(last(lines, "refused_updates") or 0))] if lines else []
    scores = _scores(evaluations, str(facts.get("chosen_by") or ""))
    linear = number(facts.get("linear_scores") or {}, scores["main_score"])
    figures += [(f"{scores['main_score']}, {LINEAR_MODELS[task]}", f"{linear:.2f}")] if linear is not None else []
    wrong = sorted((one for one in judged if one.error > 0), key=lambda one: -one.error)
    values = {
        "task": task,
        "model": facts.get("model"),
        "figures": [*scores.pop("figures"), *figures],
        "curves": draw_curves(records, [*_score_plans(scores["score_names"]), *_TRAINING_PLANS]),
        "labels": _label_rows(judged),
        "confusion": _confusion(judged),
        "judged": whole(len(judged)),
        "wrong": whole(len(wrong)),
        "errors": wrong[:SHOWN_ERRORS],
        "error_measure": _ERROR_MEASURES.get(task, ""),
        **scores,
    }
    return write_page(run_directory, "finetuning/report.html", values)


def _scores(evaluations: Sequence[Record], chosen_by: str) -> Record:
    """The scores of each evaluation as a table, and those of the best one as figures.

    Args: chosen_by: the score that decides; "" where an older run does not say it.
    """
    names = [name for name in (evaluations[-1] if evaluations else {}) if name not in ("event", "step", "is_best")]
    main = chosen_by or next((name for name in _MAIN_SCORES if name in names), "")
    kept = [one for one in evaluations if one.get("is_best") is True]
    # The first of equal ones, as the run itself keeps the first.
    best = kept[-1] if kept else max(evaluations, key=lambda one: number(one, main) or 0.0, default={})

    def shown(evaluation: Record) -> list[str]:
        values = [number(evaluation, name) for name in names]
        return [ABSENT if value is None else f"{value:.2f}" for value in values]

    return {
        "score_names": names,
        "main_score": main,
        "best_step": whole(step_of(best)) if best else "",
        "figures": list(zip(names, shown(best), strict=True)),
        "evaluations": [
            {"step": whole(step_of(one)), "scores": shown(one), "is_best": one is best} for one in evaluations
        ],
    }


def _score_plans(names: Sequence[str]) -> list[FigurePlan]:
    """One figure for the squared error, one for the first four other scores: single entity types come after those."""
    others = [name for name in names if name != "mean_squared_error"]
    styles = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (BLACK, ":")]
    curves = [Curve(name, name, *style) for name, style in zip(others, styles, strict=False)]
    plans = [FigurePlan("Scores", "On the validation examples, at each evaluation.", "", tuple(curves))]
    error = Curve("mean_squared_error", "mean squared error", VERMILION)
    return [*plans, FigurePlan("Squared error", "Mean over the validation examples.", "", (error,))]


def _label_rows(judged: Sequence[Judged]) -> list[Record]:
    """For each label how often it is true and predicted, and its precision, recall and F1 in per cent."""
    pairs = [pair for one in judged for pair in one.labels]
    true, given = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    hits = Counter(pair[0] for pair in pairs if pair[0] == pair[1])
    rows = []
    for name in sorted(label for label in true | given if label is not None):
        ratios = [(hits[name], given[name]), (hits[name], true[name]), (2 * hits[name], true[name] + given[name])]
        scores = [f"{100 * part / of:.1f}" if of else ABSENT for part, of in ratios]
        rows.append({"name": name, "true": whole(true[name]), "predicted": whole(given[name]), "scores": scores})
    return rows


def _confusion(judged: Sequence[Judged]) -> list[Record]:
    """A row for each true label, with the number of times that each label was predicted for it.

    Empty where a text may have several labels, and for more labels than can be read.
    """
    counts = Counter(pair for one in judged for pair in one.labels)
    names = sorted({str(label) for pair in counts for label in pair})
    if not 2 <= len(names) <= MOST_MATRIX_LABELS or any(None in pair for pair in counts):
        return []
    rows = []
    for true in names:
        own = {given: counts[true, given] for given in names}
        shades = {given: f"{0.7 * count / max(1, sum(own.values())):.2f}" for given, count in own.items()}
        cells = [{"count": whole(own[name]), "shade": shades[name], "is_right": name == true} for name in names]
        rows.append({"name": true, "cells": cells})
    return rows

"""What the lines of a race say: a table for each budget, ranks, the operations that an arm needs, and a figure."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electrain.foundation.card import table
from electrain.foundation.output_folder import write_text_durably
from race_arms import UNTRAINED

Line = dict[str, Any]
BASELINE = "mlm"
# The scores that are ranked, by measure, and what they are; further ones of a line are shown in `SHOWN` or only kept.
RANKED = {
    "few-label": {
        "brown_pos": "tags, few",
        "sst2": "sentiment, few",
        "stsb": "similarity, tuned",
        "people_daily_ner": "names, few",
    },
    "frozen": {"tagging": "tagging probe", "similarity": "similarity, frozen"},
    "zero-shot": {"blimp": "BLiMP"},
    "writing": {"bleu": "BLEU"},
}
SHOWN = {"frozen": {"tagging_best_layer": "probe, best layer", "tagging_last": "probe, last layer"}}
VALIDATION = "_validation"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#999999")


def write_table(lines: Sequence[Line], arms: Sequence[str], output: Path, *, is_choosing: bool = False) -> str:
    """Writes `table.md` and `table.png` into the race's folder; returns the first.

    Args:
        arms: those that are shown; none: all that have lines.
        is_choosing: validation scores in the place of test scores, to choose among variants of an arm.
    """
    chosen = [line for line in lines if not arms or line["arm"] in arms]
    if is_choosing:
        chosen = [line | {"scores": of_validation(line["scores"])} if "scores" in line else line for line in chosen]
    text = "\n\n".join(
        [*(_of_budget(chosen, budget) for budget in _budgets(chosen)), *_needed(chosen), *_failures(chosen)]
    )
    write_text_durably(output / "table.md", text + "\n")
    if any("scores" in line for line in chosen):
        draw(chosen, output / "table.png")
    return text


def of_validation(scores: dict[str, Any]) -> dict[str, Any]:
    """The validation scores of a line, under the names of the test scores; what has none is left out."""
    return {name.removesuffix(VALIDATION): score for name, score in scores.items() if name.endswith(VALIDATION)}


def _budgets(lines: Sequence[Line]) -> list[float]:
    return sorted({line["budget"] for line in lines})


def _arms(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["arm"] for line in lines))


def values_of(lines: Sequence[Line], arm: str, budget: float, measure: str, score: str) -> list[float]:
    """A score of an arm at a budget, one for each seed that was measured."""
    found = [
        line.get("scores", {}).get(score)
        for line in lines
        if (line["arm"], line["budget"], line["kind"]) == (arm, budget, measure)
    ]
    return [value for value in found if value is not None and math.isfinite(value)]


def ranks(medians: dict[str, float]) -> dict[str, float]:
    """The place of each arm, 1 for the largest median; arms that are level share the mean of their places."""
    ordered = sorted(medians.values(), reverse=True)
    places = {value: [place for place, one in enumerate(ordered, 1) if one == value] for value in ordered}
    return {arm: statistics.fmean(places[value]) for arm, value in medians.items()}


def mean_ranks(lines: Sequence[Line], budget: float, arms: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The mean rank over the measures that count, for each arm that has them all; and these measures.

    The scores that count are those of the baseline, or where it is not among the arms, those that all have; but not
    those in which no arm is above the network that was not trained, which has no rank itself. A measure of several
    scores has the mean of their ranks, so that each measure counts the same.
    """
    arms = [arm for arm in arms if arm != UNTRAINED]
    judges = [BASELINE] if BASELINE in arms else arms
    medians: dict[str, list[dict[str, float]]] = {}
    for measure, scores in RANKED.items():
        for score in scores:
            of_arms = _medians(lines, budget, arms, measure, score)
            if set(judges) <= set(of_arms) and not _is_below_floor(lines, budget, arms, measure, score):
                medians.setdefault(measure, []).append(of_arms)
    ranked = [arm for arm in arms if all(arm in of_arms for of in medians.values() for of_arms in of)]
    means = [
        [
            statistics.fmean(ranks({arm: of_arms[arm] for arm in ranked})[one] for of_arms in of)
            for of in medians.values()
        ]
        for one in ranked
    ]
    return {arm: statistics.fmean(of) for arm, of in zip(ranked, means, strict=True) if of}, list(medians)


def _medians(lines: Sequence[Line], budget: float, arms: Sequence[str], measure: str, score: str) -> dict[str, float]:
    found = {arm: values_of(lines, arm, budget, measure, score) for arm in arms}
    return {arm: statistics.median(values) for arm, values in found.items() if values}


def _is_below_floor(lines: Sequence[Line], budget: float, arms: Sequence[str], measure: str, score: str) -> bool:
    """Whether the network that was not trained was measured, and no arm is above it."""
    medians = _medians(lines, budget, [*arms, UNTRAINED], measure, score)
    return UNTRAINED in medians and max(medians.values()) == medians[UNTRAINED]


def _of_budget(lines: Sequence[Line], budget: float) -> str:
    own = [line for line in lines if line["budget"] == budget]
    arms = [arm for arm in _arms(own) if any(line["arm"] == arm and "scores" in line for line in own)]
    means, measures = mean_ranks(own, budget, arms)
    arms.sort(key=lambda arm: means.get(arm, math.inf))
    columns = [
        (measure, score, name)
        for measure in RANKED
        for score, name in (RANKED[measure] | SHOWN.get(measure, {})).items()
        if any(values_of(own, arm, budget, measure, score) for arm in arms)
    ]
    heads = ["arm", "seeds", "mean rank", *(name for *_, name in columns), "minutes", "of one processor"]
    rows = []
    for arm in arms:
        trained = [line for line in own if (line["arm"], line["kind"]) == (arm, "trained") and "failed" not in line]
        cells = [cell(values_of(own, arm, budget, measure, score)) for measure, score, _ in columns]
        minutes = [cell([line[name] / 60 for line in trained]) for name in ("seconds", "processor_seconds")]
        rank = f"{means[arm]:.1f}" if arm in means else "-"
        rows.append([arm, str(len({line["seed"] for line in trained})), rank, *cells, *minutes])
    ranked = f"ranked by {', '.join(measures)}" if measures else "no measure that all have"
    below = [name for measure, score, name in columns if _is_below_floor(own, budget, arms, measure, score)]
    if below:
        ranked += f"; no arm is above an untrained network in {', '.join(below)}"
    shown = "\n".join(table(heads, rows))
    return f"{budget:.3g} counted operations; median (lowest to highest) over seeds; {ranked}\n\n{shown}"


def cell(values: Sequence[float]) -> str:
    """The median, and the range where there are several values."""
    if not values:
        return "-"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.1f}{spread}"


def operations_needed(curve: Sequence[tuple[float, float]], goal: float) -> float | None:
    """The operations at which a curve first reaches a score, on straight lines between points in log operations.

    Args: curve: budgets, rising, and the scores there.
    Returns: the first budget if that reaches it already; None if none does.
    """
    before: tuple[float, float] | None = None
    for budget, score in curve:
        if score >= goal:
            if before is None:
                return budget
            part = (goal - before[1]) / (score - before[1])
            return math.exp(math.log(before[0]) + part * (math.log(budget) - math.log(before[0])))
        before = (budget, score)
    return None


def _needed(lines: Sequence[Line]) -> list[str]:
    """The part of the largest budget that an arm needs to reach the baseline's score at its end."""
    budgets = _budgets([line for line in lines if line["arm"] == BASELINE and "scores" in line])
    if not budgets:
        return []
    if len(budgets) < 2:
        return [f"Operations needed to reach {BASELINE}: needs lines of two budgets or more."]
    scores = [(measure, score, name) for measure, of in RANKED.items() for score, name in of.items()
              if values_of(lines, BASELINE, budgets[-1], measure, score)]  # fmt: skip
    heads = ["arm", *(name for *_, name in scores)]
    rows = []
    for arm in _arms(lines):
        cells = []
        for measure, score, _ in scores:
            curve = curve_of(lines, arm, measure, score)
            goal = statistics.median(values_of(lines, BASELINE, budgets[-1], measure, score))
            cells.append(_needed_cell(curve, goal, budgets[-1]))
        rows.append([arm, *cells])
    said = f"Part of {budgets[-1]:.3g} operations that an arm needs to reach what {BASELINE} has at their end"
    shown = "\n".join(table(heads, rows))
    return [f"{said} (medians, straight lines in log operations between budgets)\n\n{shown}"]


def _needed_cell(curve: Sequence[tuple[float, float]], goal: float, largest: float) -> str:
    if len(curve) < 2:
        return "-"
    needed = operations_needed(curve, goal)
    if needed is None:
        return "not reached"
    return f"{'at most ' if needed == curve[0][0] else ''}{needed / largest:.2g}"


def curve_of(lines: Sequence[Line], arm: str, measure: str, score: str) -> list[tuple[float, float]]:
    """The median score of an arm at each budget that has one."""
    found = [(budget, values_of(lines, arm, budget, measure, score)) for budget in _budgets(lines)]
    return [(budget, statistics.median(values)) for budget, values in found if values]


def _failures(lines: Sequence[Line]) -> list[str]:
    failed = [
        f"- {line['arm']}, seed {line['seed']}, {line['budget']:.3g} operations, {line['kind']}: {line['failed']}"
        for line in lines
        if "failed" in line
    ]
    return ["Failed:\n\n" + "\n".join(failed)] if failed else []


def draw(lines: Sequence[Line], path: Path) -> None:
    """A panel for each score: quality against operations with a point for each seed, or by arm at one budget."""
    from matplotlib.figure import Figure

    scores = [
        (measure, score, name)
        for measure, of in RANKED.items()
        for score, name in of.items()
        if any(score in line.get("scores", {}) for line in lines if line["kind"] == measure)
    ]
    arms, budgets = _arms(lines), _budgets([line for line in lines if "scores" in line])
    is_strip = len(budgets) == 1
    columns = min(len(scores), 3)
    rows = math.ceil(len(scores) / columns)
    height = 1.2 + 0.28 * len(arms) if is_strip else 3.2
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_visible(False)
    for number, (axis, (measure, score, name)) in enumerate(zip(axes.flat, scores, strict=False)):
        if is_strip:
            _strip(axis, lines, arms, budgets[0], (measure, score))
            axis.tick_params(labelleft=number % columns == 0)
        else:
            _curves(axis, lines, arms, (measure, score))
            axis.set_xticks(budgets, [f"{budget:.2g}" for budget in budgets], minor=False, fontsize=8)
            axis.set_xticks([], minor=True)
            axis.set_xlabel("counted operations", fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    if is_strip:
        figure.supxlabel(f"score after {budgets[0]:.3g} counted operations; the line is the median of {BASELINE}")
    else:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path)


def _strip(axis: Any, lines: Sequence[Line], arms: Sequence[str], budget: float, what: tuple[str, str]) -> None:
    for place, arm in enumerate(arms):
        values = values_of(lines, arm, budget, *what)
        color = COLORS[1] if arm == BASELINE else COLORS[0]
        axis.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.8)
        if arm == BASELINE and values:
            axis.axvline(statistics.median(values), color=color, linestyle="--", linewidth=0.8)
    axis.set_yticks(range(len(arms)), arms, fontsize=8)
    axis.set_ylim(len(arms) - 0.5, -0.5)


def _curves(axis: Any, lines: Sequence[Line], arms: Sequence[str], what: tuple[str, str]) -> None:
    """The first arms have a colour of their own, the others are grey."""
    for number, arm in enumerate(arms):
        color = COLORS[min(number, len(COLORS) - 1)]
        curve = curve_of(lines, arm, *what)
        axis.plot([budget for budget, _ in curve], [score for _, score in curve], color=color, linewidth=1.2, label=arm)
        for budget, _ in curve:
            values = values_of(lines, arm, budget, *what)
            axis.plot([budget] * len(values), values, "o", color=color, markersize=3, alpha=0.6)
    axis.set_xscale("log")

"""Draws the curves of a report as SVG text."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

# Okabe and Ito's palette, which colour-blind readers can tell apart; its greys differ too.
BLUE, VERMILION, BLACK, GREEN = "#0072B2", "#D55E00", "#222222", "#009E73"
# Width of the smoothing window as a fraction of the run. A wider one would hide what happened.
SMOOTHED_FRACTION = 0.04
# More points than this make the file larger without being visible at the size of the figures.
MOST_POINTS = 600


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a name in the journal, its label and how it is drawn."""

    name: str
    label: str
    colour: str = BLUE
    dashes: str = "-"


@dataclass(frozen=True)
class FigurePlan:
    """One figure. It is left out if the journal has none of its curves."""

    title: str
    caption: str
    unit: str  # label of the vertical axis. The axis of a "fraction" begins at 0.
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as SVG text, which a template inserts unescaped, and its caption."""

    title: str
    caption: str
    svg: Markup


def draw_curves(lines: Sequence[dict[str, Any]], plans: Sequence[FigurePlan]) -> list[DrawnFigure]:
    """The figures for which the lines hold at least two points, in the order of their plans."""
    drawn = []
    for number, figure in enumerate(plans):
        series = [(curve, *_points(lines, curve.name)) for curve in figure.curves]
        series = [entry for entry in series if len(entry[1]) >= 2]
        if series:
            svg = Markup(_unique_ids(_draw(figure, series), f"f{number}-"))
            drawn.append(DrawnFigure(figure.title, figure.caption, svg))
    return drawn


Series = tuple[Curve, NDArray[np.float64], NDArray[np.float64]]


def _points(lines: Sequence[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) steps and (n,) values of the lines in which both are finite numbers."""
    pairs = [(line.get("step"), line.get(name)) for line in lines]
    kept = [pair for pair in pairs if all(isinstance(x, int | float) and not isinstance(x, bool) for x in pair)]
    array = np.array(kept, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(1)]
    return array[:, 0], array[:, 1]


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) float: the centred median over SMOOTHED_FRACTION of the values; a single outlier does not move it."""
    reach = int(len(values) * SMOOTHED_FRACTION / 2)
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return np.array([np.median(window) for window in windows])


def _draw(figure: FigurePlan, series: Sequence[Series]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.4, 2.7), layout="constrained")
    axes = drawing.subplots()
    for curve, steps, values in series:
        every = max(1, len(steps) // MOST_POINTS)
        axes.plot(steps[::every], values[::every], color=curve.colour, linewidth=0.6, alpha=0.3)
        thick = smoothed(values)
        axes.plot(steps[::every], thick[::every], curve.dashes, color=curve.colour, linewidth=1.8, label=curve.label)
    _limit(axes, figure, series)
    axes.set_xlabel("step")
    axes.set_ylabel(figure.unit)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=5, integer=True)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "electrain"}):  # otherwise ids are random, and a report differs each time
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    _, _, text = buffer.getvalue().partition("<svg")
    return f'<svg role="img" aria-label="{escape(figure.title)}"{text}'


def _limit(axes: Any, figure: FigurePlan, series: Sequence[Series]) -> None:
    """Sets the vertical range by quantiles, so that a few outliers do not flatten all the rest."""
    values = np.concatenate([values for _, _, values in series])
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    if figure.unit == "fraction":
        axes.set_ylim(0, min(1.02, max(high + margin, 0.05)))
    else:
        axes.set_ylim(max(low - margin, 0) if values.min() >= 0 else low - margin, high + margin)


def _unique_ids(svg: str, prefix: str) -> str:
    """The SVG with a prefix before each id. All figures have the same ids, and a page may hold each id only once."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', svg)
    return svg.replace("url(#", f"url(#{prefix}")

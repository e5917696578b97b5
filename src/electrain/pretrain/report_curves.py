"""The curves of a report, as SVG text."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's palette, which the colour-blind can tell apart, in an order that also differs in grey.
BLUE, VERMILION, BLACK, GREEN = "#0072B2", "#D55E00", "#222222", "#009E73"
# Each point is smoothed over so large a part of the run; more than a few percent would hide what happened.
SMOOTHED_FRACTION = 0.04
# More points than this are not seen at the size of the figures, and make the file large.
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
    """One figure; it is left out where the journal has none of its curves.

    Attributes:
        unit: of the vertical axis.
        is_fraction: the axis begins at 0 and is no longer than 0 to 1.
    """

    title: str
    caption: str
    unit: str
    curves: tuple[Curve, ...]
    is_fraction: bool = False


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as SVG text with what stands below it."""

    title: str
    caption: str
    svg: str


FIGURES = (
    FigurePlan("Loss", "The weighted sum that is trained on.", "nats", (Curve("loss", "total", BLACK),)),
    FigurePlan(
        "Generator loss",
        "Cross-entropy of the masked words; a plateau at the start is word frequency alone.",
        "nats",
        (Curve("generator_loss", "generator"),),
    ),
    FigurePlan(
        "Discriminator loss",
        "Binary cross-entropy of every token; it need not fall while the generator gets better.",
        "nats",
        (Curve("discriminator_loss", "discriminator", VERMILION),),
    ),
    FigurePlan(
        "Masked-word loss",
        "Cross-entropy of the masked words; a plateau at the start is word frequency alone.",
        "nats",
        (Curve("masked_language_model_loss", "masked language model"),),
    ),
    FigurePlan(
        "Masked-word accuracy",
        "Fraction of the masked words restored.",
        "fraction",
        (Curve("masked_language_model_accuracy", "masked language model"),),
        is_fraction=True,
    ),
    FigurePlan(
        "Detection against word frequency",
        "Chance that a replaced token scores above an original one; 0.5 is guessing. Above the dashed line, the "
        "discriminator reads the context.",
        "AUC",
        (Curve("discriminator_auc", "discriminator", VERMILION), Curve("unigram_auc", "word frequency", BLACK, "--")),
    ),
    FigurePlan(
        "Detection at probability one half",
        "Of the tokens called replaced, how many are; of the replaced, how many are called so.",
        "fraction",
        (
            Curve("discriminator_precision", "precision"),
            Curve("discriminator_recall", "recall", VERMILION, "--"),
        ),
        is_fraction=True,
    ),
    FigurePlan(
        "Generator accuracy",
        "Fraction of the masked words that its first choice restores.",
        "fraction",
        (Curve("generator_accuracy", "generator"),),
        is_fraction=True,
    ),
    FigurePlan(
        "Generator entropy",
        "How open its choices are; near 0 it always draws the same word.",
        "nats",
        (Curve("generator_entropy", "generator"),),
    ),
    FigurePlan(
        "Tokens replaced",
        "Fraction of the tokens that differ from the text; the discriminator has nothing else to find.",
        "fraction",
        (Curve("replaced_fraction", "replaced", GREEN),),
    ),
    FigurePlan(
        "Words corrected",
        "Fraction of the words that the correction head's first choice restores: in real text, and in text that the "
        "generator wrote.",
        "fraction",
        (
            Curve("correction_accuracy", "real text"),
            Curve("correction_accuracy_written", "written text", VERMILION, "--"),
        ),
        is_fraction=True,
    ),
    FigurePlan(
        "Correction loss", "Cross-entropy of the words to restore.", "nats", (Curve("correction_loss", "correction"),)
    ),
    FigurePlan(
        "Energy loss",
        "Cross-entropy of telling text from as much noise.",
        "nats",
        (Curve("electric_loss", "electric"),),
    ),
    FigurePlan(
        "Value of the game",
        "E[log D(original)] + E[log(1 - D(replaced))]: 0 is a discriminator that is never wrong, -1.39 one that only "
        "guesses.",
        "nats",
        (Curve("game_value", "value", BLACK),),
    ),
    FigurePlan(
        "The generator's reward",
        "The discriminator's cross-entropy at the words drawn, which an adversarial generator raises.",
        "nats",
        (Curve("generator_reward", "reward"),),
    ),
    FigurePlan("Learning rate", "Of each update.", "", (Curve("learning_rate", "learning rate", BLACK),)),
    FigurePlan("Gradient norm", "Before clipping, over all parameters.", "", (Curve("gradient_norm", "norm", BLACK),)),
    FigurePlan("Speed", "Real tokens.", "tokens/s", (Curve("tokens_per_second", "tokens/s", GREEN),)),
    FigurePlan(
        "Use of the machine",
        "Operations done, as a fraction of the measured rate of large matrix products.",
        "fraction",
        (Curve("matrix_rate_fraction", "fraction", GREEN),),
        is_fraction=True,
    ),
)


def draw_curves(lines: Sequence[dict[str, Any]]) -> list[DrawnFigure]:
    """The figures for which the journal's lines have at least two points, in order."""
    drawn = []
    for number, figure in enumerate(FIGURES):
        series = [(curve, *_points(lines, curve.name)) for curve in figure.curves]
        series = [entry for entry in series if len(entry[1]) >= 2]
        if series:
            svg = _unique_ids(_draw(figure, series), f"f{number}-")
            drawn.append(DrawnFigure(figure.title, figure.caption, svg))
    return drawn


Series = tuple[Curve, NDArray[np.float64], NDArray[np.float64]]


def _points(lines: Sequence[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) steps and (n,) values, of the lines where both are numbers."""
    pairs = [(line.get("step"), line.get(name)) for line in lines]
    kept = [pair for pair in pairs if all(isinstance(x, int | float) and not isinstance(x, bool) for x in pair)]
    array = np.array(kept, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(1)]
    return array[:, 0], array[:, 1]


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) float: the centred median over SMOOTHED_FRACTION of the values, which a single wild one does not move."""
    reach = int(len(values) * SMOOTHED_FRACTION / 2)
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return np.array([np.median(window) for window in windows])


def _draw(figure: FigurePlan, series: Sequence[Series]) -> str:
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
    axes.locator_params(axis="x", nbins=5)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None})
    _, _, text = buffer.getvalue().partition("<svg")
    return f'<svg role="img" aria-label="{figure.title}"{text}'


def _limit(axes: Any, figure: FigurePlan, series: Sequence[Series]) -> None:
    """Leaves a few wild values outside, so that they do not flatten all the rest."""
    values = np.concatenate([values for _, _, values in series])
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    if figure.is_fraction:
        axes.set_ylim(0, min(1.02, max(high + margin, 0.05)))
    else:
        axes.set_ylim(max(low - margin, 0) if values.min() >= 0 else low - margin, high + margin)


def _unique_ids(svg: str, prefix: str) -> str:
    """SVG texts on one page share a name space: each figure's ids get a prefix of their own."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', svg)
    return svg.replace("url(#", f"url(#{prefix}")

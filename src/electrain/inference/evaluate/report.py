"""The page that `electrain evaluate --report` writes: one file that needs nothing else."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from electrain import __version__
from electrain.foundation.progress import counted, printable
from electrain.foundation.report_page import Record, rendered
from electrain.inference.evaluate import sections
from electrain.inference.evaluate.evaluation import Calibration, Confusion, Evaluation

_MOST_LABELS = 500  # a page with more rows is of no use; the JSON has all
_MOST_MIXUPS = 20
_EASILY_SEEN_LABELS = 10  # of a larger matrix, the most frequent mix-ups are listed too
_SIDE = 280  # of a drawing, in its own units


def evaluation_page(evaluation: Evaluation) -> str:
    """The page as HTML. All text from the data is escaped."""
    found, settings = evaluation.breakdown, evaluation.settings
    values: Record = {
        "name": f"Evaluation of {settings.get('model', '')}",
        "task": evaluation.task,
        "data": sections.data_of(evaluation),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "version": __version__,
        "counts": sections.counts_of(evaluation),
        "settings": list(_flat(settings)),
        "scores": None,
        "labels": None,
        "confusion": None,
        "mixups": None,
        "calibration": None,
        "figures": None,
        "mistakes": None,
        "wrong": None,
        "tables": [] if found else sections.pretrained_sections(evaluation),
    }
    if found is None:
        return _page(values)
    values["scores"] = sections.scores_section(evaluation)
    if found.labels:
        values["labels"] = sections.labels_section(found.labels, _MOST_LABELS, "--output FILE")
    if found.confusion:
        values["confusion"] = _heat_map(found.confusion)
    if found.mixups and (not found.confusion or len(found.labels) > _EASILY_SEEN_LABELS):
        values["mixups"] = sections.mixups_section(found, _MOST_MIXUPS)
    if found.calibration:
        values["calibration"] = _drawn(found.calibration)
    values |= {"figures": sections.figures_section(found), "wrong": f"{found.wrong:,}"}
    values["mistakes"] = sections.mistakes_section(found)
    return _page(values)


def _page(values: Record) -> str:
    return rendered("inference/evaluate/report.html", _printable(values))


def _printable(value: Any) -> Any:
    """The values with control characters as escapes, wherever they stand."""
    if isinstance(value, str):
        return printable(" ".join(value.split()))
    if isinstance(value, Mapping):
        return {name: _printable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(one) for one in value]
    if isinstance(value, sections.Section):
        return sections.Section(value.title, value.columns, _printable(value.rows), value.note)
    return value


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The settings with their names; those inside another one have both names."""
    for name, value in settings.items():
        named = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{named}: ")
        else:
            yield named, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _heat_map(confusion: Confusion) -> Record:
    """Rows of cells with the shade of their part of the row."""
    rows = []
    for place, (label, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True)):
        total = max(1, sum(counts))
        cells = [
            {
                "count": f"{count:,}" if count else "",
                "shade": f"{0.85 * count / total:.3f}",
                "is_right": place == column,
            }
            for column, count in enumerate(counts)
        ]
        rows.append({"label": label, "cells": cells, "total": f"{sum(counts):,}"})
    return {"labels": confusion.labels, "rows": rows, "is_large": len(confusion.labels) > _EASILY_SEEN_LABELS}


def _drawn(calibration: Calibration) -> Record:
    """The bins as places in the two drawings, and in words."""
    most = max(one.count for one in calibration.bins)
    bars = [
        {
            "x": _SIDE * one.lowest,
            "width": _SIDE * (one.highest - one.lowest),
            "right": _SIDE * one.accuracy,
            "said": _SIDE * one.confidence,
            "all": 0.9 * _SIDE * one.count / most,
            "all_right": 0.9 * _SIDE * one.count * one.accuracy / most,
            "count": f"{one.count:,}",
            "text": f"{counted(one.count, 'decision')} at {one.lowest:.1f} to {one.highest:.1f}: "
            f"{one.confidence:.3f} said, {one.accuracy:.3f} right",
        }
        for one in calibration.bins
    ]
    table = sections.calibration_section(calibration)
    return {"bars": bars, "side": _SIDE, "table": table, "of": calibration.of}

"""An evaluation as tables on a terminal, for a person."""

from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from electrain.foundation.progress import printable
from electrain.inference.evaluate import sections
from electrain.inference.evaluate.evaluation import Confusion, Evaluation
from electrain.inference.evaluate.sections import Column, Section

MOST_LABELS = 20  # more would push the scores off the screen
MOST_MIXUPS = 10
MOST_TABLE_LABELS = 10  # of a confusion matrix
_TEXT_WIDTH = 8  # the least that a column of texts gets
_GAP = 2  # between two columns
_HERE = "a pipe or --output FILE"


def print_evaluation(evaluation: Evaluation, console: Console | None = None) -> None:
    """Prints to standard output what was scored, and then the tables.

    The scores come last: there they are still seen when the rest has scrolled away.

    Args: console: of rich; None for that of standard output.
    """
    console = console or Console(highlight=False)
    counts = [(value, name) for name, value in sections.counts_of(evaluation) if value != "0"]
    much = ", ".join(f"{value} {name.removesuffix('s') if value == '1' else name}" for value, name in counts)
    line = f"{evaluation.task} of {evaluation.settings.get('model', '')} on {sections.data_of(evaluation)}: {much}"
    console.print(Text(printable(line), style="bold"), soft_wrap=True)
    console.print()
    for section in _sections(evaluation, console.width):
        _print(section, console)


def _sections(evaluation: Evaluation, width: int) -> list[Section]:
    found = evaluation.breakdown
    if found is None:
        return sections.pretrained_sections(evaluation)
    shown: list[Section | None] = []
    if found.mistakes:
        shown.append(sections.mistakes_section(found))
    matrix = _matrix(found.confusion, width) if found.confusion else None
    if matrix is None and found.mixups:
        shown.append(sections.mixups_section(found, MOST_MIXUPS))
    shown.append(matrix)
    if found.labels:
        shown.append(sections.labels_section(found.labels, MOST_LABELS, _HERE))
    if found.calibration:
        shown.append(sections.calibration_section(found.calibration))
    shown += [sections.figures_section(found), sections.scores_section(evaluation)]
    return [section for section in shown if section is not None]


def _matrix(confusion: Confusion, width: int) -> Section | None:
    """The confusion matrix; None if it is too large for the terminal."""
    if len(confusion.labels) > MOST_TABLE_LABELS:
        return None
    columns = (Column("true \\ predicted", is_text=True), *(Column(label) for label in confusion.labels))
    rows = tuple(
        (label, *(f"{count:,}" for count in counts))
        for label, counts in zip(confusion.labels, confusion.counts, strict=True)
    )
    section = Section("Confusion matrix", columns, rows)
    return section if _least_width(section, range(len(columns))) <= width else None


def _print(section: Section, console: Console) -> None:
    kept = _fitting(section, console.width)
    left = len(section.columns) - len(kept)
    has_names = any(column.name for column in section.columns)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=has_names, header_style="bold")
    for place, width in zip(kept, _shared(section, kept, console.width), strict=True):
        column = section.columns[place]
        side: Literal["left", "right"] = "left" if column.is_text else "right"
        table.add_column(Text(printable(column.name)), justify=side, no_wrap=True, overflow="ellipsis", width=width)
    for row in section.rows:
        table.add_row(*(Text(_in_one_line(row[place])) for place in kept))
    console.print(Text(printable(section.title), style="bold reverse"))
    console.print(table)
    more = "1 more column" if left == 1 else f"{left} more columns"
    notes = [section.note] * bool(section.note) + [f"The terminal is too narrow for {more}."] * bool(left)
    for note in notes:
        console.print(Text(printable(note), style="dim"))
    console.print()


def _shared(section: Section, places: Sequence[int], width: int) -> list[int]:
    """The width of each column: as wide as it needs to be, as far as there is room; numbers are never cut."""
    widths = {place: _width(section, place) for place in places}
    texts = sorted((place for place in places if section.columns[place].is_text), key=widths.__getitem__)
    room = width - sum(widths[place] for place in places if place not in texts) - _GAP * (len(places) - 1)
    for number, place in enumerate(texts):
        widths[place] = min(widths[place], max(1, room // (len(texts) - number)))
        room -= widths[place]
    return [widths[place] for place in places]


def _in_one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _width(section: Section, place: int) -> int:
    """The width of a column that is not cut, in cells of the terminal: a Chinese character takes two."""
    texts = [section.columns[place].name, *(row[place] for row in section.rows)]
    return max(cell_len(_in_one_line(text)) for text in texts)


def _least_width(section: Section, places: Sequence[int]) -> int:
    widths = [_TEXT_WIDTH if section.columns[place].is_text else _width(section, place) for place in places]
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitting(section: Section, width: int) -> list[int]:
    """The places of the columns that are shown: all, unless the terminal is too narrow for those that may go."""
    kept = list(range(len(section.columns)))
    for place in reversed(kept):
        if section.columns[place].may_go and _least_width(section, kept) > width:
            kept = [one for one in kept if one != place]
    return kept

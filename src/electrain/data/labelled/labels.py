"""The labels of rows: which spellings are one label, which stand for none, and several labels in one row.

docs/finetuning.md, "Labels", has the rules.
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from electrain.data.labelled.columns import Columns, flag, label_columns
from electrain.data.labelled.examples import TextExample
from electrain.data.labelled.label_spelling import TRUTH, is_indicator, label_text, lookalikes, spelling_key
from electrain.data.labelled.record import Record
from electrain.data.text.options import option
from electrain.foundation.errors import DataError
from electrain.foundation.progress import counted, say

NO_SEPARATOR = "none"
# What pandas, Python, NumPy, JSON and SQL write for a missing value, in texts; and R and spreadsheets, which is also an
# abbreviation.
_WRITTEN_FOR_MISSING = frozenset({"None", "nan", "NaN", "<NA>", "NaT", "null", "NULL"})
_MISSING_AMONG_NUMBERS = _WRITTEN_FOR_MISSING | {"NA", "N/A", "#N/A"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SEPARATORS = ";|,"
_RECURRING_SHARE = 2 / 3  # of the parts of fields that are taken for several labels
_SHOWN, _SHOWN_CHARACTERS = 6, 60
# A list in a text, as str() and JSON write it, also without commas, as NumPy does.
# The possessive "++" and "*+" keep a long text that is no list from being tried in every way.
_ITEM = re.compile(r"'[^']*+'|\"[^\"]*+\"|[+-]?\d++(?:\.\d*+)?+")
_JSON = re.compile(r'\[?\s*{\s*"')  # the beginning of an object or a list of them, as Label Studio writes in .csv
_LIST = re.compile(rf"\[\s*+(?:(?:{_ITEM.pattern})\s*+,?+\s*+)*+\]")


@dataclass(frozen=True)
class LabelForm:
    """How the labels of a set of rows are written.

    Attributes:
        columns: the column of the labels; or several, each named like a label, with 1 where a row has it and else 0.
        separator: between several labels in one field; "" where a field is one label.
        are_lists: fields hold lists as text, such as "['a', 'b']".
        missing: texts that stand for a missing label in this column.
        names: the label of each other spelling of it.
        notes: what was chosen, one line each for stderr.
    """

    columns: tuple[str, ...]
    separator: str = ""
    are_lists: bool = False
    missing: frozenset[str] = frozenset()
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def label_form(records: Sequence[Record], columns: Columns, where: str) -> LabelForm:
    """The form of the labels in all records.

    Raises: DataError: no row has a label; fields look like several labels that are joined, and no separator is given;
        lists hold 0 or 1 for each label.
    """
    names = label_columns(columns.label, {name for record in records for name in record.values})
    separator = "" if columns.label_separator == NO_SEPARATOR else columns.label_separator
    form = LabelForm(names, separator)
    if len(names) > 1:
        return form
    if _are_lists(record.values.get(names[0]) for record in records):
        form = replace(form, are_lists=True)
        form.notes.append(f'the lists in "{names[0]}" are written as text, and are read as lists of labels')
    elif not columns.label_separator:
        _refuse_joined(records, names[0])
    _refuse_indicators(records, form)
    spellings: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)  # by key: the label as text, and as it stands
    is_none = True
    for record in records:
        values = _values(record, form)
        is_none = is_none and bool(values)  # an empty list says that there is no label
        for value in values:
            text = label_text(value)
            if text:
                spellings[spelling_key(text)][text, _shown(value)] += 1
    if is_none and not spellings:
        place = f'{records[0].source}: no label in "{names[0]}"'
        raise DataError(f"{place}: no row has a label; give data with labels, or set {flag('label')}")
    form = replace(form, missing=_missing(spellings, names[0], form.notes))
    joined, counts = [], Counter[str]()
    for key, found in spellings.items():
        if key in form.missing:
            continue
        label = found.most_common(1)[0][0][0]
        counts[label] += found.total()
        if len(found) == 1:
            continue
        form.names.update({text: label for text, _ in found})
        joined.append(" = ".join(shown for _, shown in found))
    if joined:
        more = f" and {len(joined) - _SHOWN} more" if len(joined) > _SHOWN else ""
        form.notes.append(f"different spellings are one label: {'; '.join(joined[:_SHOWN])}{more}")
    if alike := lookalikes(counts):
        form.notes.append(f"labels that look alike stay different: {alike}")
    return replace(form, notes=[f"{where}: {note}" for note in form.notes])


def labels_in(record: Record, form: LabelForm) -> tuple[str, ...]:
    """The labels of a row, each once; none is possible only where there can be several.

    Raises: DataError: a label is missing, or is JSON; a column of 0 and 1 holds something else.
    """
    if len(form.columns) > 1:
        return tuple(column.strip() for column in form.columns if _is_one(record, column))
    values = _values(record, form)
    labels = [label_text(value) for value in values]
    if any(not label or label in form.missing for label in labels):
        found = next((label for label in labels if label in form.missing), "")
        shown = f' ("{found}" stands for none)' if found else ""
        hint = f"fix or remove this row, or set {flag('label')}"
        raise DataError(f'{record.source}: no label in "{form.columns[0]}"{shown}; {hint}')
    if found := next(filter(_JSON.match, labels), ""):
        shown = found if len(found) <= _SHOWN_CHARACTERS else found[:_SHOWN_CHARACTERS] + "..."
        hint = "write the name of the label, or a list of names"
        raise DataError(f'{record.source}: "{form.columns[0]}" holds JSON ({shown}), not a label; {hint}')
    return tuple(dict.fromkeys(form.names.get(label, label) for label in labels))


def in_spelling_of(examples: Sequence[TextExample], labels: Sequence[str], what: str) -> list[TextExample]:
    """The examples, with the labels spelled as in `labels`, which is said on stderr; `what` is the examples' role."""
    known = {spelling_key(label): label for label in labels}
    found = dict.fromkeys(label for one in examples for label in one.labels)
    changed = {label: known[key] for label in found if (key := spelling_key(label)) in known and known[key] != label}
    if not changed:
        return list(examples)
    shown = "; ".join(f"{_shown(label)} as {_shown(name)}" for label, name in [*changed.items()][:_SHOWN])
    say(f"labels of the {what} data are read in the spelling of training: {shown}")
    return [replace(one, labels=tuple(changed.get(label, label) for label in one.labels)) for one in examples]


def _values(record: Record, form: LabelForm) -> list[object]:
    value = record.values.get(form.columns[0])
    if isinstance(value, list):
        return value
    if isinstance(value, str) and form.are_lists and value.strip():
        return [item.strip("'\"") for item in _ITEM.findall(value)]
    if form.separator and isinstance(value, str | None):
        return [part.strip() for part in (value or "").split(form.separator) if part.strip()]
    return [value]


def _is_one(record: Record, column: str) -> bool:
    key = spelling_key(label_text(record.values.get(column)))
    if key not in ("0", "1", *TRUTH):
        shown = f'"{record.values[column]}"' if key else "nothing"
        hint = f"a column for each label holds 0 or 1; fix this row, or set {flag('label')}"
        raise DataError(f'{record.source}: "{column}" holds {shown}; {hint}')
    return key in ("1", "true")


def _missing(spellings: dict[str, Counter[tuple[str, str]]], column: str, notes: list[str]) -> frozenset[str]:
    """The texts that stand for a missing label, if the others are all numbers or all true and false."""
    written = _MISSING_AMONG_NUMBERS & set(spellings)
    others = set(spellings) - written
    if others and (all(map(_NUMBER.fullmatch, others)) or others <= set(TRUTH)):
        return written
    written &= _WRITTEN_FOR_MISSING
    if not written:
        return frozenset()
    shown = ", ".join(f'"{text}" ({counted(spellings[text].total(), "row")})' for text in sorted(written))
    notes.append(f'{shown} in "{column}" is read as a label; leave the cell empty where the label is missing')
    return frozenset()


def _are_lists(values: Iterable[object]) -> bool:
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    return bool(texts) and all(text[0] == "[" and _LIST.fullmatch(text) for text in texts)


def _refuse_indicators(records: Sequence[Record], form: LabelForm) -> None:
    """Raises DataError if all rows have lists of one length, of 0 and 1: such a list has a place for each label."""
    lists = [_values(record, form) for record in records]
    is_list = form.are_lists or all(isinstance(record.values.get(form.columns[0]), list) for record in records)
    if not is_list or len({len(values) for values in lists}) != 1 or len(lists[0]) < 2:
        return
    if is_indicator(label_text(value).rstrip(".") for values in lists for value in values):
        what = f'the lists in "{form.columns[0]}" hold 0 or 1 for each of {len(lists[0])} labels, not their names'
        hint = "write lists of the names, or a column of 0 and 1 for each label"
        raise DataError(f"{records[0].source}: {what}; {hint}")


def _refuse_joined(records: Sequence[Record], column: str) -> None:
    """Raises DataError if fields look like several labels: most of their parts occur in several different fields."""
    fields = {value: record for record in records if isinstance(value := record.values.get(column), str)}
    for separator in _SEPARATORS:
        parts = {value: {part.strip() for part in value.split(separator)} for value in fields}
        joined = {value: own for value, own in parts.items() if len(own) > 1}
        occurs = Counter(part for own in parts.values() for part in own)
        different = set().union(*joined.values())
        recurring = sum(occurs[part] > 1 for part in different)
        if joined and "" not in different and recurring >= _RECURRING_SHARE * len(different):
            example = next(iter(joined))
            name = option("label-separator")
            ways = f'{name} "{separator}" to learn each, or none to keep each field as one label'
            raise DataError(
                f'{fields[example].source}: the labels in "{column}" look joined by "{separator}" (as in "{example}"); '
                f"give {ways if name else 'texts with one label each'}"
            )


def _shown(value: object) -> str:
    """The value as JSON has it; with escapes where its form in Unicode, or a character of it, cannot be seen."""
    is_plain = not isinstance(value, str) or (unicodedata.is_normalized("NFC", value) and value.isprintable())
    return json.dumps(value, ensure_ascii=not is_plain)

"""The first fault of a request, as pydantic finds it, in one line: which field, and how to mend it. Never its text."""

import re
from collections.abc import Sequence
from typing import Any

from electrain.inference.serve.bodies import GAPS

_LONGEST_PLACE = 100  # characters of a key that does not belong into a body
# The forms of an input, by their names in `bodies`.
_FORMS = {
    "constrained-str": "a text",
    "TextInput": '{"text": ...}',
    "PairInput": '{"text": ..., "pair": ...}',
    "QuestionInput": '{"question": ..., "context": ...}',
    "WordsInput": '{"words": [...]}',
}
# How each kind of fault is mended, with what pydantic says of the limit.
_LINES = {
    "missing": "is missing; add it",
    "extra_forbidden": "there is no such field here; leave it out",
    "string_type": "must be a text",
    "string_unicode": "holds half of a character (a lone surrogate); leave it out",
    "string_too_long": "is longer than {max_length} characters; shorten it",
    "list_type": "must be a list",
    "too_short": "is empty; give at least one",
    "too_long": "holds {actual_length}, more than {max_length}; send fewer",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
}

_NO_OBJECT = ("model_type", "model_attributes_type")
Fault = dict[str, Any]  # type, loc, ctx, as pydantic gives them


def fault_line(faults: Sequence[Fault], task: str = "") -> str:
    """The line for the faults of a request for a task; the first input with a fault counts."""
    if not faults:
        return "body: does not fit; GET /openapi.json describes it"
    first = faults[0]["loc"][1:]
    if first[:1] == ("inputs",) and len(first) > 1:
        return _of_input([fault for fault in faults if fault["loc"][1:3] == first[:2]], task)
    return _line(faults[0], [])


def _of_input(faults: Sequence[Fault], task: str) -> str:
    """The line for an input that may have several forms, each with its faults: of the form that was likely meant."""
    forms = [name for name in _FORMS if any(name in fault["loc"] for fault in faults)]
    if not forms and faults[0]["type"] in _NO_OBJECT:  # pydantic names a form only where there are several
        forms = ["QuestionInput" if task == "answer" else "PairInput"]
    by_form: dict[object, list[Fault]] = {}
    for fault in faults:
        by_form.setdefault(next((part for part in fault["loc"] if part in _FORMS), ""), []).append(fault)
    right = [own for own in by_form.values() if not _is_of_another_kind(own[0])]
    # The one with fewest faults; a field too many tells less than one that is wrong.
    meant = min(right, key=lambda own: (len(own), own[0]["type"] == "extra_forbidden"), default=faults)
    return _line(meant[0], forms)


def _is_of_another_kind(fault: Fault) -> bool:
    """True where a whole input is no object but this form is one, or is no text but this form is one."""
    place = [part for part in fault["loc"][3:] if part not in _FORMS]
    return not place and fault["type"] in ("string_type", *_NO_OBJECT)


def _line(fault: Fault, forms: Sequence[str]) -> str:
    kind, limits = fault["type"], fault.get("ctx") or {}
    if _is_of_another_kind(fault) and forms:
        what = f"must be {' or '.join(_FORMS[name] for name in forms)}"
    elif kind in _NO_OBJECT:
        what = 'must be an object such as {"inputs": [...]}'
    elif kind == "string_pattern_mismatch":
        gaps = [gap for gap in GAPS if re.escape(gap) in limits["pattern"]]
        what = f"holds no gap; write {' or '.join(gaps)} where a word is missing"
    else:
        what = _LINES.get(kind, "does not fit; GET /openapi.json describes it").format(**limits)
    return f"{_place(fault)}: {what}"


def _place(fault: Fault) -> str:
    """The field, such as inputs[0].text."""
    parts = [part for part in fault["loc"][1:] if part not in _FORMS]
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return " ".join(shown.split())[:_LONGEST_PLACE] or "body"

"""One value of a label as text, and what all its spellings have in common."""

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from electrain.data.text.cleaning import clean_text

TRUTH = ("true", "false")
_VARIATION = re.compile("[\ufe00-\ufe0f]")  # selects a character's form: text or emoji
# Of labels that look alike, one is a slip where it is so many times rarer; of few rows each may be one.
_TIMES_RARER, _FEW_ROWS = 10, 50
_WHOLE = re.compile(r"(-?\d+)\.0+")


def label_text(value: object) -> str:
    """The label as text, "" for a missing one.

    1.0 becomes "1", because pandas writes whole numbers as floats in a column where one is missing.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return clean_text(str(value)) if isinstance(value, (str, int)) else ""


def is_indicator(values: Iterable[object]) -> bool:
    """True if the values, at least one, are all 0 or 1, or false or true, in any spelling."""
    found = {spelling_key(label_text(value)) for value in values}
    return bool(found) and (found <= {"0", "1"} or found <= set(TRUTH))


def spelling_key(text: str) -> str:
    """What is equal for all spellings of a label: composed Unicode, whole numbers without .0, true without capitals."""
    text = unicodedata.normalize("NFC", text)
    if text.lower() in TRUTH:
        return text.lower()
    whole = _WHOLE.fullmatch(text)
    text = whole[1] if whole else text
    return "0" if text == "-0" else text


def lookalikes(counts: Counter[str]) -> str:
    """The labels that differ only in capitals, full width or a variation selector, where that may be a slip; or "".

    Single letters are often told apart by capitals, so among these only a rare one is named.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike[_VARIATION.sub("", unicodedata.normalize("NFKC", label)).casefold()].append(label)
    shown = []
    for key, labels in alike.items():
        rows = [counts[label] for label in labels]
        is_few = sum(rows) <= _FEW_ROWS and not (len(key) == 1 and key.isalpha())
        if len(labels) > 1 and (is_few or _TIMES_RARER * min(rows) <= max(rows)):
            names = (json.dumps(label, ensure_ascii=bool(_VARIATION.search(label))) for label in labels)
            shown.append(", ".join(f"{name} ({count:,})" for name, count in zip(names, rows, strict=True)))
    return "; ".join(shown)

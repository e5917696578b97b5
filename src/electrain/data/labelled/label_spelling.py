"""One value of a label as text, and what all its spellings have in common."""

import math
import re
import unicodedata
from collections.abc import Iterable

from electrain.data.text.cleaning import clean_text

TRUTH = ("true", "false")
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

"""JSON that any strict reader takes: results on standard output, answers in files, journals and manifests."""

import json
import math
import re

# What JSON can only hold as an escape (half of a surrogate pair), or what would command a terminal that shows it.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def to_json(value: object, *, indent: int | None = None) -> str:
    """The value as JSON, which UTF-8 can encode; on one line unless there is an indent.

    Numbers that are not finite become null, since JSON has none.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

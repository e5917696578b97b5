"""The one reader of JSON and TOML. Whatever is wrong with a text becomes one line that says what, where, and a way out.

The libraries alone answer hostile or damaged texts with exceptions of many kinds, or with infinite numbers.
"""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from electrain.foundation.errors import ConfigurationError, DataError, ElectrainError, first_line
from electrain.foundation.json_output import to_json

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
T = TypeVar("T")
# No file that is read here nests deeper than ten. Python gives up at about a thousand, and writing what was read at
# fewer, since the caller's own calls count.
MOST_DEPTH = 100
# The largest file that electrain writes as JSON is a tokenizer of a few megabytes.
MOST_BYTES = 1 << 28
MOST_TOML_BYTES = 1 << 20
MOST_NUMBER_BITS = 1 << 12  # Python writes numbers of up to 4,300 decimal digits, three times as many
SEAL = "sha256"
# A backslash and what it escapes, so that none is taken for the beginning of another: the two halves of a surrogate
# pair, one half alone (in group 1), or anything else.
_HALF = r"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"\\(?:u[dD][89abAB][0-9a-fA-F]{{2}}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}|({_HALF})|.)", re.DOTALL)
_MAY_BE_HALF = re.compile(rf"\\{_HALF}")
# What a number beyond the range of a float must contain.
_MAY_BE_INFINITE = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


def parse_json(
    text: str | bytes, place: str, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it"
) -> Json:
    """The value of a JSON text. `NaN` and `Infinity`, which Python's own writer makes, are read as such.

    Half of a surrogate pair, such as \\ud800, becomes U+FFFD: UTF-8 has no form for it, and tokenizers refuse it.

    Args:
        text: bytes are UTF-8, with or without a byte order mark.
        place: the file, and the line in a file of JSON lines, for messages. Later lines of the text are numbered.
        kind: the error to raise.
        way_out: how to mend it, the end of the message.
    Raises: `kind`: no JSON, not UTF-8, nested deeper than `MOST_DEPTH`, or a number of thousands of digits or beyond
        the range of a float.
    """
    reason, value = "", None
    try:
        text = (text.decode("utf-8-sig") if isinstance(text, bytes) else text).rstrip()
        if _MAY_BE_HALF.search(text):
            text = _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
        finite = _finite if _MAY_BE_INFINITE.search(text) else None
        value = json.loads(text, parse_float=finite)
        # An object or a list for each level: most texts are too short to be looked through.
        if text.count("[") + text.count("{") > MOST_DEPTH and _is_nested_deeply(value):
            raise RecursionError
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
        place = place if error.lineno == 1 else f"{place}:{error.lineno}"
    except (ValueError, RecursionError) as error:
        reason = _reason_of(error)
    if reason:
        raise kind(f"{place}: not valid JSON ({reason}); {way_out}")
    return value


def _reason_of(error: ValueError | RecursionError) -> str:
    """What is wrong with a text of either format, by what its library raised."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    if isinstance(error, RecursionError):
        return f"nested deeper than {MOST_DEPTH}"
    return "a number of too many digits" if "digits" in str(error) else first_line(error)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]}{'...' if len(digits) > 20 else ''} is too large a number")
    return value


def _has_giant_number(value: Any) -> bool:
    """True for a number that Python reads in hexadecimal digits, and then refuses to write in decimal ones."""
    if isinstance(value, dict | list):
        return any(map(_has_giant_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and value.bit_length() > MOST_NUMBER_BITS


def _is_nested_deeply(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH):
        containers = (part for part in level if isinstance(part, dict | list))
        level = [inner for part in containers for inner in (part.values() if isinstance(part, dict) else part)]
    return bool(level)


def parse_toml(text: bytes, place: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises: ConfigurationError: no TOML, or larger or deeper than any configuration is."""
    reason, content = "", {}
    try:
        if len(text) > MOST_TOML_BYTES:
            raise ValueError(f"larger than {MOST_TOML_BYTES:,} bytes")
        text_lines = text.decode("utf-8-sig").split("\n")
        # tomllib takes time that grows with the square of the parts of a key.
        if any(line.partition("=")[0].count(".") > MOST_DEPTH for line in text_lines if not line.startswith("#")):
            raise RecursionError
        content = tomllib.loads("\n".join(text_lines))
        if _is_nested_deeply(content):
            raise RecursionError
        if _has_giant_number(content):
            raise ValueError("too many digits")
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        reason = _reason_of(error)
    if reason:
        raise ConfigurationError(f"{place}: not a readable TOML file ({reason}); correct it")
    return content


def as_kind(
    value: Json, schema: type[T], place: str, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it"
) -> T:
    """The value as the type `schema`: a dataclass, or what the standard types describe, such as `dict[str, int]`.

    A dataclass must have all its fields, except those with a default, and no others. A number is never read as a text
    or the other way round.

    Args: place, kind, way_out: as in `parse_json`.
    Raises: `kind`: the value is of another form; the message names the key.
    """
    import msgspec  # here, because most commands that only print help never read JSON

    try:
        converted = msgspec.convert(value, schema)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        reason = str(error).replace("`", "").replace(" - at $.", " at ").replace(" - at $", "")
        raise kind(f"{place}: damaged ({reason}); {way_out}") from error
    unknown = _first_unknown_key(value, msgspec.to_builtins(converted))
    if unknown is not None:
        raise kind(f"{place}: damaged (unknown key {unknown!r}); {way_out}")
    return converted


def _first_unknown_key(value: Json, kept: Json) -> str | None:
    """A key that the type has no field for: where a key is damaged, a default would silently replace its value."""
    pairs: Iterator[tuple[Json, Json]] = iter(())
    if isinstance(value, dict) and isinstance(kept, dict):
        unknown = next((key for key in value if key not in kept), None)
        if unknown is not None:
            return unknown
        pairs = ((inner, kept[key]) for key, inner in value.items())
    elif isinstance(value, list) and isinstance(kept, list | tuple):
        pairs = zip(value, kept, strict=False)
    return next((key for one, other in pairs if (key := _first_unknown_key(one, other)) is not None), None)


def of_format(
    value: Json, newest: int, place: str, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it"
) -> dict[str, Json]:
    """The object that a file holds, without its key `format_version`.

    Args: newest: the format that this version writes, the only one that it reads; place, kind, way_out: as in
        `parse_json`.
    Raises: `kind`: the file is of a newer format, or names none.
    """
    content = dict(value) if isinstance(value, dict) else {}
    version = content.pop("format_version", None)
    if isinstance(version, int) and version > newest:
        raise kind(f"{place}: format {version} is newer than this electrain reads; update electrain")
    if version != newest or isinstance(version, bool):
        raise kind(f"{place}: damaged (it names no format_version); {way_out}")
    return content


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its own hash as the key `sha256`, so that any damage of it shows."""
    return {**content, SEAL: _hash_of(content)}


def unsealed(
    value: Json, place: str, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it"
) -> dict[str, Json]:
    """What `sealed` was given. An object without a hash, which an older version wrote, is returned as it is.

    Raises: `kind`: the value is no object, or is not what was sealed.
    """
    if not isinstance(value, dict):
        raise kind(f"{place}: damaged (not a JSON object); {way_out}")
    content = {key: inner for key, inner in value.items() if key != SEAL}
    if SEAL in value and value[SEAL] != _hash_of(content):
        raise kind(f"{place}: damaged (it changed since it was written); {way_out}")
    return content


def _hash_of(content: Mapping[str, Any]) -> str:
    # Once through JSON as it is written, which makes keys texts and tuples lists.
    plain = json.dumps(json.loads(to_json(content)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def read_bytes(
    path: Path, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it", most_bytes: int = MOST_BYTES
) -> bytes:
    """The content of a small file. Raises: `kind`: it is missing, no file, unreadable, or larger than `most_bytes`."""
    try:
        if path.exists() and not path.is_file():
            raise kind(f"{path}: is no file; {way_out}")
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror}); {way_out}") from error
    if len(content) > most_bytes:
        raise kind(f"{path}: larger than {most_bytes:,} bytes; {way_out}")
    return content


def parse_json_file(path: Path, kind: type[ElectrainError] = DataError, *, way_out: str = "correct it") -> Json:
    """The value in a JSON file. Raises: `kind`: see `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, kind, way_out=way_out), str(path), kind, way_out=way_out)


def read_json(path: Path, schema: type[T], kind: type[ElectrainError] = DataError, *, way_out: str = "correct it") -> T:
    """The content of a JSON file as the type `schema`. Raises: `kind`: see `parse_json_file` and `as_kind`."""
    value = parse_json_file(path, kind, way_out=way_out)
    return as_kind(value, schema, str(path), kind, way_out=way_out)

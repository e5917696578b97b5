"""Configurations: TOML files and --SECTION.FIELD options become frozen dataclasses, and their docstrings become help.

A configuration is a dataclass of sections, and each section is a dataclass of fields. Every error names the key.
"""

import dataclasses
import difflib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.json_reading import MOST_TOML_BYTES, parse_toml, read_bytes

T = TypeVar("T")
Tables = dict[str, dict[str, Any]]
# TOML and numpy hold integers of 64 bits.
MOST_INTEGER = 1 << 63
BEFORE = "before"
MOST_LAYERS = 1000  # Wang et al. 2022, "DeepNet: Scaling Transformers to 1,000 Layers"


def preset_names_in(package: str) -> list[str]:
    """The TOML files that a package comes with, by their names without the ending."""
    names = (path.name for path in resources.files(package).iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_preset_or_toml(package: str, name_or_path: str, presets: str) -> Tables:
    """The sections of a TOML file that a package comes with, by its name, or of any other TOML file, by its path.

    Args: presets: what the package's files are, for the message: presets or recipes.
    Raises: ConfigurationError: it is neither; otherwise as `read_toml`.
    """
    names = preset_names_in(package)
    if name_or_path in names:
        with resources.as_file(resources.files(package) / f"{name_or_path}.toml") as path:
            return read_toml(path)
    if not name_or_path.endswith(".toml"):
        nearest = difflib.get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "give one of them"
        raise ConfigurationError(
            f"{name_or_path}: not a .toml file nor one of the {presets} {', '.join(names)}; {hint}"
        )
    return read_toml(Path(name_or_path))


def read_toml(path: Path) -> Tables:
    """The sections of a TOML file.

    Raises: ConfigurationError: the file is missing, unreadable or not TOML, or has a key outside a section.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such configuration file; give a .toml file")
    content = parse_toml(read_bytes(path, ConfigurationError, most_bytes=MOST_TOML_BYTES), str(path))
    for section, table in content.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: '{section}' is outside a section; move it below one, such as [training]")
    return content


def parse_overrides(arguments: Sequence[str]) -> Tables:
    """The tables of arguments such as `--section.field value` or `--section.field=value`.

    A value is parsed as TOML, or is a string if that fails. A repeated field becomes a list.

    Raises: ConfigurationError: an argument is not a field, or has no value.
    """
    tables: Tables = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        section, dot, field = name.removeprefix("--").partition(".")
        if not name.startswith("--") or not dot:
            raise ConfigurationError(f"'{name}' is not expected here; a field is set by --SECTION.FIELD VALUE")
        following = value if equals else next(words, None)
        if following is None:
            raise ConfigurationError(f"{name}: has no value; write {name} VALUE")
        table = tables.setdefault(section.replace("-", "_"), {})
        field = field.replace("-", "_")
        parsed = _parse_value(following)
        if field in table:
            earlier = table[field] if isinstance(table[field], list) else [table[field]]
            parsed = [*earlier, parsed]
        table[field] = parsed
    return tables


def _parse_value(text: str) -> Any:
    try:
        tables = parse_toml(f"value = {text}".encode("utf-8", "surrogatepass"), "")
    except ConfigurationError:
        return text
    # `text` may go on with a line break and further keys: no value, but a text that happens to look like them.
    return tables["value"] if tables.keys() == {"value"} else text


def merge_tables(below: Tables, above: Tables) -> Tables:
    """The tables of `below`, overridden by the fields of `above`."""
    merged = {section: dict(table) for section, table in below.items()}
    for section, table in above.items():
        merged.setdefault(section, {}).update(table)
    return merged


def build_configuration(kind: type[T], tables: Tables, where: str) -> T:
    """A configuration of the given dataclass, built from tables.

    Args:
        kind: dataclass whose fields are sections, each of them a dataclass.
        where: source of the tables, for messages.
    Raises: ConfigurationError: a section or field is unknown or missing, a value has the wrong type or is not among the
        choices, or a dataclass refuses its values. For an unknown name, the message suggests the nearest known one.
    """
    sections = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _require_known(tables, sections, "section", where)
    hints = typing.get_type_hints(kind)
    values = {name: _build_section(hints[name], tables.get(name, {}), f"{where}: [{name}]") for name in sections}
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def read_configuration(kind: type[T], path: Path, *, resumes: bool = False) -> T:
    """The configuration in the file that a run wrote; see `build_configuration`.

    Another version of electrain may have written fields that this one lacks. They say nothing about the networks of a
    run, so they are left out, but a run that goes on without one of them would be another run. A field that the file
    lacks has its default or, where runs did otherwise before there was the field, what its metadata have as `BEFORE`.

    Args: resumes: refuse them.
    Raises: ConfigurationError: the file is missing or damaged or, with `resumes`, of another version.
    """
    hints = typing.get_type_hints(kind)
    known: Tables = {}
    for section, table in read_toml(path).items():
        fields = {field.name: field for field in dataclasses.fields(hints[section])} if section in hints else {}
        unknown = [name for name in table if name not in fields]
        if resumes and unknown:
            raise ConfigurationError(
                f"{path}: [{section}] {unknown[0]} is unknown to this version of electrain; resume the run with the "
                "version that began it"
            )
        if fields:
            before = {name: field.metadata[BEFORE] for name, field in fields.items() if BEFORE in field.metadata}
            known[section] = before | {name: value for name, value in table.items() if name in fields}
    return build_configuration(kind, known, str(path))


def _build_section(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    _require_known(table, fields, "field", where)
    hints = typing.get_type_hints(kind)
    values = {name: _convert(value, hints[name], f"{where} {name}") for name, value in table.items()}
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not has_default:
            raise ConfigurationError(f"{where} {name}: is missing; set it in the file or by an option")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigurationError(f"{where} {error}") from error


def _require_known(given: Mapping[str, Any], known: Mapping[str, Any], what: str, where: str) -> None:
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
            raise ConfigurationError(f"{where}: unknown {what} '{name}'; {hint}")


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigurationError(f"{where} = {value!r}: choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(item, arguments[0], where) for item in items)
    if origin in (typing.Union, types.UnionType):
        kind = next(argument for argument in arguments if argument is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < MOST_INTEGER else math.inf
    if kind is str and not isinstance(value, str):
        value = str(value)
    if isinstance(value, str) and not _is_utf8(value):
        raise ConfigurationError(f"{where} = {value!r}: is not UTF-8; write it otherwise")
    limit = {int: MOST_INTEGER, float: math.inf}.get(kind)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or (limit and not abs(value) < limit):
        whole = "smaller than 2^63" if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
        names = {int: whole, float: "a finite number", bool: "true or false", str: "a string"}
        raise ConfigurationError(f"{where} = {value!r}: must be {names[kind]}")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def to_toml(configuration: Any) -> str:
    """The configuration as TOML, from which `read_toml` and `build_configuration` build an equal one."""
    lines = []
    for section in dataclasses.fields(configuration):
        lines.append(f"[{section.name}]")
        table = getattr(configuration, section.name)
        for field in dataclasses.fields(table):
            value = getattr(table, field.name)
            if value is not None:
                lines.append(f"{field.name} = {_to_toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


def _to_toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_to_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def differences(earlier: Any, now: Any, *, but: tuple[str, ...] = ()) -> list[str]:
    """The differences between two configurations of a kind, one phrase for each.

    Args: but: names of fields and sections that are left out.
    """
    found = []
    for section in dataclasses.fields(earlier):
        if section.name in but:
            continue
        old, new = getattr(earlier, section.name), getattr(now, section.name)
        for field in dataclasses.fields(old):
            was, is_now = getattr(old, field.name), getattr(new, field.name)
            if was != is_now and field.name not in but:
                found.append(f"[{section.name}] {field.name} was {was} and is now {is_now}")
    return found


def require_fraction(name: str, value: float, *, may_be_one: bool = False) -> None:
    """Raises ValueError unless the value is above 0 and below 1, or is 1 where that is allowed."""
    if not (0 < value < 1 or (value == 1 and may_be_one)):
        hint = f"; as a percentage, {value} is written {value / 100}" if 1 < value <= 100 else ""
        raise ValueError(f"{name} = {value}: must be a fraction between 0 and 1{hint}")


def require_at_least(name: str, value: float, least: float) -> None:
    """Raises ValueError if the value is less than `least` or not finite."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} = {value}: must be at least {least}")


def require_layers(layers: int) -> None:
    """Raises ValueError at more layers than any network has, which would be built until the memory is full."""
    if layers > MOST_LAYERS:
        raise ValueError(f"layers = {layers}: must be at most {MOST_LAYERS:,}")


@dataclasses.dataclass(frozen=True)
class FieldDescription:
    """One field of a configuration, as help and documents show it."""

    section: str
    name: str  # as in a TOML file
    text: str  # from the docstring of the section's dataclass
    choices: tuple[str, ...]  # the values that it may have; () if any value is possible
    default: str  # as TOML, or "required"


def field_descriptions(kind: type[Any]) -> list[FieldDescription]:
    """Every field of a configuration, in the order of its sections."""
    found = []
    parts = typing.get_type_hints(kind)
    for section in (field.name for field in dataclasses.fields(kind)):
        part = parts[section]
        hints, texts = typing.get_type_hints(part), _field_texts(part)
        for field in dataclasses.fields(part):
            default = "required" if field.default is dataclasses.MISSING else _to_toml_value(field.default)
            text = texts.get(field.name, "")
            found.append(FieldDescription(section, field.name, text, _choices(hints[field.name]), default))
    return found


def describe_fields(kind: type[Any]) -> str:
    """One line per field: the option that sets it, its description, its choices and its default."""
    lines = []
    for field in field_descriptions(kind):
        flag = f"--{field.section}.{field.name}".replace("_", "-")
        choices = f" [choices: {', '.join(field.choices)}]" if field.choices else ""
        default = "[required]" if field.default == "required" else f"[default: {field.default}]"
        lines.append(f"{flag}: {field.text}{choices} {default}")
    return "\n".join(lines)


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, or of a tuple of Literals."""
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _field_texts(part: Any) -> dict[str, str]:
    """The descriptions in a docstring's list of attributes. Continuation lines are indented further."""
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(part) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}

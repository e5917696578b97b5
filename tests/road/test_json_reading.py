"""The one reader of JSON and TOML: any fault of a text is one line, and only the declared form passes."""

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electrain.foundation.configuration import parse_overrides, read_toml
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError, ElectrainError
from electrain.foundation.json_reading import MOST_DEPTH, as_kind, parse_json, read_json


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Outer:
    kind: Literal["one", "two"]
    parts: tuple[Inner, ...]
    rate: float | None = None


GOOD = {"kind": "one", "parts": [{"name": "a", "size": 3}], "rate": 0.5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested deeper than 100"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 100"),
        ("[" * 500 + "]" * 500, "nested deeper than 100"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested deeper than 100"),
        ('{"n": ' + "9" * 5000 + "}", "a number of too many digits"),
        ('{"n": 1e400}', "1e400 is too large a number"),
        ('{"n": -' + "9" * 400 + ".0}", "-9999999999999999999... is too large a number"),
        (b'{"n": "\xff"}', "byte 7 is not UTF-8"),
        ("{", "column 2"),
        ('{"a": 1,\n b}', "at column 2"),
        ("", "column 1"),
    ],
)
def test_a_fault_of_a_text_is_one_line(text: str | bytes, reason: str) -> None:
    with pytest.raises(DataError) as raised:
        parse_json(text, "texts.jsonl:7", way_out="fix or remove this line")
    line = str(raised.value)
    assert re.match(r"texts.jsonl:7(:2)?: not valid JSON \(", line)
    assert reason in line
    assert line.endswith("; fix or remove this line")
    assert "\n" not in line


def test_what_was_read_stays_read() -> None:
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH, "") is not None
    brackets = json.dumps({"text": "[" * 1000 + "{" * 1000, "more": [[1], [2]] * 200})
    assert parse_json(brackets, "") == json.loads(brackets)
    assert parse_json(b'\xef\xbb\xbf{"a": 1e300, "b": "1e400", "c": 123456789012345678901234567890}', "") == {
        "a": 1e300,
        "b": "1e400",
        "c": 123456789012345678901234567890,
    }
    assert str(parse_json("[NaN, Infinity]", "")) == "[nan, inf]"


@given(st.text() | st.binary())
def test_no_text_ends_otherwise(text: str | bytes) -> None:
    with suppress(ElectrainError):
        parse_json(text, "place")


def test_only_the_declared_form_passes() -> None:
    assert as_kind(GOOD, Outer, "x.json") == Outer("one", (Inner("a", 3),), 0.5)
    for damage, reason in (
        ({"kind": "three"}, "Invalid enum value 'three' at kind"),
        ({"parts": {}}, "Expected array, got object at parts"),
        ({"parts": [{"name": 1}]}, "Expected str, got int at parts[0].name"),
        ({"parts": [{"name": "a", "size": "3"}]}, "Expected int, got str at parts[0].size"),
        ({"parts": [{"name": "a", "sizf": 3}]}, "unknown key 'sizf'"),
        ({"rate": "0.5"}, "Expected float | null, got str at rate"),
        ({"ratf": 0.5}, "unknown key 'ratf'"),
    ):
        with pytest.raises(CheckpointError) as raised:
            as_kind({**GOOD, **damage}, Outer, "x.json", CheckpointError, way_out="copy it again")
        assert str(raised.value) == f"x.json: damaged ({reason}); copy it again"
    with pytest.raises(DataError, match="missing required field kind"):
        as_kind({"parts": []}, Outer, "x.json")
    with pytest.raises(DataError, match="Expected object, got array"):
        as_kind([], Outer, "x.json")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.json: cannot be read \(No such file or directory\); correct it"):
        read_json(tmp_path / "absent.json", Outer)
    with pytest.raises(DataError, match="is no file"):
        read_json(tmp_path, Outer)
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "good.json", Outer).parts[0].size == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[a]\nb = " + b"[" * 100_000, "nested deeper than 100"),
        (b"[a]\nb = " + b"[" * 300 + b"]" * 300, "nested deeper than 100"),
        (b"[" + b"a." * 100_000 + b"a]", "nested deeper than 100"),
        (b"[a]\nb = " + b"9" * 5000, "a number of too many digits"),
        (b"[a]\nb = '\xff'", "byte 9 is not UTF-8"),
        (b"#" * 2_000_000, "larger than 1,048,576 bytes"),
    ],
)
def test_a_fault_of_a_configuration_is_one_line(text: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(text)
    with pytest.raises(ConfigurationError) as raised:
        read_toml(tmp_path / "run.toml")
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text())
def test_any_value_of_an_option_is_read(value: str) -> None:
    assert set(parse_overrides(["--a.b", value])["a"]) == {"b"}


def test_a_value_that_is_no_toml_is_a_text() -> None:
    for value in ("[" * 100_000, "9" * 5000, "\ud800", "1\nother = 2", "a b"):
        assert parse_overrides(["--a.b", value]) == {"a": {"b": value}}

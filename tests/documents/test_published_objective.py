"""The fields of the published objective in the documents are those with which the benchmarks run."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from electrain.foundation.configuration import parse_overrides
from electrain.pretraining.configuration import load_configuration

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from published_objective import PUBLISHED  # noqa: E402


def commands_after(page: str, words: str) -> list[list[str]]:
    """The options in the pieces of code of the paragraph that has these words, one list for each."""
    paragraphs = (ROOT / "docs" / page).read_text("utf-8").split("\n\n")
    text = next(one for one in paragraphs if words in one).partition(words)[2]
    return [shlex.split(code) for code in re.findall(r"`(--[^`]*)`", text)]


def test_objectives_names_them() -> None:
    first, *_ = commands_after("objectives.md", "are of the published objective")
    assert parse_overrides(first) == parse_overrides([f"--{name}={value}" for name, value in PUBLISHED.items()])


@pytest.mark.parametrize(("preset", "place"), [("demo", 1), ("tiny", 2)])
def test_results_names_them(preset: str, place: int) -> None:
    """The presets had numbers of their own."""
    commands = commands_after("results.md", "**Older presets.**")
    of_document = parse_overrides([*commands[0], *commands[place]])
    own = {"demo": {"discriminator.loss-weight": "50", "corruption.masked-fraction": "0.15"}}.get(preset, {})
    expected = parse_overrides([f"--{name}={value}" for name, value in (PUBLISHED | own).items()])
    assert load_configuration(preset, of_document) == load_configuration(preset, expected)

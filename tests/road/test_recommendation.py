"""`plan --recommend`: the objective that was measured to be best for as many operations."""

import json
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from electrain.cli.app import main
from electrain.foundation.configuration import Tables, merge_tables, parse_overrides
from electrain.pretraining.configuration import load_configuration, preset_names
from electrain.pretraining.plan import plan
from electrain.pretraining.recommendation import recommended

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from published_objective import PUBLISHED  # noqa: E402
from race_arms import ARMS, stage_configuration, whole  # noqa: E402
from race_table import values_of  # noqa: E402
from sittings import read_lines  # noqa: E402

BUDGETS = {
    "words and detection together": (1e10, 1.4e13, 5e14, 1.1e15),
    "masked language modelling": (1.3e15, 2.8e15, 2e16),
    "the published ELECTRA": (3e16, 1e20),
}
CASES = [(name, budget) for name, budgets in BUDGETS.items() for budget in budgets]


@pytest.mark.parametrize(("name", "operations"), CASES)
def test_each_budget_has_what_was_measured_nearest_to_it(name: str, operations: float) -> None:
    assert recommended(load_configuration("tiny"), operations).objective == name


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("operations", [1e14, 2e15, 1e18])
def test_the_flags_are_what_the_preset_lacks(preset: str, operations: float) -> None:
    config = load_configuration(preset)
    flags = recommended(config, operations).flags
    changed = load_configuration(preset, parse_overrides(flags.split()))
    assert recommended(changed, operations).flags == ""
    assert (changed == config) == (not flags)


@pytest.mark.parametrize(
    "unusual",
    [
        {"generator": {"kind": "unigram", "clusters": 8}},
        {"generator": {"kind": "frozen", "source": "folder"}},
        {"generator": {"kind": "frozen", "own_stage_steps": 100}},
        {"generator": {"training": "gumbel"}},
        {"discriminator": {"heads": ["electric"]}},
        {"corruption": {"source": "generated"}, "generator": {"kind": "causal"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("operations", [1e14, 2e15, 1e18])
def test_an_unusual_configuration_takes_the_flags(unusual: Tables, operations: float) -> None:
    published = parse_overrides([f"--{name}={value}" for name, value in PUBLISHED.items()])
    own = merge_tables(published, unusual)
    flags = recommended(load_configuration("tiny", own), operations).flags
    changed = load_configuration("tiny", merge_tables(own, parse_overrides(shlex.split(flags))))
    assert recommended(changed, operations).flags == ""


@pytest.mark.parametrize("preset", ["demo", "tiny", "small", "base"])
def test_a_preset_has_what_is_recommended_for_it(preset: str) -> None:
    """With the vocabulary of the documents' examples."""
    config = load_configuration(preset)
    assert recommended(config, plan(config, vocabulary_size=8192).flops.per_run).flags == ""


def test_the_objective_for_few_operations_is_the_arm_that_was_measured() -> None:
    arm = stage_configuration(ARMS["mixed-weight-1"], 0, 1e14, seed=0)
    assert recommended(arm, 1e14).flags == ""
    published = stage_configuration(ARMS["published"], 0, 1e14, seed=0)
    flags = recommended(published, 1e14).flags.replace("-", "_").replace("__", "").split()
    settings = " ".join(f"{name}={value}" for name, value in zip(flags[::2], flags[1::2], strict=True))
    assert stage_configuration(whole(settings), 0, 1e14, seed=0) == arm


def test_its_figures_are_those_of_the_race() -> None:
    lines = read_lines(ROOT / "docs" / "measurements" / "race" / "lines.jsonl")
    medians = [
        statistics.median(values_of(lines, arm, 1.4e13, "frozen", "tagging"))
        for arm in ("mixed-weight-1", "mlm", "published")
    ]
    because = recommended(load_configuration("demo"), 1e13).because
    told = re.findall(r"\d\d\.\d", because.split("; at 1e14")[0])
    assert [float(one) for one in told] == pytest.approx(medians, abs=0.051)


def test_plan_says_it_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def planned(*more: str) -> dict[str, Any]:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["plan", "--config", "small", "--training.steps", "30", *more])
        made: dict[str, Any] = json.loads(capsys.readouterr().out)
        return made

    assert "recommendation" not in planned()
    made = planned("--recommend")
    advice = made["recommendation"]
    assert advice["operations"] == made["flops"]["per_run"]
    assert advice["objective"] == "words and detection together"
    assert advice["flags"].startswith("--generator.kind causal --generator.layers 1 --discriminator.heads detection ")

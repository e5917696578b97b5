"""Configurations: every mistake is one line that says where it is and how to fix it; every preset resolves."""

import os
import subprocess
import sys
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import refuse
from electrain.finetuning.configuration import FinetuneConfig, load_finetune_configuration
from electrain.foundation.configuration import Tables, build_configuration, parse_overrides, read_toml, to_toml
from electrain.foundation.errors import ConfigurationError
from electrain.pretraining.configuration import PretrainConfig, load_configuration, preset_names
from tiny_pretraining import TINY_TABLES, tiny_configuration

TINY = to_toml(tiny_configuration())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(TINY)
    return path


def test_few_steps_of_a_preset_scale_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    small = load_configuration("small", {"training": {"steps": 60}})
    assert (small.training.steps, small.training.warmup_steps) == (60, 6)
    assert capsys.readouterr().err == (
        "warmup_steps is lowered from 10,000 to 6 with the steps; --training.warmup-steps sets another number\n"
    )
    staged = load_configuration("two-stage", {"training": {"steps": 1000}})
    assert (staged.training.warmup_steps, staged.generator.own_stage_steps) == (100, 500)
    # No run is all warm-up because it is one step longer than what is planned for.
    warmups = [load_configuration("tiny", {"training": {"steps": n}}).training.warmup_steps for n in (300, 301, 3000)]
    assert warmups == [30, 30, 300]
    capsys.readouterr()
    # What fits, and what the user says, stays.
    assert load_configuration("small", {"training": {"steps": 100_000}}).training.warmup_steps == 10_000
    with pytest.raises(ConfigurationError, match="must be below steps"):
        load_configuration("small", {"training": {"steps": 60, "warmup_steps": 60}})
    assert capsys.readouterr().err == ""


def test_a_resumed_run_keeps_the_warmup_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one of an earlier version, which scaled nothing that fitted; and nothing is said again."""
    begun = tmp_path / "config.toml"
    begun.write_text(to_toml(load_configuration("tiny", {"training": {"steps": 500, "warmup_steps": 300}})))
    resumed = load_configuration("tiny", {"training": {"steps": 500}}, resumed=begun)
    assert resumed.training.warmup_steps == 300
    assert capsys.readouterr().err == ""


def pretrain(config: Path | str, shards: Path, output: Path, *flags: str) -> list[str]:
    return ["pretrain", f"--config={config}", f"--shards={shards}", f"--output={output}", *flags]


FLAGS: list[tuple[list[str], str]] = [
    (["--training.step", "5"], "[training]: unknown field 'step'; did you mean 'steps'?"),
    (["--trainig.steps", "5"], "unknown section 'trainig'; did you mean 'training'?"),
    (["--zzz.steps", "5"], "unknown section 'zzz'; known: encoder, training, generator"),
    (["--training.qqqq", "5"], "unknown field 'qqqq'; known: steps, batch_rows"),
    (["--training.steps", "1.5"], "[training] steps = 1.5: must be a whole number"),
    (["--training.seed", str(2**70)], f"[training] seed = {2**70}: must be smaller than 2^63"),
    (["--training.steps", "many"], "[training] steps = 'many': must be a whole number"),
    (["--training.steps", "true"], "[training] steps = True: must be a whole number"),
    (["--training.steps", "5", "--training.steps", "6"], "[training] steps = [5, 6]: must be a whole number"),
    (["--training.steps", "0"], "[training] steps = 0: must be at least 1"),
    (["--training.steps"], "--training.steps: has no value; write --training.steps VALUE"),
    (["--training.compile", "no"], "[training] compile = 'no': must be true or false"),
    (["--training.compile", "1"], "[training] compile = 1: must be true or false"),
    (["--training.peak-learning-rate", "fast"], "peak_learning_rate = 'fast': must be a finite number"),
    (["--training.peak-learning-rate", "5"], "peak_learning_rate = 5.0: must be above 0 and below 1"),
    (["--training.peak-learning-rate", "nan"], "peak_learning_rate = nan: must be a finite number"),
    (["--training.warmup-steps", "10"], "warmup_steps = 10: must be below steps (10)"),
    (["--training.dropout", "10"], "[training] dropout = 10.0: must be a fraction from 0 to 1; as a percentage it is"),
    (["--training.weight-decay", "nan"], "weight_decay = nan: must be a finite number"),
    (["--training.precision", "half"], "precision = 'half': choose one of auto, bfloat16, float16, float32"),
    (["--training.objective", "electra"], "choose one of replaced-token-detection, masked-language-modelling"),
    (
        ["--corruption.masked-fraction", "15"],
        "masked_fraction = 15.0: must be a fraction between 0 and 1; as a percent",
    ),
    (["--corruption.masked-fraction", "0"], "masked_fraction = 0.0: must be a fraction between 0 and 1"),
    (["--corruption.masked-fraction", "1"], "masked_fraction = 1.0: must be a fraction between 0 and 1"),
    (["--corruption.masked-fraction", "-0.1"], "masked_fraction = -0.1: must be a fraction between 0 and 1"),
    (["--corruption.masked-fraction", "nan"], "masked_fraction = nan: must be a finite number"),
    (["--generator.size-fraction", "25"], "size_fraction = 25.0: must be above 0 and at most 1; as a percentage"),
    (["--generator.temperature", "0"], "temperature = 0.0: must be at least 0.01"),
    (["--generator.temperature", "inf"], "temperature = inf: must be"),
    (["--discriminator.loss-weight", "nan"], "loss_weight = nan: must be a finite number"),
    (["--discriminator.heads", "detection", "--discriminator.heads", "tails"], "heads = 'tails': choose one of"),
    (["--encoder.heads", "3"], "heads = 3: hidden_size 32 is not a multiple of it"),
    (["--encoder.backbone", "gpt"], "backbone = 'gpt': choose one of electra, modernbert"),
    (["--encoder.backbone", "modernbert"], "embedding_size = 16: modernbert needs 0 or its hidden_size"),
    (["--data.segments", "3"], "[data] segments = 3: must be 1 or 2"),
    (["--data.sequence-length", "2"], "sequence_length = 2: must be at least 8"),
    (["--data.sequence-length", "100000"], "too few for one row of 100000; add text or lower"),
    (["--steps", "5"], "there is no option --steps; a field is set by --SECTION.FIELD VALUE"),
    (["stray"], "'stray' is not expected here; a field is set by --SECTION.FIELD VALUE"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[" ".join(flags) for flags, _ in FLAGS])
def test_one_line_for_a_mistaken_flag(
    file: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in refuse(pretrain(file, tiny_shards, tmp_path / "run", *flags), capsys)
    assert not (tmp_path / "run").exists()


FILES = [
    ("[training]\nsteps = ", "run.toml: not a readable TOML file"),
    ("\xff\x00", "run.toml: not a readable TOML file"),
    ("steps = 5\n", "run.toml: 'steps' is outside a section"),
    (TINY.replace("steps = 10", "stesp = 10", 1), "[training]: unknown field 'stesp'; did you mean 'steps'?"),
    (TINY.replace("[corruption]", "[coruption]"), "unknown section 'coruption'; did you mean 'corruption'?"),
    (TINY.replace("layers = 2\n", ""), "[encoder] layers: is missing; set it in the file or by an option"),
    (TINY.replace("layers = 2", 'layers = "2"'), "[encoder] layers = '2': must be a whole number"),
    ("", "[encoder] layers: is missing"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_one_line_for_a_mistaken_file(
    file: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file.write_bytes(content.encode("latin-1"))
    line = refuse(pretrain(file, tiny_shards, tmp_path / "run"), capsys)
    assert message in line
    assert str(file) in line


def test_one_line_for_a_missing_file(tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    line = refuse(pretrain(tmp_path / "absent.toml", tiny_shards, output), capsys)
    assert "absent.toml: no such configuration file" in line
    line = refuse(pretrain("gigantic", tiny_shards, output), capsys)
    assert "gigantic: not a .toml file nor one of the presets " in line
    assert line.endswith("; give one of them\n")
    assert refuse(pretrain("tinny", tiny_shards, output), capsys).endswith("; did you mean tiny?\n")
    (tmp_path / "folder.toml").mkdir()
    assert "no such configuration file" in refuse(pretrain(tmp_path / "folder.toml", tiny_shards, output), capsys)


def test_one_line_for_other_mistakes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refuse(pretrain(file, tmp_path / "absent", tmp_path / "run"), capsys)
    refuse(["pretrain", f"--config={file}"], capsys)
    refuse(["pretrane"], capsys)


def test_one_line_through_a_process_of_its_own(file: Path, tmp_path: Path) -> None:
    arguments = pretrain(file, tmp_path, tmp_path / "run", "--corruption.masked-fraction", "15")
    done = subprocess.run([sys.executable, "-m", "electrain.cli.app", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "masked_fraction = 15.0" in done.stderr


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        (PretrainConfig, lambda tables: load_configuration("tiny", tables)),
        (FinetuneConfig, lambda tables: load_finetune_configuration(None, tables)),
    ],
)
def test_every_field_of_numbers_refuses_those_that_no_run_can_have(
    kind: type[Any], load: Callable[[Tables], object]
) -> None:
    for section, part in typing.get_type_hints(kind).items():
        for name, hint in typing.get_type_hints(part).items():
            refused = {int: ["inf", f"{2**63}", "9" * 5000], float: ["nan", "-inf", "9" * 400]}.get(hint, [])
            for text in refused:
                tables = parse_overrides([f"--{section}.{name}", text])
                message = rf"\[{section}\] {name} = .*: must be (a fin|a who|smaller)"
                with pytest.raises(ConfigurationError, match=message):
                    load(tables)


@pytest.mark.parametrize("name", preset_names())
def test_presets_resolve_and_round_trip(name: str, tmp_path: Path) -> None:
    config = load_configuration(name)
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_configuration(str(tmp_path / "again.toml")) == config


def test_there_are_the_promised_presets() -> None:
    assert {"tiny", "small", "base", "large"} <= set(preset_names())


def test_a_preset_is_found_beside_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config tiny --output tiny` works, and so does `--resume` after it."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("tiny")
    assert load_configuration("tiny") == load_configuration("tiny", {})


def test_flags_win_over_the_file(file: Path) -> None:
    config = load_configuration(
        str(file),
        parse_overrides(["--training.steps", "77", "--data.segments=1", "--training.peak-learning-rate=1e-4"]),
    )
    assert (config.training.steps, config.data.segments, config.training.peak_learning_rate) == (77, 1, 1e-4)
    assert config.training.batch_rows == 8


def test_overrides() -> None:
    flags = ["--a.one", "1", "--a.two-words=x y", "--b.list", "p", "--b.list", "q", "--b.list", "r", "--a.yes", "true"]
    assert parse_overrides(flags) == {
        "a": {"one": 1, "two_words": "x y", "yes": True},
        "b": {"list": ["p", "q", "r"]},
    }
    assert parse_overrides(["--a.x=-5", "--a.y", "-0.5", "--a.z", "1e-4", "--a.path", "runs/x=1"]) == {
        "a": {"x": -5, "y": -0.5, "z": 1e-4, "path": "runs/x=1"}
    }
    assert parse_overrides(["--a.list", '["p", "q"]', "--a.empty", ""]) == {"a": {"list": ["p", "q"], "empty": ""}}
    assert parse_overrides([]) == {}


def test_a_list_of_one() -> None:
    tables = {**TINY_TABLES, "discriminator": {"heads": "detection"}}
    assert build_configuration(PretrainConfig, tables, "test").discriminator.heads == ("detection",)


paths = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=12)


@given(paths, st.floats(1e-9, 0.99), st.integers(0, 2**62), st.booleans())
def test_round_trip(start: str, rate: float, seed: int, compile_: bool) -> None:
    config = tiny_configuration(
        start={"discriminator": start}, training={"peak_learning_rate": rate, "seed": seed, "compile": compile_}
    )
    again = build_configuration(PretrainConfig, tomllib.loads(to_toml(config)), "again")
    assert again == config


def test_resolved_file_is_readable(tmp_path: Path) -> None:
    """Sections in order, a field a line; lists, texts, numbers and truth as TOML has them."""
    path = tmp_path / "config.toml"
    path.write_text(to_toml(tiny_configuration()))
    tables: dict[str, Any] = read_toml(path)
    assert list(tables) == list(PretrainConfig.__dataclass_fields__)
    assert tables["discriminator"]["heads"] == ["detection"]
    assert tables["training"]["compile"] is False
    assert tables["training"]["peak_learning_rate"] == 2e-3


def test_a_mistake_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"\[encoder\] layers = 0: must be at least 1"):
        tiny_configuration(encoder={"layers": 0})

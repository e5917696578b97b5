"""Random option values, damaged configuration files and random command lines: a configuration, or one line.

More cases: ELECTRAIN_FUZZ_CASES=100000 python -m pytest tests/fuzz -k configurations
"""

import random
from importlib import resources
from pathlib import Path

import pytest

from command_line import command
from damage import CASES, damaged, draws_of, ends_of
from electrain.finetuning.configuration import FinetuneConfig, load_finetune_configuration
from electrain.foundation.configuration import (
    build_configuration,
    field_descriptions,
    parse_overrides,
    preset_names_in,
    read_toml,
    to_toml,
)
from electrain.pretraining.configuration import PretrainConfig, load_configuration

KINDS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
PACKAGES = {"pretrain": "electrain.pretraining.presets", "finetune": "electrain.finetuning.recipes"}
_PIECES = [
    *"0123456789-+.eE_,;:=#'\"\\[]{}()<>|/ \t\n\r\0\x1b\x7f\x80\u2028\u202e\ud800\udcffäß中😀",
    *("nan", "inf", "-inf", "true", "false", "null", "1e999", "1e-999", "0x10", "0b1", "1_000", "-1", "0", "1", "0.5"),
    *("9" * 20, "9" * 5000, "[" * 200, "{a=1}", "[1,2]", '""', "''", '"""', "1979-05-27", "07:32:00", "--x.y", "a.b"),
    *("auto", "electra", "random", str(1 << 63), str(-(1 << 63)), str(1 << 70), "1e18", "4294967296", "value = 1"),
]


def value_of(draws: random.Random, choices: tuple[str, ...]) -> str:
    """A value as nobody should write it, or now and then one that the field may have."""
    if choices and draws.random() < 0.2:
        return draws.choice(choices)
    return "".join(draws.choices(_PIECES, k=draws.choice((0, 1, 1, 1, 2, 3, 8))))


@pytest.mark.parametrize("verb", KINDS)
def test_overrides_of_configurations(verb: str, tmp_path: Path) -> None:
    """What is accepted is written into the run's folder, and must be read again as it is."""
    fields = field_descriptions(KINDS[verb])
    path = tmp_path / "config.toml"

    def read(case: int) -> None:
        draws = draws_of(verb, case)
        words: list[str] = []
        for field in draws.sample(fields, k=draws.choice((1, 1, 2, 4)) if case else 0):
            flag = f"--{field.section}.{field.name}".replace("_", draws.choice("-_"))
            value = value_of(draws, field.choices)
            words += draws.choice(([flag, value], [f"{flag}={value}"]))
        if draws.random() < 0.05:
            words.insert(draws.randrange(len(words) + 1), value_of(draws, ()))
        tables = parse_overrides(words)
        if verb == "pretrain":
            name = draws.choice(preset_names_in(PACKAGES[verb]))
            config: PretrainConfig | FinetuneConfig = load_configuration(name, tables)
        else:
            config = load_finetune_configuration(draws.choice((None, *preset_names_in(PACKAGES[verb]))), tables)
        path.write_text(to_toml(config), "utf-8")
        assert build_configuration(KINDS[verb], read_toml(path), str(path)) == config, words

    ends_of(read, range(CASES))


@pytest.mark.parametrize("verb", KINDS)
def test_files_of_configurations(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.toml"
    names = preset_names_in(PACKAGES[verb])

    def read(case: int) -> None:
        draws = draws_of(f"file {verb}", case)
        content = (resources.files(PACKAGES[verb]) / f"{draws.choice(names)}.toml").read_bytes()
        path.write_bytes(damaged(content, draws) if case else content)
        if verb == "pretrain":
            load_configuration(str(path), {})
        else:
            load_finetune_configuration(str(path), {})

    ends_of(read, range(CASES))


NUMBERS = ["-1", "0", "1", "1.5", "x", "", "nan", "-0", "9" * 19, "9" * 400, str(1 << 63), str(-(1 << 63)), "1e3", "１"]
OPTIONS = {
    "tokenizer": ("--vocab-size", "--character-coverage"),
    "prepare": ("--processes",),
    "plan": ("--devices", "--utilisation", "--price-per-hour", "--vocab-size", "--training.seed", "--training.steps"),
    "evaluate detection": ("--rows", "--seed"),
    "evaluate blimp": ("--limit-pairs-per-set",),
    "predict generate": ("--tokens", "--temperature", "--top-p", "--seed"),
    "predict fill": ("--candidates",),
    "finetune classification": ("--seeds", "--training.seed", "--training.epochs", "--data.longest-tokens"),
    "pretrain": ("--training.seed", "--data.sequence-length", "--training.batch-rows", "--training.steps"),
}


@pytest.mark.parametrize("verb", OPTIONS)
def test_numbers_on_command_lines_of_configurations(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    """Up to the first file, which does not exist."""
    absent = str(tmp_path / "absent")
    needed: dict[str, list[str]] = {
        "tokenizer": [absent, "--output", absent],
        "prepare": [absent, "--tokenizer", absent, "--output", absent],
        "plan": ["--config", "small", "--hardware", "h100"],
        "evaluate": ["--model", absent, "--data", absent],
        "predict": ["text", "--model", absent],
        "finetune": ["--model", absent, "--train", absent, "--validation", absent, "--output", absent],
        "pretrain": ["--config", "tiny", "--shards", absent, "--output", absent],
    }
    pairs = [(option, number) for option in OPTIONS[verb] for number in NUMBERS]
    share = 30 if verb == "plan" else 6  # the answer takes a second
    for option, number in draws_of(f"numbers {verb}", 0).sample(pairs, k=min(len(pairs), CASES // share)):
        code, _, error = command(capsys, *verb.split(), *needed[verb.split()[0]], option, number)
        assert code in (0, 2), (option, number)
        said = [line for line in error.splitlines() if not line.startswith("seed ")]
        assert len(said) == (1 if code else 0), (option, number, error)

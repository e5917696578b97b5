"""Runs of another version, whose configurations have fields that this one lacks."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import command
from electrain.foundation.output_folder import HASHES, file_hash, read_any_manifest, write_manifest
from electrain.pretraining.run import pretrain
from electrain.pretraining.run_folder import open_run_folder
from tiny_pretraining import tiny_configuration

GONE = "[training] gone is unknown to this version of electrain; resume the run with the version that began it"


def age(run: Path) -> None:
    """Makes the run one of another version, which hashed what it wrote."""
    path = run / "config.toml"
    path.write_text(path.read_text().replace("[training]", "[training]\ngone = 3") + "\n[gone_too]\nx = 1\n")
    manifest = read_any_manifest(run)
    hashes = manifest.hashes | {path.name: file_hash(path)}
    write_manifest(run, replace(manifest, facts=manifest.facts | {HASHES: hashes}))


def test_a_run_of_another_version_is_read_but_not_resumed(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", tiny_configuration()
    pretrain(config, tiny_shards, run)
    before, path = open_run_folder(run).config, tmp_path / "own.toml"
    shutil.copy(run / "config.toml", path)
    age(run)
    assert open_run_folder(run).config == before
    assert command(capsys, "check", run)[0] == 0
    given = ("evaluate", "detection", "--model", run, "--data", tiny_shards, "--rows", 8, "--add-to-card")
    assert command(capsys, *given)[0] == 0
    assert "gone" not in (run / "model/README.md").read_text()
    code, _, err = command(capsys, "pretrain", "--config", path, "--shards", tiny_shards, "--output", run, "--resume")
    assert (code, err.splitlines()[-1]) == (2, f"electrain pretrain: {run / 'config.toml'}: {GONE}")


def test_a_fine_tuned_run_of_another_version_is_not_resumed(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled, tuned = tmp_path / "labelled.tsv", tmp_path / "tuned"
    labelled.write_text("sentence\tlabel\n" + "the cat\tyes\na dog\tno\n" * 8)
    given = (
        *("finetune", "classification", "--model", tiny_run(), "--train", labelled, "--validation", labelled),
        *("--output", tuned, "--training.epochs", 1),
    )
    assert command(capsys, *given)[0] == 0
    age(tuned)
    assert command(capsys, "check", tuned)[0] == 0
    assert command(capsys, "predict", "classify", "the cat", "--model", tuned)[0] == 0
    code, _, err = command(capsys, *given, "--resume")
    assert (code, err.splitlines()[-1]) == (2, f"electrain finetune: {tuned / 'config.toml'}: {GONE}")


def test_a_run_of_before_there_was_a_choice_of_optimizer_goes_on_with_its_own(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, tuned = tmp_path / "pairs.jsonl", tmp_path / "tuned"
    pairs.write_text('{"text": "the cat", "label": "a dog"}\n' * 8)
    given = (
        *("finetune", "translation", "--model", tiny_run(), "--train", pairs, "--validation", pairs),
        *("--output", tuned, "--training.epochs", 1, "--resume"),
    )
    adamw = ("--training.optimizer", "adamw")
    assert command(capsys, *given, *adamw)[0] == 0
    path = tuned / "config.toml"
    path.write_text(path.read_text().replace('optimizer = "adamw"\n', ""))
    manifest = read_any_manifest(tuned)
    hashes = manifest.facts[HASHES] | {path.name: file_hash(path)}
    write_manifest(tuned, replace(manifest, facts=manifest.facts | {HASHES: hashes}))
    code, _, err = command(capsys, *given)
    assert code == 2
    assert "[training] optimizer was adamw and is now muon; give the run's own with --training.optimizer" in err
    shutil.copy(path, tmp_path / "own.toml")
    assert command(capsys, *given, "--config", tmp_path / "own.toml")[0] == 0
    assert command(capsys, *given, *adamw)[0] == 0

"""Damaged folders are refused in one line that names the file; none is read as if it were whole."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ElectraConfig, ElectraForSequenceClassification

from command_line import command, refuse
from conftest import VOCABULARY
from electrain.cli.app import main
from electrain.data.text.corpus import Document
from electrain.data.tokenizer.tokenizer import load_tokenizer, save_tokenizer, word_piece_tokenizer, wrap
from electrain.data.tokenizer.training import train_tokenizer
from electrain.finetuning.tasks.settings import TaskSettings, save_task_settings
from electrain.foundation.errors import RunDirectoryError, TokenizerError
from electrain.foundation.output_folder import Manifest, read_manifest, write_manifest
from electrain.models.backbones import backbone_of
from electrain.pretraining.run import pretrain
from tiny_pretraining import tiny_configuration


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """The folder of a tiny classifier of two labels, as a fine-tuning run leaves it."""
    torch.manual_seed(3)
    folder = tmp_path / "classifier"
    configuration = ElectraConfig(
        vocab_size=len(VOCABULARY),
        **dict.fromkeys(("hidden_size", "embedding_size"), 16),
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        id2label={0: "good", 1: "bad"},
        label2id={"good": 0, "bad": 1},
    )
    assert backbone_of(configuration)
    ElectraForSequenceClassification(configuration).save_pretrained(folder)
    save_tokenizer(wrap(word_piece_tokenizer(VOCABULARY, cased=False)), folder)
    settings = TaskSettings("classification", ("good", "bad"), columns={"text": "text"}, longest_tokens=24)
    save_task_settings(settings, folder)
    return folder


def change(path: Path, **keys: Any) -> None:
    """Changes keys of a file of JSON; a key whose value is None is removed."""
    content = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    return refuse(["predict", "classify", "the cat saw a dog", "--model", str(folder)], capsys)


def test_weights_that_are_not_finite_are_refused(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answers, _ = command(capsys, "predict", "classify", "the cat", "--model", classifier)
    assert code == 0
    assert answers[0]["label"] in ("good", "bad")
    weights = load_file(classifier / "model.safetensors")
    for value in ("nan", "inf"):
        weights["classifier.dense.bias"][3] = float(value)
        save_file(weights, classifier / "model.safetensors", {"format": "pt"})
        assert "its weights (classifier.dense.bias) hold numbers that are not finite" in ask(classifier, capsys)


TASK_DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "labels in another order": ({"labels": ["bad", "good"]}, "task.json and config.json disagree about the labels"),
    "one label more": ({"labels": ["good", "bad", "ugly"]}, "task.json and config.json disagree about the labels"),
    "a label twice": ({"labels": ["good", "good"]}, "a label is named twice"),
    "no labels": ({"labels": None}, "no labels for classification"),
    "a number for a label": ({"labels": ["good", 1]}, "Expected str, got int at labels[1]"),
    "another task": ({"task": "klassification"}, "Invalid enum value 'klassification' at task"),
    "another key": ({"has_manx": True}, "unknown key 'has_manx'"),
    "rows of no tokens": ({"longest_tokens": -1}, "longest_tokens = -1: must be at least 4"),
    "rows beyond the positions": ({"longest_tokens": 25}, "rows of 25 tokens, and 24 positions"),
    "rows of half a token": ({"longest_tokens": 12.5}, "Expected int, got float at longest_tokens"),
    "columns in a list": ({"columns": ["text"]}, "Expected object, got array at columns"),
    "no version": ({"format_version": None}, "names no format_version"),
    "a later version": ({"format_version": 2}, "format 2 is newer than this electrain reads; update electrain"),
}


@pytest.mark.parametrize("damage", TASK_DAMAGES)
def test_a_damaged_task_is_refused(classifier: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    keys, reason = TASK_DAMAGES[damage]
    change(classifier / "task.json", **keys)
    line = ask(classifier, capsys)
    assert reason in line
    assert "task.json" in line


def test_labels_without_names_in_the_configuration_are_read(
    classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers calls them LABEL_0 and so on where nobody named them."""
    change(classifier / "config.json", id2label=None, label2id=None)
    code, answers, _ = command(capsys, "predict", "classify", "the cat", "--model", classifier)
    assert code == 0
    assert answers[0]["label"] in ("good", "bad")


def test_an_id_of_billions_is_refused_before_the_memory_is_taken(classifier: Path) -> None:
    content = json.loads((classifier / "tokenizer.json").read_text())
    content["model"]["vocab"]["cat"] = 1 << 31
    (classifier / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"tokenizer.json: damaged \(a token with the id 2147483648\)"):
        load_tokenizer(classifier)


def test_evaluation_verifies_the_shards(
    tiny_run: Callable[..., Path], tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_run())
    capsys.readouterr()
    shutil.copytree(tiny_shards, tmp_path / "shards")
    path = tmp_path / "shards/corpus_00000.ds"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = refuse(["evaluate", "detection", "--model", model, "--data", str(tmp_path / "shards")], capsys)
    assert "corpus_00000.ds: damaged (its SHA-256 differs from the manifest's)" in line


@pytest.fixture
def run(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of ten steps, with the hashes that pretraining writes."""
    monkeypatch.setattr("electrain.pretraining.run.measure_matrix_rate", lambda *_: 1e9)
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path, place: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        *("model/model.safetensors", "model/config.json", "model/tokenizer.json"),
        *("generator/model.safetensors", "generator/config.json"),
        *("config.toml", "manifest.json", "unigram_counts.npy"),
    ],
)
def test_one_bit_of_a_run_is_found(run: Path, tiny_shards: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / name)
    capsys.readouterr()
    arguments = ["predict", "embed", "babe", "--model", str(run)]
    if not name.startswith("model/"):
        arguments = ["evaluate", "detection", "--model", str(run), "--data", str(tiny_shards), "--rows", "8"]
    line = refuse(arguments, capsys)
    assert f"{run / name}: damaged" in line


@pytest.mark.parametrize("name", ["metrics.jsonl", "examples.jsonl", "config.toml"])
def test_a_report_of_a_damaged_run_is_refused(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / name)
    capsys.readouterr()
    assert f"{run / name}: damaged" in refuse(["report", "--run", str(run)], capsys)


def test_a_folder_without_hashes_is_read_as_before(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As older versions and the hub have them."""
    arguments = ["predict", "embed", "babe", "--model", str(run)]
    capsys.readouterr()
    expected = command(capsys, *arguments)
    for path in run.rglob("SHA256SUMS"):
        path.unlink()
    content = json.loads((run / "manifest.json").read_text())
    del content["sha256"], content["facts"]["hashes"]
    (run / "manifest.json").write_text(json.dumps(content))
    assert command(capsys, *arguments) == expected


def test_sums_are_those_of_sha256sum(run: Path) -> None:
    ended = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=run / "model", capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(b": OK") == len((run / "model/SHA256SUMS").read_text().splitlines()) > 4


MANIFEST_DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no facts": ({"facts": None}, "missing required field facts"),
    "finished is a word": ({"finished": "yes"}, "Expected bool, got str at finished"),
    "inputs in a list": ({"inputs": []}, "Expected object, got array at inputs"),
    "a number for a hash": ({"inputs": {"shards": 1}}, "Expected str, got int at inputs[...]"),
    "hashes in a list": ({"facts": {"hashes": []}}, "Expected object, got array"),
    "a version of another type": ({"format_version": "1"}, "Expected int, got str at format_version"),
    "a later version": ({"format_version": 99}, "newer than this electrain reads (1); update electrain"),
}


@pytest.mark.parametrize("damage", MANIFEST_DAMAGES)
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, damage: str) -> None:
    keys, reason = MANIFEST_DAMAGES[damage]
    write_manifest(tmp_path, Manifest("run", True, {"shards": "0"}, {}))
    change(tmp_path / "manifest.json", sha256=None, **keys)
    with pytest.raises(RunDirectoryError) as raised:
        read_manifest(tmp_path, "run")
    assert reason in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "manifest.json"))


def test_check_counts_the_sound_files(
    run: Path, classifier: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tokenizer([Document("some words and more words " * 20, "test")], tmp_path / "tokenizer", 100, False)
    capsys.readouterr()
    for folder in (run, run / "model", run / "checkpoints", tiny_shards, tmp_path / "tokenizer", classifier):
        code, shown, err = command(capsys, "check", folder)
        assert code == 0, err
        [found] = shown
        assert code == 0
        assert found["files"] > 2
        assert err == f"{found['files']} files are sound\n"
    assert "holds nothing that electrain writes" in refuse(["check", str(tmp_path)], capsys)
    assert "no such folder" in refuse(["check", str(tmp_path / "absent")], capsys)


@pytest.mark.parametrize("hashes", [True, False])
def test_check_names_every_damaged_file(run: Path, hashes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Also without hashes, all that the form of a file tells."""
    if not hashes:
        for path in run.rglob("SHA256SUMS"):
            path.unlink()
        content = json.loads((run / "manifest.json").read_text())
        del content["sha256"], content["facts"]["hashes"]
        (run / "manifest.json").write_text(json.dumps(content))
    names = [
        *("model/model.safetensors", "model/config.json", "generator/tokenizer.json", "tokenizer/tokenizer.json"),
        *("config.toml", "unigram_counts.npy", "metrics.jsonl", "checkpoints/step-10/state.json"),
    ]
    for name in names:
        (run / name).write_bytes((run / name).read_bytes()[:50] + b"{")
    (run / "checkpoints/step-5/optimizer.safetensors").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        main(["check", str(run)])
    assert raised.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    for name in [*names, "checkpoints/step-5/optimizer.safetensors"]:
        found = [line for line in lines if line.startswith(f"electrain check: {run / name}")]
        assert len(found) == 1, (name, lines)
    assert len(lines) == len(names) + 1


def test_a_report_without_a_manifest_or_with_damaged_predictions_is_refused(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, tuned = tmp_path / "a.tsv", tmp_path / "tuned"
    labels.write_text("text\tlabel\n" + "the cat\tone\nthe dog\ttwo\n" * 8)
    arguments = ["--model", tiny_run(), "--train", labels, "--validation", labels, "--output", tuned]
    code, _, err = command(capsys, "finetune", "classification", *arguments, "--training.epochs", "1")
    assert code == 0, err
    code, [found], err = command(capsys, "check", tuned)
    assert (code, err) == (0, f"{found['files']} files are sound\n")
    manifest, path = (tuned / "manifest.json").read_text(), tuned / "predictions.jsonl"
    change(tuned / "manifest.json", sha256=None, facts={})
    path.write_text(path.read_text().replace('"labels": ["one"]', '"labels": [["one"]]', 1))
    assert f"{path}:1: damaged (no example and answer of classification)" in refuse(
        ["report", "--run", str(tuned)], capsys
    )
    path.unlink()
    (tuned / "manifest.json").write_text(manifest)
    assert command(capsys, "report", "--run", tuned)[0] == 0  # a file that somebody removed is left out
    (tuned / "manifest.json").unlink()
    assert "manifest.json: missing; copy the run again" in refuse(["report", "--run", str(tuned)], capsys)

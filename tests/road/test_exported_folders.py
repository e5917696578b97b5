"""`electrain export`, and exported folders asked without PyTorch."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, GPT2LMHeadModel

import electrain
from command_line import command, refuse
from electrain.data.tokenizer.light_tokenizer import load_light
from electrain.data.tokenizer.tokenizer import load_tokenizer, save_tokenizer
from electrain.finetuning.tasks.settings import TaskSettings, save_task_settings
from electrain.foundation.sums import write_sums
from electrain.inference.export import agreement
from electrain.models.backbones import EncoderConfig, encoder_configuration
from electrain.models.encoder_decoder import DecoderConfig, build_encoder_decoder, save_encoder_decoder
from electrain.models.task_heads import TASK_CLASSES, task_configuration
from tiny_pretraining import SPECIAL_IDS

Runs = Callable[..., Path]
TEXTS = ["The cat sees a happy dog .", "a dog", "", "unhappy cats are quick , who sees x ?", "dogs are sad . " * 9]
SETTINGS = {
    "classify": TaskSettings("classification", ("bad", "fine"), longest_tokens=20),
    "tag": TaskSettings("tagging", ("O", "B-X", "I-X"), longest_tokens=12, tag_scheme="bio"),
    "answer": TaskSettings("question-answering", longest_tokens=20, window_overlap_tokens=3, null_threshold=0.0),
    "regress": TaskSettings("regression", longest_tokens=16, cut="windows"),
}


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_TEXTS", 6)


@pytest.fixture(scope="module")
def models(tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for each task, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    source = tiny_run() / "model"
    configuration, tokenizer = AutoConfig.from_pretrained(source), load_tokenizer(source)
    for verb, settings in SETTINGS.items():
        torch.manual_seed(3)
        own = task_configuration(configuration, settings.task, settings.labels, dropout=0.0, pooling="cls")
        TASK_CLASSES[settings.task].from_config(own).save_pretrained(folder / verb)
        save_tokenizer(tokenizer, folder / verb, model_max_length=settings.longest_tokens)
        save_task_settings(settings, folder / verb)
        write_sums(folder / verb)
    torch.manual_seed(4)
    encoder = TASK_CLASSES["tagging"].from_config(configuration).base_model
    decoder = DecoderConfig(layers=1, hidden_size=8, feed_forward_size=16, heads=2)
    model = build_encoder_decoder(encoder, decoder, encoder_source=source, target_tokenizer=tokenizer, dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_encoder_decoder(model, tokenizer, tokenizer, folder / "translate")
    generation = {"beams": 3, "length_penalty": 0.7, "no_repeat_ngram_tokens": 2, "longest_output_tokens": 12}
    save_task_settings(TaskSettings("translation", longest_tokens=20, generation=generation), folder / "translate")
    sizes = EncoderConfig(layers=1, hidden_size=8, feed_forward_size=16, heads=2)
    causal = encoder_configuration(
        sizes, vocabulary_size=len(tokenizer), sequence_length=24, dropout=0.1, special_ids=SPECIAL_IDS, is_causal=True
    )
    causal.initializer_range = 0.3
    GPT2LMHeadModel(causal).save_pretrained(folder / "generate")
    save_tokenizer(tokenizer, folder / "generate")
    return folder


@pytest.fixture(scope="module")
def exported(models: Path, tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of each of them, and of a pretraining run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_TEXTS", 6)
        folder = tmp_path_factory.mktemp("exported")
        for verb in (*SETTINGS, "translate", "generate"):
            electrain_export(models / verb, folder / verb)
        electrain_export(tiny_run(), folder / "run")
        return folder


def electrain_export(model: Path, output: Path) -> None:
    from electrain.inference.export.exporting import export_model

    export_model(str(model), output, "none")


def same(one: Any, other: Any) -> bool:
    """Equal, but for the rounding of numbers and the name of the folder."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one.keys() - {"model"})
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, abs=1e-4) if isinstance(one, float) else one == other


ASKED: dict[str, list[str]] = {
    "classify": TEXTS,
    "tag": TEXTS,
    "regress": TEXTS,
    "translate": TEXTS,
    "answer": ["who sees ?\t" + "the cat sees a dog . " * 6, "who ?\tx"],
    "generate": ["the cat", "a happy dog sees"],
}


@pytest.mark.parametrize("verb", ASKED)
def test_predict_answers_as_with_pytorch(
    verb: str, models: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected, _ = command(capsys, "predict", verb, *ASKED[verb], "--model", models / verb)
    code, found, said = command(capsys, "predict", verb, *ASKED[verb], "--model", exported / verb)
    assert code == 0, said
    assert len(found) == len(ASKED[verb])
    assert same(found, expected)


@pytest.mark.parametrize("task", ["detect", "fill", "embed"])
def test_a_run_answers_as_with_pytorch(
    task: str, tiny_run: Runs, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text and f"{text} [MASK] ?" for text in TEXTS]
    _, expected, _ = command(capsys, "predict", task, *texts, "--model", tiny_run())
    code, found, said = command(capsys, "predict", task, *texts, "--model", exported / "run")
    assert code == 0, said
    assert same(found, expected)
    content = json.loads((exported / "run" / "electrain-export.json").read_text("utf-8"))
    # Detection and vectors share an encoder; the generator has its own.
    assert content["networks"]["detect"]["file"] == content["networks"]["embed"]["file"] == "encoder.onnx"
    assert content["networks"]["generator"]["file"] == "generator.onnx"


def test_everything_is_asked_without_pytorch(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process that cannot import it."""
    given = {**ASKED, "detect": TEXTS, "fill": ["a [MASK]"], "embed": TEXTS}
    script = """
import json, sys
for name in ("torch", "transformers"):
    sys.modules[name] = None
from electrain.cli.app import main
for task, folder, texts in json.loads(sys.argv[1]):
    try:
        main(["predict", task, "--model", folder, *texts])
    except SystemExit as ended:
        assert not ended.code
import electrain
assert electrain.load(sys.argv[2]).tasks[0] == "classify"
"""
    asked = [(task, str(exported / (task if task in ASKED else "run")), texts) for task, texts in given.items()]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked), str(exported / "classify")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(printed) == sum(map(len, given.values()))
    _, expected, _ = command(capsys, "predict", "tag", *TEXTS, "--model", exported / "tag")
    assert printed[len(TEXTS) : 2 * len(TEXTS)] == expected


def test_an_exported_folder_says_how_it_differs(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text(f"the cat\na happy dog sees the cat .\n{'the cat ' * 400}\n")
    arguments = ("--model", models / "classify", "--output", tmp_path / "out", "--quantize", "int8")
    code, (printed,), said = command(capsys, "export", *arguments, "--data", tmp_path / "texts.txt")
    assert code == 0
    assert printed["tasks"] == ["classify", "embed"]
    content = json.loads((tmp_path / "out" / "electrain-export.json").read_text("utf-8"))
    assert content["agreement"] == printed["agreement"]
    assert content["quantize"] == "int8"
    assert content["agreement"]["texts"] == 3
    lines = [line for line in said.splitlines() if "3 texts" in line]
    assert len(set(lines)) == len(lines) > 0, said
    logits = content["agreement"]["outputs"]["model"]["logits"]
    assert 0 < logits["mean_difference"] <= logits["largest_difference"] < 0.2
    assert content["agreement"]["equal_answers"].keys() == {"classify", "embed"}
    assert "classify: 100.0% of the answers are those of PyTorch" in said
    assert str(models) not in json.dumps(content)  # a folder that is shared does not tell where it was made
    assert command(capsys, "check", tmp_path / "out")[0] == 0
    (tmp_path / "out" / "model.onnx").write_bytes(b"damaged")
    assert "model.onnx: damaged" in command(capsys, "check", tmp_path / "out")[2]
    assert "model.onnx: damaged" in refuse(["predict", "classify", "x", "--model", str(tmp_path / "out")], capsys)


def test_a_network_that_differs_leaves_nothing(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "TOLERANCE", 1e-12)
    message = refuse(["export", "--model", str(models / "regress"), "--output", str(tmp_path / "out")], capsys)
    assert "model.onnx differs from PyTorch by" in message
    assert list(tmp_path.iterdir()) == []


def test_refusals(
    models: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(model: Path, output: str = "new", *more: str) -> str:
        return refuse(["export", "--model", str(model), "--output", str(tmp_path / output), *more], capsys)

    assert "is exported already" in refused(exported / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is not empty" in refused(models / "tag", "full")
    assert "choose one of none, int8" in refused(models / "tag", "new", "--quantize", "int4")
    (tmp_path / "empty.txt").write_text("\n")
    assert "holds no text" in refused(models / "tag", "new", "--data", str(tmp_path / "empty.txt"))
    assert "cannot tag; it can classify, embed" in refuse(
        ["predict", "tag", "x", "--model", str(exported / "classify")], capsys
    )
    with pytest.raises(electrain_error(), match="runs on the CPU"):
        electrain.load(exported / "run", device="cuda")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'pip install "electrain[export]"' in refuse(
        ["predict", "detect", "x", "--model", str(exported / "run")], capsys
    )
    assert 'pip install "electrain[export]"' in refused(models / "tag")
    assert {path.name for path in tmp_path.iterdir()} == {"full", "empty.txt"}


def electrain_error() -> type[Exception]:
    from electrain.foundation.errors import ElectrainError

    return ElectrainError


def test_a_newer_or_damaged_description_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(exported / "classify", tmp_path / "one")
    path = tmp_path / "one" / "electrain-export.json"
    content = json.loads(path.read_text("utf-8"))
    for name in ("SHA256SUMS",):
        (tmp_path / "one" / name).unlink()
    for change, message in (
        ({"format_version": 2}, "format 2 is newer than this electrain reads"),
        ({"networks": {"task": {"file": "../model.onnx", "longest_row": 9}}}, "names a file outside its folder"),
        ({"tasks": 3}, "electrain-export.json: "),
    ):
        changed = {name: value for name, value in content.items() if name != "sha256"} | change
        path.write_text(json.dumps(changed))
        assert message in refuse(["predict", "classify", "x", "--model", str(tmp_path / "one")], capsys)


def test_the_lines_for_plain_onnxruntime_do_as_documented(
    models: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    exec(code.replace("sentiment-onnx", str(exported / "classify")).replace("a great film", TEXTS[0]), {})
    number = int(capsys.readouterr().out)
    _, (answer,), _ = command(capsys, "predict", "classify", TEXTS[0], "--model", models / "classify")
    assert SETTINGS["classify"].labels[number] == answer["label"]


def test_the_light_tokenizer_gives_the_same_tokens(tiny_run: Runs, exported: Path) -> None:
    heavy, light = load_tokenizer(tiny_run() / "model"), load_light(exported / "run")
    texts = ["the cat [SEP] sees", "", "Unhappy , x"]
    for options in (
        {},
        {"add_special_tokens": False},
        {"truncation": True, "max_length": 5},
        {"split_special_tokens": True},
    ):
        for seconds in (None, ["a", "the dog is happy", ""]):
            one, other = heavy(texts, seconds, **options), light(texts, seconds, **options)
            for name in ("input_ids", "token_type_ids"):
                assert one[name] == other[name], (options, name)
    words = [["unhappy", "cats"], ["x"]]
    one, other = (each(words, is_split_into_words=True) for each in (heavy, light))
    assert [one.word_ids(0), one.word_ids(1)] == [other.word_ids(0), other.word_ids(1)]
    assert heavy.get_vocab() == light.get_vocab()
    assert len(heavy) == len(light)
    assert set(heavy.all_special_ids) == set(light.all_special_ids)
    assert heavy.decode([7, 8, 2], skip_special_tokens=True) == light.decode([7, 8, 2], skip_special_tokens=True)
    assert heavy.convert_ids_to_tokens(np.arange(9)) == light.convert_ids_to_tokens(np.arange(9))
    for kind in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
        assert getattr(heavy, f"{kind}_token_id") == getattr(light, f"{kind}_token_id")

"""Model folders of every age are read, or refused in one line that names the command that makes them readable."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, ElectraForMaskedLM, ElectraForPreTraining

from command_line import command, refuse
from electrain.inference.model import load_language_model
from electrain.models.folders import weights_of

Runs = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


class Surprise:
    """What a pickle does when it is opened carelessly."""

    def __reduce__(self) -> Any:
        return (print, ("opened",))


def pickled(source: Path, folder: Path, kind: Any, *, parts: int = 1) -> Path:
    """A folder as it was saved before safetensors: with a buffer of that time, tied weights sharing their memory."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    state = dict(kind.from_pretrained(source).state_dict())
    state[f"{kind.base_model_prefix}.embeddings.position_ids"] = torch.arange(24)[None]
    names = sorted(state)
    for number in range(parts):
        part = {name: state[name] for name in names[number::parts]}
        name = "pytorch_model.bin" if parts == 1 else f"pytorch_model-{number + 1:05}-of-{parts:05}.bin"
        torch.save(part, folder / name)
    if parts > 1:
        where = {name: f"pytorch_model-{place % parts + 1:05}-of-{parts:05}.bin" for place, name in enumerate(names)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def refused_line(arguments: list[str], capsys: Capture) -> str:
    capsys.readouterr()  # the progress bars of transformers
    return refuse(arguments, capsys)


def converted(capsys: Capture, folder: Path, output: Path) -> dict[str, Any]:
    code, [answer], err = command(capsys, "convert", folder, "--output", output)
    assert code == 0, err
    assert answer["output"] == str(output)
    return answer


@pytest.mark.parametrize("parts", [1, 3])
def test_a_folder_of_pickles_is_refused_with_the_command_that_converts_it(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, parts: int
) -> None:
    folder = pickled(tiny_run() / "model", tmp_path / "old model", ElectraForPreTraining, parts=parts)
    train = tmp_path / "a.tsv"
    train.write_text("text\tlabel\nthe cat\tx\na dog\ty\n")
    line = refused_line(["predict", "embed", "the cat", "--model", str(folder)], capsys)
    asked = line.split("`")[1]
    assert shlex.split(asked) == ["electrain", "convert", str(folder), "--output", f"{folder}-safetensors"]
    examples = ["--train", str(train), "--validation", str(train), "--output", str(tmp_path / "out")]
    assert asked in refused_line(["finetune", "classification", "--model", str(folder), *examples], capsys)
    assert asked in refused_line(["predict", "detect", "the cat", "--model", str(folder)], capsys)
    code, [answer], err = command(capsys, *shlex.split(asked)[1:])
    assert code == 0, err
    output = Path(answer["output"])
    wanted = ElectraForPreTraining.from_pretrained(tiny_run() / "model").state_dict()
    found = load_file(output / "model.safetensors")
    assert set(found) == set(wanted)  # without the buffer
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert command(capsys, "predict", "detect", "the cat sees", "--model", output)[0] == 0
    assert command(capsys, "finetune", "classification", "--model", output, *examples, "--training.epochs", "1")[0] == 0
    assert not list(output.glob("*.bin*"))
    assert command(capsys, "check", output)[0] == 0


def test_a_generator_is_converted_with_its_tied_words(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    folder = pickled(tiny_run() / "generator", tmp_path / "old", ElectraForMaskedLM)
    assert "electrain convert" in refused_line(["predict", "fill", "the [MASK]", "--model", str(folder)], capsys)
    converted(capsys, folder, tmp_path / "new")
    asked = ["predict", "fill", "the [MASK] sees", "--model"]
    before, after = (command(capsys, *asked, model)[1] for model in (tiny_run() / "generator", tmp_path / "new"))
    told = [[one["token"] for one in answer["masks"][0]["candidates"]] for answer in (*before, *after)]
    assert told[0] == told[1]


def test_a_folder_without_a_tokenizer_is_told_of_its_pickles_first(
    tiny_run: Runs, tmp_path: Path, capsys: Capture
) -> None:
    folder = pickled(tiny_run() / "model", tmp_path / "old", ElectraForPreTraining)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "electrain convert" in refused_line(["predict", "embed", "the cat", "--model", str(folder)], capsys)
    assert "holds no tokenizer" in command(capsys, "convert", folder, "--output", tmp_path / "new")[2]


def test_what_cannot_be_converted_costs_one_line(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    model = tiny_run() / "model"
    refused = [("convert", str(model), "holds its weights as safetensors already")]
    for name, content, message in (
        ("code", {"a": Surprise()}, "holds more than weights"),
        ("nothing", {}, "holds no weights by name"),
        ("other", {"classifier.weight": torch.zeros(64, 64)}, "its weights lack"),
        ("list", [torch.zeros(2)], "holds no weights by name"),
    ):
        folder = pickled(model, tmp_path / name, ElectraForPreTraining)
        torch.save(content, folder / "pytorch_model.bin")
        refused.append(("convert", str(folder), message))
    for name, damage, message in (
        ("cut", lambda path: path.write_bytes(path.read_bytes()[:2000]), "cannot be converted"),
        ("pointer", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        ("gone", lambda path: path.unlink(), "holds no pytorch_model.bin"),
    ):
        folder = pickled(model, tmp_path / name, ElectraForPreTraining)
        damage(folder / "pytorch_model.bin")
        refused.append(("convert", str(folder), message))
    folder = pickled(model, tmp_path / "part", ElectraForPreTraining, parts=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    refused.append(("convert", str(folder), "pytorch_model-00002-of-00002.bin: no such file"))
    sent = shutil.copytree(model, tmp_path / "sent")
    (sent / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refused_line(["predict", "embed", "the cat", "--model", str(sent)], capsys)
    (tmp_path / "none").mkdir()
    refused.append(("convert", str(tmp_path / "none"), "holds no config.json"))
    refused.append(("convert", str(tmp_path / "absent"), "no such folder"))
    for verb, folder, message in refused:
        line = refused_line([verb, str(folder), "--output", str(tmp_path / "new")], capsys)
        assert message in line
        assert ".writing" not in line
        assert not (tmp_path / "new").exists()
    folder = pickled(model, tmp_path / "good", ElectraForPreTraining)
    assert "empty" in refused_line(["convert", str(folder), "--output", str(model)], capsys)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def rewritten(source: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    shutil.copytree(source, folder)
    state = change(load_file(folder / "model.safetensors"))
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_names_of_released_state_dicts(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    source = tiny_run() / "generator"
    whole = ElectraForMaskedLM.from_pretrained(source).state_dict()
    head = {"generator_lm_head.weight": whole["generator_lm_head.weight"]}
    positions = {"electra.embeddings.position_ids": torch.arange(24)[None]}
    tied = rewritten(source, tmp_path / "tied", lambda state: state | head | positions)
    assert torch.equal(load_language_model(tied).model.generator_lm_head.weight, head["generator_lm_head.weight"])
    without = rewritten(
        source,
        tmp_path / "without",
        lambda state: {name: value for name, value in state.items() if name != "generator_lm_head.bias"},
    )
    found = load_language_model(without).model
    assert not found.generator_lm_head.bias.any()
    assert "its weights lack generator_lm_head.bias, which is taken as 0" in capsys.readouterr().err
    assert torch.equal(found.generator_predictions.dense.weight, whole["generator_predictions.dense.weight"])


def test_names_of_the_oldest_state_dicts(tmp_path: Path) -> None:
    """TensorFlow's names of LayerNorm, the head of sentence order, one bias for two names, and no prefix."""
    network = BertForMaskedLM(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    network.save_pretrained(tmp_path / "now")
    wanted = network.state_dict()

    def old(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in state.items()
            if not name.startswith("cls.predictions.decoder")
        }
        return renamed | {
            "bert.embeddings.position_ids": torch.arange(512)[None],
            "cls.seq_relationship.weight": torch.zeros(2, 16),
        }

    found = weights_of(str(rewritten(tmp_path / "now", tmp_path / "old", old)), BertForMaskedLM, "language model")
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())
    bare = rewritten(
        tmp_path / "now", tmp_path / "bare", lambda state: {k.removeprefix("bert."): v for k, v in state.items()}
    )
    found = weights_of(str(bare), BertForMaskedLM, "language model")
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())

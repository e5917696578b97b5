"""Where a model is read from: its code is never run, a missing folder is one line at once, the hub is asked once."""

import io
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel, ViTConfig

from command_line import command
from electrain.foundation.errors import CheckpointError, TokenizerError
from electrain.foundation.hub import _why_not_from_the_hub
from electrain.models.encoder_decoder import load_encoder_decoder
from electrain.models.folders import configuration_of
from tiny_pretraining import TINY_TABLES, write_invented_shards

EVIL = """
from pathlib import Path
Path({mark!r}).write_text("code of the model ran")
from transformers import BertConfig, PreTrainedTokenizerFast
class EvilConfig(BertConfig):
    model_type = "evil"
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `corpus.jsonl`, `tokenizer/`, `shards/`, a configuration, and labelled examples."""
    folder = tmp_path_factory.mktemp("sources")
    write_invented_shards(folder, documents=60)
    lines = []
    for section, table in TINY_TABLES.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    (folder / "tiny.toml").write_text("\n".join(lines))
    (folder / "labels.tsv").write_text("text\tlabel\nbak del\tgood\nfim gon\tbad\n" * 5)
    (folder / "pairs.tsv").write_text("source\ttarget\nbak del\tfim\ngon fim\tdel\n" * 5)
    return folder


def roads(invented: Path, output: Path) -> dict[str, Callable[[str], list[Any]]]:
    """For each way to name a model or tokenizer on the command line, the arguments."""
    data, pairs = invented / "labels.tsv", invented / "pairs.tsv"
    pretraining = ["pretrain", "--config", invented / "tiny.toml", "--shards", invented / "shards", "--output", output]
    training = ["--train", data, "--validation", data, "--output", output]
    writing = ["--train", pairs, "--validation", pairs, "--output", output]
    frozen = ["--generator.kind", "frozen", "--generator.source"]
    decoder = ["--decoder.kind", "folder", "--decoder.vocabulary", "folder", "--decoder.source"]
    return {
        "predict detect": lambda model: ["predict", "detect", "--model", model, "text"],
        "predict fill": lambda model: ["predict", "fill", "--model", model, "[MASK]"],
        "predict classify": lambda model: ["predict", "classify", "--model", model, "text"],
        "predict embed": lambda model: ["predict", "embed", "--model", model, "text"],
        "evaluate": lambda model: ["evaluate", "classification", "--model", model, "--data", data],
        "evaluate detection": lambda model: ["evaluate", "detection", "--model", model, "--data", data],
        "finetune": lambda model: ["finetune", "classification", "--model", model, *training],
        "start discriminator": lambda model: [*pretraining, "--start.discriminator", model],
        "start generator": lambda model: [*pretraining, "--start.generator", model],
        "frozen generator": lambda model: [*pretraining, *frozen, model],
        "decoder": lambda model: ["finetune", "summarization", "--model", model, *writing, *decoder, model],
        "prepare": lambda model: [
            *("prepare", invented / "corpus.jsonl", "--tokenizer", model, "--output", output / "shards")
        ],
    }


NAMES = sorted(roads(Path(), Path()))


def is_one_line(stderr: str) -> bool:
    return len(stderr.strip().splitlines()) == 1 and "Traceback" not in stderr


@pytest.mark.parametrize("name", NAMES)
def test_code_of_a_model_is_never_run(
    invented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Although a "y" waits on standard input, which transformers would take for the user's consent."""
    model, mark = tmp_path / "model", tmp_path / "mark"
    model.mkdir()
    classes = {"AutoConfig": "evil.EvilConfig", "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": classes}))
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": classes}))
    (model / "model.safetensors").write_bytes(b"")
    (model / "evil.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    code, _, stderr = command(capsys, *roads(invented, tmp_path / "out")[name](str(model)))
    assert not mark.exists()
    assert code == 2
    assert is_one_line(stderr), stderr
    assert "Python code of the model's own, which electrain never runs" in stderr


def test_code_named_inside_an_encoder_decoder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two networks are built from their parts of the configuration, without asking the folder again."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**sizes), BertConfig(**sizes))
    EncoderDecoderModel(config).save_pretrained(tmp_path / "model")
    content = json.loads((tmp_path / "model/config.json").read_text())
    classes = {"AutoModelForCausalLM": f"{tmp_path / 'model'}--evil.Evil"}
    content["decoder"] = ViTConfig(**sizes).to_dict() | {"auto_map": classes}
    (tmp_path / "model/config.json").write_text(json.dumps(content))
    (tmp_path / "model/evil.py").write_text(EVIL.format(mark=str(tmp_path / "mark")))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    with pytest.raises(CheckpointError):
        load_encoder_decoder(tmp_path / "model")
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The machines that were looked for; none is found."""
    hosts: list[Any] = []

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        hosts.append(host)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    _why_not_from_the_hub.cache_clear()
    return hosts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["absent", "../model", "/no/where", "run/model/deeper"])
def test_a_missing_folder_is_one_line_and_nobody_is_asked(
    invented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[Any], name: str, model: str
) -> None:
    code, _, stderr = command(capsys, *roads(invented, tmp_path / "out")[name](model))
    assert code == 2
    assert is_one_line(stderr), stderr
    assert model in stderr
    assert "OWNER/NAME" in stderr
    assert not asked
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_an_unreachable_hub_is_one_line_after_one_question(
    invented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[Any], name: str
) -> None:
    """A folder whose name looks like OWNER/NAME was mistyped more often than it is a model of the hub."""
    begin = time.monotonic()
    code, _, stderr = command(capsys, *roads(invented, tmp_path / "out")[name]("run/modle"))
    assert code == 2
    assert is_one_line(stderr), stderr
    assert "run/modle: no such folder, and no copy" in stderr
    assert "the hub cannot be reached" in stderr
    assert 1 <= len(asked) <= 2  # huggingface_hub itself asks once a day for a list of agents
    assert time.monotonic() - begin < 20  # generous: other work shares the machine


def test_offline_the_hub_is_not_asked(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        configuration_of("owner/name")
    assert not asked


def test_a_copy_in_the_cache_serves_without_the_hub(
    invented: Path, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--owner--name/snapshots/0123"
    BertConfig(hidden_size=36).save_pretrained(snapshot)
    (tmp_path / "models--owner--name/refs").mkdir()
    (tmp_path / "models--owner--name/refs/main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert configuration_of("owner/name").hidden_size == 36
    assert 1 <= len(asked) <= 2


def test_a_file_is_no_model(invented: Path) -> None:
    with pytest.raises((CheckpointError, TokenizerError), match=r"corpus.jsonl"):
        configuration_of(str(invented / "corpus.jsonl"))

"""Pushing to a hub: a stand-in for its HTTP interface, asked by the real client, from which the model loads again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants, snapshot_download
from pretend_hub import TOKEN, PretendHub
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

import electrain
from command_line import command, refuse
from electrain.cli.app import main
from electrain.foundation.configuration import to_toml
from electrain.foundation.publishing import push_folder
from tiny_pretraining import tiny_configuration

pytestmark = pytest.mark.usefixtures("quick_pretraining")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendHub]:
    with PretendHub().running() as pretend:
        monkeypatch.setattr(constants, "ENDPOINT", pretend.url)
        template = pretend.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", pretend.url, raising=False)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", pretend.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        yield pretend


def pretraining(shards: Path, output: Path, *more: str) -> list[object]:
    config = output.parent / "tiny.toml"
    config.write_text(to_toml(tiny_configuration()))
    return ["pretrain", "--config", config, "--shards", shards, "--output", output, *more]


def test_a_pretraining_run_is_pushed_and_loads_from_the_hub(
    hub: PretendHub, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = pretraining(tiny_shards, tmp_path / "run", "--push-to-hub", "me/mine", "--card.language", "en")
    code, lines, told = command(capsys, *given)
    assert (code, len(lines)) == (0, 1), told
    assert told.endswith(f"pushed to {hub.url}/me/mine\n")
    assert hub.private == {"me/mine": True}
    assert hub.commits == ["Add the model with electrain"]
    assert hub.files["me/mine"]["README.md"] == (tmp_path / "run/model/README.md").read_bytes()
    copy = Path(snapshot_download("me/mine", local_dir=tmp_path / "copy", endpoint=hub.url))
    AutoModelForPreTraining.from_pretrained(copy)
    AutoModelForMaskedLM.from_pretrained(copy, subfolder="generator")
    assert electrain.load(str(copy)).tasks
    assert command(capsys, "check", copy)[0] == 0
    assert str(tmp_path) not in "".join(text.decode("utf-8", "replace") for text in hub.files["me/mine"].values())


def test_an_earlier_model_leaves_nothing_that_would_be_read(hub: PretendHub, tiny_run, tmp_path: Path) -> None:
    old = {"model-00001-of-00002.safetensors": b"", "task.json": b"{}", "generator/old.json": b"{}"}
    others = {"picture.png": b"", "data/notes.json": b"{}"}
    hub.files["me/mine"] = {**old, **others}
    push_folder(tiny_run() / "model", "me/mine")
    assert others.items() <= hub.files["me/mine"].items()
    assert not old.keys() & hub.files["me/mine"].keys()
    assert "config.json" in hub.files["me/mine"]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("me", {}, "is no name of a repository; give OWNER/NAME"),
        ("me/a b", {}, "is no name of a repository"),
        ("me/mine", {"token": "hf_wrong"}, "the hub does not know the token; run `hf auth login`, or set HF_TOKEN"),
        ("google/theirs", {}, "the token may not write there"),
        ("google/absent", {}, "the hub has no such owner or repository"),
        ("me/mine", {"failing": {"repos/create": 500}}, "the hub answers with status 500; push again later"),
        ("me/mine", {"bad_metadata": "license is unknown"}, "the hub refuses the metadata"),
        ("me/mine", {"offline": True}, "HF_HUB_OFFLINE is set"),
        ("me/mine", {"gone": True}, "the hub cannot be reached"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_training(
    hub: PretendHub,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: dict[str, object],
    told: str,
) -> None:
    hub.files["google/theirs"] = {}
    monkeypatch.setenv("HF_TOKEN", str(change.get("token", TOKEN)))
    hub.failing, hub.bad_metadata = change.get("failing", {}), str(change.get("bad_metadata", ""))  # type: ignore[assignment]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", bool(change.get("offline")))
    if change.get("gone"):
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    line = refuse([str(word) for word in pretraining(tiny_shards, tmp_path / "run", "--push-to-hub", name)], capsys)
    assert told in line
    assert not (tmp_path / "run").exists()


def test_without_a_token_the_way_to_one_is_named(
    hub: PretendHub, tiny_run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "run `hf auth login`, or set HF_TOKEN" in refuse(["push", str(tiny_run()), "--to", "me/mine"], capsys)
    assert hub.asked == []


def test_a_push_that_fails_after_the_training_loses_nothing(
    hub: PretendHub, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "my run"
    hub.failing = {"/commit/": 403}
    code, lines, told = command(capsys, *pretraining(tiny_shards, run, "--push-to-hub", "me/mine"))
    assert code == 1
    assert lines[0]["finished"] is True
    assert told.splitlines()[-1].endswith(f"`electrain push '{run}' --to me/mine` pushes it")
    assert (run / "model/model.safetensors").is_file()
    hub.failing = {}
    code, lines, _ = command(capsys, "push", run, "--to", "me/mine")
    assert (code, lines) == (0, [{"source": str(run), "pushed_to": f"{hub.url}/me/mine"}])
    assert {"model.safetensors", "generator/model.safetensors"} <= hub.files["me/mine"].keys()


def test_a_fine_tuned_model_is_pushed_and_may_be_public(
    hub: PretendHub, tiny_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{'happy' if number % 2 else 'sad'} the cat\t{'yes' if number % 2 else 'no'}" for number in range(32)]
    (tmp_path / "data.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    data, output = tmp_path / "data.tsv", tmp_path / "tuned"
    given = ["finetune", "classification", "--model", tiny_run(), "--train", data, "--validation", data]
    code, _, told = command(capsys, *given, "--output", output, "--training.epochs", "5", "--push-to-hub", "me/tuned")
    assert code == 0, told
    assert "task.json" in hub.files["me/tuned"]
    assert command(capsys, "push", output, "--to", "me/open", "--public")[0] == 0
    assert hub.private == {"me/tuned": True, "me/open": False}


def test_python_pushes_what_a_threshold_changed(hub: PretendHub, tiny_run, tmp_path: Path) -> None:
    source = tmp_path / "tuned"
    rows = [{"text": text, "label": text.split()[0]} for text in ("happy cat", "sad cat", "sad dog", "sad cats")]
    electrain.finetune(
        "classification",
        model=tiny_run(),
        train=rows,
        validation=rows,
        output=source,
        overrides={"training.epochs": 1, "training.precision": "float32"},
    )
    assert electrain.push(source, "me/mine") == f"{hub.url}/me/mine"
    assert b"as does the pipeline" not in hub.files["me/mine"]["README.md"]
    electrain.evaluate("classification", model=source, data=rows, tune_threshold=True)
    electrain.push(str(source), "me/mine")
    card = (source / "model/README.md").read_bytes()
    assert b"as does the pipeline" in card
    assert hub.files["me/mine"]["README.md"] == card
    assert electrain.push(source / "model", "me/other", public=True) == f"{hub.url}/me/other"
    assert hub.private == {"me/mine": True, "me/other": False}
    for folder, name, told in (
        (tmp_path, "me/mine", "holds neither model/ nor config.json"),
        (source, "me", "give OWNER/NAME"),
        (None, "me/mine", "None is no name"),
        (source, None, "is no name of a repository"),
    ):
        with pytest.raises(electrain.ElectrainError, match=told) as raised:
            electrain.push(folder, name)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_a_folder_without_a_model_is_refused(
    hub: PretendHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refuse(["push", str(tmp_path), "--to", "me/mine"], capsys)
    assert "holds neither model/ nor config.json" in line
    with pytest.raises(SystemExit):
        main(["push", str(tmp_path)])


def test_an_export_has_the_card_of_its_source_and_is_pushed(
    hub: PretendHub, tiny_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(tiny_run() / "model", tmp_path / "mine/model").parent
    head = "---\nlanguage: zh\nlicense: mit\ndatasets: [no name, x]\n---\n# Mine\n\n"
    (source / "model/README.md").write_text(f"{head}## Use\n\nAsk it.\n\n## Limits\n\n- It is small.\n")
    given = ["export", "--model", source / "model", "--output", tmp_path / "onnx", "--push-to-hub", "me/onnx"]
    code, (result,), told = command(capsys, *given)
    assert code == 0, told
    card = hub.files["me/onnx"]["README.md"].decode()
    data = ModelCard(card).data
    assert (data.language, data.license, data.datasets, data.library_name) == (["zh"], "mit", None, "onnx")
    assert "- It is small." in card
    assert "Ask it." not in card
    assert str(tmp_path) not in card
    for task in result["agreement"]["equal_answers"]:
        assert f"| {task} | " in card
    assert "electrain-export.json" in hub.files["me/onnx"]
    assert command(capsys, "check", tmp_path / "onnx")[0] == 0

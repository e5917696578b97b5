"""The README.md of model folders: metadata that the hub reads, facts of the run, nothing private, and left alone."""

import contextlib
import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from command_line import command, refuse
from electrain.foundation.card import as_code, is_edited, plain, public_name, public_toml, sealed_card, table
from electrain.foundation.configuration import to_toml
from electrain.foundation.sums import SUMS_NAME, file_hash, verify_sums
from electrain.pretraining.run import pretrain
from tiny_pretraining import invented_text, tiny_configuration

pytestmark = pytest.mark.usefixtures("quick_pretraining")
HOSTILE = '<img src=x onerror=alert(1)> | [a](b) `c`: "d"'


def metadata_of(folder: Path) -> dict[str, Any]:
    """The metadata as the hub reads it; the library refuses an invalid model-index."""
    data = ModelCard.load(folder / "README.md").data
    found: dict[str, Any] = yaml.safe_load(data.to_yaml())
    return found


def run_python_of(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs every block of Python in a card, inside its folder."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    # Loading sentence-transformers takes seconds; its own tests are elsewhere.
    blocks = [block for block in blocks if "sentence_transformers" not in block]
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, str(folder), "exec"), {})
    return len(blocks)


KINDS: dict[str, dict[str, Any]] = {
    "electra": {},
    "modernbert": {
        "encoder": {"backbone": "modernbert"},
        "discriminator": {"heads": ["detection", "correction", "electric"]},
    },
    "lstm": {"encoder": {"backbone": "lstm"}},
    "baseline": {"training": {"objective": "masked-language-modelling"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_of_a_run_has_a_card_whose_code_runs(
    kind: str, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, said = tmp_path / "my_run", {"language": ["en", "zh"], "license": "apache-2.0", "datasets": ["me/texts"]}
    pretrain(tiny_configuration(card=said, **KINDS[kind]), tiny_shards, run)
    folders = [path.parent for path in sorted(run.glob("*/config.json"))]
    assert len(folders) == {"electra": 2, "modernbert": 5, "lstm": 3, "baseline": 1}[kind]
    for folder in folders:
        card, data = (folder / "README.md").read_text(), metadata_of(folder)
        assert said.items() <= data.items()
        assert data["library_name"] == (
            "electrain" if kind == "lstm" and folder.name != "generator" else "transformers"
        )
        assert "base_model" not in data
        assert "model-index" not in data  # nothing was measured on held-out text
        for fact in ("| tokens read | 1,920 |", "| steps | 10 |", "`corpus.jsonl`", "seed = 0", "torch 2"):
            assert fact in card
        assert "The metadata above lacks" not in card
        assert run_python_of(card, folder, monkeypatch) == 1
        assert str(tmp_path) not in card
        assert os.uname().nodename not in card.replace("x86_64", "")
    assert command(capsys, "check", run)[0] == 0
    monkeypatch.chdir(run / "model")
    asked = re.findall("^electrain (predict .*)$", (run / "model/README.md").read_text(), re.MULTILINE)
    assert len(asked) == (2 if kind == "electra" else 1)
    for line in asked:
        assert command(capsys, *shlex.split(line))[0] == 0


def test_what_nobody_said_is_left_out_and_may_be_said_when_the_run_is_over(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny_configuration()))
    given = ["pretrain", "--config", config, "--shards", tiny_shards, "--output", run]
    assert command(capsys, *given)[0] == 0
    assert not {"language", "license", "datasets", "base_model"} & metadata_of(run / "model").keys()
    line = next(
        line
        for line in (run / "model/README.md").read_text().splitlines()
        if line.startswith("The metadata above lacks")
    )
    asked = re.findall(r"--resume [^`]*", line)[0]
    options = asked.replace("LANGUAGE", "zh").replace("LICENSE", "apache-2.0").split()
    weights = (run / "model/model.safetensors").read_bytes()
    assert command(capsys, *given, *options)[0] == 0
    assert {"language": ["zh"], "license": "apache-2.0"}.items() <= metadata_of(run / "model").items()
    assert (run / "model/model.safetensors").read_bytes() == weights


def test_an_edited_card_is_kept_and_is_no_damage(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    pretrain(tiny_configuration(), tiny_shards, run)
    path = run / "model/README.md"
    path.write_text(path.read_text().replace("# run", "# Ours"))
    assert "README.md" not in (run / "model" / SUMS_NAME).read_text()
    assert command(capsys, "check", run)[0] == 0
    pretrain(tiny_configuration(card={"license": "mit"}), tiny_shards, run, resume=True)
    assert "# Ours" in path.read_text()
    assert "license: mit" not in path.read_text()
    assert "license: mit" in (run / "generator/README.md").read_text()


def test_a_readme_that_an_older_version_took_the_hash_of_may_be_edited(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("before")
    (tmp_path / SUMS_NAME).write_text(f"{file_hash(tmp_path / 'README.md')}  README.md\n")
    (tmp_path / "README.md").write_text("after")
    verify_sums(tmp_path, lambda name: True)


def test_held_out_scores_come_into_the_card(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, text = tmp_path / "run", tmp_path / "held <b>out.jsonl"
    pretrain(tiny_configuration(), tiny_shards, run)
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in invented_text(60, seed=8)))
    given = ["evaluate", "detection", "--model", run, "--data", text, "--rows", "16", "--add-to-card"]
    code, (scores,), told = command(capsys, *given)
    assert code == 0, told
    auc, frequency = scores["discriminator"]["auc"], scores["baselines"]["unigram_auc"]
    card = (run / "model/README.md").read_text()
    assert f"| detection AUC | {auc:.3f} (" in card
    assert f"| AUC of word frequency alone | {frequency:.3f} (" in card
    (result,) = metadata_of(run / "model")["model-index"][0]["results"]
    assert result["dataset"] == {"name": "held <b>out.jsonl", "type": "local"}
    assert result["metrics"][0]["type"] == "roc_auc"
    assert result["metrics"][0]["value"] == pytest.approx(auc, abs=1e-4)
    assert "model-index" not in metadata_of(run / "generator")
    assert command(capsys, "check", run)[0] == 0
    line = refuse([*map(str, given[:3]), str(run / "model"), *map(str, given[4:])], capsys)
    assert "--add-to-card" in line


def test_a_fine_tuned_card_has_the_scores_and_nothing_that_is_markup(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret place"
    secret.mkdir()
    data, run = secret / "<script>.tsv", tmp_path / "tuned"
    rows = [f"{'happy' if number % 2 else 'sad'} the cat\t{HOSTILE if number % 2 else 'no'}" for number in range(32)]
    data.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    given = ["finetune", "classification", "--model", tiny_run(), "--train", data, "--validation", data]
    given += [
        "--output",
        run,
        "--training.epochs",
        "8",
        "--data.quoting",
        "none",
        "--card.name",
        f"{HOSTILE}\n---\nlicense: x",
    ]
    code, (printed,), told = command(capsys, *given)
    assert code == 0, told
    card, data_of = (run / "model/README.md").read_text(), metadata_of(run / "model")
    assert data_of["pipeline_tag"] == "text-classification"
    assert "license" not in data_of
    (index,) = data_of["model-index"]
    assert index["name"] == f"{HOSTILE} --- license: x"
    metrics = {one["name"]: one["value"] for one in index["results"][0]["metrics"]}
    assert metrics == {name: pytest.approx(value, abs=1e-4) for name, value in printed["scores"].items()}
    for fact in (f"of step {printed['best_step']},", "| seed | 0 |", "32 of `<script>.tsv`", "`accuracy` | "):
        assert fact in card
    body = re.sub(r"```.*?```|`[^`\n]*`", "", card.partition("\n---\n")[2], flags=re.DOTALL)
    assert re.findall(r"<(?!/?details>|/?summary>|!-- electrain)", body) == []
    assert "secret place" not in card
    assert str(tmp_path) not in card
    assert run_python_of(card, run / "model", monkeypatch) == 1
    assert command(capsys, "check", run)[0] == 0


def test_a_model_of_the_hub_is_named_as_the_base(tiny_shards: Path, tmp_path: Path) -> None:
    from electrain.pretraining.card import hub_names_of

    start = {"discriminator": "google/electra-small-discriminator", "generator": str(tmp_path)}
    found = hub_names_of(tiny_configuration(start=start))
    assert found == {"hub_models": [start["discriminator"]], "base_model": start["discriminator"]}
    kept = public_toml(to_toml(tiny_configuration(start=start)), [start["discriminator"]])
    assert f'discriminator = "{start["discriminator"]}"' in kept
    assert str(tmp_path.parent) not in kept


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("language", "Chinese", "must be a code of ISO 639, such as en or zh"),
        ("license", "Apache 2.0", "must be written as on the hub, such as apache-2.0"),
        ("datasets", "my texts", "must be the name of a data set on the hub"),
        ("base-model", "electra", "must be the name of a model on the hub, OWNER/NAME"),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_refused(
    option: str, value: str, told: str, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["pretrain", "--config", "tiny", "--shards", str(tiny_shards), "--output", str(tmp_path / "run")]
    assert told in refuse([*given, f"--card.{option}", value], capsys)


def test_texts_are_shown_as_they_are_and_paths_by_their_last_part(tmp_path: Path) -> None:
    assert plain("<b>*x*</b>\n# y & z") == r"&lt;b&gt;\*x\*&lt;/b&gt; \# y &amp; z"
    assert as_code("a`b\nc") == "`a'b c`"
    assert table(("x",), [("a|b",), (r"c\|d",)])[2:] == [r"| a\|b |", r"| c\|d |"]
    assert public_name("/home/somebody/secret/corpus.jsonl") == "corpus.jsonl"
    assert public_name(r"C:\Users\somebody\corpus.jsonl") == "corpus.jsonl"
    assert public_name("hub:owner/name:train") == "hub:owner/name:train"
    (tmp_path / "mine/model").mkdir(parents=True)
    assert public_name(str(tmp_path / "mine/model")) == "mine"
    assert public_name("owner/name") == "owner/name"
    assert not is_edited(sealed_card("text\n"))
    assert is_edited(sealed_card("text\n").replace("text", "more"))
    assert is_edited("")
    assert is_edited("mine\n")

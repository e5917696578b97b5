"""The probe of a pretraining run: it changes nothing, resumes, keeps the best checkpoint, and says which one to use."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModel

from command_line import refuse
from electrain.data.shards.shards import open_shards
from electrain.finetuning.configuration import load_finetune_configuration
from electrain.finetuning.run import finetune
from electrain.foundation.errors import DataError, RunDirectoryError
from electrain.foundation.output_folder import read_any_manifest
from electrain.inference.check import check_folder
from electrain.pretraining.probe import Probe, ProbeScore, probe_of
from electrain.pretraining.report import write_report
from electrain.pretraining.run import pretrain
from electrain.training import compilation, loop
from killed_runs import pretrain_until_killed
from tiny_pretraining import invented_text, tiny_configuration, write_invented_tags

pytestmark = pytest.mark.usefixtures("quick_pretraining")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_invented_tags(tmp_path_factory.mktemp("tagged"))


def learned(output: Path) -> dict[str, torch.Tensor]:
    """Weights and moments of the last checkpoint."""
    files = sorted((output / "checkpoints/step-10").glob("*.safetensors"))
    return {f"{file.stem} {name}": x for file in files for name, x in load_file(file).items()}


def probes_of(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "probe_seconds"} for line in lines if line["event"] == "probe"]


KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "published, with dropout": {"training": {"dropout": 0.1}},
    "masked language modelling, bfloat16": {
        "training": {"objective": "masked-language-modelling", "precision": "bfloat16"}
    },
    "lstm": {"encoder": {"backbone": "lstm"}},
    "bert, unigram": {"encoder": {"backbone": "bert"}, "generator": {"kind": "unigram"}},
    "modernbert, disentangled, checkpointed layers": {
        "encoder": {"backbone": "modernbert"},
        "generator": {"embedding_sharing": "gradient-disentangled"},
        "training": {"gradient_checkpointing": True, "dropout": 0.1},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_changes_nothing_that_is_trained(tiny_shards: Path, tagged: Path, tmp_path: Path, kind: str) -> None:
    for name, probe in (("without", {}), ("with", {"labelled": str(tagged), "every_steps": 3})):
        pretrain(tiny_configuration(**KINDS[kind], probe=probe), tiny_shards, tmp_path / name)
    assert [line["step"] for line in probes_of(tmp_path / "with")] == [3, 6, 9, 10]
    assert probes_of(tmp_path / "without") == []
    ours, theirs = learned(tmp_path / "with"), learned(tmp_path / "without")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_compiled_layers_are_neither_compiled_again_nor_lost(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    monkeypatch.setenv(compilation.CACHE_VARIABLE, str(tmp_path / "code"))
    counted = []
    for name, probe in (("without", {}), ("with", {"labelled": str(tagged)})):
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        training = {"compile": True, "objective": "masked-language-modelling"}
        pretrain(tiny_configuration(training=training, probe=probe), tiny_shards, tmp_path / name)
        counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counted[0] == counted[1] > 0
    ours, theirs = learned(tmp_path / "with"), learned(tmp_path / "without")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_killed_run_probes_as_a_straight_one(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 8, after the checkpoint that the probe of step 6 wrote; the best is known from before the kill."""
    config = tiny_configuration(
        training={"report_to": ["tensorboard"]}, probe={"labelled": str(tagged), "every_steps": 2}
    )
    pretrain(config, tiny_shards, tmp_path / "straight")
    pretrain_until_killed(monkeypatch, 7, config, tiny_shards, tmp_path / "killed")
    assert pretrain(config, tiny_shards, tmp_path / "killed", resume=True).is_finished
    assert probes_of(tmp_path / "killed") == probes_of(tmp_path / "straight")
    assert learned(tmp_path / "killed").keys() == learned(tmp_path / "straight").keys()
    kept = [
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("killed", "straight")
    ]
    assert kept[0] == kept[1]
    events = EventAccumulator(str(tmp_path / "killed/tensorboard"))
    events.Reload()
    drawn = [(event.step, pytest.approx(event.value, rel=1e-4)) for event in events.Scalars("train/probe_accuracy")]
    assert [(line["step"], line["probe_accuracy"]) for line in probes_of(tmp_path / "killed")] == drawn


def pretend_scores(monkeypatch: pytest.MonkeyPatch, *accuracies: float, error: float = 1.0) -> None:
    left = iter(accuracies)
    monkeypatch.setattr(Probe, "score", lambda *_: ProbeScore(next(left), error))


def test_the_best_checkpoint_stays_and_can_be_used(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_scores(monkeypatch, 50.0, 60.0, 58.5, 57.0, 57.5)
    config = tiny_configuration(encoder={"backbone": "modernbert"}, probe={"labelled": str(tagged), "every_steps": 2})
    run = tmp_path / "run"
    pretrain(config, tiny_shards, run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-10", "step-4", "step-8"]
    told = capsys.readouterr().err
    assert (
        "The probe is best at step 4: 60.0% (standard error 1.0), 2.5 points above step 10, more than one standard "
        f"error. Fine-tune that checkpoint: electrain finetune TASK --model {run}/best ..."
    ) in told
    assert read_any_manifest(run).facts["probe"] == {"best_step": 4, "probe_accuracy": 60.0, "folder": "best"}
    body = AutoModel.from_pretrained(run / "best")
    saved = load_file(run / "checkpoints/step-4/model.safetensors")
    name = "layers.1.mlp.Wo.weight"
    assert torch.equal(body.get_parameter(name), saved[f"discriminator.network.model.{name}"])
    last = AutoModel.from_pretrained(run / "model").get_parameter(name)
    assert not torch.equal(body.get_parameter(name), last)
    assert "step 4: 60.0% (standard error 1.0); step 10: 57.5%" in (run / "best/README.md").read_text()
    assert not check_folder(run).faults
    made = (run / "best/README.md").read_text()
    assert "| steps | 4; the run went on to 10, and the other figures here are of all of it |" in made
    assert "logged step" not in made
    assert "logged step" in (run / "model/README.md").read_text()
    shutil.rmtree(run / "checkpoints/step-4")  # to save space: the encoder is already there
    pretrain(config, tiny_shards, run, resume=True)
    assert read_any_manifest(run).facts["probe"]["folder"] == "best"
    tables = {"training": {"epochs": 1, "precision": "float32"}}
    done = finetune(
        "tagging", load_finetune_configuration(None, tables), str(run / "best"), [str(tagged)], [str(tagged)],
        tmp_path / "tuned",
    )  # fmt: skip
    assert done.is_finished


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ((50.0, 57.0), "The probe is best at the last step, 10: 57.0% (standard error 1.0). Fine-tune that "
                       "checkpoint: electrain finetune TASK --model {run}/model ..."),
        ((57.0, 57.0), "best at the last step, 10"),
        ((57.5, 57.0), "The probe is level at step 5, 57.5% (standard error 1.0), and step 10, 57.0%: they differ by "
                       "no more than one standard error. Fine-tune the one of step 10: electrain finetune TASK --model "
                       "{run}/model ..."),
        ((58.5, 57.0), "best at step 5: 58.5% (standard error 1.0), 1.5 points above step 10, more than one standard "
                       "error. Fine-tune that checkpoint: electrain finetune TASK --model {run}/best ..."),
    ],
)  # fmt: skip
def test_the_last_sentence_says_how_sure_it_is(
    tiny_shards: Path,
    tagged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    accuracies: tuple[float, ...],
    words: str,
) -> None:
    pretend_scores(monkeypatch, *accuracies)
    run = tmp_path / "run"
    pretrain(tiny_configuration(probe={"labelled": str(tagged), "every_steps": 5}), tiny_shards, run)
    assert words.format(run=run) in capsys.readouterr().err
    assert (run / "best").exists() == ("best at step 5" in words)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, *run: Any) -> None:
    """Pretrains as if a signal had asked to stop after a step."""
    take_step = loop._take_step

    def take(training: Any, *rest: Any) -> Any:
        result = take_step(training, *rest)
        is_here = training.state.step == step
        return dataclasses.replace(result, is_stop_asked=is_here, is_last=is_here or result.is_last)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_take_step", take)
        pretrain(*run)


def test_a_run_that_becomes_better_leaves_no_old_encoder(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at step 6, where step 3 was best; in the end the last step is."""
    pretend_scores(monkeypatch, 60.0, 50.0, 55.0, 61.0)
    config, run = tiny_configuration(probe={"labelled": str(tagged), "every_steps": 3}), tmp_path / "run"
    stop_after(6, monkeypatch, config, tiny_shards, run)
    assert read_any_manifest(run).facts["probe"]["folder"] == "best"
    assert (run / "best/config.json").is_file()
    pretrain(config, tiny_shards, run, resume=True)
    assert not (run / "best").exists()
    assert read_any_manifest(run).facts["probe"] == {"best_step": 10, "probe_accuracy": 61.0, "folder": "model"}


def test_the_report_draws_the_probe(tiny_shards: Path, tagged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(tiny_configuration(probe={"labelled": str(tagged), "every_steps": 2}), tiny_shards, run)
    page = write_report(run).read_text()
    assert 'aria-label="Probe"' in page
    assert "<p>The probe is " in page or "The probe is best at" in page or "The probe is level at" in page
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "without")
    assert "robe" not in write_report(tmp_path / "without").read_text().partition("<pre")[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.conll", None, "[probe] labelled: {path}: no such file"),
        ("few.conll", "por\tX\n\nden\tX\n", "[probe] labelled = {path}: 2 examples, and the first half has 1 label;"),
        ("odd.conll", "ba X\nbe\n", "[probe] labelled: {path}"),
        ("table.tsv", "text\tlabel\npor\tyes\nden\tyes\ngos\tyes\nlut\tyes\n", "give at least four with two labels"),
        ("greek.tsv", "text\tlabel\n" + "αβγ δε\tyes\nζηθ\tno\n" * 4, "100.0% of the tokens are [UNK]"),
        ("gone.tsv", None, "no such file, folder or glob; check the name, or give --probe.labelled the place where"),
        ("named.tsv", "text\tverdict\nba\tyes\nbe\tno\n", "text, verdict (the first line of a .tsv or .csv file must "
         "name them); set --probe.label-column"),
        ("pair.csv", "context,response,label\nba,be,yes\nbe,ba,no\n", "must name them); set --probe.text-column\n"),
        ("doubtful.csv", "text,response,label\nba,be,yes\nbe,ba,no\n", "; set --probe.text-column text to read that "
         "alone\n"),
        ("joined.csv", "text,label\n" + "ba,a|b\nbe,b|c\nbi,a|c\n" * 9, '"a|b"); give texts with one label each\n'),
        ("odd.csv", "text;label\nba;yes\nbe;no\n", "write it as .csv with commas, or as .jsonl"),
        ("words.jsonl", '{"words": ["ba", "be"], "tags": ["A", "B"]}\n', "; if each word has a tag, set --probe.task "
         "tagging\n"),
        ("blank.tsv", "text\tlabel\nba\tyes\nbe\t\n", "[probe] labelled: {path}"),
    ],
)  # fmt: skip
def test_an_odd_file_is_refused_before_anything_is_written(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, words: str
) -> None:
    path, run = tmp_path / name, tmp_path / "run"
    if content is not None:
        path.write_text(content)
    arguments = ["pretrain", "--config", "demo", "--shards", str(tiny_shards), "--output", str(run)]
    said = refuse([*arguments, "--probe.labelled", str(path)], capsys)
    assert words.format(path=path) in said
    assert "--data." not in said
    assert "skip_broken" not in said
    assert not run.exists()


@pytest.mark.parametrize(("flag", "value"), [("every-steps", "4"), ("task", "tagging"), ("label-column", "2")])
def test_fields_of_a_probe_without_texts_are_refused(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    arguments = ["pretrain", "--config", "demo", "--shards", str(tiny_shards), "--output", str(tmp_path / "run")]
    said = refuse([*arguments, f"--probe.{flag}", value], capsys)
    assert f"[probe] {flag.replace('-', '_')}: nothing is probed without texts; give --probe.labelled too" in said


def test_a_folder_of_tags_asks_for_the_task(
    tiny_shards: Path, tagged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", "--config", "demo", "--shards", str(tiny_shards), "--output", str(tmp_path / "run")]
    said = refuse([*arguments, "--probe.labelled", str(tagged.parent)], capsys)
    assert said.endswith("give another; if each word has a tag, set --probe.task tagging\n")


def test_a_run_goes_on_with_the_same_texts_in_another_place(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "own.conll", tmp_path / "run"
    path.write_text(tagged.read_text())

    def resumed(**probe: object) -> None:
        assert pretrain(tiny_configuration(probe=probe), tiny_shards, run, resume=True).is_finished

    pretrain_until_killed(monkeypatch, 7, tiny_configuration(probe={"labelled": str(path)}), tiny_shards, run)
    path.write_text(tagged.read_text().replace("\tk", "\tq"))
    way_out = f"probe changed since the run began; resume with --probe.labelled {path}, or name the place where the"
    for probe in ({"labelled": str(path)}, {}):
        with pytest.raises(RunDirectoryError, match=re.escape(way_out)):
            resumed(**probe)
    assert str(path) in (run / "config.toml").read_text()
    path.rename(tmp_path / "moved.words")
    with pytest.raises(DataError, match=r"no such file.* or give --probe\.labelled the place where it lies now"):
        resumed(labelled=str(path))
    (tmp_path / "moved.words").rename(path)
    path.write_text(tagged.read_text())
    path.rename(tmp_path / "moved.txt")
    resumed(labelled=str(tmp_path / "moved.txt"), task="tagging")
    assert [line["step"] for line in probes_of(run)] == list(range(1, 11))
    assert "moved.txt" in (run / "config.toml").read_text()
    # Over, it asks for no texts any more.
    capsys.readouterr()
    (tmp_path / "moved.txt").unlink()
    for probe in ({"labelled": str(path)}, {}):
        resumed(**probe)
        assert "finished 10 steps" in capsys.readouterr().err
    assert "moved.txt" in (run / "config.toml").read_text()
    shutil.rmtree(run / "checkpoints/step-10")
    with pytest.raises(DataError, match="no such file"):  # it trains again
        resumed(labelled=str(path))


def test_a_run_without_a_probe_takes_none_later(tiny_shards: Path, tagged: Path, tmp_path: Path) -> None:
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-10")
    with pytest.raises(RunDirectoryError, match=r"it began without one; leave --probe\.labelled out"):
        pretrain(tiny_configuration(probe={"labelled": str(tagged)}), tiny_shards, tmp_path / "run", resume=True)


def test_the_folder_of_the_best_is_renewed_after_a_kill(
    tiny_shards: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at step 4, where step 2 was best; killed after step 8, where step 6 is; and killed again."""
    pretend_scores(monkeypatch, 60.0, 50.0, 70.0, 65.0)
    config, run = tiny_configuration(probe={"labelled": str(tagged), "every_steps": 2}), tmp_path / "run"
    stop_after(4, monkeypatch, config, tiny_shards, run)
    first = load_file(run / "best/model.safetensors")
    pretrain_until_killed(monkeypatch, 8, config, tiny_shards, run, resume=True)
    page = write_report(run).read_text()
    assert "So far the probe is best at step 6: 70.0% (standard error 1.0). best/ still holds step 2." in page
    pretrain_until_killed(monkeypatch, 8, config, tiny_shards, run, resume=True)
    assert read_any_manifest(run).facts["probe"] == {"best_step": 6, "probe_accuracy": 70.0, "folder": "best"}
    assert "step 6: 70.0%" in (run / "best/README.md").read_text()
    assert "still holds" not in write_report(run).read_text()
    name = "encoder.layer.0.output.dense.weight"
    saved = load_file(run / "checkpoints/step-6/model.safetensors")
    ours = load_file(run / "best/model.safetensors")[f"electra.{name}"]
    assert torch.equal(ours, saved[f"discriminator.network.electra.{name}"])
    assert not torch.equal(ours, first[f"electra.{name}"])


def test_columns_of_a_probe_are_named_and_said(
    tiny_shards: Path, tagged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table whose columns have no usual names, and columns between the words and their tags."""
    rows = [f"{text[0]}\t{text}" for text in invented_text(120, seed=4)]
    (tmp_path / "odd.tsv").write_text("verdict\tspoken\n" + "\n".join(rows) + "\n")
    named = {"labelled": str(tmp_path / "odd.tsv"), "text_column": "spoken", "label_column": "verdict"}
    tokenizer = open_shards(tiny_shards).tokenizer
    found = probe_of(tiny_configuration(probe=named), tokenizer)
    assert found is not None
    assert {label for text in found.fitted for label in text.labels} <= set("bdfglmnprs")
    path = tmp_path / "four.conll"
    lines = [f"{line}\tZ{n % 2}\t{line[-1]}" if line else "" for n, line in enumerate(tagged.read_text().splitlines())]
    path.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    said = "it has 4 columns: the words are read from column 1, the tags from 4 (text_column and label_column name"
    for column in ("", "3"):
        config = tiny_configuration(probe={"labelled": str(path), "label_column": column})
        found = probe_of(config, tokenizer)
        assert found is not None
        labels = {label for text in found.fitted for label in text.labels}
        assert (labels == {"Z0", "Z1"}) == bool(column)
        assert (said in capsys.readouterr().err) == (not column)


def test_texts_with_labels_are_probed_too(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The label is the first letter of a text, which the embeddings know."""
    rows = [f"{text}\t{text[0]}" for text in invented_text(120, seed=4)]
    (tmp_path / "texts.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    pretrain(tiny_configuration(probe={"labelled": str(tmp_path / "texts.tsv")}), tiny_shards, tmp_path / "run")
    last = probes_of(tmp_path / "run")[-1]
    assert last["step"] == 10
    assert 10 < last["probe_accuracy"] < 100
    assert "probe: 50 texts to fit and 50 to score; the commonest label alone is right for " in capsys.readouterr().err

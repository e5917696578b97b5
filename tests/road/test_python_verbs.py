"""`electrain.pretrain`, `finetune` and `evaluate`: the files of the command line, typed results, callers kept alive."""

import asyncio
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import electrain
from command_line import command
from electrain.foundation.errors import ElectrainError
from electrain.foundation.output_folder import read_manifest
from tiny_pretraining import INVENTED_WORDS, TINY_TABLES

ROWS = [
    {"text": " ".join(INVENTED_WORDS[start : start + 5]), "label": "low" if start < 40 else "high"}
    for start in range(0, 80, 2)
]
ON_TINY = {**TINY_TABLES, "encoder": TINY_TABLES["encoder"] | {"backbone": "electra"}}
SHORT = {"training": {"epochs": 1, "batch_rows": 8, "precision": "float32"}, "data.allow_unknown": True}


def weights(run: Path, folder: str = "model") -> bytes:
    return (run / folder / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("pretraining", "finetuning"):
        monkeypatch.setattr(f"electrain.{kind}.report.write_report", lambda folder: folder / "report.html")


@pytest.fixture(scope="module")
def pretrained(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("python") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("electrain.training.arithmetic.measure_speedup", lambda *_: 0.0)
        patch.setattr("electrain.pretraining.report.write_report", lambda folder: folder / "report.html")
        result = electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=output)
    assert result.finished
    assert result.step == 10
    assert result.output == output
    assert result.metrics["loss"] > 0
    return output


def test_pretrain_writes_what_the_command_writes(
    pretrained: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = []
    for section, table in ON_TINY.items():
        for name, value in table.items():
            shown = str(value).lower() if isinstance(value, bool) else value
            flags += [f"--{section}.{name}".replace("_", "-"), shown]
    code, printed, err = command(
        capsys, "pretrain", "--config", "tiny", "--shards", tiny_shards, "--output", tmp_path / "run", *flags
    )
    assert code == 0, err
    torch.manual_seed(12)
    torch.use_deterministic_algorithms(False)
    state = torch.get_rng_state()
    own = electrain.pretrain("tiny", shards=tiny_shards, output=tmp_path / "own", overrides=ON_TINY)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on as they would have"
    assert not torch.are_deterministic_algorithms_enabled()
    for folder in ("model", "generator"):
        assert weights(tmp_path / "run", folder) == weights(own.output, folder)
    assert (tmp_path / "run/config.toml").read_bytes() == (own.output / "config.toml").read_bytes()
    assert own.metrics.keys() == printed[0].keys() - {"output", "finished"}
    assert {"detect", "fill", "embed"} <= set(electrain.load(pretrained).tasks)
    scored = electrain.evaluate("detection", model=pretrained, data=[{"text": row["text"]} for row in ROWS], rows=4)
    assert 0 <= scored.scores["discriminator"]["auc"] <= 1
    assert scored.intervals_95
    assert "intervals_95" not in scored.scores
    assert scored.to_dict()["scored_tokens"] == scored.counts["scored_tokens"] > 0


def test_finetune_takes_rows_in_memory_and_files_alike(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pandas.DataFrame(ROWS)
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    flags = ["--training.epochs", 1, "--training.batch-rows", 8, "--training.precision", "float32", "--allow-unknown"]
    files = ["--train", tmp_path / "rows.jsonl", "--validation", tmp_path / "rows.jsonl", "--output", tmp_path / "c"]
    code, printed, err = command(capsys, "finetune", "classification", "--model", pretrained, *files, *flags)
    assert code == 0, err
    tuned = electrain.finetune(
        "classification", model=pretrained, train=frame, validation=ROWS, output=tmp_path / "own", overrides=SHORT
    )
    assert tuned.finished
    assert tuned.scores == printed[0]["scores"]
    assert tuned.best_step == printed[0]["best_step"]
    assert weights(tmp_path / "c") == weights(tuned.output)
    for name in ("manifest.json", "scores.json"):
        assert "/tmp" not in (tuned.output / name).read_text().replace(str(tmp_path), "").replace(str(pretrained), "")
    card = (tuned.output / "model/README.md").read_text()
    assert "rows in memory" in card
    for name in ("train.jsonl", "validation.jsonl", "memory.jsonl"):
        assert name not in card + (tuned.output / "manifest.json").read_text()
    predictor = electrain.load(tuned.output)
    assert predictor.tasks == ("classify", "embed")
    (answer,) = predictor.classify([ROWS[0]["text"]])
    assert answer.probabilities is not None
    assert answer.label in answer.probabilities
    with pytest.raises(ElectrainError, match="the model reads one text"):
        predictor.classify("a", "b")
    for data in (frame, tmp_path / "rows.jsonl", [tmp_path / "rows.jsonl"]):
        scored = electrain.evaluate("classification", model=tuned.output, data=data)
        assert scored.scores["accuracy"] == pytest.approx(tuned.scores["accuracy"])
        assert len(scored.answers) == len(ROWS)
    tuning = electrain.evaluate("classification", model=tuned.output, data=ROWS, tune_threshold=True)
    assert tuning.scores_before == scored.scores
    with pytest.raises(ElectrainError, match="tune_threshold: detection does not read it"):
        electrain.evaluate("detection", model=tuned.output, data=ROWS, tune_threshold=True)
    with pytest.raises(ElectrainError, match="document_separator: classification does not read it"):
        electrain.evaluate("classification", model=tuned.output, data=ROWS, document_separator="\n")
    assert scored.settings["data"] == [str(tmp_path / "rows.jsonl")]
    assert electrain.evaluate("classification", model=tuned.output, data=ROWS).settings["data"] == ["rows in memory"]


def test_several_seeds_give_medians(pretrained: Path, tmp_path: Path) -> None:
    tuned = electrain.finetune(
        "classification",
        model=pretrained,
        train=ROWS,
        validation=ROWS,
        output=tmp_path / "seeds",
        overrides=SHORT,
        seeds=2,
    )
    assert tuned.best_step is None
    assert tuned.spread["accuracy"]["least"] <= tuned.scores["accuracy"] <= tuned.spread["accuracy"]["greatest"]
    assert (tmp_path / "seeds/model/task.json").is_file()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda **a: electrain.finetune("classification", train=3, validation=ROWS, **a), "train: is neither a path"),
        (
            lambda **a: electrain.finetune("classification", train=["x.tsv", {}], validation=ROWS, **a),
            "row 1 is no dict",
        ),
        (
            lambda **a: electrain.finetune("classification", train=[*ROWS, {"text": "x"}], validation=ROWS, **a),
            "train, row 41: ",
        ),
        (lambda **a: electrain.finetune("classification", train=[{"text": {1}}], validation=ROWS, **a), "train: holds"),
        (
            lambda **a: electrain.finetune(
                "classification", train=ROWS, validation=ROWS, overrides={"generation": {"beams": 2}}, **a
            ),
            "^generation.beams: classification does not read it",
        ),
        (
            lambda **a: electrain.finetune(
                "classification", train=ROWS, validation=ROWS, overrides={"data.text_column": "no"}, **a
            ),
            '^train: no column "no" for data.text_column; ',
        ),
        (
            lambda **a: electrain.finetune(
                "classification", train=[{**row, "context": "x"} for row in ROWS], validation=ROWS, **a
            ),
            "^train: context could be a second text .* set data.pair_column context to read both",
        ),
        (
            lambda model, output: electrain.evaluate("detection", model=model, data=ROWS, rows=0),
            "^evaluate detection: rows 0: must be",
        ),
        (
            lambda model, output: electrain.finetune(
                "classification", model=model, train=ROWS, validation=ROWS, output=model
            ),
            "is not empty; give a new folder, or resume=True to continue",
        ),
        (
            lambda **a: electrain.finetune("classification", train=ROWS, validation=ROWS, overrides={"epochs": 2}, **a),
            'overrides: "epochs" is no section',
        ),
        (
            lambda **a: electrain.finetune("classification", train=ROWS, validation=ROWS, config={"data": 3}, **a),
            'overrides: "data" is no section',
        ),
        (
            lambda **a: electrain.finetune("classification", train=[], validation=ROWS, **a),
            "train: no rows; give at least one",
        ),
        (
            lambda model, output: electrain.evaluate("classification", model=model, data=pandas.DataFrame()),
            "data: no rows; give at least one",
        ),
        (lambda model, output: electrain.evaluate("classification", model=None, data=ROWS), "model: None is no name"),  # type: ignore[arg-type]
        (
            lambda model, output: electrain.finetune(
                "regression", model=model, train="", validation=ROWS, output=output
            ),
            "^train: '' is no name; give a path",
        ),
        (
            lambda model, output: electrain.finetune(
                "tagging", model=model, train=[""], validation=ROWS, output=output
            ),
            "^train: '' is no name; give a path",
        ),
        (
            lambda model, output: electrain.finetune("tagging", model=model, train=ROWS, validation=ROWS, output=None),  # type: ignore[arg-type]
            "^output: None is no name; give a path",
        ),
        (lambda model, output: electrain.pretrain("tiny", shards=None, output=output), "^shards: None is no name"),  # type: ignore[arg-type]
        (lambda model, output: electrain.pretrain("tiny", shards="x", output=""), "^output: '' is no name"),
        (lambda model, output: electrain.pretrain("tyny", shards="x", output=output), "tyny"),
        (lambda model, output: electrain.evaluate("classify", model=model, data=ROWS), "classify: is no task"),
        (
            lambda model, output: electrain.finetune(
                "classify",  # type: ignore[arg-type]
                model=model,
                train=ROWS,
                validation=ROWS,
                output=output,
            ),
            "classify: is no task; choose one of classification",
        ),
        (
            lambda model, output: electrain.evaluate("classification", model=model, data=ROWS, columns={"txt": "a"}),
            'no role "txt"',
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(
    pretrained: Path, tmp_path: Path, call: Callable[..., object], message: str
) -> None:
    with pytest.raises(ElectrainError, match=message) as raised:
        call(model=pretrained, output=tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_lines_on_stderr_name_settings_too(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "the cat sees a dog and the dogs " * 3, "label": row["label"]} for row in ROWS]
    short = {"training.epochs": 1, "training.precision": "float32", "data.longest_tokens": 8}
    given = {"model": pretrained, "train": rows, "validation": rows, "allow_unknown": True}
    electrain.finetune("classification", **given, output=tmp_path / "tuned", overrides=short)  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert "raise data.longest_tokens (the model takes" in err
    assert "read more with data.cut ends" in err
    assert "--" not in err
    written = tmp_path / "rows.jsonl"
    written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--model", pretrained, "--train", written, "--validation", written, "--output", tmp_path / "again"]
    flags = ["--training.epochs", 1, "--training.precision", "float32", "--data.longest-tokens", 8, "--allow-unknown"]
    assert command(capsys, "finetune", "classification", *files, *flags)[2].count("--data.") == 2


def test_an_exported_folder_is_neither_scored_nor_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "electrain-export.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    message = "an exported folder can be asked, but not scored or trained; give the folder that it was exported from"
    for task in ("classification", "detection"):
        with pytest.raises(ElectrainError, match=message):
            electrain.evaluate(task, model=exported, data=ROWS)
    with pytest.raises(ElectrainError, match=message):
        electrain.finetune("classification", model=exported, train=ROWS, validation=ROWS, output=tmp_path / "new")
    files = ["--train", tmp_path / "rows.jsonl", "--validation", tmp_path / "rows.jsonl", "--output", tmp_path / "new"]
    for flags in (["finetune", "classification", *files], ["evaluate", "classification", "--data", files[1]]):
        code, _, err = command(capsys, *flags, "--model", exported)
        assert code == 2
        assert message in err
    assert not (tmp_path / "new").exists()


def test_a_notebook_and_a_thread_can_train(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter: an event loop runs, and the standard streams have no descriptors; and in another thread."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def cell() -> Any:
        return electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=tmp_path / "cell")

    assert asyncio.run(cell()).finished
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=tmp_path / "thread"))
    )
    thread.start()
    thread.join()
    assert results[0].finished
    assert weights(tmp_path / "cell") == weights(tmp_path / "thread")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_an_interrupt_saves_a_checkpoint_and_reaches_the_caller(
    tiny_shards: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from electrain.pretraining import run

    after = run._after_step

    def interrupted(parts: Any, rate: float, result: Any) -> bool:
        if parts.sitting.run.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return after(parts, rate, result)

    monkeypatch.setattr(run, "_after_step", interrupted)
    # A shell that starts the tests in the background lets them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not read_manifest(tmp_path / "run", "run").finished
    monkeypatch.setattr(run, "_after_step", after)
    result = electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=tmp_path / "run", resume=True)
    assert result.finished
    assert weights(tmp_path / "run") == weights(pretrained)


def test_empty_cells_of_a_table_are_refused_by_their_row(pretrained: Path, tmp_path: Path) -> None:
    """pandas has NaN where a cell is empty, which JSON has not."""
    frame = pandas.DataFrame([*ROWS, {"text": "bak", "label": None}])
    with pytest.raises(ElectrainError, match="train, row 41: "):
        electrain.finetune("classification", model=pretrained, train=frame, validation=ROWS, output=tmp_path / "x")


def test_numbers_of_numpy_override_fields(tiny_shards: Path, tmp_path: Path) -> None:
    overrides = {"training.steps": np.int64(0), "discriminator": {"heads": ("detection",)}}
    with pytest.raises(ElectrainError, match="steps = 0: must be at least 1"):
        electrain.pretrain(TINY_TABLES, shards=tiny_shards, output=tmp_path / "x", overrides=overrides)

"""`evaluate classification --tune-threshold`: the threshold is the best one, is kept, and is obeyed everywhere."""

import contextlib
import dataclasses
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import electrain
from command_line import command, refuse
from electrain.data.labelled.examples import TextExample
from electrain.finetuning.card import write_cards
from electrain.finetuning.configuration import load_finetune_configuration
from electrain.finetuning.run import finetune
from electrain.finetuning.tasks import settings
from electrain.finetuning.tasks.settings import TaskSettings, read_task_settings
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.foundation.card import is_edited
from electrain.foundation.errors import CheckpointError
from electrain.foundation.lock import locked
from electrain.inference.check import check_folder
from electrain.inference.evaluate.threshold import best_threshold, tune_thresholds

Capture = pytest.CaptureFixture[str]
Runs = Callable[..., Path]
WORDS = ["the", "cat", "dog", "cats", "dogs", "see", "sees", "saw", "who", "is", "are", "happy", "sad", "quick"]
PAIRS = [f"{one} {other}" for one, other in itertools.product(WORDS, WORDS[1:9])]
# One text of eight is "rare", by a word that the two networks of a tiny model tell apart only weakly.
RARE = "text\tlabel\n" + "".join(f"{text}\t{'rare' if text.startswith('happy') else 'usual'}\n" for text in PAIRS)
SEVERAL = "".join(
    json.dumps({"text": text, "label": [name for name in ("cat", "happy") if name in text.split()]}) + "\n"
    for text in PAIRS
)


@pytest.fixture(scope="module")
def fine_tuned(tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """`fine_tuned(content)`: a run of a classifier that was trained on a file, and the file; copy it to change it."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(content: str) -> tuple[Path, Path]:
        if content not in made:
            folder = tmp_path_factory.mktemp("threshold")
            data = folder / f"data.{'jsonl' if content.startswith('{') else 'tsv'}"
            data.write_text(content)
            training = {"epochs": 2, "precision": "float32", "peak_learning_rate": 1e-3}
            with pytest.MonkeyPatch.context() as patch:  # no curves are needed
                patch.setattr("electrain.finetuning.report.write_report", lambda run: run / "report.html")
                config = load_finetune_configuration(None, {"training": training})
                finetune("classification", config, tiny_run(), [str(data)], [str(data)], folder / "run")
            made[content] = (folder / "run", data)
        return made[content]

    return make


@pytest.fixture
def copied(fine_tuned: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    def make(content: str) -> tuple[Path, Path]:
        run, data = fine_tuned(content)
        shutil.copytree(run, tmp_path / "run")
        return tmp_path / "run", data

    return make


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_thresholds_is_found(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    is_true = numbers.random(60) < 0.2
    is_true[:2] = (True, False)
    chances = np.round(np.clip(numbers.normal(0.3, 0.15, 60) + 0.2 * is_true, 0, 1), 2)  # with equal ones
    every = [f1_score(is_true, chances >= value) for value in np.linspace(0, 1, 1001)]
    found = best_threshold(is_true, chances)
    assert f1_score(is_true, chances >= found) == pytest.approx(max(every))
    assert found == 0.5 or np.abs(chances - found).min() > 0.001  # no rounding tips a decision


def test_one_half_stays_where_it_is_as_good() -> None:
    assert best_threshold(np.array([False, True]), np.array([0.4, 0.6])) == 0.5
    assert best_threshold(np.array([False, True]), np.array([0.1, 0.3])) == pytest.approx(0.2)
    assert best_threshold(np.array([True, False]), np.array([0.3, 0.6])) == pytest.approx(0.15)  # given to both


def test_a_tuned_threshold_is_kept_and_obeyed(copied: Any, tmp_path: Path, capsys: Capture) -> None:
    run, data = copied(RARE)
    arguments = ["evaluate", "classification", "--model", run, "--data", data]
    _, [before], _ = command(capsys, *arguments)
    files = ["--predictions", tmp_path / "p.jsonl"]
    code, [result], err = command(capsys, *arguments, "--tune-threshold", *files)
    assert code == 0, err
    # The scores before and after, and how sure they are.
    assert result["scores_before"] == before["scores"]
    rare = {name: next(one for one in scored["breakdown"]["labels"] if one["label"] == "rare")
            for name, scored in (("before", before), ("after", result))}  # fmt: skip
    assert rare["after"]["f1"] > rare["before"]["f1"]
    assert f'F1 of "rare" {rare["after"]["f1"]:.2f} (before: {rare["before"]["f1"]:.2f})' in err
    assert f"accuracy {result['scores']['accuracy']:.2f} (before: {before['scores']['accuracy']:.2f})" in err
    assert "must be validation data" in err
    assert 'few examples decide (8 of "rare")' in err
    # It is kept where the folder is sound, and obeyed by every way of asking.
    thresholds = json.loads((run / "model/task.json").read_text())["thresholds"]
    assert list(thresholds) == ["rare"]
    assert result["settings"]["thresholds"] == thresholds
    assert check_folder(run).faults == []
    answers = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    wanted = ["rare" if one["probabilities"]["rare"] >= thresholds["rare"] else "usual" for one in answers]
    assert [one["label"] for one in answers] == wanted
    assert any(one["label"] == "rare" and one["probability"] < 0.5 for one in answers)
    _, [again], _ = command(capsys, *arguments)
    assert again["scores"] == result["scores"]
    assert again["settings"]["thresholds"] == thresholds
    _, asked, _ = command(capsys, "predict", "classify", "--model", run, "--input", data)
    assert [one["label"] for one in asked] == wanted
    predictor = electrain.load(run)
    assert [one.label for one in predictor.classify(PAIRS)] == wanted
    # Tuned again on the same data, from Python, it stays.
    same = electrain.evaluate("classification", model=run, data=[str(data)], tune_threshold=True).to_dict()
    assert same["settings"]["thresholds"] == thresholds
    assert same["scores_before"] == result["scores"]
    assert [path.name for path in run.iterdir() if path.name.endswith((".lock", ".writing"))] == []


def test_each_of_several_labels_has_its_threshold(copied: Any, capsys: Capture) -> None:
    run, data = copied(SEVERAL)
    arguments = ["evaluate", "classification", "--model", run, "--data", data, "--tune-threshold"]
    code, [result], err = command(capsys, *arguments)
    assert code == 0, err
    assert set(result["settings"]["thresholds"]) == {"cat", "happy"}
    assert result["scores"]["f1_macro"] >= result["scores_before"]["f1_macro"]
    tuned = load_fine_tuned(run, ("classification",))
    answer = tuned.task.decided({"cat": 0.9, "happy": 0.0})
    assert answer == {"labels": ["cat"], "probabilities": {"cat": 0.9, "happy": 0.0}}
    assert check_folder(run).faults == []


@pytest.mark.parametrize("content", [RARE, SEVERAL], ids=["two labels", "several labels"])
def test_the_card_says_how_transformers_gives_the_labels_that_predict_gives(
    copied: Any, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run, data = copied(content)
    plain_card = (run / "model/README.md").read_text()
    electrain.evaluate("classification", model=run, data=data, tune_threshold=True)
    card = (run / "model/README.md").read_text()
    thresholds = read_task_settings(run / "model/task.json").thresholds
    for label, value in thresholds.items():
        assert f"`{label}` from a probability of {value:.4f} on" in card
    assert "as does the pipeline of transformers by itself" in card
    assert "as does the pipeline" not in plain_card
    # Only the one section changed, and the card is still electrain's own.
    cut = re.compile(r"^## Use\n.*?(?=^## )|^<!-- electrain.*", re.DOTALL | re.MULTILINE)
    assert cut.sub("", card) == cut.sub("", plain_card)
    assert not is_edited(card)
    assert check_folder(run).faults == []
    # The code of the card answers as electrain does.
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(run / "model")
    predictor, shown = electrain.load("."), io.StringIO()
    asked = PAIRS[::4]
    with contextlib.redirect_stdout(shown):
        for text in asked:
            exec(compile(code.replace('"a text to read"', repr(text)), "card", "exec"), {})
    answers = predictor.classify(asked)
    wanted = [sorted(one.labels or filter(None, [one.label])) for one in answers]
    assert [sorted(re.findall(r"\w+", line)) for line in shown.getvalue().splitlines()] == wanted
    assert len(set(map(tuple, wanted))) > 1
    # Tuned again, and with the run gone on, it says the same once.
    electrain.evaluate("classification", model=run, data=data, tune_threshold=True)
    assert (run / "model/README.md").read_text() == card
    write_cards(run)
    assert (run / "model/README.md").read_text() == card
    capsys.readouterr()


@pytest.mark.parametrize("written", ["My own words.\n", None])
def test_a_card_that_somebody_wrote_or_removed_stays_so(copied: Any, written: str | None, capsys: Capture) -> None:
    run, data = copied(RARE)
    card = run / "model/README.md"
    card.unlink()
    if written:
        card.write_text(written)
    electrain.evaluate("classification", model=run, data=data, tune_threshold=True)
    said = [line for line in capsys.readouterr().err.splitlines() if "README.md" in line]
    assert (card.read_text() if card.exists() else None) == written
    assert said == ([f"warning: {card} is edited and stays so; say in it that transformers ignores the thresholds"]
                    if written else [])  # fmt: skip


def test_the_card_of_an_export_tells_the_thresholds(copied: Any, tmp_path: Path, capsys: Capture) -> None:
    run, data = copied(RARE)
    electrain.evaluate("classification", model=run, data=data, tune_threshold=True)
    code, _, err = command(capsys, "export", "--model", run, "--output", tmp_path / "onnx")
    assert code == 0, err
    card = (tmp_path / "onnx/README.md").read_text()
    (threshold,) = read_task_settings(tmp_path / "onnx/task.json").thresholds.values()
    assert f"`rare` from a probability of {threshold:.4f} on, otherwise `usual`." in card
    assert card.count("thresholds, which were chosen") == 1


def test_the_rarer_label_gets_the_threshold_and_of_equal_ones_the_second(copied: Any, capsys: Capture) -> None:
    run, _ = copied(RARE)
    tuned = load_fine_tuned(run, ("classification",))
    for truth, label in (("ruu", "rare"), ("rru", "usual"), ("ru", "usual")):
        names = [{"r": "rare", "u": "usual"}[one] for one in truth]
        examples = [TextExample("t", labels=(name,)) for name in names]
        answers = [tuned.task.decided({"rare": 0.3, "usual": 0.7}) for _ in names]
        found = tune_thresholds(tuned, examples, answers)
        assert list(found.model.settings.thresholds) == [label]
    capsys.readouterr()


def test_what_has_no_threshold_is_refused(copied: Any, fine_tuned: Any, tmp_path: Path, capsys: Capture) -> None:
    run, data = copied(RARE)
    ask = ["evaluate", "classification", "--data", str(data), "--tune-threshold", "--model"]
    three, its = fine_tuned("text\tlabel\n" + "".join(f"{text}\t{text[0]}\n" for text in PAIRS[:40]))
    capsys.readouterr()
    line = refuse([*ask[:2], "--data", str(its), "--tune-threshold", "--model", str(three)], capsys)
    assert "gives each text one of 3 labels" in line
    one_kind = tmp_path / "one.tsv"
    one_kind.write_text("text\tlabel\nthe cat\tusual\n")
    arguments = [*ask[:2], "--data", str(one_kind), "--tune-threshold", "--model", str(run)]
    code, printed, err = command(capsys, *arguments)
    assert (code, printed) == (2, [])
    assert 'no example has the label "rare"; give validation data with both labels' in err
    with locked(run):
        line = refuse([*ask, str(run)], capsys)
    assert "is writing this folder" in line
    assert json.loads((run / "model/task.json").read_text())["thresholds"] == {}


def test_a_crash_while_the_threshold_is_written_leaves_a_sound_folder(
    copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of the five writes, the folder is read, with the old settings or the new ones."""
    run, _ = copied(RARE)
    model = run / "model"
    before = read_task_settings(model / "task.json")
    new = dataclasses.replace(before, thresholds={"rare": 0.25})
    names = ("write_manifest", "write_hashes", "save_task_settings", "write_hashes", "write_manifest")
    for stop in range(6):
        settings.replace_task_settings(before, model)
        writes = iter(range(6))

        def stopping(real: Callable[..., None], writes: Any = writes, stop: int = stop) -> Callable[..., None]:
            def write(*arguments: Any) -> None:
                if next(writes) == stop:
                    raise KeyboardInterrupt
                real(*arguments)

            return write

        with monkeypatch.context() as patch:
            for name in set(names):
                patch.setattr(settings, name, stopping(getattr(settings, name)))
            try:
                settings.replace_task_settings(new, model)
            except KeyboardInterrupt:
                assert stop < 5
            else:
                assert stop == 5
        assert check_folder(run).faults == []
        assert load_fine_tuned(run, ("classification",)).settings == (before if stop < 3 else new)


@pytest.mark.parametrize("thresholds", [{"c": 0.5}, {"a": 1.5}, {"a": float("nan")}, {"a": 0.1, "b": 0.2}, {"a": "x"}])
def test_damaged_thresholds_are_refused(tmp_path: Path, thresholds: dict[str, Any]) -> None:
    settings = TaskSettings("classification", ("a", "b"))
    content = {"format_version": 1, **dataclasses.asdict(settings), "thresholds": thresholds}
    (tmp_path / "task.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        read_task_settings(tmp_path / "task.json")

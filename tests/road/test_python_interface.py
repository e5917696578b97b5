"""`import electrain`: what it loads, the predictor and its answers, and what it refuses."""

import copy
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import electrain
from command_line import command
from electrain.foundation.errors import DataError, ElectrainError
from electrain.inference.answers import Answer, DetectedText, answer_of
from electrain.inference.asked import Input
from electrain.inference.predictor import open_networks

Runs = Callable[..., Path]


def test_the_import_loads_no_library() -> None:
    names = ("predictor", "answers", "asked", "verbs")
    imports = ", ".join(["sys", "electrain", *(f"electrain.inference.{name}" for name in names)])
    script = f"import {imports}; dir(electrain); electrain.load; electrain.pretrain; print(' '.join(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "pandas", "datasets", "tokenizers"} & set(shown)
    assert set(electrain.__all__) <= set(dir(electrain))
    for name in electrain.__all__:
        assert getattr(electrain, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = electrain.nothing  # type: ignore[attr-defined]


def test_a_run_answers_as_predict_prints(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = electrain.load(tiny_run())
    assert predictor.tasks == ("detect", "fill", "embed")
    assert predictor.source == str(tiny_run())
    texts = ["the cat saw a [MASK] .", "", "a dog [MASK]"]
    for task in predictor.tasks:
        _, printed, _ = command(capsys, "predict", task, *texts, "--model", tiny_run())
        answers = getattr(predictor, task)(texts)
        assert [answer.to_dict() for answer in answers] == printed
        assert [answer_of(task, record) for record in printed] == answers
        assert [answer.is_blank for answer in answers] == [False, True, False]
        assert answers[1].to_dict() == {"text": ""}
        one = getattr(predictor, task)(texts[0])
        assert isinstance(one, Answer)
        assert one.to_dict().keys() == printed[0].keys()
        assert str(one)
    assert predictor.fill("a [MASK]", candidates=2, by="generator").masks[0].candidates[1].probability > 0
    assert "saw" in str(predictor.detect(texts[0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.classify("x"), "cannot classify; it can detect, fill, embed"),
        (lambda run: run.ask("detekt", ["x"]), "cannot detekt; it can detect"),
        (lambda run: run.detect([3]), r'input 1: 3 is no text; give a str or \{"text": ...\}'),
        (lambda run: run.detect(3), "texts: 3 is no text"),
        (lambda run: run.ask("detect", "x"), "inputs: 'x' is no list"),
        (lambda run: run.ask("detect", pandas.DataFrame({"text": ["x"]})), "inputs: a table is no list"),
        (lambda run: run.ask("detect", np.array("x")), "inputs: .* is no list"),
        (lambda run: run.detect(b"x"), "texts: b'x' is no text"),
        (lambda run: run.ask("detect", [{"txt": "x"}]), 'there is no key "txt"'),
        (lambda run: run.ask("detect", [{"text": "x", "pair": "y"}]), "the model reads one text"),
        (lambda run: run.ask("detect", [{}]), 'has no "text"'),
        (lambda run: run.ask("detect", [{"text": 3}]), '"text" holds 3, not a text'),
        (lambda run: run.ask("detect", ["x"], candidates=3), "detect: has no option candidates, none"),
        (lambda run: run.fill("[MASK]", candidates=0), "candidates 0: must be at least 1"),
        (lambda run: run.fill("[MASK]", candidates="3"), "candidates = '3': must be a whole number"),
        (lambda run: run.fill("[MASK]", candidates=np.float32(3)), "candidates = 3.0: must be a whole number"),
        (lambda run: run.fill("[MASK]", candidates=True), "candidates = True: must be a whole number"),
        (lambda run: run.fill("[MASK]", by="model"), 'by = "model": choose'),
        (lambda run: run.fill("x"), "holds no .MASK."),
    ],
)
def test_mistakes_are_refused_in_one_line(tiny_run: Runs, call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ElectrainError, match=message) as raised:
        call(electrain.load(tiny_run()))
    assert "\n" not in str(raised.value)


def test_folders_and_devices_that_cannot_be_asked(tiny_run: Runs, tmp_path: Path) -> None:
    for arguments, message in (
        ({"source": tmp_path}, "holds neither model/ nor config.json"),
        ({"source": tmp_path / "none"}, "no such folder"),
        ({"source": tiny_run(), "device": "gpu"}, "device gpu: cannot be used"),
        ({"source": tiny_run(), "batch_tokens": 0}, "batch_tokens = 0: must be at least 1"),
        ({"source": tiny_run(), "batch_tokens": "a"}, "batch_tokens = 'a': must be a whole number"),
        ({"source": tiny_run(), "batch_tokens": 1.5}, "batch_tokens = 1.5: must be a whole number"),
        ({"source": tiny_run(), "batch_tokens": True}, "batch_tokens = True: must be a whole number"),
        ({"source": None}, "model: None is no name"),
        ({"source": 3}, "model: 3 is no name"),
        ({"source": ""}, "model: '' is no name"),
    ):
        with pytest.raises(ElectrainError, match=message) as raised:
            electrain.load(**arguments)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_numbers_of_numpy_are_numbers(tiny_run: Runs) -> None:
    predictor = electrain.load(tiny_run(), batch_tokens=np.int64(64))  # type: ignore[arg-type]
    assert predictor.fill("a [MASK]", candidates=np.int64(3)) == predictor.fill("a [MASK]", candidates=3)  # type: ignore[call-overload]


def test_copies_answer_alike(tiny_run: Runs) -> None:
    predictor = electrain.load(tiny_run(), device="cpu", batch_tokens=64)
    for other in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        assert other is not predictor
        assert other.source == predictor.source
        assert other.detect("the cat") == predictor.detect("the cat")


def test_the_tasks_are_those_that_answer(tiny_run: Runs) -> None:
    """Each folder of a run, and the run: a task is named if and only if it answers."""
    baseline = tiny_run("electra", "masked-language-modelling")
    runs = [baseline, tiny_run(), tiny_run("modernbert")]
    folders = [*runs, *(part for run in runs for part in sorted(run.iterdir()) if part.is_dir())]
    found = {}
    for folder in folders:
        predictor = electrain.load(folder)
        asked = open_networks(folder)
        for task in ("detect", "fill", "embed", "generate"):
            one = Input("the [MASK]", 1, "input 1")
            try:
                works = bool(list(asked.ask(task, [one])))
            except ElectrainError:
                works = False
            assert works == (task in predictor.tasks), (folder, task)
        found[folder.name] = predictor.tasks
    assert found["detector"] == ("detect", "embed")
    assert found["generator"] == ("fill", "embed")


def test_threads_ask_one_predictor(tiny_run: Runs) -> None:
    texts = ["the cat " * number for number in range(1, 13)]
    expected = [answer.to_dict() for answer in electrain.load(tiny_run()).detect(texts)]
    predictor = electrain.load(tiny_run())
    with ThreadPoolExecutor(6) as threads:
        many = list(threads.map(lambda text: predictor.detect(text), texts * 3))
    for answer, wanted in zip(many, expected * 3, strict=True):
        chances = [token["probability_replaced"] for token in wanted["tokens"]]  # type: ignore[index,union-attr]
        assert [token.probability_replaced for token in answer.tokens] == pytest.approx(chances, rel=1e-4)


def test_calls_of_several_threads_are_answered_in_turn() -> None:
    """Tokenizers hold state while they read, so that two calls at once could mix."""
    asking: list[int] = []
    most: list[int] = []

    class Slow:
        source, tasks, reads_pairs = "slow", ("detect",), None

        def ask(self, task: str, inputs: Any, columns: Any = None, options: Any = None) -> Any:
            asking.append(1)
            time.sleep(0.005)
            most.append(len(asking))
            asking.pop()
            yield DetectedText(inputs[0].given)

    predictor = electrain.Predictor(Slow())  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(predictor.detect, map(str, range(16))))
    assert [answer.text for answer in answers] == list(map(str, range(16)))  # type: ignore[union-attr]
    assert set(most) == {1}


def test_texts_come_from_any_iterable(tiny_run: Runs) -> None:
    predictor = electrain.load(tiny_run())
    frame = pandas.DataFrame({"text": ["the cat", "a dog"]})
    answers = predictor.detect(frame["text"])
    assert len(answers) == 2
    assert list(pandas.DataFrame([answer.to_dict() for answer in answers])["text"]) == ["the cat", "a dog"]
    with pytest.raises(DataError, match="input 2: None is no text"):
        predictor.detect(["x", None])  # type: ignore[list-item]

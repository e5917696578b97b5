"""The load test of the service for a moment, with a model without a network: no error, and right answers."""

import asyncio
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import httpx
import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/serve_load.py` as a module."""
    path = TESTS.parent / "benchmarks" / "serve_load.py"
    spec = importlib.util.spec_from_file_location("serve_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serve_load", module)
    spec.loader.exec_module(module)
    return module


def test_many_clients_get_right_answers(load: ModuleType) -> None:
    arguments = ["{}", "0.001", "0"]
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "serving_process.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        while httpx.get(f"{url}health", verify=False, timeout=20).status_code != 200:
            time.sleep(0.05)
        asked = load.questions([("embed", "one")], [f"sentence {number} " * (number % 7 + 1) for number in range(50)])
        # The stand-in counts the texts of a call, which a batch changes: what must not change is whose text it is.
        texts = {number: load.json.loads(question.body)["inputs"] for number, question in enumerate(asked)}
        known: dict[int, object] = {}
        load.is_near = lambda answer, first: (
            [one["text"] for one in answer["answers"]] in texts.values()
            and ([one["text"] for one in answer["answers"]] == [one["text"] for one in first["answers"]])
        )
        seen = asyncio.run(load.turn(url, asked, 16, 1.5, known))
        assert seen.statuses.keys() == {200}
        assert seen.wrong == 0
        assert len(seen.milliseconds) > 16
        for number, answer in known.items():
            assert [one["text"] for one in answer["answers"]] == texts[number]  # type: ignore[index]
    finally:
        process.kill()
        process.wait()


def test_a_wrong_answer_is_noticed(load: ModuleType) -> None:
    assert load.is_near({"a": [1.0, "x"]}, {"a": [1.00001, "x"]})
    assert not load.is_near({"a": [1.0, "x"]}, {"a": [1.01, "x"]})
    assert not load.is_near({"a": [1.0]}, {"a": [1.0, 2.0]})
    assert not load.is_near({"a": 1.0}, {"b": 1.0})
    assert load.percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 3.0
    assert load.percentile([], 0.5) == 0.0

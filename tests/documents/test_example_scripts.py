"""The scripts in examples/ and the Python in docs/python.md run, and print what they promise."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("no_pretend_device")
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
Run = Callable[..., str]
# Those of test_recipes.py.
TESTED_ELSEWHERE = {"finetune_recipe", "learn_to_copy"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(name, *arguments)`: what the script prints."""
    for kind in ("pretraining", "finetuning"):
        monkeypatch.setattr(f"electrain.{kind}.report.write_report", lambda folder: folder / "report.html")

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_model_is_asked(run: Run, tiny_run: Any) -> None:
    shown = run("ask_a_model", tiny_run())
    assert "tasks=('detect', 'fill', 'embed')" in shown
    assert "most suspicious: " in shown
    assert "[MASK] 1: " in shown
    assert "cannot translate; it can detect, fill, embed" in shown


def test_text_becomes_a_model(run: Run, tmp_path: Path) -> None:
    shown = run("pretrain_from_python", tmp_path)
    assert "finished: True, loss " in shown
    assert shown.splitlines()[-1].startswith("the cow")


def test_an_encoder_is_fine_tuned(run: Run, tiny_run: Any, tmp_path: Path) -> None:
    shown = run("finetune_from_python", tiny_run(), tmp_path / "out")
    assert "validation: {'accuracy': " in shown
    assert "test: {'accuracy': " in shown
    assert shown.count("'probabilities'") == 2


def test_a_model_is_scored(run: Run, tiny_run: Any) -> None:
    assert re.match(r"AUC 0\.\d+ over \d+ tokens\n", run("evaluate_from_python", tiny_run()))


def test_the_articles_class_learns(run: Run) -> None:
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", run("electra_classifier"))]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", ["pretrain_with_trainer", "pretrain_with_accelerate"])
def test_loops_of_others_train(run: Run, name: str, tiny_run: Any, tmp_path: Path) -> None:
    shown = run(name, tiny_run() / "model", tmp_path)
    assert "loss" in shown or "generator" in shown
    assert "the cat" in shown
    assert (tmp_path / "run/model/modules.json").is_file()


def test_sentences_are_compared(run: Run, tiny_run: Any) -> None:
    shown = run("sentence_vectors", tiny_run() / "model")
    assert float(re.findall(r"vectors: (\S+)", shown)[0]) < 1e-5


def test_every_example_is_run() -> None:
    here = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert path.stem in TESTED_ELSEWHERE or f'"{path.stem}"' in here, path.name
        usage = path.read_text("utf-8").split('"""')[1]
        assert f"python examples/{path.name}" in usage


def test_the_python_of_the_page_runs(
    tiny_run: Any,
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The blocks of docs/python.md, one after the other, in a folder that holds a run and shards."""
    for kind in ("pretraining", "finetuning"):
        monkeypatch.setattr(f"electrain.{kind}.report.write_report", lambda folder: folder / "report.html")
    shutil.copytree(tiny_run(), tmp_path / "run")
    shutil.copytree(tiny_shards, tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "python.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    shown = capsys.readouterr().out
    assert shown.startswith("('detect', 'fill', 'embed')\n")
    assert "True 10 " in shown
    assert shown.endswith("(1, 192)\n")

"""Every fine-tuning recipe runs, from Python by the example, on invented rows of its data set's shape."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from electrain.finetuning.configuration import load_finetune_configuration, recipe_names
from tiny_pretraining import INVENTED_WORDS

EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = Path(__file__).parents[2] / "configs" / "finetune"
TEXTS = [f"the cat sees {word} ." for word in INVENTED_WORDS[:12]]


def example(name: str = "finetune_recipe") -> Any:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(recipe: str, task: str) -> tuple[str, str]:
    """File name and content: twelve rows as the recipe's data set has them."""
    data = load_finetune_configuration(recipe).data
    if task == "tagging":
        return "rows.conll", "".join(f"{text.split()[0]} B-X\n{text.split()[1]} O\n\n" for text in TEXTS)
    if task == "question-answering":
        answers = [{"text": "cat", "answer_start": 4}]
        qas = [{"context": text, "qas": [{"id": text, "question": "who", "answers": answers}]} for text in TEXTS]
        return "rows.json", json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": qas}]})
    if task in ("summarization", "translation"):
        pairs = [{data.text_column: text, data.label_column: text[:7]} for text in TEXTS]
        return "rows.jsonl", "\n".join(map(json.dumps, pairs))
    columns = [column for column in (data.text_column, data.pair_column, data.label_column) if column]
    lines = ["\t".join(columns)]
    for number, text in enumerate(TEXTS):
        lines.append("\t".join([text, "dogs", str(number % 2)] if data.pair_column else [text, str(number % 2)]))
    return "rows.tsv", "\n".join(lines) + "\n"


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_recipe_runs_from_python(
    tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    module = example()
    name, content = rows_of(recipe, module.TASKS[recipe])
    rows = tmp_path / name
    rows.write_text(content)
    small = ["--training.epochs", "1", "--training.batch-rows", "4"]
    if module.TASKS[recipe] in ("summarization", "translation"):
        small += ["--generation.longest-output-tokens", "6"]
    if module.TASKS[recipe] == "translation" and "own" in (PRESETS / f"{recipe}.toml").read_text():
        small += ["--decoder.vocabulary-size", "270"]
    arguments = [recipe, "--model", str(tiny_run()), "--train", str(rows), "--validation", str(rows)]
    monkeypatch.setattr(sys, "argv", ["finetune_recipe.py", *arguments, "--output", str(tmp_path / "out"), *small])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert all(isinstance(value, float) for value in json.loads(lines[0]).values())
    assert all(isinstance(json.loads(line), dict) for line in lines[1:4])
    assert lines[4].startswith("Predictor(")


@pytest.mark.parametrize(
    ("text", "summary", "beginning"),
    [("One two three four", "1, 2", "One two"), ("One two", "1, 23", "One two"), ("一二三四五六", "一二三", "一二三")],
)
def test_copies_are_first_words_as_long_as_the_summaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, summary: str, beginning: str
) -> None:
    train, output = tmp_path / "train.jsonl", tmp_path / "copies.jsonl"
    train.write_text(json.dumps({"email": text, "subject": summary}) + "\n")
    columns = ["--text-column", "email", "--label-column", "subject"]
    monkeypatch.setattr(sys, "argv", ["learn_to_copy.py", "--train", str(train), "--output", str(output), *columns])
    example("learn_to_copy").main()
    assert json.loads(output.read_text("utf-8")) == {"text": text, "summary": beginning}


def test_the_example_knows_every_recipe() -> None:
    assert set(example().TASKS) == set(recipe_names())
    assert sorted(path.stem for path in PRESETS.glob("*.toml")) == recipe_names()


def test_the_page_names_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text("utf-8")
    for name in recipe_names():
        assert f"`{name}`" in page, f"docs/finetuning.md does not name {name}"

"""A fine-tuning run says what counting words reaches on the same examples."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import command
from electrain.data.labelled.examples import TextExample
from electrain.finetuning import linear
from electrain.finetuning.linear import linear_answers, linear_scores

Runs = Callable[..., Path]


def finetuned(
    capsys: pytest.CaptureFixture[str], task: str, run: Path, tmp_path: Path, rows: list[str], suffix: str = "tsv"
) -> tuple[dict[str, float], str, str]:
    """The linear scores of a short run, and all that it says: on stderr, and in the card and the report."""
    (tmp_path / f"train.{suffix}").write_text("\n".join(rows) + "\n")
    code, _, err = command(
        capsys, "finetune", task, "--model", run, "--train", tmp_path / f"train.{suffix}", "--validation",
        tmp_path / f"train.{suffix}", "--output", tmp_path / "out", "--training.epochs", "1",
        "--data.allow-unknown", "true",
    )  # fmt: skip
    assert code in (0, 1), err
    told = [(tmp_path / "out" / name).read_text() for name in ("model/README.md", "report.html")]
    return json.loads((tmp_path / "out" / "scores.json").read_text())["linear_scores"], err, "\n".join(told)


def test_a_label_that_hangs_on_a_word_is_found_by_counting(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["text\tlabel", *(f"film {number} is {('fine', 'dull')[number % 2]}\t{number % 2}" for number in range(20))]
    scores, err, told = finetuned(capsys, "classification", tiny_run(), tmp_path, rows)
    assert scores == {"accuracy": 100.0, "f1_macro": 100.0, "matthews": 100.0}
    assert "(a linear model that counts words: 100.00)" in err
    assert "For comparison, a linear model that counts words, on the same training examples: `accuracy` 100.00" in told
    assert "accuracy, a linear model that counts words" in told


def test_pairs_are_compared_by_their_letters(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("a cat", "a cat", 5), ("a cat", "the cats", 3), ("a cat", "one dog", 0)] * 4
    rows = ["sentence1\tsentence2\tscore", *(f"{one}\t{other}\t{score}" for one, other, score in pairs)]
    scores, err, told = finetuned(capsys, "regression", tiny_run(), tmp_path, rows)
    assert scores["spearman"] == pytest.approx(100)
    assert "(the letters that the two texts share: 100.00)" in err
    assert "spearman, the letters that the two texts share" in told


@pytest.mark.parametrize(
    ("task", "suffix", "rows"),
    [
        ("classification", "jsonl", ['{"text": "a film", "labels": ["x", "y"]}', '{"text": "a b", "labels": ["x"]}']),
        ("classification", "csv", ["text,x,y", "a film,1,0", "a book,0,1"]),
        ("regression", "tsv", ["text\tscore", "a film\t1", "a book\t2"]),
        ("tagging", "conll", ["a A", "film B", "", "a A", "book B"]),
    ],
)
def test_what_cannot_be_compared_is_not(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, suffix: str, rows: list[str]
) -> None:
    scores, err, told = finetuned(capsys, task, tiny_run(), tmp_path, rows, suffix)
    assert scores == {}
    assert "linear" not in err + told


@pytest.mark.parametrize(
    ("liked", "disliked", "asked"),
    [("房间很好", "服务很差", ["早餐好", "iPhone 手机差"]), ("部屋がいい", "部屋がだめ", ["朝食がいい", "駅がだめ"])],
)
def test_scripts_without_spaces_are_counted_by_characters(liked: str, disliked: str, asked: list[str]) -> None:
    train = [TextExample(text, labels=(label,)) for text, label in ((liked, "1"), (disliked, "0"))] * 3
    assert linear_answers("classification", train, [TextExample(text) for text in asked]) == ["1", "0"]


def test_both_texts_of_a_pair_are_counted() -> None:
    train = [TextExample("a film", text, labels=(label,)) for text, label in (("good", "1"), ("bad", "0"))] * 3
    assert linear_scores("classification", train, train)["accuracy"] == 100


def test_a_part_of_sorted_examples_has_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_CHARACTERS", 200)
    train = [TextExample(f"film {label}", labels=(label,)) for label in ("good", "bad") for _ in range(50)]
    assert linear_scores("classification", train, train)["accuracy"] == 100


def test_one_label_alone_is_not_compared() -> None:
    assert linear_scores("classification", [TextExample("film", labels=("good",))] * 4, []) == {}


def test_long_texts_are_counted_to_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LONGEST_TEXT", 4)
    train = [TextExample(f"film {label}", labels=(label,)) for label in ("good", "bad")] * 4
    assert linear_scores("classification", train, train)["accuracy"] == 50


def test_many_labels_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two features are left, the commonest: two labels are known by them, and one by their absence."""
    monkeypatch.setattr(linear, "MOST_WEIGHTS", 8)
    train = [TextExample(f"{label} {number}", labels=(label,)) for label in ("w", "x", "y", "z") for number in range(5)]
    seen = [TextExample(label, labels=(label,)) for label in ("w", "x", "y", "z")]
    assert linear_scores("classification", train, seen)["accuracy"] == 75

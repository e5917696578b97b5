"""The baselines of the fine-tuning table: what needs no network learns what it can, and nothing else."""

import sys
from pathlib import Path

import pytest

from electrain.data.labelled.examples import TaggedExample, TextExample

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from finetune_baselines import LINEAR, SCORES, TRIVIAL  # noqa: E402
from finetune_table import main  # noqa: E402
from sittings import read_lines  # noqa: E402


def test_a_linear_classifier_knows_pairs_of_words() -> None:
    """`not good` and `not bad` hold the same kinds of words; the pair decides."""
    told = {"good": "yes", "bad": "no", "not good": "no", "not bad": "yes"}
    examples = [TextExample(f"{text} it is", labels=(label,)) for text, label in told.items()] * 5
    answer = LINEAR["classification"](examples, examples)
    assert answer([TextExample("so not good"), TextExample("so good")]) == ["no", "yes"]
    assert SCORES["classification"](examples, answer(examples))["accuracy"] == 100
    assert SCORES["classification"](examples, TRIVIAL["classification"](examples)(examples))["accuracy"] == 50


def test_similarity_is_that_of_shared_letters() -> None:
    pairs = [
        TextExample("the cat sleeps", "the cat sleeps", value=5.0),
        TextExample("the cat sleeps", "the cats slept", value=3.0),
        TextExample("the cat sleeps", "a dog runs home", value=0.0),
    ]
    answers = LINEAR["regression"](pairs, [])(pairs)
    assert answers[0] > answers[1] > answers[2]
    assert SCORES["regression"](pairs, answers)["spearman"] == pytest.approx(100)


def test_a_linear_tagger_reads_endings_and_neighbours() -> None:
    """Of words it has never seen; the commonest tag of a word cannot."""
    sentences = [
        TaggedExample(("the", f"{word}s", f"{word}ed"), ("D", "N", "V")) for word in ("walk", "talk", "jump", "look")
    ]
    answer = LINEAR["tagging"](sentences, sentences)
    unknown = [TaggedExample(("the", "kicks", "kicked"), ("D", "N", "V"))]
    assert answer(unknown) == [["D", "N", "V"]]
    assert TRIVIAL["tagging"](sentences)(unknown) != [["D", "N", "V"]]


def test_the_command_writes_the_baselines_without_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are quoted as their set is, and each line stands once."""
    rows = [f'"a ""fine"" day {number}"\ta fine day\t{number % 2}' for number in range(6)]
    rows = ["premise\thypothesis\tlabel", *(row.replace("\t0", "\tentailment").replace("\t1", "\tnot") for row in rows)]
    for split in ("train", "validation"):
        (tmp_path / "rte").mkdir(exist_ok=True)
        (tmp_path / "rte" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(
        "sys.argv", ["finetune_table", "--data", str(tmp_path), "--output", str(tmp_path / "out"), "--sets", "rte"]
    )
    main()
    main()
    lines = read_lines(tmp_path / "out" / "results.jsonl")
    assert [line["system"] for line in lines] == ["trivial", "linear"]
    assert "| rte | all | validation | accuracy | 50.0 |" in capsys.readouterr().out

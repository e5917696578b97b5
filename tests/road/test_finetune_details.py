"""What a user meets beside the straight road of fine-tuning: stops, odd data, odd folders, inputs of every form."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, RobertaConfig, RobertaModel

from command_line import command
from electrain.data.labelled.examples import TaggedExample, TextExample
from electrain.data.tokenizer.tokenizer import load_tokenizer, save_tokenizer
from electrain.finetuning.choosing import says_the_same
from electrain.finetuning.configuration import ExamplesConfig
from electrain.finetuning.examples import read_all

Runs = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
LABELLED = "text\tlabel\n" + "".join(
    f"the {word} sees\t{word in ('cat', 'happy')}\n" for word in ("cat", "dog", "happy", "sad")
)


def labelled(path: Path, content: str = LABELLED) -> Path:
    path.write_text(content)
    return path


def classify(capsys: Capture, model: Path, train: Path, output: Path, *more: object) -> tuple[int, Any, str]:
    return command(capsys, "finetune", "classification", "--model", model, "--train", train, "--validation", train,
                   "--output", output, "--training.epochs", "1", *more)  # fmt: skip


def test_a_stopped_seed_is_not_taken_for_one_that_diverged(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        is_asked = True
        signal = None  # that of another process

        def listening(self) -> Any:
            from contextlib import nullcontext

            return nullcontext(self)

    monkeypatch.setattr("electrain.training.loop.StopRequest", Stopped)
    train = labelled(tmp_path / "a.tsv")
    many = ["--training.batch-rows", "1", "--training.peak-learning-rate", "1e-9"]
    code, [result], err = classify(capsys, tiny_run(), train, tmp_path / "out", "--seeds", "2", *many)
    assert code == 143  # 128 + SIGTERM
    assert result == {"output": str(tmp_path / "out"), "finished": False, "seeds": []}
    assert "diverged" not in err
    code, [result], _ = classify(capsys, tiny_run(), train, tmp_path / "one", *many)
    assert code == 143  # 128 + SIGTERM
    assert not result["finished"]


def test_the_same_answer_to_everything_is_judged_by_the_truth() -> None:
    both = [TextExample("a", labels=("x",)), TextExample("b", labels=("y",))]
    assert says_the_same("classification", both, [{"label": "x"}, {"label": "x"}])
    assert not says_the_same("classification", both, [{"label": "x"}, {"label": "y"}])
    assert not says_the_same("classification", both[:1] * 2, [{"label": "x"}, {"label": "x"}])
    small = [TextExample("a", value=1e-5), TextExample("b", value=3e-5)]
    assert not says_the_same("regression", small, [{"value": 1e-5}, {"value": 2e-5}])
    assert says_the_same("regression", small, [{"value": 1e-5}, {"value": 1e-5}])
    outside = [TaggedExample(("a", "b"), ("O", "O"))]
    assert not says_the_same("tagging", outside, [{"tags": ["O", "O"]}])
    assert says_the_same("tagging", [TaggedExample(("a", "b"), ("O", "B-X"))], [{"tags": ["O", "O"]}])


def test_weights_of_another_shape_are_refused(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(tiny_run() / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"max_position_embeddings": 99}))
    code, _, err = classify(capsys, tmp_path / "model", labelled(tmp_path / "a.tsv"), tmp_path / "out")
    assert code == 2
    assert "do not have the shapes that its config.json gives" in err
    assert not (tmp_path / "out").exists()  # the mended command can use the same folder


def test_positions_of_roberta_are_counted_from_after_padding(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    tokenizer = load_tokenizer(tiny_run() / "model")
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(**sizes, intermediate_size=16, max_position_embeddings=20, pad_token_id=0)
    RobertaModel(config).save_pretrained(tmp_path / "model")
    save_tokenizer(tokenizer, tmp_path / "model", with_token_types=False, model_max_length=512)
    train = labelled(tmp_path / "a.tsv", "text\tlabel\n" + f"{'cat ' * 40}\tx\n{'dog ' * 40}\ty\n")
    code, [result], err = classify(capsys, tmp_path / "model", train, tmp_path / "out")
    assert code == 0
    assert result["finished"]
    assert "rows have at most 19 tokens" in err
    assert "2 of 2 training texts are longer than 19 tokens: only the beginning is read; read more with" in err
    code, [answer], err = command(capsys, "predict", "classify", "cat " * 40, "--model", tmp_path / "out")
    assert set(answer["probabilities"]) == {"x", "y"}
    assert "only the beginning is read" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "cat", "label": "a"}\n{"text": "dog", "label": "b"}\n{"text": "sad", "label": []}\n', ""),
        ('{"text": "cat", "label": []}\n{"text": "dog", "label": []}\n', "no label at all"),
    ],
)
def test_lists_of_labels(tiny_run: Runs, tmp_path: Path, capsys: Capture, content: str, message: str) -> None:
    train = labelled(tmp_path / "a.jsonl", content)
    code, _, err = classify(capsys, tiny_run(), train, tmp_path / "out")
    assert code == (2 if message else 0)
    assert message in err


def test_a_drawn_part_of_the_examples_keeps_the_kind_of_all(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    """Whether a text may have several labels is a property of the data set, not of the few examples drawn from it."""
    rows: list[dict[str, Any]] = [{"text": f"cat {'dog ' * number}", "label": "ab"[number % 2]} for number in range(20)]
    rows[-1]["label"] = ["a", "b"]
    train = labelled(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    drawn = read_all("classification", ExamplesConfig(train_examples=2), [str(train)], [str(train)], seed=0).train
    assert all(len(example.labels) == 1 for example in drawn)
    code, _, err = classify(capsys, tiny_run(), train, tmp_path / "out", "--data.train-examples", "2")
    assert code == 0, err
    _, [answer], _ = command(capsys, "predict", "classify", "cat", "--model", tmp_path / "out")
    assert "labels" in answer


def test_a_model_of_one_label_each_is_not_scored_on_several(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = labelled(tmp_path / "a.jsonl", '{"text": "cat", "label": "a"}\n{"text": "dog", "label": "b"}\n')
    other = labelled(tmp_path / "b.jsonl", '{"text": "cat", "label": "a"}\n{"text": "dog", "label": ["a", "b"]}\n')
    classify(capsys, tiny_run(), train, tmp_path / "out")
    code, _, err = command(capsys, "evaluate", "classification", "--model", tmp_path / "out", "--data", other)
    assert code == 2
    assert "b.jsonl:2" in err
    assert "2 labels (a, b)" in err


def test_labels_that_only_look_like_numbers(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = labelled(tmp_path / "a.tsv", "text\tlabel\ncat\t²\ndog\t--1\nsad\t10\nhappy\t9\n")
    code, _, _ = classify(capsys, tiny_run(), train, tmp_path / "out")
    assert code == 0
    assert set(AutoConfig.from_pretrained(tmp_path / "out/model").label2id) == {"²", "--1", "10", "9"}
    numbered = labelled(tmp_path / "b.tsv", "text\tlabel\ncat\t10\ndog\t9\n")
    classify(capsys, tiny_run(), numbered, tmp_path / "numbered")
    assert AutoConfig.from_pretrained(tmp_path / "numbered/model").id2label == {0: "9", 1: "10"}


def test_one_tag_only(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = labelled(tmp_path / "a.conll", "the O\ncat O\n\n")
    code, _, err = command(capsys, "finetune", "tagging", "--model", tiny_run(), "--train", train, "--validation",
                           train, "--output", tmp_path / "out")  # fmt: skip
    assert code == 2
    assert "only one label ('O')" in err


def test_a_run_goes_on_though_its_data_has_moved(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = labelled(tmp_path / "a.tsv")
    classify(capsys, tiny_run(), train, tmp_path / "out")
    moved = tmp_path / "elsewhere.tsv"
    train.rename(moved)
    code, [result], _ = classify(capsys, tiny_run(), moved, tmp_path / "out", "--resume")
    assert code == 0
    assert result["finished"]


def test_a_prediction_does_not_depend_on_its_neighbours(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    classify(capsys, tiny_run(), labelled(tmp_path / "a.tsv"), tmp_path / "out")
    inputs = labelled(tmp_path / "in.jsonl", '{"text": "the happy cat"}\n\n{"text": "x", "pair": "the dog"}\n')
    code, answers, _ = command(capsys, "predict", "classify", "--model", tmp_path / "out", "--input", inputs)
    assert code == 0
    # texts stand before and after options
    _, [alone, other], _ = command(capsys, "predict", "classify", "the happy cat", "--model", tmp_path / "out", "x")
    assert answers[1] == {"text": ""}
    assert [answers[0]["text"], answers[2]["text"]] == ["the happy cat", "x"]
    assert "pair" not in answers[2]  # the model was not trained on pairs
    assert answers[0]["probability"] == pytest.approx(alone["probability"], abs=1e-6)
    assert answers[2]["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_json_lines_have_the_fields_of_training(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    rows = [{"tokens": ["the", "cat"], "ner_tags": ["O", "B-X"]}, {"tokens": ["a", "dog"], "ner_tags": ["O", "O"]}]
    train = labelled(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    command(capsys, "finetune", "tagging", "--model", tiny_run(), "--train", train, "--validation", train, "--output",
            tmp_path / "tags", "--training.epochs", "1")  # fmt: skip
    inputs = labelled(tmp_path / "in.jsonl", '{"tokens": ["a", "cat"]}\n{"words": ["dog"]}\n{"text": "the dog."}\n')
    _, answers, _ = command(capsys, "predict", "tag", "--model", tmp_path / "tags", "--input", inputs)
    assert [answer["words"] for answer in answers] == [["a", "cat"], ["dog"], ["the", "dog", "."]]
    labelled(inputs, '{"tokens": "a cat"}\n')
    code, _, err = command(capsys, "predict", "tag", "--model", tmp_path / "tags", "--input", inputs)
    assert code == 2
    assert "in.jsonl:1" in err
    rows = [{"id": "q7", "query": "who", "passage": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}}]
    train = labelled(tmp_path / "q.jsonl", json.dumps(rows[0]) + "\n")
    code, _, err = command(
        capsys, "finetune", "question-answering", "--model", tiny_run(), "--train", train, "--validation", train,
        "--output", tmp_path / "answers", "--training.epochs", "1", "--data.text-column", "query",
        "--data.pair-column", "passage", "--data.label-column", "answers",
    )  # fmt: skip
    assert code == 0, err
    for question, context in (("query", "passage"), ("question", "context")):
        lines = [{"id": "abc", question: "who", context: "a dog"}, {question: "who", context: "a cat"}]
        labelled(inputs, "\n".join(map(json.dumps, lines)) + "\n")
        _, answers, _ = command(capsys, "predict", "answer", "--model", tmp_path / "answers", "--input", inputs)
        assert [answer["id"] for answer in answers] == ["abc", "2"]


def test_a_table_of_other_columns_is_read_by_the_usual_names(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    classify(capsys, tiny_run(), labelled(tmp_path / "a.tsv"), tmp_path / "out")
    table = labelled(tmp_path / "b.tsv", "sentence\tstars\nthe cat\t3\n")
    _, [answer], _ = command(capsys, "predict", "classify", "--model", tmp_path / "out", "--input", table)
    assert answer["text"] == "the cat"
    code, _, err = command(capsys, "evaluate", "classification", "--model", tmp_path / "out", "--data", table)
    assert code == 2
    assert "--text-column" in err
    assert "--data." not in err


def test_flags_where_they_do_not_belong(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = labelled(tmp_path / "a.tsv")
    code, _, err = classify(capsys, tiny_run(), train, tmp_path / "out", "--decoder", "generator")
    assert code == 2
    assert "classification does not read it, only summarization, translation" in err
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = classify(capsys, tiny_run(), train, tmp_path / "out", "--seeds", "2")
    assert code == 2
    assert "runs in one process" in err


def test_embeddings_of_unknown_and_long_texts(tiny_run: Runs, capsys: Capture) -> None:
    _, [answer], _ = command(capsys, "predict", "embed", "🙂", "--model", tiny_run())
    assert any(answer["embedding"])
    _, _, err = command(capsys, "predict", "embed", "cat " * 50, "--model", tiny_run())
    assert "1 of 1 text is longer than 24 tokens" in err


def test_scores_say_what_they_depend_on(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    train = labelled(tmp_path / "a.conll", "the O\ncat B-X\n\na O\ndog O\n")
    command(capsys, "finetune", "tagging", "--model", tiny_run(), "--train", train, "--validation", train, "--output",
            tmp_path / "out", "--training.epochs", "1", "--training.precision", "bfloat16")  # fmt: skip
    kept = json.loads((tmp_path / "out/scores.json").read_text())
    assert kept["settings"]["precision"] == "bfloat16"
    assert "conlleval" in kept["settings"]["entities"]
    wider = labelled(tmp_path / "b.conll", "the D O\ncat N B-X\n\na D O\ndog N O\n")
    _, [scored], err = command(capsys, "evaluate", "tagging", "--model", tmp_path / "out", "--data", wider)
    assert "b.conll: it has 3 columns: the words are read from column 1, the tags from 3" in err
    assert scored["settings"]["precision"] == "float32"
    assert scored["settings"]["longest_tokens"] == 24

"""Fine-tuning through the real command line: examples and a pretrained folder in; a model, scores and answers out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from command_line import command
from tiny_pretraining import INVENTED_WORDS, SPECIAL_IDS

WORDS = INVENTED_WORDS[:40]
Runs = Callable[..., Path]
# A tiny network with random weights learns the invented tasks in seconds at this rate.
QUICK = ["--training.peak-learning-rate", "5e-3", "--training.layer-decay", "1", "--training.dropout", "0"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """`pretrained(backbone)`: an encoder's folder with random weights and a vocabulary of invented words."""
    from electrain.data.tokenizer.tokenizer import save_tokenizer, word_piece_tokenizer, wrap
    from electrain.models.backbones import EncoderConfig, encoder_configuration
    from electrain.models.discriminator import Discriminator

    made: dict[str, Path] = {}

    def make(backbone: str = "electra") -> Path:
        if backbone not in made:
            torch.manual_seed(3)
            tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
            encoder = EncoderConfig(layers=1, hidden_size=32, feed_forward_size=64, heads=2, backbone=backbone)  # type: ignore[arg-type]
            configuration = encoder_configuration(
                encoder,
                vocabulary_size=len(tokens),
                sequence_length=32,
                dropout=0.1,
                special_ids=SPECIAL_IDS,
            )
            folder = tmp_path_factory.mktemp(backbone)
            Discriminator(configuration).network.save_pretrained(folder)
            tokenizer = wrap(word_piece_tokenizer({token: number for number, token in enumerate(tokens)}, cased=False))
            save_tokenizer(tokenizer, folder, with_token_types=backbone != "modernbert")
            made[backbone] = folder
        return made[backbone]

    return make


def sentences(count: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [[WORDS[n] for n in random.integers(0, 40, size)] for size in random.integers(2, 9, count).tolist()]


def write_labelled(path: Path, count: int, seed: int) -> Path:
    """A text is "high" when most of its words are of the second half."""
    lines = ["sentence\tlabel"]
    for words in sentences(count, seed):
        high = sum(WORDS.index(word) >= 20 for word in words)
        lines.append(f"{' '.join(words)}\t{'high' if 2 * high >= len(words) else 'low'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_scored(path: Path, count: int, seed: int) -> Path:
    """Pairs, scored by how many words of the second half they have."""
    lines = ["sentence1\tsentence2\tscore"]
    for words in sentences(count, seed):
        high = sum(WORDS.index(word) >= 20 for word in words) / len(words)
        lines.append(f"{words[0]}\t{' '.join(words[1:])}\t{5 * high:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_tagged(path: Path, count: int, seed: int) -> Path:
    """Names are words whose number divides by four."""
    lines = []
    for words in sentences(count, seed):
        lines += [f"{word} {'B-N' if WORDS.index(word) % 4 == 0 else 'O'}" for word in words] + [""]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_questions(path: Path, count: int, seed: int) -> Path:
    """The answer is the word that the question repeats."""
    paragraphs = []
    for number, words in enumerate(sentences(count, seed)):
        context = " ".join(words)
        answer = words[number % len(words)]
        qas = {
            "id": str(number),
            "question": answer,
            "answers": [{"text": answer, "answer_start": context.index(answer)}],
        }
        paragraphs.append({"context": context, "qas": [qas]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


TASKS: dict[str, tuple[Callable[[Path, int, int], Path], str, str, float, Any]] = {
    "classification": (write_labelled, "tsv", "accuracy", 85.0, AutoModelForSequenceClassification),
    "regression": (write_scored, "tsv", "spearman", 80.0, AutoModelForSequenceClassification),
    "tagging": (write_tagged, "conll", "f1", 90.0, AutoModelForTokenClassification),
    "question-answering": (write_questions, "json", "exact_match", 40.0, AutoModelForQuestionAnswering),
}


@pytest.mark.parametrize(
    ("task", "backbone"),
    [(task, backbone) for task in TASKS for backbone in ("electra", "modernbert")] + [("classification", "bert")],
)
def test_a_task_is_learned_saved_scored_and_answered(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, backbone: str
) -> None:
    write, suffix, main_score, least, model_class = TASKS[task]
    train = write(tmp_path / f"train.{suffix}", 600, 0)
    held_out = write(tmp_path / f"validation.{suffix}", 100, 1)
    run = tmp_path / "run"
    epochs = ["--training.epochs", "6" if "ssion" in task or "ification" in task else "14"]
    code, [result], err = command(
        capsys, "finetune", task, "--model", pretrained(backbone), "--train", train, "--validation", held_out,
        "--output", run, "--training.precision", "float32", *epochs, *QUICK,
    )  # fmt: skip
    assert code == 0
    assert result["finished"]
    assert result["scores"][main_score] >= least, err
    _, report = model_class.from_pretrained(run / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    AutoTokenizer.from_pretrained(run / "model")
    code, [scored], _ = command(
        capsys, "evaluate", task, "--model", run, "--data", held_out, "--output", tmp_path / "scores.json",
        "--predictions", tmp_path / "predictions.jsonl",
    )  # fmt: skip
    assert scored["scores"] == pytest.approx(result["scores"])
    assert json.loads((tmp_path / "scores.json").read_text()) == scored
    told = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(told) == scored["examples"]
    verb = {"classification": "classify", "regression": "regress", "tagging": "tag", "question-answering": "answer"}[
        task
    ]
    code, again, _ = command(capsys, "predict", verb, "--model", run, "--input", held_out)
    assert code == 0
    assert all("gold" in one for one in told)
    assert again == [{name: value for name, value in one.items() if name != "gold"} for one in told]


def test_predictions_of_each_form(pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments, lines and JSON lines give the same answers as the same texts in a table."""
    run = tmp_path / "run"
    train = write_scored(tmp_path / "train.tsv", 60, 0)
    command(capsys, "finetune", "regression", "--model", pretrained(), "--train", train, "--validation", train,
            "--output", run)  # fmt: skip
    first, second = WORDS[0], f"{WORDS[1]} {WORDS[25]}"
    _, [argument], _ = command(capsys, "predict", "regress", f"{first}\t{second}", "--model", run)
    lines = tmp_path / "in.jsonl"
    lines.write_text(
        json.dumps({"sentence1": first, "sentence2": second}) + "\n" + json.dumps({"text": first, "pair": second})
    )
    _, records, _ = command(capsys, "predict", "regress", "--model", run, "--input", lines)
    for record in records:
        assert record.pop("value") == pytest.approx(argument["value"], abs=1e-6)
        assert record == {"text": first, "pair": second}
    code, _, err = command(capsys, "predict", "regress", first, "--model", run)
    assert code == 2
    assert "write a tab between them" in err
    code, _, err = command(capsys, "predict", "classify", first, "--model", run)
    assert code == 2
    assert "was fine-tuned for regression, not for classification" in err


def test_several_labels_at_once(pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for words in sentences(600, 0):
        numbers = [WORDS.index(word) for word in words]
        labels = [
            name
            for name, first in (("small", 0), ("middle", 10), ("large", 30))
            if any(first <= n < first + 10 for n in numbers)
        ]
        lines.append(json.dumps({"text": " ".join(words), "labels": labels}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    code, [result], _ = command(
        capsys, "finetune", "classification", "--model", pretrained("modernbert"), "--train", tmp_path / "train.jsonl",
        "--validation", tmp_path / "train.jsonl", "--output", tmp_path / "run", "--training.epochs", "16", *QUICK,
    )  # fmt: skip
    assert code == 0
    assert result["scores"]["f1_micro"] > 90
    _, [answer], _ = command(capsys, "predict", "classify", f"{WORDS[2]} {WORDS[12]}", "--model", tmp_path / "run")
    assert answer["labels"] == ["middle", "small"]


def test_long_sentences_are_tagged_to_their_end(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_tagged(tmp_path / "train.conll", 600, 0)
    command(capsys, "finetune", "tagging", "--model", pretrained("modernbert"), "--train", train, "--validation", train,
            "--output", tmp_path / "run", "--training.epochs", "6", "--data.longest-tokens", "16", *QUICK)  # fmt: skip
    words = WORDS * 5
    _, [answer], _ = command(capsys, "predict", "tag", " ".join(words), "--model", tmp_path / "run")
    assert answer["words"] == words
    right = [(tag != "O") == (WORDS.index(word) % 4 == 0) for word, tag in zip(words, answer["tags"], strict=True)]
    assert np.mean(right) > 0.9
    assert [entity["text"] for entity in answer["entities"][:3]] == [WORDS[0], WORDS[4], WORDS[8]]


def test_the_reference_head_comes_out_as_hugging_face_has_it(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_labelled(tmp_path / "train.tsv", 300, 0)
    code, [result], _ = command(
        capsys, "finetune", "classification", "--model", pretrained(), "--train", train, "--validation", train,
        "--output", tmp_path / "run", "--head.kind", "reference", "--training.precision", "float32", *QUICK,
    )  # fmt: skip
    assert code == 0
    _, [scored], _ = command(capsys, "evaluate", "classification", "--model", tmp_path / "run", "--data", train)
    assert scored["scores"] == pytest.approx(result["scores"])
    code, _, err = command(
        capsys, "finetune", "classification", "--model", pretrained("modernbert"), "--train", train,
        "--validation", train, "--output", tmp_path / "other", "--head.kind", "reference",
    )  # fmt: skip
    assert code == 2
    assert "is for an ELECTRA encoder" in err


def test_seeds_are_summed_up(pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write_labelled(tmp_path / "train.tsv", 300, 0)
    code, [result], _ = command(
        capsys, "finetune", "classification", "--model", pretrained(), "--train", train, "--validation", train,
        "--output", tmp_path / "run", "--seeds", "3", "--training.epochs", "6", *QUICK,
    )  # fmt: skip
    assert code == 0
    scores = [
        json.loads((tmp_path / "run" / f"seed-{seed}" / "scores.json").read_text())["scores"]["accuracy"]
        for seed in range(3)
    ]
    summary = result["scores"]["accuracy"]
    assert summary == {"median": sorted(scores)[1], "least": min(scores), "greatest": max(scores)}
    assert scores[int(result["best"].removeprefix("seed-"))] == max(scores)
    best = tmp_path / "run" / result["best"] / "model" / "model.safetensors"
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == best.read_bytes()


def test_a_seed_that_says_the_same_of_everything_is_run_again(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_labelled(tmp_path / "train.tsv", 40, 0)
    code, [result], err = command(
        capsys, "finetune", "classification", "--model", pretrained(), "--train", train, "--validation", train,
        "--output", tmp_path / "run", "--seeds", "1", "--training.peak-learning-rate", "1e-9",
    )  # fmt: skip
    assert code == 0
    assert result["restarted_seeds"] == [0, 1000]
    assert result["diverged"] == 1
    assert "seed 0 diverged; seed 1000 replaces it" in err


def test_patience_ends_a_run_early(pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write_labelled(tmp_path / "train.tsv", 100, 0)
    run = tmp_path / "run"
    code, [result], _ = command(
        capsys, "finetune", "classification", "--model", pretrained(), "--train", train, "--validation", train,
        "--output", run, "--training.epochs", "40", "--training.patience-evaluations", "2", "--training.weights",
        "fresh", *QUICK,
    )  # fmt: skip
    assert code == 0
    assert result["finished"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if line["event"] == "validation"]
    assert len(evaluated) < 40
    best = max(range(len(evaluated)), key=lambda number: evaluated[number]["accuracy"])
    assert len(evaluated) - 1 - best == 2
    assert result["best_step"] == evaluated[best]["step"]


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("sentence\tlabel\nbak\thigh\nbal\thigh\n", [], "only one label"),
        ("sentence\tother\nbak\thigh\nbal\tlow\n", [], "label"),
        ("sentence\tlabel\nbak\thigh\nbal\n", [], "train.tsv:3"),
        ("sentence\tlabel\nbak\thigh\nbal\tlow\n", ["--data.train-examples", "9"], "has only 2 training examples"),
        ("sentence\tlabel\nbak\thigh\nbal\tlow\n", ["--training.epoch", "9"], "did you mean 'epochs'"),
        ("sentence\tlabel\nbak\thigh\nbal\tlow\n", ["--data.label-column", "lable"], "lable"),
        ("sentence\tlabel\nbak\thigh\nbal\tlow\n", ["--config", "sst3"], "sst2"),
    ],
)
def test_mistakes_get_one_line(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, more: list[str], message: str
) -> None:
    (tmp_path / "train.tsv").write_text(content)
    model = pretrained()
    capsys.readouterr()  # the first test that asks for the model saves it, with a progress bar
    code, out, err = command(
        capsys, "finetune", "classification", "--model", model, "--train", tmp_path / "train.tsv",
        "--validation", tmp_path / "train.tsv", "--output", tmp_path / "run", *more,
    )  # fmt: skip
    assert code == 2
    assert not out
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_labels_that_training_never_had(pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write_labelled(tmp_path / "train.tsv", 20, 0)
    (tmp_path / "validation.tsv").write_text("sentence\tlabel\nbak\thigh\nbal\thihg\n")
    code, _, err = command(
        capsys, "finetune", "classification", "--model", pretrained(), "--train", train, "--validation",
        tmp_path / "validation.tsv", "--output", tmp_path / "run",
    )  # fmt: skip
    assert code == 2
    assert "validation.tsv:3" in err
    assert "hihg" in err


def test_folders_that_are_not_what_is_needed(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_labelled(tmp_path / "train.tsv", 20, 0)
    for folder, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "holds neither model/")):
        code, _, err = command(capsys, "finetune", "classification", "--model", folder, "--train", train,
                               "--validation", train, "--output", tmp_path / "run")  # fmt: skip
        assert code == 2
        assert message in err
    code, _, err = command(capsys, "evaluate", "classification", "--model", pretrained(), "--data", train)
    assert code == 2
    assert "without a task" in err
    code, _, err = command(capsys, "predict", "translate", "bak", "--model", pretrained())
    assert code == 2
    assert "without a task" in err


def test_embeddings_do_not_depend_on_the_batch(
    pretrained: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [" ".join(words) for words in sentences(6, 4)]
    _, together, _ = command(capsys, "predict", "embed", *texts, "--model", pretrained("modernbert"))
    for text, answer in zip(texts, together, strict=True):
        _, [alone], _ = command(capsys, "predict", "embed", text, "--model", pretrained("modernbert"))
        assert answer["embedding"] == pytest.approx(alone["embedding"], abs=1e-5)
        assert len(alone["embedding"]) == 32

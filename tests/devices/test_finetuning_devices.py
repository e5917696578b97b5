"""Fine-tuning on each device: every task is trained, scored, resumed and asked, through the real command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import command
from electrain.inference.asked import TASK_OF_VERB
from tiny_pretraining import INVENTED_WORDS

Trained = Callable[[str], Path]
TEXTS = [" ".join(INVENTED_WORDS[n : n + 2 + n % 5]) for n in range(24)]


def write_examples(task: str, folder: Path) -> Path:
    """A file of 24 examples of a task."""
    if task == "question-answering":
        paragraphs = [
            {
                "context": text,
                "qas": [{"id": text, "question": "ba", "answers": [{"text": text.split()[1], "answer_start": 4}]}],
            }
            for text in TEXTS
        ]
        path = folder / "examples.json"
        path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    elif task == "tagging":
        path = folder / "examples.conll"
        path.write_text("\n\n".join("\n".join(f"{word} {word[0]}" for word in text.split()) for text in TEXTS) + "\n")
    else:
        path = folder / "examples.jsonl"
        answers = {
            "classification": lambda n: {"label": f"kind {n % 3}"},
            "regression": lambda n: {"score": n / 2},
            "summarization": lambda n: {"summary": TEXTS[n].split()[0]},
            "translation": lambda n: {"target": TEXTS[-n]},
        }[task]
        names = {"summarization": "document", "translation": "source"}
        lines = [{names.get(task, "text"): text, **answers(n)} for n, text in enumerate(TEXTS)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


VERBS = {task: verb for verb, task in TASK_OF_VERB.items()}
SHORT_OUTPUTS = ("--generation.longest-output-tokens", "4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "options"),
    [
        ("classification", "replaced_token_detection_electra", ()),
        ("classification", "replaced_token_detection_modernbert", ()),
        ("classification", "bert", ()),
        ("regression", "replaced_token_detection_electra", ()),
        ("tagging", "replaced_token_detection_modernbert", ()),
        # Questions are in English, which the invented vocabulary does not know.
        ("question-answering", "replaced_token_detection_electra", ("--allow-unknown",)),
        ("summarization", "causal", ("--decoder", "generator", *SHORT_OUTPUTS)),
        ("translation", "replaced_token_detection_electra", ("--decoder", "encoder", *SHORT_OUTPUTS)),
        ("translation", "replaced_token_detection_modernbert", ("--decoder.vocabulary", "own", *SHORT_OUTPUTS)),
    ],
)
def test_a_task_is_trained_scored_resumed_and_asked(
    device: str,
    task: str,
    name: str,
    options: tuple[str, ...],
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples, run = write_examples(task, tmp_path), tmp_path / "run"
    training = [
        "finetune", task, "--model", trained(name), "--train", examples, "--validation", examples, "--output", run,
        "--training.epochs", 2, "--training.batch-rows", 8, "--training.precision", "float32", *options,
    ]  # fmt: skip
    code, [result], err = command(capsys, *training)
    assert result["finished"], err
    weights = {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}
    steps = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    assert len(steps) == 2
    shutil.rmtree(steps[1])
    shutil.rmtree(run / "model")
    code, [again], err = command(capsys, *training, "--resume")
    assert code == 0, err
    assert again["scores"] == result["scores"]
    if (run / "model").is_dir():  # the best model was of the second half
        assert {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")} == weights
        code, [scored], err = command(capsys, "evaluate", task, "--model", run, "--data", examples)
        assert scored["examples"] == len(TEXTS), err
        code, told, err = command(capsys, "predict", VERBS[task], "--model", run, "--input", examples)
        assert len(told) == len(TEXTS), err

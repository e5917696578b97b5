"""`predictions.jsonl`: the best model's answer to each validation example, kept so that a report can show errors."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from electrain.finetuning.tasks.metrics import answer_scores, looks_chinese
from electrain.finetuning.tasks.task import Answer
from electrain.foundation.errors import RunDirectoryError
from electrain.foundation.json_output import to_json
from electrain.foundation.output_folder import write_text_durably
from electrain.foundation.report_page import Record, json_lines

PREDICTIONS_NAME = "predictions.jsonl"
# Longer texts are cut in a report.
SHOWN_CHARACTERS = 300
NO_ANSWER = "(no answer)"


@dataclass(frozen=True)
class Judged:
    """One validation example and the answer to it, as a report shows them.

    `labels` are the true and the predicted label of the text, or of each word in tagging; None on one side for a label
    that only the other side has; empty for tasks without labels.
    """

    source: str  # file, without its folder, and line
    text: str
    expected: str
    predicted: str
    error: float  # how far the answer is from what was expected, on the task's own scale; 0 where it is right
    labels: tuple[tuple[str | None, str | None], ...] = ()


def write_predictions(output: Path, examples: Sequence[Any], answers: Sequence[Answer]) -> None:
    """Writes the validation examples and the answers of the model that is kept: one JSON object per line."""
    pairs = zip(examples, answers, strict=True)
    records = [{"example": dataclasses.asdict(example), "answer": answer} for example, answer in pairs]
    lines = [to_json(record) + "\n" for record in records]
    write_text_durably(output / PREDICTIONS_NAME, "".join(lines))


def read_judged(run_directory: Path, task: str) -> list[Judged]:
    """The validation examples of a run with their answers; none where the run kept none, or for an unknown task."""
    judge = _JUDGES.get(task)
    if judge is None:
        return []
    judged, path = [], run_directory / PREDICTIONS_NAME
    for number, record in enumerate(json_lines(path), 1):
        example, answer = record.get("example"), record.get("answer")
        if isinstance(example, dict) and isinstance(answer, dict):
            try:
                judged.append(judge(example | {"source": Path(example["source"]).name}, answer))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise RunDirectoryError(
                    f"{path}:{number}: damaged (no example and answer of {task}); copy the file again, or remove it"
                ) from error
    return judged


def _classified(example: Record, answer: Record) -> Judged:
    true, given = example["labels"], answer.get("labels", [answer.get("label")])
    chances: dict[str, float] = answer["probabilities"]
    error = max((abs(chance - (label in true)) for label, chance in chances.items()), default=0.0)
    pairs = [
        (label if label in true else None, label if label in given else None)
        for label in dict.fromkeys([*true, *given])
    ]
    return Judged(
        example["source"],
        shown_texts(example["first"], example["second"]),
        ", ".join(true),
        ", ".join(f"{label} ({chances[label]:.2f})" for label in given),
        0.0 if set(true) == set(given) else error,
        tuple(pairs) if "labels" in answer else ((true[0], given[0]),),
    )


def _measured(example: Record, answer: Record) -> Judged:
    true, given = example["value"], answer["value"]
    text = shown_texts(example["first"], example["second"])
    return Judged(example["source"], text, f"{true:g}", f"{given:.3g}", abs(true - given))


def _tagged(example: Record, answer: Record) -> Judged:
    labels = tuple(zip(example["tags"], answer["tags"], strict=True))
    wrong = [(word, *pair) for word, pair in zip(example["words"], labels, strict=True) if pair[0] != pair[1]]
    return Judged(
        example["source"],
        shortened(" ".join(example["words"])),
        shortened(", ".join(f"{word} {true}" for word, true, _ in wrong)),
        shortened(", ".join(f"{word} {given}" for word, _, given in wrong)),
        float(len(wrong)),
        labels,
    )


def _answered(example: Record, answer: Record) -> Judged:
    accepted = list(dict.fromkeys(text for text, _ in example["answers"]))
    given = answer["answer"]
    if accepted and given is not None:
        scores = answer_scores([accepted], [given], by_characters=looks_chinese([example["context"]]))
        error = 0.0 if scores["exact_match"] else 1 - scores["f1"] / 100
    else:
        error = float(bool(accepted) or given is not None)
    return Judged(
        example["source"],
        shown_texts(example["question"], example["context"]),
        " / ".join(accepted) or NO_ANSWER,
        f"{NO_ANSWER if given is None else given} ({answer['score']:.2f})",
        error,
    )


def _written(example: Record, answer: Record) -> Judged:
    references = list(filter(None, [example["target"], *example["references"]]))
    output = answer["output"]
    overlap = max(_overlap(reference, output) for reference in references)
    expected = shortened(references[0])
    return Judged(example["source"], shortened(example["text"]), expected, shortened(output), 1 - overlap)


_JUDGES: dict[str, Callable[[Record, Record], Judged]] = {
    "classification": _classified,
    "regression": _measured,
    "tagging": _tagged,
    "question-answering": _answered,
    "summarization": _written,
    "translation": _written,
}


def _overlap(one: str, other: str) -> float:
    """F1 of the pairs of neighbouring characters, in [0, 1]: any language, no library, and close to chrF in order."""
    if one == other:
        return 1.0
    pairs = [Counter(pairwise(text)) for text in (one, other)]
    total = pairs[0].total() + pairs[1].total()
    return 2 * (pairs[0] & pairs[1]).total() / total if total else 0.0


def shown_texts(first: str, second: str | None) -> str:
    """A text or a pair as a report shows it."""
    return shortened(first if second is None else f"{first} | {second}")


def shortened(text: str) -> str:
    """The beginning of a text that is too long for a report."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"

"""Texts per second and scores of exported folders, beside Hugging Face's pipeline and `predict` on PyTorch.

    python benchmarks/onnx_table.py --case NAME RUN FILE [--speed NAME RUN FILE] [--loss NAME RUN FILE] [...] \\
        [--texts N] [--turns N] [--clock wall|processor] [--output LINES.jsonl]

RUN is a run or model of `electrain finetune` for classification or tagging, FILE its examples. `--case` measures the
speed on the first N of them and the score on all; `--speed` the speed alone, for weights that nobody trained; `--loss`
the score alone. A loss is the accuracy of PyTorch less that of an exported folder, in points, with an interval that
holds 95% of the losses on examples drawn anew, with replacement and the same ones for both (seed 0).

The contestants take turns, so that other work on the machine slows each alike; ratios are taken turn by turn to the
pipeline with its own batch size, which is 1. Threads: OMP_NUM_THREADS, for PyTorch and onnxruntime. On a busy machine
`--clock processor` counts the seconds that the process computed, which mean something on one thread only. A line of
JSON for each case goes to stdout.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from transformers import pipeline

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.examples import TaggedExample
from electrain.data.labelled.labels import NO_SEPARATOR, in_spelling_of
from electrain.data.labelled.reading import read_examples
from electrain.data.tokenizer.plain_text import cleaner_for
from electrain.finetuning.tasks.settings import FineTuned
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.inference.export.exporting import export_model
from electrain.inference.export.networks import ExportedNetworks
from electrain.inference.export.sessions import threads
from electrain.pretraining.run_folder import open_run_folder

PIPELINES = {"classification": "text-classification", "tagging": "token-classification"}
VERBS = {"classification": "classify", "tagging": "tag"}
GOOD_BATCH = 32
DRAWS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--case", "--speed", "--loss"):
        parser.add_argument(name, nargs=3, action="append", default=[], metavar=("NAME", "RUN", "FILE"))
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for kind in ("case", "speed", "loss"):
        for name, run, file in getattr(options, kind):
            line = json.dumps(measured(name, run, file, options, kind))
            print(line, flush=True)
            if options.output:
                with open(options.output, "a", encoding="utf-8") as lines:
                    lines.write(line + "\n")


def measured(name: str, run: str, file: str, options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """One line: speeds of all contestants, and the scores of those that differ."""
    tuned = load_fine_tuned(run, ("classification", "tagging"))
    examples = examples_of(tuned, file)
    with tempfile.TemporaryDirectory() as folder:
        ours = {"PyTorch": tuned}
        for label, quantize in (("ONNX float32", "none"), ("ONNX int8", "int8")):
            output = Path(folder) / quantize
            export_model(run, output, quantize)  # type: ignore[arg-type]
            ours[label] = ExportedNetworks(output).fine_tuned(VERBS[tuned.settings.task])
        figures = {} if kind == "loss" else compared(contestants(run, ours, examples[: options.texts]), options)
        scores = {} if kind == "speed" else scored(ours, examples)
        sizes = {q: sum(one.stat().st_size for one in (Path(folder) / q).glob("*.onnx")) for q in ("none", "int8")}
    return {
        **{"case": name, "file": Path(file).name, "examples": len(examples), "texts": options.texts},
        **{"threads": torch.get_num_threads(), "onnx_threads": threads()},
        **{"turns": options.turns, "clock": options.clock},
        **{"texts_per_second": figures, "scores": scores, "bytes": sizes},
    }


def scored(ours: dict[str, FineTuned], examples: list[Any]) -> dict[str, Any]:
    """The accuracy of each, how many answers differ from those of PyTorch, and the loss with its interval."""
    scores: dict[str, Any] = {}
    base: list[list[str]] = []
    for label, model in ours.items():
        answers = model.task.answer(model.model, examples)
        scores[label] = round(model.task.score(examples, answers)["accuracy"], 2)
        decisions = [one["tags"] if "tags" in one else [one["label"]] for one in answers]
        base = base or decisions
        scores[f"{label}, changed answers"] = sum(a != b for a, b in zip(base, decisions, strict=True))
        scores[f"{label}, loss"] = loss(examples, base, decisions)
    return scores


def loss(examples: list[Any], base: list[list[str]], decisions: list[list[str]]) -> dict[str, Any]:
    """Points of accuracy that are lost, with the interval that holds the losses of 95% of 10,000 draws of examples."""
    truth = [one.tags if isinstance(one, TaggedExample) else one.labels for one in examples]
    right = [
        [sum(a == b for a, b in zip(own, true, strict=True)) for own, true in zip(chosen, truth, strict=True)]
        for chosen in (base, decisions)
    ]
    lost, counts = np.array(right[0]) - np.array(right[1]), np.array([len(one) for one in truth])
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(counts), len(counts)) for _ in range(DRAWS))
    losses = [100 * lost[draw].sum() / counts[draw].sum() for draw in drawn]
    interval = [round(float(one), 3) for one in np.percentile(losses, [2.5, 97.5])]
    return {"points": round(float(100 * lost.sum() / counts.sum()), 3), "interval": interval}


def examples_of(tuned: FineTuned, file: str) -> list[Any]:
    own = {key: value for key, value in tuned.settings.columns.items() if value and key != "references"}
    columns = Columns(**({"label_separator": NO_SEPARATOR} | own)) if own else Columns()
    read = read_examples(tuned.settings.task, [file], columns, clean=cleaner_for(tuned.task.tokenizer))
    if tuned.settings.task == "classification":
        return in_spelling_of(read.examples, tuned.settings.labels, "evaluation")
    return read.examples


def contestants(run: str, ours: dict[str, FineTuned], examples: list[Any]) -> dict[str, Callable[[], Any]]:
    task = ours["PyTorch"].settings.task
    texts = [" ".join(one.words) if isinstance(one, TaggedExample) else one.first for one in examples]
    piped = pipeline(PIPELINES[task], model=open_run_folder(run).model, device=-1)
    cut = {"truncation": True} if task == "classification" else {}  # that of tags always cuts
    own = {label: (lambda one=one: one.task.answer(one.model, examples)) for label, one in ours.items()}
    return {
        "pipeline": lambda: piped(texts, **cut),
        f"pipeline, batches of {GOOD_BATCH}": lambda: piped(texts, batch_size=GOOD_BATCH, **cut),
        **own,
    }


def compared(chosen: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, Any]:
    clock = time.process_time if options.clock == "processor" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(options.turns + 1):
        for name, ask in chosen.items():
            start = clock()
            ask()
            if turn:  # the first turn warms up
                seconds[name].append(clock() - start)
    base = seconds["pipeline"]
    found = {}
    for name, own in seconds.items():
        ratios = [one / other for one, other in zip(base, own, strict=True)]
        found[name] = {
            "texts_per_second": round(options.texts / median(own), 1),
            "ratio": round(median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
        print(f"{name:26} {found[name]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()

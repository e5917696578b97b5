"""`electrain demo`: every stage in a few minutes, on the documentation of the installed Python packages."""

import gzip
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from electrain.data.shards.prepare import prepare
from electrain.data.text.corpus import CorpusCounts, Document, read_documents
from electrain.data.tokenizer.training import train_tokenizer
from electrain.foundation.configuration import Tables, merge_tables
from electrain.foundation.output_folder import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    remove_work,
    require_empty,
    write_manifest,
)
from electrain.foundation.progress import counted, format_seconds, say
from electrain.inference.answers import DetectedText
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.inference.predictor import load
from electrain.pretraining.configuration import load_configuration
from electrain.pretraining.plan import plan
from electrain.pretraining.run import pretrain
from electrain.pretraining.speed import seconds_per_step
from electrain.training.arithmetic import choose_arithmetic, measure_matrix_rate
from electrain.training.runtime import device_of

KIND = "demo"
PARTS = ("corpus", "tokenizer", "shards", "run")
CORPUS = "builtin:documentation"
# More than the preset reads, so that no text is seen twice.
CORPUS_CHARACTERS = 16_000_000
VOCABULARY_SIZE = 4096
# Without a number of steps, the whole demo takes about this long, so that it ends within six minutes. Importing the
# libraries, which is over before the clock starts, took up to 15 s more.
SECONDS = 325.0
# What follows training takes about half as long as what comes before it (86 s together on two cores).
AFTER_TRAINING_FRACTION = 0.5
MATRIX_RATE_SECONDS = 0.5
STEP_TIMING_SECONDS = 4.0
LEAST_STEPS = 200
# For the same processor time, half of the preset's rows make the losses fall faster (docs/experiments.md; measured with
# the published objective).
FEW_STEPS = 1200
FEWER_ROWS = 16
# No machine trains this small model at more of its matrix rate. It bounds the steps, and so the text that is read.
BEST_UTILISATION = 0.6
CHARACTERS_PER_TOKEN = 4.0  # 3.5 were counted, held-out documents included
LEAST_CHARACTERS = 5_000_000  # enough held-out text for the evaluation
# Every 25th document is kept from training and used for evaluation.
HELD_OUT_EVERY = 25
# Sentences like those of the corpus, each followed by a copy in which one word is wrong.
SENTENCES = (
    "returns a new list with the elements in reverse order .",
    "returns a new list with the elements in banana order .",
    "if the file does not exist , an exception is raised .",
    "if the file does not exist , an exception was of .",
)
GAPS = (
    "returns a new list with the elements in reverse [MASK] .",
    "if the file does not [MASK] , an exception is raised .",
)
SHOWN_WORDS = 3


def run_demo(output: Path | None, overrides: Tables | None = None, *, characters: int = CORPUS_CHARACTERS) -> None:
    """Trains a tokenizer, a generator and a discriminator, evaluates them, and prints example predictions.

    Args:
        output: folder to create; None takes the first free name of `runs/demo`, `runs/demo-2`, `runs/demo-3` ...
        overrides: fields that differ from the preset `demo`. Without a number of steps, as many are taken as fit.
        characters: number of characters of documentation to read, at most.
    """
    started = time.perf_counter()
    overrides = overrides or {}
    is_fitted = "steps" not in overrides.get("training", {})
    folder = output or _free_folder()
    _begin(folder)
    say(f"1/5  Collecting documentation in {folder}/corpus")
    _collect(folder / "corpus", _characters_read(overrides, characters) if is_fitted else characters)
    train_text, held_out_text = (str(folder / "corpus" / f"{name}.jsonl.gz") for name in ("train", "held_out"))
    say(f"2/5  Training a tokenizer with {VOCABULARY_SIZE} word pieces")
    train_tokenizer(_documents(train_text), folder / "tokenizer", VOCABULARY_SIZE, False)
    say("3/5  Tokenizing the text into shards")
    prepare([train_text], folder / "tokenizer", folder / "shards")
    say("4/5  Pretraining a generator and a discriminator (preset demo)")
    if is_fitted:
        overrides = with_fitting_steps(overrides, folder / "shards", time.perf_counter() - started)
    result = pretrain(load_configuration("demo", overrides), folder / "shards", folder / "run")
    if result.exit_code:
        say(f"demo: ended early; electrain demo --output {folder} starts over")
        raise SystemExit(result.exit_code)
    say("5/5  Evaluating on held-out documents")
    scores = evaluate_detection(str(folder / "run"), [held_out_text])
    _show(folder, scores)
    write_manifest(folder, Manifest(KIND, True, {}, {}))


def _begin(folder: Path) -> None:
    """Makes `folder` a new one with an unfinished manifest; an interrupted demo in it is removed.

    Raises: RunDirectoryError: it holds anything else.
    """
    if (folder / MANIFEST_NAME).is_file() and not read_manifest(folder, KIND).finished:
        say(f"demo: {folder} holds an interrupted demo; starting over")
        remove_work(folder, (*PARTS, MANIFEST_NAME))
    require_empty(folder)
    write_manifest(folder, Manifest(KIND, False, {}, {}))


def _characters_read(overrides: Tables, most: int) -> int:
    """Enough text for the steps that this machine can take at best, so that a slow one does not read for a minute."""
    config = load_configuration("demo", overrides)
    device = device_of()
    dtype = choose_arithmetic(config.training.precision, device).dtype
    rate = measure_matrix_rate(device, dtype, MATRIX_RATE_SECONDS)
    possible = SECONDS * BEST_UTILISATION * rate / plan(config, vocabulary_size=VOCABULARY_SIZE).flops.per_step
    tokens = min(possible, config.training.steps) * config.training.batch_rows * config.data.sequence_length
    return min(most, max(LEAST_CHARACTERS, round(tokens * CHARACTERS_PER_TOKEN)))


def with_fitting_steps(overrides: Tables, shards: Path, elapsed_seconds: float) -> Tables:
    """The overrides with the number of steps that fit into the time that is left, at most the preset's.

    Where few fit, they have fewer rows: a step teaches more than the rows that it costs.

    Args: elapsed_seconds: what the stages before training took.
    """
    left = SECONDS - STEP_TIMING_SECONDS - (1 + AFTER_TRAINING_FRACTION) * elapsed_seconds
    steps, step_seconds, planned = _fitting_steps(overrides, shards, left)
    if steps < FEW_STEPS and "batch_rows" not in overrides.get("training", {}):
        overrides = merge_tables(overrides, {"training": {"batch_rows": FEWER_ROWS}})
        steps, step_seconds, planned = _fitting_steps(overrides, shards, left - STEP_TIMING_SECONDS)
    rows = counted(load_configuration("demo", overrides).training.batch_rows, "row")
    say(
        f"this machine takes {1 / step_seconds:,.1f} steps a second of {rows}, so {counted(steps, 'step')} (the preset "
        f"has {planned:,}) take about {format_seconds(steps * step_seconds)}; --training.steps sets another number"
    )
    return overrides if steps == planned else merge_tables(overrides, {"training": {"steps": steps}})


def _fitting_steps(overrides: Tables, shards: Path, left_seconds: float) -> tuple[int, float, int]:
    """The number of steps that fit, the seconds that one takes, and the number that is planned."""
    config = load_configuration("demo", overrides)
    step_seconds = max(1e-6, seconds_per_step(config, shards, seconds=STEP_TIMING_SECONDS))
    planned = config.training.steps
    return min(planned, max(LEAST_STEPS, int(left_seconds / step_seconds))), step_seconds, planned


def _free_folder() -> Path:
    names = itertools.chain(["demo"], (f"demo-{number}" for number in itertools.count(2)))
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())


def _documents(source: str) -> Iterator[Document]:
    return read_documents([source], counts=CorpusCounts())


def _collect(folder: Path, characters: int) -> None:
    """Writes train.jsonl.gz and held_out.jsonl.gz, with one document per line."""
    folder.mkdir()
    texts = enumerate(_whole_texts(_documents(CORPUS), characters))
    names = (folder / "train.jsonl.gz", folder / "held_out.jsonl.gz")
    with ExitStack() as stack:
        train, held_out = (stack.enter_context(gzip.open(name, "wt", encoding="utf-8", newline="\n")) for name in names)
        for number, text in texts:
            (held_out if number % HELD_OUT_EVERY == 0 else train).write(json.dumps({"text": text}) + "\n")


def _whole_texts(documents: Iterable[Document], characters: int) -> Iterator[str]:
    """Document texts, until they have `characters` characters. Long documents arrive in parts, which are joined."""
    pieces: list[str] = []
    seen = 0
    for document in documents:
        pieces.append(document.text)
        seen += len(document.text)
        if not document.continues:
            yield " ".join(pieces)
            pieces = []
            if seen >= characters:
                return


def _show(folder: Path, scores: dict[str, Any]) -> None:
    run = folder / "run"
    print(
        f"\nThe {SHOWN_WORDS} words of each sentence that the discriminator finds most likely to have been replaced:\n"
    )
    model = load(run)
    for prediction in model.detect(SENTENCES):
        print(f"  {prediction.text}\n      {_most_suspicious(prediction)}")
    if "fill" in model.tasks:  # not where the fields of the demo were changed so that no network restores words
        print("\nThe words that it finds likeliest at [MASK]:\n")
        for filled in model.fill(GAPS, candidates=SHOWN_WORDS):
            words = ", ".join(f"{one.token} {one.probability:.0%}" for one in filled.masks[0].candidates)
            print(f"  {filled.text}\n      {words}")
    auc = scores["discriminator"]["auc"]
    baseline = scores["baselines"]["unigram_auc"]
    verdict = "it reads the context" if auc > baseline + 0.05 else "it has NOT learned to read the context"
    print(f"\nHeld-out detection AUC {auc:.3f}; by word frequency alone {baseline:.3f}; 0.5 is guessing: {verdict}.")
    print(f"""
The report with the curves:   {run}/report.html
The encoder, to fine-tune:    {run}/model      (transformers.AutoModel.from_pretrained reads it)
The generator:                {run}/generator

Next, with your own text:
  electrain tokenizer YOUR_TEXT... --output tok --vocab-size 16384
  electrain prepare   YOUR_TEXT... --tokenizer tok --output shards
  electrain pretrain  --config tiny --shards shards --output run
  electrain predict detect --model {run} "your own sentence"
""")


def _most_suspicious(prediction: DetectedText) -> str:
    ranked = sorted(prediction.tokens, key=lambda token: -token.probability_replaced)[:SHOWN_WORDS]
    return ", ".join(f"{token.token} {token.probability_replaced:.0%}" for token in ranked)

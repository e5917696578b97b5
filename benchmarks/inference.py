"""Texts per second of `predict` and rows per second of `finetune`, beside what one writes with Hugging Face alone.

    python benchmarks/inference.py --encoder FOLDER --classifier RUN --sentences FILE.tsv \\
        [--texts N] [--training-rows N] [--repetitions N] [--skip answers vectors training]

`--encoder` is a sentence encoder such as all-MiniLM-L6-v2, `--classifier` a run of `electrain finetune classification`,
and `--sentences` its examples: a text and a label per line. Three comparisons:

- answers: `predict classify` beside the pipeline "text-classification", alone and with batches of 32;
- vectors: `predict embed` beside the mean pooling that the model cards of sentence encoders show, in batches of 32;
- training: the steps of `finetune` beside those of a `Trainer` with `DataCollatorWithPadding`, with 32 rows a step, on
  the CPU in float32 and, where the processor has bfloat16, in bfloat16.

The contestants take turns within one run, so that other work on the machine slows each alike; ratios are taken turn by
turn, above 1 where electrain is faster. Times are wall-clock, or with `--clock processor` the seconds that all threads
computed: on a busy machine only those mean anything, on one thread (OMP_NUM_THREADS=1). The Trainer needs the package
accelerate. A table goes to stderr, one line of JSON to stdout.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from electrain.data.labelled.examples import TextExample
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetuning.batches import training_batches
from electrain.finetuning.configuration import FinetuneConfig, FinetuneTrainingConfig
from electrain.finetuning.model import FineTuning
from electrain.finetuning.tasks.settings import FineTuned
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.inference.asked import Input
from electrain.inference.model import load_encoder
from electrain.inference.predict.tasks import mean_states
from electrain.inference.predictor import open_networks
from electrain.models.backbones import choose_attention
from electrain.training.loop import TrainingRun, train
from electrain.training.optimizer import LayeredRates, build_layered_optimizers
from electrain.training.runtime import started_runtime
from electrain.training.settings import Precision, TrainingConfig

BATCH_ROWS = 32
RATE = 1e-4


def main() -> None:
    options = _options()
    lines = [line.split("\t") for line in options.sentences.read_text("utf-8").splitlines()[1:]]
    texts = [line[0] for line in lines]
    asked = texts[: options.texts]
    comparisons: dict[str, dict[str, Callable[[], int]]] = {}
    if "answers" not in options.skip:
        comparisons["answers"] = _answers(options.classifier, asked)
    if "vectors" not in options.skip:
        comparisons["vectors"] = _vectors(options.encoder, asked)
    if "training" not in options.skip:
        tuned = load_fine_tuned(options.classifier, ("classification",))
        examples = [TextExample(line[0], None, (line[1],)) for line in lines[-options.training_rows :]]
        comparisons["training float32"] = _training(options.classifier, tuned, examples, "float32")
        if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
            comparisons["training bfloat16"] = _training(options.classifier, tuned, examples, "bfloat16")
    clock = time.process_time if options.clock == "processor" else time.perf_counter
    result = {name: _compared(contestants, options.repetitions, clock) for name, contestants in comparisons.items()}
    for name, figures in result.items():
        for contestant, figure in figures.items():
            print(f"{name:20} {contestant:24} {figure}", file=sys.stderr)
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, **result}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--training-rows", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--skip", nargs="*", choices=("answers", "vectors", "training"), default=[])
    options = parser.parse_args()
    if options.encoder is None and "vectors" not in options.skip:
        parser.error("give --encoder, or --skip vectors")
    if options.classifier is None and not {"answers", "training"} <= set(options.skip):
        parser.error("give --classifier, or --skip answers training")
    return options


def _compared(
    contestants: dict[str, Callable[[], int]], repetitions: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Items per second of each contestant, and ratios of the first one to each other: median, lowest and highest."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # the first call chooses kernels and fills caches
    for _ in range(repetitions):
        for name, run in contestants.items():
            start = clock()
            done = run()
            rates[name].append(done / (clock() - start))
    ours, *others = contestants
    figures: dict[str, Any] = {f"{name}, per second": _spread(own) for name, own in rates.items()}
    for other in others:
        figures[f"ratio to {other}"] = _spread([a / b for a, b in zip(rates[ours], rates[other], strict=True)])
    return figures


def _spread(numbers: list[float]) -> list[float]:
    return [round(number, 2) for number in (median(numbers), min(numbers), max(numbers))]


def _answers(run: Path, texts: list[str]) -> dict[str, Callable[[], int]]:
    tuned = load_fine_tuned(run, ("classification",))
    folder = str(run / "model")
    ask = pipeline("text-classification", model=folder, tokenizer=folder, device="cpu", top_k=None)

    def ours() -> int:
        inputs = (Input(text, number, "") for number, text in enumerate(texts, start=1))
        return sum(1 for _ in open_networks(run).ask("classify", inputs))

    def ours_loaded() -> int:
        examples = [TextExample(text) for text in texts]
        return sum(len(tuned.task.answer(tuned.model, chunk)) for chunk in chunks_of(examples))

    return {
        "electrain": ours_loaded,
        "electrain with loading": ours,
        "pipeline": lambda: len(ask(texts)),
        "pipeline, batches": lambda: len(ask(texts, batch_size=BATCH_ROWS)),
    }


def _vectors(folder: Path, texts: list[str]) -> dict[str, Callable[[], int]]:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def plain() -> int:
        done = 0
        for batch in chunks_of(texts, BATCH_ROWS):
            inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                states = model(**inputs)[0]
            is_real = inputs["attention_mask"].unsqueeze(-1).float()
            done += len(((states * is_real).sum(1) / is_real.sum(1)).tolist())
        return done

    encoder = load_encoder(folder)

    def ours() -> int:
        return sum(len(mean_states(encoder, chunk, Counter())) for chunk in chunks_of(texts))

    return {"electrain": ours, "plain loop": plain}


def _training(
    run: Path, tuned: FineTuned, examples: list[TextExample], precision: Precision
) -> dict[str, Callable[[], int]]:
    config = FinetuneConfig(training=FinetuneTrainingConfig(batch_rows=BATCH_ROWS, precision=precision))
    rows = tuned.task.rows(examples)
    batches, steps = training_batches(tuned.task, rows, config)
    ours = FineTuning(load_fine_tuned(run, ("classification",)).model, tuned.task)
    choose_attention(ours, torch.device("cpu"), tuned.settings.longest_tokens)
    settings = TrainingConfig(
        steps=steps, batch_rows=BATCH_ROWS, peak_learning_rate=RATE, warmup_steps=0, precision=precision, compile=False
    )

    def train_ours() -> int:
        optimizers = build_layered_optimizers(ours, LayeredRates(RATE, layer_decay=0.8), weight_decay=0.0)
        with started_runtime(precision) as runtime:
            train(TrainingRun(ours, optimizers, batches, settings, runtime), lambda result: False)
        return steps * BATCH_ROWS

    # The Trainer tokenizes beforehand too, and pads each batch, drawn at random, to its longest row.
    data = [{"input_ids": row.input_ids, "token_type_ids": row.token_type_ids, "labels": row.target} for row in rows]
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")

    def train_theirs() -> int:
        with tempfile.TemporaryDirectory() as output:
            arguments = TrainingArguments(
                output,
                per_device_train_batch_size=BATCH_ROWS,
                num_train_epochs=1,
                learning_rate=RATE,
                bf16=precision == "bfloat16",
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            collator = DataCollatorWithPadding(tokenizer)
            Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train()
        return len(data)

    return {"electrain": train_ours, "Trainer": train_theirs}


if __name__ == "__main__":
    main()

"""The verbs that use a trained model, `evaluate` and `predict`, and the options that each task reads."""

import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electrain.cli.options import (
    Files,
    Number,
    Seed,
    TaskChoice,
    Whole,
    print_json,
)
from electrain.data.labelled.examples import PAIRED_TASKS, TABLE_TASKS, WRITING_TASKS
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import say

if TYPE_CHECKING:
    from electrain.inference.answers import Answer
    from electrain.inference.evaluate.evaluation import Evaluation

_LABELLED = typing.get_args(TaskChoice)
_OF_TABLES = ("detect", "fill", "generate", "corrupt", "embed", "classify", "regress", "summarize", "translate")

# The tasks that read each option. Options that are not listed here are read by every task of the verb.
EVALUATE_READERS: dict[str, tuple[str, ...]] = {
    "predictions": _LABELLED,
    "generator": ("detection", "blimp"),
    "text_column": ("detection", *_LABELLED),
    "pair_column": PAIRED_TASKS,
    "label_column": _LABELLED,
    "label_separator": ("classification",),
    "references_column": WRITING_TASKS,
    "separator": TABLE_TASKS,
    "quoting": TABLE_TASKS,
    "skip_broken": _LABELLED,
    "tune_threshold": ("classification",),
    "rows": ("detection",),
    "seed": ("detection",),
    "document_separator": ("detection",),
    "add_to_card": ("detection",),
    "limit_pairs_per_set": ("blimp",),
}
PREDICT_READERS: dict[str, tuple[str, ...]] = {
    "pair_column": ("classify", "regress", "answer"),
    "separator": _OF_TABLES,
    "quoting": _OF_TABLES,
    "candidates": ("fill",),
    "by": ("fill",),
    "tokens": ("generate",),
    "temperature": ("generate",),
    "top_p": ("generate",),
    "seed": ("generate", "corrupt"),
}


def evaluate(
    task: Literal["detection", "blimp", TaskChoice],
    /,
    *,
    model: str,
    data: Files,
    output: Path | None = None,
    predictions: Path | None = None,
    report: Path | None = None,
    generator: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    references_column: str | None = None,
    separator: str | None = None,
    quoting: Literal["csv", "none"] | None = None,
    skip_broken: bool = False,
    tune_threshold: bool = False,
    rows: Whole = 512,
    seed: Seed = 0,
    document_separator: str | None = None,
    limit_pairs_per_set: Whole | None = None,
    add_to_card: bool = False,
) -> None:
    """Score a model.

    A pretrained model is scored by `detection` on held-out text or by `blimp` on minimal pairs, a fine-tuned model by
    its own task on labelled examples. At a terminal, tables show what the scores are made of and where the model errs;
    into a file or a pipe goes one JSON object.

    Args:
        task: What to score.
        model: Run folder, model folder or hub id.
        data: detection: shards or a corpus of held-out text. blimp: one .jsonl or .jsonl.gz file, or a folder of them.
            Other tasks: labelled examples, in the formats that `electrain finetune` reads.
        output: JSON file for the scores. By default, they are only printed.
        predictions: Fine-tuned tasks: file for the answers, one JSON line per example. By default, answers are not
            saved.
        report: HTML file that draws the scores, what they are made of, and the worst answers with their texts. By
            default, none is written.
        generator: detection, blimp: run folder, model folder or hub id of the generator, when --model is a model folder
            or hub id. By default, the generator of the run.
        text_column: Column of the text. By default "text" for detection; for fine-tuned tasks, the column used in
            training.
        pair_column: classification, regression, question-answering: column of the second text, or of the context. By
            default, the column used in training.
        label_column: Fine-tuned tasks: column of the label, number, tags, answers or target text. By default, the
            column used in training.
        label_separator: classification: what separates several labels in one field, or none. By default, as in
            training.
        references_column: summarization, translation: column of a list of further correct outputs. By default, none.
        separator: classification, regression, summarization, translation: character between the fields of .csv and .tsv
            files, or tab. By default, the one used in training where the header has it, or else that of the format.
        quoting: classification, regression, summarization, translation: quotes in .csv and .tsv files, as CSV has them
            (csv) or as characters of the text (none). By default, as in training, or else as the format has them.
        skip_broken: Fine-tuned tasks: leave invalid rows out and count them. By default, an invalid row is an error.
        tune_threshold: classification with two labels, or several for a text: choose the probability from which on a
            label is given by the best F1 on these data, which must be validation data, and keep it in the model's
            task.json. By default, the model decides as before.
        rows: detection: largest number of rows to score.
        seed: detection: seed of the masks and of the sampled replacements.
        document_separator: detection: text between the documents of a .txt file, as in `electrain prepare`. By default,
            each .txt file is one document.
        limit_pairs_per_set: blimp: number of pairs to score in each set. By default, all pairs.
        add_to_card: detection: write the scores into README.md of the networks of the run that --model names.
    """
    from electrain.data.text.corpus import CorpusFormat
    from electrain.foundation.output_file import require_writable
    from electrain.inference.evaluate.blimp import evaluate_blimp
    from electrain.inference.evaluate.detection import evaluate_detection
    from electrain.inference.evaluate.evaluation import pretrained_evaluation
    from electrain.pretraining.card import add_held_out, require_own_run

    _require_different({"--output": output, "--predictions": predictions, "--report": report})
    for path in filter(None, (output, predictions, report)):
        require_writable(path)
    if task == "detection":
        form = CorpusFormat(text_column or "text", document_separator)
        if add_to_card:
            require_own_run(model)
        result = evaluate_detection(model, data, generator=generator, rows=rows, seed=seed, corpus_format=form)
        if add_to_card:
            add_held_out(Path(model), result)
        evaluation = pretrained_evaluation(result)
    elif task == "blimp":
        if len(data) != 1:
            raise ConfigurationError(f"--data: blimp reads one file or folder, not {len(data)}; give one")
        result = evaluate_blimp(model, data[0], generator=generator, limit_pairs_per_set=limit_pairs_per_set)
        evaluation = pretrained_evaluation(result)
    else:
        from electrain.inference.evaluate.tasks import evaluate_task

        columns = {"text": text_column, "pair": pair_column, "label": label_column, "references": references_column}
        columns |= {"label_separator": label_separator, "separator": separator, "quoting": quoting}
        given = {role: column for role, column in columns.items() if column is not None}
        evaluation = evaluate_task(
            task, model, data, columns=given, skip_broken=skip_broken, tune_threshold=tune_threshold
        )
    _show(evaluation)  # before the files, which may fail
    _write(evaluation, output, predictions, report)


def _require_different(files: Mapping[str, Path | None]) -> None:
    """Raises ConfigurationError if two results would be written into one file."""
    flags: dict[Path, str] = {}
    for flag, path in files.items():
        if path is not None and path.resolve() in flags and (path.is_file() or not path.exists()):
            raise ConfigurationError(f"{flag} {path}: is also {flags[path.resolve()]}; give another file")
        if path is not None:
            flags[path.resolve()] = flag


def _show(evaluation: "Evaluation") -> None:
    """A table for a person at a terminal, otherwise JSON."""
    if sys.stdout.isatty():
        from electrain.inference.evaluate.table import print_evaluation

        print_evaluation(evaluation)
        return
    record = evaluation.to_dict()
    if evaluation.task == "blimp":
        from electrain.inference.evaluate.blimp import blimp_table

        for line in blimp_table(record):
            say(line)
    print_json(record)


def _write(evaluation: "Evaluation", output: Path | None, predictions: Path | None, report: Path | None) -> None:
    from electrain.foundation.json_output import to_json
    from electrain.foundation.output_file import written_output
    from electrain.inference.predict.pretrained import write_json_lines

    if predictions is not None:
        write_json_lines(evaluation.answers, predictions)
    if output is not None:
        with written_output(output) as file:
            file.write(to_json(evaluation.to_dict(), indent=2) + "\n")
    if report is not None:
        from electrain.inference.evaluate.report import evaluation_page  # Jinja2 takes its time

        with written_output(report) as file:
            file.write(evaluation_page(evaluation))


def predict(
    task: Literal[
        "detect",
        "fill",
        "generate",
        "corrupt",
        "embed",
        "classify",
        "regress",
        "tag",
        "answer",
        "summarize",
        "translate",
    ],
    /,
    *texts: str,
    model: str,
    input: Path | None = None,
    output: Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    separator: str | None = None,
    quoting: Literal["csv", "none"] | None = None,
    candidates: Whole = 5,
    by: Literal["generator", "correction"] | None = None,
    tokens: Whole = 40,
    temperature: Number = 1.0,
    top_p: Number = 0.95,
    seed: Seed = 0,
) -> None:
    """Ask a model about texts.

    With a pretrained model, `detect` finds replaced tokens, `fill` fills each [MASK], `generate` continues a text,
    `corrupt` shows what the discriminator sees in training, and `embed` turns texts into vectors. A fine-tuned model
    can `classify`, `regress`, `tag`, `answer`, `summarize` or `translate`.

    Args:
        task: What to ask.
        texts: Texts to read. By default, they are the lines of --input or of standard input. A tab separates the two
            texts of a pair, and a question from its context.
        model: Run folder, model folder or hub id.
        input: File with one text per line, JSON lines, a table, or labelled examples in the formats that `electrain
            finetune` reads. By default, standard input when no texts are given.
        output: File for the answers, one JSON line per text. By default, they are printed.
        text_column: Column of the text in a table or in JSON lines. By default, the column used in training, or else
            one with a usual name.
        pair_column: classify, regress, answer: column of the second text, or of the context. By default, the column
            used in training.
        separator: All but tag and answer: character between the fields of .csv and .tsv files, or tab. By default, the
            one used in training where the header has it, or else that of the format.
        quoting: All but tag and answer: quotes in .csv and .tsv files, as CSV has them (csv) or as characters of the
            text (none). By default, as in training, or else as the format has them.
        candidates: fill: number of words to suggest for each [MASK].
        by: fill: network that fills. By default the generator where it is a masked one, else the correction head.
        tokens: generate: number of tokens to write.
        temperature: generate: sampling temperature, above 0. Lower values favour likely tokens.
        top_p: generate: sample from the likeliest tokens whose probabilities sum to this value, above 0 and at most 1.
        seed: generate, corrupt: seed of the random draws.
    """
    from electrain.data.labelled.columns import Columns
    from electrain.foundation.output_file import require_writable
    from electrain.inference.asked import TASK_OF_VERB, Input
    from electrain.inference.predict import inputs
    from electrain.inference.predict.pretrained import read_texts, write_json_lines
    from electrain.inference.predictor import open_networks

    require_writable(output)
    inputs.say_names_of_files(texts)
    columns = Columns(text_column or "", pair_column or "", separator=separator or "", quoting=quoting or "")
    results: Iterator[Answer | Mapping[str, object]]
    if task == "corrupt":
        from electrain.inference.predict.corrupt import predict_corrupt

        results = predict_corrupt(model, inputs.texts_of(texts, input, columns), seed=seed)
    elif task not in TASK_OF_VERB:
        given = inputs.texts_of(texts, input, columns)
        options: dict[str, dict[str, object]] = {
            "fill": {"candidates": candidates, "by": by},
            "generate": {"tokens": tokens, "temperature": temperature, "top_p": top_p, "seed": seed},
        }
        asked = (Input(text, number, f"input {number}") for number, text in enumerate(given, start=1))
        results = open_networks(model).ask(task, asked, options=options.get(task))
    elif not texts and inputs.holds_examples(input, task):
        results = open_networks(model).ask_examples(task, [str(input)], columns)
    else:
        inputs.require_columns(texts, input, columns)
        lines = read_texts(texts, input, keeps_json=True)
        results = open_networks(model).ask(task, inputs.read_inputs(lines, input), columns)
    write_json_lines(results, output)

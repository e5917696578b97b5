"""The command line: one verb, one stage of the road. Results go to stdout as JSON, everything else to stderr."""

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from electrain import __version__
from electrain.foundation.configuration import describe_fields, parse_overrides
from electrain.foundation.errors import ConfigurationError, ElectrainError

app = App(
    name="electrain",
    help="Pretrain your own ELECTRA on text in your own language or field, and use it.",
    version=__version__,
    version_flags=["--version"],
)
Sources = Annotated[list[str], Parameter(help="file, folder, glob, hub:NAME[/CONFIG][:SPLIT] or builtin:documentation")]
Passed = Annotated[str, Parameter(allow_leading_hyphen=True, help="--SECTION.FIELD VALUE, overriding the file")]


def _print(result: Any) -> None:
    print(json.dumps(result, ensure_ascii=False), flush=True)


def _whole(_: Any, tokens: Any) -> int:
    """Strict: cyclopts alone takes 1.5 for 2."""
    text = tokens[0].value
    if not text.lstrip("+-").isdigit():
        raise ConfigurationError(f"--{tokens[0].keyword or 'value'} {text}: must be a whole number")
    return int(text)


Whole = Annotated[int, Parameter(converter=_whole)]
Files = Annotated[list[str], Parameter(consume_multiple=True)]
TaskChoice = Literal["classification", "regression", "tagging", "question-answering", "summarization", "translation"]


@app.command
def tokenizer(
    corpus: Sources,
    *,
    output: Path,
    vocab_size: Whole = 30522,
    cased: bool = False,
    text_column: str = "text",
    document_separator: str | None = None,
    strict: bool = False,
    model_max_length: Whole = 512,
    character_coverage: float = 0.9999,
) -> None:
    """Train a WordPiece tokenizer on a corpus.

    Parameters
    ----------
    output: new folder.
    vocab_size: tokens, at most; 30,522 in the paper.
    cased: keep capital letters and accents.
    text_column: column of the text in tables and JSON lines.
    document_separator: text between the documents of a .txt file, such as "\\n===\\n"; without it a file is one.
    strict: refuse invalid UTF-8 instead of leaving it out and counting it.
    model_max_length: tokens, written into the tokenizer's configuration.
    character_coverage: fraction of the text's characters that the alphabet covers; the rarest become [UNK].
    """
    from electrain.data.text.corpus import CorpusCounts, read_documents
    from electrain.data.tokenizer.training import train_tokenizer

    counts = CorpusCounts()
    documents = read_documents(
        corpus, text_column=text_column, document_separator=document_separator, strict=strict, counts=counts
    )
    if not 0 < character_coverage <= 1:
        raise ConfigurationError(f"--character-coverage {character_coverage}: must be above 0 and at most 1")
    manifest = train_tokenizer(
        documents,
        output,
        vocab_size,
        cased,
        model_max_length=model_max_length,
        character_coverage=character_coverage,
    )
    print(counts.describe(), file=sys.stderr)
    _print({"output": str(output), **manifest.facts})


@app.command
def prepare(
    corpus: Sources,
    *,
    tokenizer: Path,
    output: Path,
    text_column: str = "text",
    document_separator: str | None = None,
    strict: bool = False,
    processes: Whole | None = None,
    chinese_words: bool = False,
) -> None:
    """Turn a corpus into token shards.

    Parameters
    ----------
    tokenizer: folder or vocabulary file.
    output: new folder; one that an interrupted preparation left is begun anew.
    text_column: column of the text in tables and JSON lines.
    document_separator: text between the documents of a .txt file, such as "\\n===\\n"; without it a file is one.
    strict: refuse invalid UTF-8 instead of leaving it out and counting it.
    processes: that tokenise; one for each core by default.
    chinese_words: store where Chinese words begin, for noise that takes whole words; needs rjieba.
    """
    from electrain.data.shards.prepare import prepare as prepare_shards

    manifest = prepare_shards(
        corpus,
        tokenizer,
        output,
        text_column=text_column,
        document_separator=document_separator,
        strict=strict,
        processes=processes,
        chinese_words=chinese_words,
    )
    _print({"output": str(output), **{name: fact for name, fact in manifest.facts.items() if name != "files"}})


@app.command
def pretrain(
    *overrides: Passed,
    config: str,
    shards: Path,
    output: Path,
    resume: bool = False,
    tokenizer: Path | None = None,
) -> None:
    """Pretrain a generator and a discriminator on shards. `electrain fields` lists what --SECTION.FIELD can set.

    Parameters
    ----------
    config: TOML file, or the name of a preset: demo, tiny, small, base, large, article, ...
    shards: folder that `prepare` wrote.
    output: new folder for the run.
    resume: go on from the newest good checkpoint in the output folder.
    tokenizer: refuse shards that were made with another tokenizer than this.
    """
    from electrain.pretrain.configuration import load_configuration
    from electrain.pretrain.run import pretrain as run

    configuration = load_configuration(config, parse_overrides(overrides))
    result = run(configuration, shards, output, resume=resume, tokenizer=tokenizer)
    if result.is_first:
        _print({"output": str(output), "finished": result.is_finished, **result.metrics})
    if result.is_failed:
        raise SystemExit(1)


@app.command
def plan(
    *overrides: Passed,
    config: str,
    hardware: str | None = None,
    devices: Whole = 1,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
    vocab_size: Whole | None = None,
) -> None:
    """Say what a configuration costs: parameters, FLOPs, memory, hours, money.

    Parameters
    ----------
    config: TOML file, or the name of a preset: demo, tiny, small, base, large, article, ...
    hardware: name of known hardware, or this: measured here.
    devices: that share the work.
    utilisation: fraction of the hardware's rate that training reaches.
    price_per_hour: of one device.
    vocab_size: of the tokenizer; 30,522 by default.
    """
    from electrain.pretrain.configuration import load_configuration
    from electrain.pretrain.hardware import named_hardware
    from electrain.pretrain.plan import PAPER_VOCABULARY_SIZE
    from electrain.pretrain.plan import plan as plan_run

    result = plan_run(
        load_configuration(config, parse_overrides(overrides)),
        None if hardware is None else named_hardware(hardware),
        vocabulary_size=vocab_size or PAPER_VOCABULARY_SIZE,
        devices=devices,
        utilisation=utilisation,
        price_per_hour=price_per_hour,
    )
    _print(result.to_dict())


@app.command
def report(*, run: Path) -> None:
    """Write report.html of a run, also while it is running.

    Parameters
    ----------
    run: folder that `pretrain` writes.
    """
    from electrain.pretrain.report import write_report

    _print({"report": str(write_report(run))})


@app.command
def finetune(
    task: TaskChoice,
    *overrides: Passed,
    model: str,
    train: Files,
    validation: Files,
    output: Path,
    config: str | None = None,
    decoder: str | None = None,
    seeds: Whole | None = None,
    resume: bool = False,
) -> None:
    """Train a pretrained encoder on labelled examples. `electrain fields finetune` lists what --SECTION.FIELD can set.

    Parameters
    ----------
    model: run folder, model folder or hub id of an encoder.
    train: files (.tsv .csv .jsonl .parquet, CoNLL columns, SQuAD json), folders, globs or hub:NAME data sets.
    validation: as train; the model with the best score there is kept.
    output: new folder for the run; output/model is what comes out.
    config: TOML file, or the name of a recipe: sst2, brown_pos, squad, multi30k_en_de, ...
    decoder: summarization and translation: generator, encoder, fresh, or the folder of a language model.
    seeds: run so many, each in output/seed-N, and report median and spread.
    resume: go on from the newest good checkpoint in the output folder.
    """
    from electrain.finetune.configuration import load_finetune_configuration
    from electrain.finetune.run import finetune as run
    from electrain.finetune.seeds import finetune_seeds

    tables = parse_overrides(overrides)
    if decoder is not None and task not in ("summarization", "translation"):
        raise ConfigurationError(f"--decoder: is for summarization and translation, not {task}")
    if decoder is not None:
        is_kind = decoder in ("generator", "encoder", "fresh")
        chosen = {"kind": decoder} if is_kind else {"kind": "folder", "source": decoder, "vocabulary": "folder"}
        tables["decoder"] = chosen | tables.get("decoder", {})
    configuration = load_finetune_configuration(config, tables)
    if seeds is not None:
        _print(finetune_seeds(task, configuration, model, train, validation, output, seeds=seeds, resume=resume))
        return
    result = run(task, configuration, model, train, validation, output, resume=resume)
    if result.is_first:
        facts = {"output": str(output), "task": task, "finished": result.is_finished, "best_step": result.best_step}
        _print({**facts, "scores": result.scores})
    if not result.is_finished and result.is_diverged:
        raise SystemExit(1)


@app.command
def evaluate(
    task: Literal["detection", "blimp"] | TaskChoice,
    *,
    model: str,
    data: Files,
    output: Path | None = None,
    predictions: Path | None = None,
    generator: str | None = None,
    text_column: str = "",
    pair_column: str = "",
    label_column: str = "",
    references_column: str = "",
    skip_broken: bool = False,
    rows: Whole = 512,
    seed: Whole = 0,
    limit_pairs_per_set: Whole | None = None,
) -> None:
    """Score a model: `detection` on held-out text, `blimp` on minimal pairs, a fine-tuned one on labelled examples.

    Parameters
    ----------
    model: run folder, model folder or hub id.
    data: detection: shards or corpus; blimp: a .jsonl(.gz) file or a folder of them; a task: as for finetune.
    output: JSON file to write as well.
    predictions: a task: file of JSON lines, one for each example, to write as well.
    generator: detection and blimp, for a model folder or hub id: the generator that belongs to it.
    text_column: column of the text; detection: "text" by default; a task: as the model was trained.
    pair_column: a task: of the second text.
    label_column: a task: of the label, number, tags, or target text.
    references_column: summarization and translation: of further good outputs.
    skip_broken: a task: leave broken rows out, and say how many.
    rows: detection: rows of text to look at, at most.
    seed: detection: of masks and samples.
    limit_pairs_per_set: blimp: the first pairs of each set only.
    """
    from electrain.foundation.output_folder import write_text_durably
    from electrain.inference.evaluate.blimp import blimp_table, evaluate_blimp
    from electrain.inference.evaluate.detection import evaluate_detection
    from electrain.inference.predict.pretrained import require_writable, write_json_lines

    require_writable(output)
    require_writable(predictions)
    if task == "detection":
        column = text_column or "text"
        result = evaluate_detection(model, data, generator=generator, rows=rows, seed=seed, text_column=column)
    elif task == "blimp":
        if len(data) != 1:
            raise ConfigurationError("--data: blimp takes one file or folder; give one")
        result = evaluate_blimp(model, data[0], generator=generator, limit_pairs_per_set=limit_pairs_per_set)
        print(blimp_table(result), file=sys.stderr)
    else:
        from electrain.inference.evaluate.tasks import evaluate_task

        columns = {"text": text_column, "pair": pair_column, "label": label_column, "references": references_column}
        result, answers = evaluate_task(task, model, data, columns=columns, skip_broken=skip_broken)
        if predictions is not None:
            write_json_lines(answers, predictions)
    if output is not None:
        write_text_durably(output, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    _print(result)


@app.command
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
    candidates: Whole = 5,
    by: Literal["generator", "correction"] | None = None,
    tokens: Whole = 40,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: Whole = 0,
) -> None:
    """Use a model.

    A pretrained one: `detect` replaced tokens, `fill` each [MASK], `generate` what follows, show how it `corrupt`s,
    `embed` texts as vectors. A fine-tuned one: `classify`, `regress`, `tag`, `answer`, `summarize`, `translate`.

    Parameters
    ----------
    model: run folder, model folder or hub id.
    texts: texts; without them and without --input, lines of standard input. A tab stands between the two texts of a
        pair, and between question and context.
    input: file with one text per line, JSON lines, or examples as for finetune (.tsv, .csv, CoNLL, SQuAD ...).
    output: file of JSON lines; standard output by default.
    candidates: fill: words for each [MASK].
    by: fill: what fills; by default what the model has, the generator first.
    tokens: generate: so many.
    temperature: generate: of the sampling.
    top_p: generate: the likeliest words that hold so much of the chance.
    seed: generate and corrupt: of what is drawn.
    """
    from electrain.inference.predict import tasks as predict_tasks
    from electrain.inference.predict.generator import predict_corrupt, predict_generate
    from electrain.inference.predict.pretrained import (
        predict_detect,
        predict_fill,
        read_texts,
        require_writable,
        write_json_lines,
    )

    require_writable(output)
    results: Iterator[dict[str, Any]]
    if task in predict_tasks.TASK_OF_VERB:
        if not texts and predict_tasks.holds_examples(input):
            results = predict_tasks.predict_examples(task, model, [str(input)])
        else:
            lines = read_texts(texts, input, keeps_json=True)
            results = predict_tasks.predict_task(task, model, predict_tasks.read_inputs(lines, input))
        write_json_lines(results, output)
        return
    given = read_texts(texts, input)
    if task == "detect":
        results = predict_detect(model, given)
    elif task == "fill":
        results = predict_fill(model, given, by=by, top_k=candidates)
    elif task == "embed":
        results = predict_tasks.predict_embed(model, given)
    elif task == "generate":
        results = predict_generate(model, given, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)
    else:
        results = predict_corrupt(model, given, seed=seed)
    write_json_lines(results, output)


@app.command
def fields(of: Literal["pretrain", "finetune"] = "pretrain") -> None:
    """List every field of a pretraining or fine-tuning configuration, as the flag that sets it.

    Parameters
    ----------
    of: pretrain or finetune.
    """
    print(pretrain_fields() if of == "pretrain" else finetune_fields())


@app.command
def demo(*overrides: Passed, output: Path | None = None) -> None:
    """The whole road on text already on this machine: its documentation.

    Parameters
    ----------
    output: new folder; runs/demo, or the next free name, by default.
    """
    from electrain.cli.demo import run_demo

    run_demo(output, parse_overrides(overrides))


def pretrain_fields() -> str:
    """Every field of a pretraining configuration, for people."""
    from electrain.pretrain.configuration import PretrainConfig

    return describe_fields(PretrainConfig)


def finetune_fields() -> str:
    """Every field of a fine-tuning configuration, for people."""
    from electrain.finetune.configuration import FinetuneConfig

    return describe_fields(FinetuneConfig)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. Exit code 0, or 2 with one line for a user's mistake, or 1 for a failure of ours."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except ElectrainError as error:
        print(f"electrain: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except CycloptsError as error:
        message = " ".join(str(error).split())
        print(f"electrain: {message}; see electrain --help", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
            print(f"electrain: {error.filename}: {error.strerror}; give another path", file=sys.stderr)
            raise SystemExit(2) from None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"electrain: {where}the disk is full; free some space, then run the command again", file=sys.stderr)
        raise SystemExit(2) from None
    except MemoryError as error:
        print(f"electrain: out of memory ({error}); lower --training.micro-batch-rows", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

"""The verbs around a training run: `pretrain`, `plan`, `report`, `finetune`, `fields` and `demo`."""

import dataclasses
from pathlib import Path
from typing import Literal

from electrain.cli.options import Files, Number, Overrides, TaskChoice, Whole, print_json
from electrain.cli.sharing import push_result, require_pushable
from electrain.foundation.configuration import describe_fields, parse_overrides
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.output_folder import CONFIGURATION_NAME


def pretrain(
    *overrides: Overrides,
    config: str,
    shards: Path,
    output: Path,
    push_to_hub: str | None = None,
    resume: bool = False,
) -> None:
    """Pretrain a generator and a discriminator on token shards.

    Args:
        overrides: Fields of the configuration, each as --SECTION.FIELD VALUE; they override the file. `electrain
            fields` lists all fields.
        config: TOML file, or the name of a preset: demo, tiny, small, base, large, article, ...
        shards: Folder that `electrain prepare` wrote.
        output: Folder to create for the run.
        push_to_hub: Repository of the Hugging Face hub, OWNER/NAME, to which the networks are pushed when the run is
            finished; a new one is private. By default, nothing is pushed.
        resume: Continue from the newest intact checkpoint in the output folder.
    """
    from electrain.pretraining.configuration import load_configuration
    from electrain.pretraining.run import pretrain as run

    begun = output / CONFIGURATION_NAME if resume else None
    configuration = load_configuration(config, parse_overrides(overrides), resumed=begun)
    require_pushable(push_to_hub, configuration.card)
    result = run(configuration, shards, output, resume=resume)
    if result.is_first:
        print_json({"output": str(output), "finished": result.is_finished, **result.metrics})
    if result.exit_code:
        raise SystemExit(result.exit_code)
    if result.is_first:
        push_result("pretrain", output, push_to_hub)


def plan(
    *overrides: Overrides,
    config: str,
    shards: Path | None = None,
    hardware: str | None = None,
    devices: Whole = 1,
    utilisation: Number | None = None,
    price_per_hour: Number | None = None,
    vocab_size: Whole | None = None,
    recommend: bool = False,
) -> None:
    """Estimate what a pretraining run costs: parameters, FLOPs, memory, hours and money.

    Args:
        overrides: Fields of the configuration, each as --SECTION.FIELD VALUE; they override the file. `electrain
            fields` lists all fields.
        config: TOML file, or the name of a preset: demo, tiny, small, base, large, article, ...
        shards: Folder that `electrain prepare` wrote. By default none; with it, the result says how often the run reads
            the text over, and stderr advises fewer steps if that is too often.
        hardware: Name of a device, for example h100 or rtx-4090, or "this" to measure this machine. By default, no
            duration is estimated.
        devices: Number of devices that share the rows of a step.
        utilisation: Fraction of the device's peak rate that training reaches, above 0 and at most 1. By default, a
            typical value for the device. Needs --hardware.
        price_per_hour: Price of one device for one hour, in any currency. By default, no price is estimated. Needs
            --hardware.
        vocab_size: Number of tokens in the vocabulary. By default that of the shards, or without shards 30,522, the
            published size.
        recommend: Also say which objective made the best encoder for as many operations, by what was measured.
    """
    from electrain.data.shards.rows import RowSource
    from electrain.data.shards.shards import open_shards
    from electrain.pretraining.configuration import load_configuration
    from electrain.pretraining.hardware import named_hardware
    from electrain.pretraining.plan import PAPER_VOCABULARY_SIZE
    from electrain.pretraining.plan import plan as plan_run
    from electrain.pretraining.recommendation import recommended
    from electrain.pretraining.repetition import say_if_read_too_often

    for flag, value in (("--utilisation", utilisation), ("--price-per-hour", price_per_hour)):
        if value is not None and hardware is None:
            raise ConfigurationError(f"{flag}: is read only with --hardware; give both")
    configuration, rows_per_epoch = load_configuration(config, parse_overrides(overrides)), None
    if shards is not None:
        stream, packing = open_shards(shards, verify=False), configuration.parity.reference_packing
        rows_per_epoch = RowSource(stream, configuration.data, 0, reference_packing=packing).rows_per_epoch
        vocab_size = vocab_size or stream.vocabulary_size
        say_if_read_too_often("plan", configuration, rows_per_epoch)
    result = plan_run(
        configuration,
        None if hardware is None else named_hardware(hardware),
        vocabulary_size=PAPER_VOCABULARY_SIZE if vocab_size is None else vocab_size,
        devices=devices,
        utilisation=utilisation,
        price_per_hour=price_per_hour,
        rows_per_epoch=rows_per_epoch,
    )
    printed = dataclasses.asdict(result)
    if recommend:
        printed["recommendation"] = dataclasses.asdict(recommended(configuration, result.flops.per_run))
    print_json(printed)


def report(*, run: Path) -> None:
    """Write report.html for a run, also while the run is still training.

    Args:
        run: Output folder of `electrain pretrain` or `electrain finetune`.
    """
    from electrain.finetuning.report import is_fine_tuning
    from electrain.finetuning.report import write_report as report_fine_tuning
    from electrain.pretraining.report import write_report as report_pretraining

    write = report_fine_tuning if is_fine_tuning(run) else report_pretraining
    print_json({"report": str(write(run))})


def finetune(
    task: TaskChoice,
    /,
    *overrides: Overrides,
    model: str,
    train: Files,
    validation: Files,
    output: Path,
    config: str | None = None,
    decoder: str | None = None,
    seeds: Whole | None = None,
    allow_unknown: bool = False,
    push_to_hub: str | None = None,
    resume: bool = False,
) -> None:
    """Fine-tune a pretrained encoder on labelled examples.

    Args:
        task: Kind of task to train for.
        overrides: Fields of the configuration, each as --SECTION.FIELD VALUE; they override the file. `electrain fields
            finetune` lists all fields.
        model: Run folder, model folder or hub id of a pretrained encoder.
        train: Training examples: files (.tsv, .csv, .jsonl, .parquet, CoNLL columns, SQuAD JSON), folders, globs or
            hub:NAME data sets.
        validation: Validation examples, in the same formats. The model with the best validation score is kept.
        output: Folder to create for the run. The trained model is written to OUTPUT/model.
        config: TOML file, or the name of a recipe: sst2, brown_pos, squad, multi30k_en_de, ... By default, the default
            of every field.
        decoder: Decoder for summarization and translation: generator, encoder, fresh, or the folder of a language
            model. By default, what the configuration says, else fresh.
        seeds: Number of runs with different seeds, each in OUTPUT/seed-N; the median and the spread of the scores are
            reported. By default, one run.
        allow_unknown: Go on where more than a fifth of the tokens of the training texts are [UNK].
        push_to_hub: Repository of the Hugging Face hub, OWNER/NAME, to which OUTPUT/model is pushed when the run is
            finished; a new one is private. By default, nothing is pushed.
        resume: Continue from the newest intact checkpoint in the output folder.
    """
    from electrain.finetuning.readers import finetune_configuration
    from electrain.finetuning.run import finetune as run
    from electrain.finetuning.seeds import finetune_each

    tables = parse_overrides(overrides)
    configuration = finetune_configuration(task, config, tables, decoder, allow_unknown=allow_unknown)
    require_pushable(push_to_hub, configuration.card)
    result, summary = finetune_each(
        lambda own, folder: run(task, own, model, train, validation, folder, resume=resume),
        configuration,
        output,
        seeds=seeds,
        resume=resume,
    )
    if summary is not None:
        print_json(summary)
        if not summary["finished"]:
            raise SystemExit(result.exit_code)
        push_result("finetune", output, push_to_hub)
        return
    if result.is_first:
        facts = {"output": str(output), "task": task, "finished": result.is_finished, "best_step": result.best_step}
        print_json({**facts, "scores": result.scores})
    if result.exit_code:
        raise SystemExit(result.exit_code)
    if result.is_first:
        push_result("finetune", output, push_to_hub)


def fields(of: Literal["pretrain", "finetune"] = "pretrain", /) -> None:
    """List every field of a configuration, as the flag that sets it.

    Args:
        of: Verb whose configuration is listed.
    """
    from electrain.finetuning.configuration import FinetuneConfig
    from electrain.pretraining.configuration import PretrainConfig

    print(describe_fields(PretrainConfig if of == "pretrain" else FinetuneConfig))


def demo(*overrides: Overrides, output: Path | None = None) -> None:
    """Run every stage in a few minutes, on documentation that is already on this machine.

    Args:
        overrides: Fields of the preset demo, each as --SECTION.FIELD VALUE. `electrain fields` lists all fields.
        output: Folder to create. By default runs/demo, or the next free name.
    """
    from electrain.cli.demo import run_demo

    run_demo(output, parse_overrides(overrides))

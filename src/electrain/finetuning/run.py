"""Fine-tuning: a pretrained folder and labelled examples in, a run folder with the best model out. Wiring only."""

import dataclasses
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from electrain.data.labelled.examples import TaskName, texts_of
from electrain.data.labelled.tag_schemes import PLAIN
from electrain.data.tokenizer.plain_text import cleaner_for
from electrain.data.tokenizer.unknown import say_unreachable, unknown_characters, unknown_share
from electrain.finetuning.batches import training_batches
from electrain.finetuning.card import SCORES_NAME, write_cards
from electrain.finetuning.choosing import Best, deciding_score, says_the_same
from electrain.finetuning.configuration import WRITING_TASKS, FinetuneConfig, resolved
from electrain.finetuning.examples import Examples, read_all, settings_for
from electrain.finetuning.linear import LINEAR_MODELS, linear_scores
from electrain.finetuning.model import (
    FineTuning,
    Pretrained,
    build_model,
    open_pretrained,
    save_task_model,
    target_tokenizer_for,
)
from electrain.finetuning.predictions import PREDICTIONS_NAME, write_predictions
from electrain.finetuning.tasks.long_texts import cut_notice
from electrain.finetuning.tasks.metrics import require_scorer
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.settings import TaskSettings, build_task, score_settings
from electrain.finetuning.tasks.task import AnyTask, Row, Tensors
from electrain.finetuning.tasks.task_folder import takes_token_types
from electrain.foundation.card import carry_card, public_name
from electrain.foundation.configuration import to_toml
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.hub import is_hub_name
from electrain.foundation.json_output import to_json
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    GO_ON,
    HASHES,
    JOURNAL_NAME,
    MANIFEST_NAME,
    Manifest,
    begins,
    emptied_on_error,
    file_hash,
    hashes_of,
    one_line_when_full,
    read_manifest,
    replaced_directory,
    text_hash,
    write_manifest,
    write_text_durably,
)
from electrain.foundation.process import exit_code
from electrain.foundation.progress import counted, format_seconds, say
from electrain.foundation.sums import SUMS_NAME
from electrain.models.backbones import choose_attention
from electrain.models.encoder_decoder import DecoderConfig
from electrain.models.gradient_checkpointing import checkpoint_layers
from electrain.training.arithmetic import record_arithmetic, recorded_arithmetic
from electrain.training.loop import StepResult, TrainingRun
from electrain.training.optimizer import LayeredRates, build_layered_optimizers
from electrain.training.runtime import OUT_OF_MEMORY, Runtime, started_runtime
from electrain.training.settings import TrainingConfig
from electrain.training.sitting import Sitting
from electrain.training.tracking import require_trackers

FIRST_FILES = {CONFIGURATION_NAME, MANIFEST_NAME}
KIND = "fine-tuning"
LOG_EVERY_STEPS = 20
_TEXTS = "the training texts"
_UNKNOWN_REMEDY = (
    "their characters are not in the model's vocabulary, or their words have more than 100 characters; train the "
    "tokenizer on text like this too before you pretrain, or use a model whose tokenizer knows them"
)
_BEFORE_THE_CHOICE = "give the run's own with --training.optimizer (adamw for a run of before there was a choice)"
# Number of steps between checkpoints, besides those at each evaluation.
CHECKPOINT_EVERY_STEPS = 500


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        directory: the run folder.
        is_finished: False when the run was stopped before its end.
        is_diverged: True when updates were not finite, or `is_constant`.
        is_first: True in the one process that writes files and messages.
        best_step: the step after which the model that was kept was scored.
        scores: of that model, on the validation examples.
        is_constant: every model that was scored gave all validation examples one answer.
        stopped_by: number of the signal that stopped it; 0 if none did.
    """

    directory: Path
    is_finished: bool
    is_diverged: bool
    is_first: bool
    best_step: int
    scores: dict[str, float]
    is_constant: bool
    stopped_by: int = 0

    @property
    def exit_code(self) -> int:
        """0 if it finished, 1 if it diverged before its end, 128 and the signal's number if a signal stopped it."""
        return exit_code(is_finished=self.is_finished, is_failed=self.is_diverged, stopped_by=self.stopped_by)


def finetune(
    task: TaskName,
    config: FinetuneConfig,
    model: Path | str,
    train_sources: Sequence[str],
    validation_sources: Sequence[str],
    output: Path,
    *,
    resume: bool = False,
) -> FinetuneResult:
    """Trains on the examples and writes the run folder `output`; the model with the best validation score is kept.

    Args:
        model: a run folder, a model's folder, or a hub id; of an encoder or, for what writes, an encoder-decoder.
        train_sources, validation_sources: files, folders, globs or hub data sets.
        resume: go on from the newest good checkpoint of `output`; where there is none, begin.
    Raises: ElectrainError: a mistake that the user can fix, in one line.
    """
    require_trackers(config.training.report_to)
    pretrained = open_pretrained(model, may_have_decoder=task in WRITING_TASKS)
    config = resolved(config, task, pretrained.configuration.hidden_size, has_decoder=pretrained.has_decoder)
    clean = cleaner_for(pretrained.tokenizer)
    examples = read_all(task, config.data, train_sources, validation_sources, config.training.seed, clean=clean)
    settings = settings_for(task, config, examples, pretrained.longest_row)
    require_scorer(task, has_entities=settings.tag_scheme not in ("", PLAIN))
    chosen_by = deciding_score(config.training.choose_by, build_task(settings, pretrained.tokenizer), task)
    inputs = {
        "task": task,
        "train": _examples_hash(examples.train),
        "validation": _examples_hash(examples.validation),
        "model": _model_hash(pretrained.source),
    }
    recorded = partial(recorded_arithmetic, output, KIND) if resume else None
    with (
        started_runtime(config.training.precision, recorded) as runtime,
        one_line_when_full(output, GO_ON),
        ExitStack() as held,
    ):
        runtime.require_same(
            f"{inputs} {to_toml(config)}",
            "the processes were given different examples, models or configurations; start each with the same command "
            "and data",
        )
        longer = (
            "the learning rate falls to 0 with the last step, so a run cannot be prolonged; to train longer, fine-tune "
            f"{output / 'model'} in a new run"
        )
        hints = {"[training] epochs": longer, "[training] optimizer": _BEFORE_THE_CHOICE}
        facts = {
            "model": pretrained.source,
            "base_model": pretrained.source if is_hub_name(pretrained.source) else "",
            "train_sources": [public_name(source) for source in train_sources],
            "validation_sources": [public_name(source) for source in validation_sources],
            "train_examples": len(examples.train),
            "labels": list(settings.labels),
            "machine": {
                "device": runtime.device_name,
                "processes": runtime.processes,
                "torch": torch.__version__,
            },
        }

        def begin() -> None:
            if runtime.is_first:
                held.enter_context(locked(output))
                say_unreachable(pretrained.tokenizer, pretrained.source)
                if begins(output, KIND, inputs, config, FIRST_FILES, hints, resume=resume):
                    write_manifest(output, Manifest(KIND, False, inputs, facts | {"chosen_by": chosen_by}))
                record_arithmetic(output, KIND, runtime.device, runtime.arithmetic)

        runtime.together(begin)  # the first process makes the folder, for which the others wait
        try:
            with emptied_on_error(output, FIRST_FILES, is_first=runtime.is_first):
                parts = _build(config, settings, pretrained, examples, chosen_by, output, runtime)
            return _run(parts)
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(OUT_OF_MEMORY) from error


def _examples_hash(examples: Sequence[Any]) -> str:
    """Of what the examples say, wherever their file stands."""
    return text_hash(repr([dataclasses.replace(example, source="") for example in examples]))


def _model_hash(source: str) -> str:
    weights = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    return text_hash(" ".join(file_hash(path) for path in weights)) if weights else source


@dataclass(frozen=True)
class _Parts:
    """What is built once and used by every step; `best` is updated in place."""

    config: FinetuneConfig
    settings: TaskSettings
    pretrained: Pretrained
    examples: Examples
    target_tokenizer: PreTrainedTokenizerFast | None
    module: FineTuning
    sitting: Sitting[Tensors]
    evaluation_steps: frozenset[int]
    chosen_by: str  # the score that decides which model is the best
    best: Best


def _build(
    config: FinetuneConfig,
    settings: TaskSettings,
    pretrained: Pretrained,
    examples: Examples,
    chosen_by: str,
    output: Path,
    runtime: Runtime,
) -> _Parts:
    target_tokenizer = None
    if settings.task in WRITING_TASKS:
        if pretrained.has_decoder and config.decoder != DecoderConfig() and runtime.is_first:
            say(f"[decoder] is not used: {pretrained.source} has one, which is trained further")
        targets = [example.target for example in examples.train]
        target_tokenizer = target_tokenizer_for(config.decoder, pretrained, targets)
    model = build_model(pretrained, settings, config, target_tokenizer)
    task = build_task(settings, pretrained.tokenizer, target_tokenizer, with_token_types=takes_token_types(model))
    choose_attention(model, runtime.device, settings.longest_tokens)
    if config.training.gradient_checkpointing:
        checkpoint_layers(model, has_dropout=config.training.dropout > 0)
    module = FineTuning(model.to(runtime.device), task)
    rows = task.rows(examples.train)
    _say_unknown(rows, examples, pretrained.tokenizer, may_be_many=config.data.allow_unknown, says=runtime.is_first)
    if runtime.is_first:
        _say_what_is_cut(rows, task, settings, pretrained.longest_row)
    batches, per_epoch = training_batches(task, rows, config, rank=runtime.rank, processes=runtime.processes)
    training = _training(config, per_epoch)
    rates = LayeredRates(
        config.training.peak_learning_rate,
        layer_decay=config.training.layer_decay,
        word_embedding_ratio=config.training.word_embedding_rate_ratio,
        doubles_top_decay=config.parity.doubled_top_decay,
    )
    muon_dtype = runtime.muon_dtype if config.training.optimizer == "muon" else None
    optimizers = build_layered_optimizers(module, rates, config.training.weight_decay, muon_dtype)
    evaluations = max(1, math.ceil(config.training.epochs * config.training.evaluations_per_epoch))
    return _Parts(
        config,
        settings,
        pretrained,
        examples,
        target_tokenizer,
        module,
        Sitting(TrainingRun(module, optimizers, batches, training, runtime), output),
        frozenset(round(training.steps * (number + 1) / evaluations) for number in range(evaluations)),
        chosen_by,
        Best(),
    )


def _say_unknown(
    rows: Sequence[Row], examples: Examples, tokenizer: PreTrainedTokenizerFast, *, may_be_many: bool, says: bool
) -> None:
    """Says how much of the texts is [UNK]. Raises: TokenizerError: too much, and `may_be_many` is False."""
    unknown = unknown_share((row.input_ids for row in rows), tokenizer)

    def named() -> list[str]:
        return unknown_characters((text for example in examples.train for text in texts_of(example)), tokenizer)

    if not may_be_many:
        unknown.require_few(_TEXTS, _UNKNOWN_REMEDY, named)
    if says:
        unknown.say(_TEXTS, _UNKNOWN_REMEDY, named)


def _training(config: FinetuneConfig, per_epoch: int) -> TrainingConfig:
    """The run as the loop knows it."""
    training = config.training
    steps = max(1, math.ceil(training.epochs * per_epoch))
    return TrainingConfig(
        steps=steps,
        batch_rows=training.batch_rows,
        micro_batch_rows=training.micro_batch_rows,
        gradient_checkpointing=training.gradient_checkpointing,
        peak_learning_rate=training.peak_learning_rate,
        warmup_steps=min(steps - 1, round(training.warmup_fraction * steps)),
        weight_decay=training.weight_decay,
        dropout=training.dropout,
        seed=training.seed,
        precision=training.precision,
        compile=False,
        report_to=training.report_to,
    )


def _say_what_is_cut(rows: Sequence[Row], task: AnyTask, settings: TaskSettings, longest_row: int) -> None:
    """Args: longest_row: the most tokens that the model takes."""
    count = len({row.example for row in rows})
    cut = len({row.example for row in rows if row.is_cut})
    cut_targets = len({row.example for row in rows if row.is_target_cut})
    if cut and isinstance(task, QuestionAnswering):
        say(cut_notice(cut, count, task.longest_question_tokens, what="training questions"))
    elif cut:
        ways = [f"raise --data.longest-tokens (the model takes {longest_row:,})"]
        ways = ways if settings.longest_tokens < longest_row else []
        if settings.task in ("classification", "regression") and settings.cut == "beginning":
            ways.append("read more with --data.cut ends or windows")
        hint = f"; {', or '.join(ways)}" if ways else ""
        say(cut_notice(cut, count, settings.longest_tokens, settings.cut, "training texts") + hint)
    if cut_targets:
        longest = settings.generation["longest_output_tokens"]
        say(
            f"{cut_targets:,} of {counted(count, 'training target')} {'is' if cut_targets == 1 else 'are'} cut at "
            f"{counted(longest, 'token')}; "
            "raise --generation.longest-output-tokens if the end matters"
        )


def _run(parts: _Parts) -> FinetuneResult:
    """Takes the steps that are left, and writes what comes out."""
    sitting, run, best = parts.sitting, parts.sitting.run, parts.best
    sitting.restore(lambda saved: _restore(best, saved["progress"]))
    is_stopped = False
    if run.has_steps_left and not _is_patience_over(parts):
        if sitting.is_first:
            say(f"{counted(len(parts.examples.train), 'training example')}, {counted(run.training.steps, 'step')}")
            manifest = read_manifest(sitting.directory, KIND)
            facts = manifest.facts | {"steps": run.training.steps}  # which the configuration does not tell
            write_manifest(sitting.directory, Manifest(KIND, manifest.finished, manifest.inputs, facts))
        has_ended = sitting.train(lambda result: _after_step(parts, result))
        is_stopped = not has_ended and not _is_patience_over(parts)
    if sitting.is_first:
        _write_results(parts, is_finished=not is_stopped)
    return FinetuneResult(
        sitting.directory,
        not is_stopped,
        run.is_failed or (best.is_constant and not is_stopped),
        sitting.is_first,
        best.best_step,
        best.scores,
        best.is_constant,
        run.state.stopped_by,
    )


def _restore(best: Best, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        setattr(best, name, value)


def _is_patience_over(parts: _Parts) -> bool:
    return 0 < parts.config.training.patience_evaluations <= parts.best.evaluations_since_best


def _after_step(parts: _Parts, result: StepResult[Tensors]) -> bool:
    sitting, step = parts.sitting, parts.sitting.run.state.step
    is_evaluated = step in parts.evaluation_steps
    if sitting.is_first and (step % LOG_EVERY_STEPS == 0 or step == sitting.run.training.steps):
        names = ("loss", "learning_rate", "gradient_norm")
        sitting.log({name: float(getattr(result, name)) for name in names}, f"loss {float(result.loss):.3f}")
    if is_evaluated:
        _evaluate(parts)
    if is_evaluated or result.is_last or step % CHECKPOINT_EVERY_STEPS == 0:
        sitting.save(progress=dataclasses.asdict(parts.best))
    return _is_patience_over(parts)


def _evaluate(parts: _Parts) -> None:
    """Scores the validation examples and keeps the model when it is the best so far.

    Every process answers, but all go by the scores of the first: rounding can differ between machines, and processes
    that disagree about the best model would end at different steps and wait for each other for ever.
    """
    module, sitting, chosen_by = parts.module, parts.sitting, parts.chosen_by
    step, known = sitting.run.state.step, parts.examples.validation
    module.eval()
    with sitting.run.runtime.autocast():
        answers = module.task.answer(module.model, known)
    module.train()
    answers = module.task.calibrated(known, answers)
    own = module.task.score(known, answers)
    told = [*own.values(), float(says_the_same(parts.settings.task, known, answers))]
    *values, is_constant = sitting.run.runtime.of_first(told)
    scores = dict(zip(own, values, strict=True))
    is_better = parts.best.offer(step, scores, chosen_by, is_constant=bool(is_constant))
    if not sitting.is_first:
        return
    notes = ["best so far"] * is_better + ["one and the same answer to every example"] * bool(is_constant)
    note = f" ({'; '.join(notes)})" if notes else ""
    say(f"step {step}: validation {chosen_by} {scores.get(chosen_by, 0.0):.2f}{note}")
    sitting.record({"event": "validation", "step": step, **scores, "is_best": is_better})
    if is_better:
        write_predictions(sitting.directory, known, answers)
        with replaced_directory(sitting.directory / "model") as temporary:
            carry_card(sitting.directory / "model", temporary)
            settings = _settings_of_best(parts)
            save_task_model(module.model, settings, parts.pretrained.tokenizer, parts.target_tokenizer, temporary)


def _settings_of_best(parts: _Parts) -> TaskSettings:
    """The task's settings with what the best model's validation decides."""
    if parts.settings.null_threshold is None or not parts.best.scores:
        return parts.settings
    return dataclasses.replace(parts.settings, null_threshold=parts.best.scores["best_f1_threshold"])


def _write_results(parts: _Parts, *, is_finished: bool) -> None:
    from electrain.finetuning.report import write_report  # draws with matplotlib, which training does not need

    sitting, run, best, task = parts.sitting, parts.sitting.run, parts.best, parts.module.task
    manifest = read_manifest(sitting.directory, KIND)
    settings = _settings_of_best(parts)
    tuned = build_task(settings, parts.pretrained.tokenizer, parts.target_tokenizer)
    linear: dict[str, float] = {}
    if is_finished and not settings.has_many:
        linear = linear_scores(settings.task, parts.examples.train, parts.examples.validation)
    result = {
        "task": parts.settings.task,
        "settings": {
            "model": parts.pretrained.source,
            "seed": run.training.seed,
            "precision": str(run.runtime.dtype).removeprefix("torch."),
            **score_settings(tuned, settings, parts.examples.validation),
        },
        "validation_examples": len(parts.examples.validation),
        "best_step": best.best_step,
        "main_score": task.main_score,
        "chosen_by": parts.chosen_by,
        "is_constant": best.is_constant,
        "scores": best.scores,
        "linear_scores": linear,
    }
    write_text_durably(sitting.directory / SCORES_NAME, to_json(result, indent=2) + "\n")
    facts = {**manifest.facts, "step": run.state.step, "seconds": run.state.seconds, "scores": best.scores}
    facts["linear_scores"] = linear
    files = (CONFIGURATION_NAME, JOURNAL_NAME, SCORES_NAME, PREDICTIONS_NAME, f"model/{SUMS_NAME}")
    facts |= {HASHES: hashes_of(sitting.directory, files)}
    write_manifest(sitting.directory, Manifest(KIND, is_finished, manifest.inputs, facts))
    write_cards(sitting.directory)
    report = write_report(sitting.directory)
    if is_finished:
        score = f"{parts.chosen_by} {best.scores.get(parts.chosen_by, 0.0):.2f} after step {best.best_step}"
        if parts.chosen_by in linear:
            score += f" ({LINEAR_MODELS[parts.settings.task]}: {linear[parts.chosen_by]:.2f})"
        say(f"finished in {format_seconds(run.state.seconds)}: validation {score}; report: {report}")
    elif run.is_failed:
        say("stopped: too many updates in a row were not finite; lower --training.peak-learning-rate")
    else:
        say(f"stopped at step {run.state.step} of {run.training.steps}; go on with --resume")
    if best.is_constant:
        may_be_balanced = parts.settings.labels and not (parts.settings.has_many or parts.settings.class_weights)
        balance = ", or --training.class-weights balanced" if may_be_balanced else ""
        say(
            "warning: the model says the same of every validation example: it has learned nothing; "
            f"try another seed, a lower learning rate, or more epochs{balance}"
        )

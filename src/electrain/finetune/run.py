"""Fine-tuning: a pretrained folder and labelled examples in, a run folder with the best model out. Wiring only."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electrain.data.labelled.examples import TaskName
from electrain.finetune.batches import training_batches
from electrain.finetune.configuration import WRITING_TASKS, FinetuneConfig, resolved
from electrain.finetune.examples import Examples, read_all, settings_for
from electrain.finetune.model import (
    FineTuning,
    Pretrained,
    build_model,
    open_pretrained,
    save_task_model,
    target_tokenizer_for,
)
from electrain.finetune.predictions import write_predictions
from electrain.finetune.tasks.metrics import require_scorer
from electrain.finetune.tasks.task import Answer
from electrain.finetune.tasks.task_folder import TaskSettings, build_task, score_settings, takes_token_types
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    MANIFEST_NAME,
    Manifest,
    begins,
    emptied_on_error,
    file_hash,
    read_manifest,
    replaced_directory,
    text_hash,
    write_manifest,
    write_text_durably,
)
from electrain.foundation.progress import ProgressDisplay, format_seconds, say
from electrain.models.backbones import choose_attention
from electrain.models.encoder_decoder import DecoderConfig
from electrain.training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from electrain.training.journal import Journal
from electrain.training.loop import MOST_REFUSED_IN_A_ROW, RunState, StepResult, train
from electrain.training.optimizer import build_layered_optimizer
from electrain.training.runtime import OUT_OF_MEMORY, Runtime, started_runtime
from electrain.training.settings import ParityConfig, TrainingConfig

FIRST_FILES = {CONFIGURATION_NAME, MANIFEST_NAME}
SCORES_NAME = "scores.json"
KIND = "fine-tuning"
LOG_EVERY_STEPS = 20
# Numbers that spread less than this fraction of the true ones are one number.
CONSTANT_SPREAD = 1e-3
# Between evaluations a checkpoint is written every so many steps.
CHECKPOINT_EVERY_STEPS = 500
# What an answer says, by task; a model that says the same of every example has learned nothing.
_SAID = {"classification": ("label", "labels"), "regression": ("value",), "tagging": ("tags",)}


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        directory: of the run.
        is_finished: False when it was stopped before its end.
        is_diverged: updates were not finite, or the best model says the same of every validation example.
        is_first: True in the process that speaks.
        best_step: after which the model that was kept had its score.
        scores: of that model, on the validation examples.
    """

    directory: Path
    is_finished: bool
    is_diverged: bool
    is_first: bool
    best_step: int
    scores: dict[str, float]


@dataclass
class Progress:
    """What a checkpoint keeps beside the tensors.

    Attributes:
        best_step, scores: of the best model so far; its step is -1 before the first evaluation.
        evaluations_since_best: without a better score.
        is_constant: the best model says the same of every validation example.
    """

    best_step: int = -1
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluations_since_best: int = 0
    is_constant: bool = False


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
    Raises: ElectrainError: whatever the user has to mend.
    """
    pretrained = open_pretrained(model, may_have_decoder=task in WRITING_TASKS)
    config = resolved(config, task, int(pretrained.configuration.hidden_size))
    examples = read_all(task, config.data, train_sources, validation_sources, config.training.seed)
    settings = settings_for(task, config, examples, pretrained.longest_row)
    require_scorer(task, settings.labels)
    with started_runtime(config.training.precision) as runtime:
        if runtime.is_first:
            _prepare_run_directory(config, settings, pretrained, examples, output, resume=resume)
        runtime.sum([0.0])  # the other processes wait for the folder
        try:
            with emptied_on_error(output, FIRST_FILES, is_first=runtime.is_first):
                run = _Run(config, settings, pretrained, examples, output, runtime)
            return run.go()
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(OUT_OF_MEMORY) from error


def _prepare_run_directory(
    config: FinetuneConfig,
    settings: TaskSettings,
    pretrained: Pretrained,
    examples: Examples,
    output: Path,
    *,
    resume: bool,
) -> None:
    inputs = {
        "task": settings.task,
        "train": _examples_hash(examples.train),
        "validation": _examples_hash(examples.validation),
        "model": _model_hash(pretrained.source),
    }
    if begins(output, KIND, inputs, config, FIRST_FILES, resume=resume):
        facts = {"model": pretrained.source, "train_examples": len(examples.train), "labels": list(settings.labels)}
        write_manifest(output, Manifest(KIND, False, inputs, facts))


def _examples_hash(examples: Sequence[Any]) -> str:
    """Of what the examples say, wherever their file stands."""
    return text_hash(repr([dataclasses.replace(example, source="") for example in examples]))


def _model_hash(source: str) -> str:
    weights = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    return text_hash(" ".join(file_hash(path) for path in weights)) if weights else source


class _Run:
    """One sitting of a run: what is built once and used by every step."""

    def __init__(
        self,
        config: FinetuneConfig,
        settings: TaskSettings,
        pretrained: Pretrained,
        examples: Examples,
        output: Path,
        runtime: Runtime,
    ) -> None:
        self.config, self.settings, self.pretrained = config, settings, pretrained
        self.examples, self.output, self.runtime = examples, output, runtime
        self.target_tokenizer = None
        if settings.task in WRITING_TASKS:
            if pretrained.has_decoder and config.decoder != DecoderConfig() and runtime.is_first:
                say(f"[decoder] is not used: {pretrained.source} has one, which is trained further")
            targets = [example.target for example in examples.train]
            self.target_tokenizer = target_tokenizer_for(config.decoder, pretrained, targets)
        model = build_model(pretrained, settings, config, self.target_tokenizer)
        self.task = build_task(
            settings, pretrained.tokenizer, self.target_tokenizer, with_token_types=takes_token_types(model)
        )
        choose_attention(model, runtime.device, settings.longest_tokens)
        self.module = FineTuning(model.to(runtime.device), self.task)
        rows = self.task.rows(examples.train)
        self._say_what_is_cut(rows)
        self.batches, per_epoch = training_batches(
            self.task, rows, config, rank=runtime.rank, processes=runtime.processes
        )
        self.training = self._training(per_epoch)
        self.optimizers = [
            build_layered_optimizer(
                self.module,
                config.training.peak_learning_rate,
                layer_decay=config.training.layer_decay,
                word_embedding_rate_ratio=config.training.word_embedding_rate_ratio,
                weight_decay=config.training.weight_decay,
                doubles_top_decay=config.parity.doubled_top_decay,
            )
        ]
        evaluations = max(1, math.ceil(config.training.epochs * config.training.evaluations_per_epoch))
        self.evaluation_steps = {round(self.training.steps * (n + 1) / evaluations) for n in range(evaluations)}
        self.state, self.progress = RunState(), Progress()
        self.journal = Journal(output / "metrics.jsonl")
        self.since = (0, 0.0)

    def _training(self, per_epoch: int) -> TrainingConfig:
        """The run as the loop knows it."""
        training = self.config.training
        steps = max(1, math.ceil(training.epochs * per_epoch))
        return TrainingConfig(
            steps=steps,
            batch_rows=training.batch_rows,
            micro_batch_rows=training.micro_batch_rows,
            peak_learning_rate=training.peak_learning_rate,
            warmup_steps=min(steps - 1, round(training.warmup_fraction * steps)),
            weight_decay=training.weight_decay,
            dropout=training.dropout,
            seed=training.seed,
            precision=training.precision,
            compile=False,
        )

    def _say_what_is_cut(self, rows: Sequence[Any]) -> None:
        if not self.runtime.is_first:
            return
        for what, cut, longest, field in (
            ("texts", sum(row.is_cut for row in rows), self.settings.longest_tokens, "data.longest-tokens"),
            (
                "targets",
                sum(row.is_target_cut for row in rows),
                self.config.generation.longest_output_tokens,
                "generation.longest-output-tokens",
            ),
        ):
            if cut:
                say(
                    f"{cut:,} of {len(rows):,} training {what} are longer than {longest} tokens and were cut; "
                    f"raise --{field} if the end matters"
                )

    def go(self) -> FinetuneResult:
        """Takes the steps that are left, and writes what comes out."""
        checkpoint = find_checkpoint(self.output / "checkpoints", say if self.runtime.is_first else lambda _: None)
        if checkpoint is not None:
            load_checkpoint(checkpoint, self.module, self.optimizers)
            self.state = RunState(**checkpoint.state["run"])
            self.progress = Progress(**checkpoint.state["progress"])
            self.since = (self.state.tokens, self.state.seconds)
        if self.runtime.is_first:
            self.journal.cut_back(self.state.step)
        is_over = self._is_patience_over() or self.state.step >= self.training.steps
        is_stopped = False
        if not is_over:
            if self.runtime.is_first:
                say(f"{len(self.examples.train):,} training examples, {self.training.steps:,} steps")
            is_silent = not self.runtime.is_first
            with ProgressDisplay(self.training.steps, self.state.step, is_silent=is_silent) as self.display:
                ended = train(
                    self.module,
                    self.optimizers,
                    self.batches,
                    self.training,
                    ParityConfig(),
                    self.runtime,
                    self.state,
                    self._after_step,
                )
            is_stopped = not ended and not self._is_patience_over()
        is_failed = self.state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW
        if self.runtime.is_first:
            self._write_results(is_finished=not is_stopped)
        return FinetuneResult(
            self.output,
            not is_stopped,
            is_failed or (self.progress.is_constant and not is_stopped),
            self.runtime.is_first,
            self.progress.best_step,
            self.progress.scores,
        )

    def _is_patience_over(self) -> bool:
        patience = self.config.training.patience_evaluations
        return 0 < patience <= self.progress.evaluations_since_best

    def _after_step(self, result: StepResult) -> bool:
        step = self.state.step
        is_evaluated = step in self.evaluation_steps
        if self.runtime.is_first and (step % LOG_EVERY_STEPS == 0 or step == self.training.steps):
            self._log(result)
        if is_evaluated:
            self._evaluate()
        must_end = result.is_stop_asked or self.state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW
        if is_evaluated or must_end or step % CHECKPOINT_EVERY_STEPS == 0:
            if self.runtime.is_first:
                state = {"run": dataclasses.asdict(self.state), "progress": dataclasses.asdict(self.progress)}
                save_checkpoint(self.output / "checkpoints", step, self.module, self.optimizers, state)
            self.runtime.sum([0.0])
        return self._is_patience_over()

    def _log(self, result: StepResult) -> None:
        tokens, seconds = self.state.tokens - self.since[0], self.state.seconds - self.since[1]
        self.since = (self.state.tokens, self.state.seconds)
        rate = tokens / max(seconds, 1e-9)
        line = {
            "event": "log",
            "step": self.state.step,
            "tokens": self.state.tokens,
            "seconds": round(self.state.seconds, 3),
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            "tokens_per_second": round(rate, 1),
            "refused_updates": self.state.refused_updates,
        }
        self.journal.write(line)
        self.display.update(self.state.step, tokens_per_second=rate, loss=result.loss)

    def _evaluate(self) -> None:
        """Scores the validation examples, in every process alike, and keeps the model when it is the best so far."""
        self.module.eval()
        with self.runtime.autocast():
            answers = self.task.answer(self.module.model, self.examples.validation)
        self.module.train()
        scores = self.task.score(self.examples.validation, answers)
        main = self.task.main_score
        is_better = self.progress.best_step < 0 or scores[main] > self.progress.scores[main]
        if is_better:
            constant = says_the_same(self.settings.task, self.examples.validation, answers)
            self.progress = Progress(self.state.step, scores, 0, constant)
        else:
            self.progress.evaluations_since_best += 1
        if self.runtime.is_first:
            say(f"step {self.state.step}: validation {main} {scores[main]:.2f}{' (best so far)' if is_better else ''}")
            self.journal.write({"event": "validation", "step": self.state.step, **scores})
            if is_better:
                write_predictions(self.output, self.examples.validation, answers)
                with replaced_directory(self.output / "model") as temporary:
                    save_task_model(
                        self.module.model, self.settings, self.pretrained.tokenizer, self.target_tokenizer, temporary
                    )

    def _write_results(self, *, is_finished: bool) -> None:
        from electrain.finetune.report import write_report  # draws with matplotlib, which training does not need

        manifest = read_manifest(self.output, KIND)
        progress, main = self.progress, self.task.main_score
        result = {
            "task": self.settings.task,
            "settings": {
                "model": self.pretrained.source,
                "seed": self.config.training.seed,
                "precision": str(self.runtime.dtype).removeprefix("torch."),
                **score_settings(self.task, self.settings, self.examples.validation),
            },
            "validation_examples": len(self.examples.validation),
            "best_step": progress.best_step,
            "main_score": main,
            "scores": progress.scores,
        }
        write_text_durably(self.output / SCORES_NAME, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        facts = {**manifest.facts, "step": self.state.step, "seconds": self.state.seconds, "scores": progress.scores}
        write_manifest(self.output, Manifest(KIND, is_finished, manifest.inputs, facts))
        report = write_report(self.output)
        if not is_finished and self.state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW:
            say("stopped: too many updates in a row were not finite; lower --training.peak-learning-rate")
        elif not is_finished:
            say(f"stopped at step {self.state.step} of {self.training.steps}; go on with --resume")
        else:
            best = f"{main} {progress.scores[main]:.2f} after step {progress.best_step}"
            say(f"finished in {format_seconds(self.state.seconds)}: validation {best}; report: {report}")
        if progress.is_constant:
            say(
                "warning: the model says the same of every validation example: it has learned nothing; "
                "try another seed, a lower learning rate, or more epochs"
            )


def says_the_same(task: TaskName, examples: Sequence[Any], answers: Sequence[Answer]) -> bool:
    """True where all examples got one and the same answer, though that is not what is true of them."""
    names = _SAID.get(task)
    if names is None:
        return False
    said = [next(answer[name] for name in names if name in answer) for answer in answers]
    if task == "regression":
        true_spread = statistics.pstdev(example.value for example in examples)
        return bool(statistics.pstdev(said) < CONSTANT_SPREAD * true_spread)
    if task == "tagging":
        return len({tag for tags in said for tag in tags}) == 1 < len({tag for one in examples for tag in one.tags})
    return len({str(one) for one in said}) == 1 < len({frozenset(example.labels) for example in examples})

"""The networks of a folder, each opened when it is first asked, and the tasks that they can do."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from electrain.data.labelled.columns import Columns
from electrain.finetuning.tasks.task_folder import (
    TASK_FILE_NAME,
    FineTuned,
    TaskSettings,
    load_fine_tuned,
    load_task_settings,
)
from electrain.foundation.errors import CheckpointError, ConfigurationError, first_line
from electrain.inference.answers import Answer
from electrain.inference.asked import TASK_OF_VERB, Input
from electrain.inference.model import LoadedModel, load_detector, load_language_model
from electrain.inference.predict.generator import predict_generate
from electrain.inference.predict.pretrained import BATCH_TOKENS, load_filler, predict_detect, predict_fill
from electrain.inference.predict.tasks import (
    NO_COLUMNS,
    Encoder,
    load_encoder,
    predict_embed,
    predict_examples,
    predict_task,
)
from electrain.models.backbones import LABELS, backbone_of
from electrain.models.encoder_decoder import is_encoder_decoder
from electrain.models.folders import configuration_of
from electrain.models.heads import language_model_kind
from electrain.pretraining.run_folder import RunFolder, open_run_folder

Options = Mapping[str, Any]


class Networks:
    """The networks of a run folder, a model folder or a hub id, on one device.

    Not for several threads at once: tokenizers hold state while they read.
    """

    def __init__(self, source: Path | str, device: str | None = None, batch_tokens: int | None = None) -> None:
        """Looks what the folder holds, but opens no network.

        Raises: CheckpointError: there is no such folder. ConfigurationError: no such device.
        """
        self.source = str(source)
        self._run = open_run_folder(source)
        self._device = None if device is None else _device(device)
        self._batch_tokens = batch_tokens or BATCH_TOKENS
        self._fillers: dict[str | None, LoadedModel] = {}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of `predict` that the networks can do. Raises: CheckpointError: none."""
        return _tasks_of(self._run)

    @cached_property
    def reads_pairs(self) -> bool | None:
        """Whether a fine-tuned model reads two texts; None where its folder does not say."""
        settings = _task_settings(self._run.model)
        return bool(settings.columns.get("pair")) if settings and settings.columns.get("text") else None

    def ask(
        self,
        task: str,
        inputs: Iterable[Input],
        columns: Columns = NO_COLUMNS,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[Answer]:
        """The answer to each input, in order.

        Args:
            columns: of inputs that are JSON objects; see `predict_task`.
            options: of the task; see `electrain.inference.asked.OPTIONS`.
        Raises: CheckpointError: no network can do the task. DataError: an input lacks what it reads.
        """
        if task in TASK_OF_VERB:
            return predict_task(self._fine_tuned(task), inputs, columns)
        texts, more = (str(one.given) for one in inputs), dict(options or {})
        if task == "detect":
            return predict_detect(self._detector, texts, self._batch_tokens)
        if task == "fill":
            filler = self._filler(more.pop("by", None))
            return predict_fill(filler, texts, batch_tokens=self._batch_tokens, **more)
        if task == "embed":
            return predict_embed(self._encoder, texts, self._batch_tokens)
        return predict_generate(self._writer, texts, **more)

    def ask_examples(self, task: str, sources: Sequence[str], columns: Columns = NO_COLUMNS) -> Iterator[Answer]:
        """The answer to each example of labelled files; see `predict_examples`."""
        return predict_examples(self._fine_tuned(task), sources, columns)

    @cached_property
    def _detector(self) -> LoadedModel:
        return load_detector(self._run, self._device)

    @cached_property
    def _writer(self) -> LoadedModel:
        return load_language_model(self._run, self._device)

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder(self._run, self._device)

    def _filler(self, by: str | None) -> LoadedModel:
        if by not in self._fillers:
            found = load_filler(self._run, by, self._device)
            # The network that is taken when `by` is left out may be one that was opened by its name.
            self._fillers[by] = next((one for one in self._fillers.values() if one.source == found.source), found)
        return self._fillers[by]

    def _fine_tuned(self, task: str) -> FineTuned:
        if "_tuned" not in vars(self):
            tuned = load_fine_tuned(self._run, (TASK_OF_VERB[task],), self._device)
            batched = dataclasses.replace(tuned.task, batch_tokens=self._batch_tokens)
            self._tuned = dataclasses.replace(tuned, task=batched)
        return self._tuned


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ConfigurationError(f"device {name}: cannot be used ({first_line(error)[:100]}); leave it out") from error
    return device


def _tasks_of(run: RunFolder) -> tuple[str, ...]:
    configuration = configuration_of(run.model)
    architecture, backbone = (configuration.architectures or [""])[0], backbone_of(configuration)
    settings = _task_settings(run.model)
    verb = next((verb for verb, task in TASK_OF_VERB.items() if settings and task == settings.task), None)
    is_detector = bool(backbone and backbone.detector and backbone.detector.__name__ == architecture)
    is_detector &= not (backbone and backbone.detects_by_labels) or configuration.id2label == LABELS
    can = {
        "detect": "detection" in run.heads if run.config else is_detector and verb is None,
        "fill": _can_fill(run) if run.config else architecture.endswith(("ForMaskedLM", "ForPreTraining")),
        "generate": _writes(run.generator) if run.config else bool(backbone and backbone.is_causal),
    }
    can["fill"] &= bool(run.config) or not is_detector
    can["embed"] = not is_encoder_decoder(configuration) and not (backbone and backbone.is_causal)
    tasks = tuple(task for task, is_possible in can.items() if is_possible)
    if verb is None and not tasks:
        load_task_settings(run.model, configuration)  # says why the folder has no task
    return (*([verb] if verb else []), *tasks)


def _task_settings(source: str) -> TaskSettings | None:
    """The settings of a fine-tuned model; None for any other. Raises: CheckpointError: they are damaged."""
    try:
        return load_task_settings(source, configuration_of(source))
    except CheckpointError:
        if (Path(source) / TASK_FILE_NAME).is_file():
            raise
        return None


def _can_fill(run: RunFolder) -> bool:
    """True if a pretraining run keeps a network that sees both sides of a gap and predicts words."""
    return run.is_baseline or "correction" in run.heads or (bool(run.generator) and not _writes(run.generator))


def _writes(generator: str | None) -> bool:
    """True if the folder of a generator holds a causal one."""
    return generator is not None and language_model_kind(configuration_of(generator)) == "causal-language-model"

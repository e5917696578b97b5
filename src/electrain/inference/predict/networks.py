"""The networks of a folder, each opened when it is first asked, and the tasks that they can do."""

import dataclasses
from functools import cached_property
from pathlib import Path

import torch

from electrain.finetuning.tasks.settings import TASK_FILE_NAME, FineTuned, TaskSettings
from electrain.finetuning.tasks.task_folder import load_fine_tuned, load_task_settings
from electrain.foundation.errors import CheckpointError, ConfigurationError, first_line
from electrain.inference.asked import TASK_OF_VERB
from electrain.inference.model import (
    Encoder,
    LoadedModel,
    load_detector,
    load_encoder,
    load_filler,
    load_language_model,
)
from electrain.inference.predict.asking import OpenNetworks
from electrain.models.backbones import LABELS, backbone_of
from electrain.models.encoder_decoder import is_encoder_decoder
from electrain.models.folders import configuration_of
from electrain.models.heads import language_model_kind
from electrain.pretraining.run_folder import RunFolder, open_run_folder


class Networks(OpenNetworks):
    """The networks of a run folder, a model folder or a hub id, run by PyTorch on one device."""

    def __init__(self, source: Path | str, device: str | None = None, batch_tokens: int | None = None) -> None:
        """Looks what the folder holds, but opens no network.

        Raises: CheckpointError: there is no such folder. ConfigurationError: no such device.
        """
        super().__init__(str(source), batch_tokens)
        self._run = open_run_folder(source)
        self._device = None if device is None else _device(device)
        self._fillers: dict[str | None, LoadedModel] = {}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of `predict` that the networks can do. Raises: CheckpointError: none."""
        return _tasks_of(self._run)

    @cached_property
    def reads_pairs(self) -> bool | None:
        """Whether a fine-tuned model reads two texts; None where its folder does not say."""
        settings = _task_settings(self._run.model)
        return settings.reads_pairs if settings else None

    @cached_property
    def detector(self) -> LoadedModel:
        """The discriminator."""
        return load_detector(self._run, self._device)

    @cached_property
    def writer(self) -> LoadedModel:
        """The causal generator."""
        return load_language_model(self._run, self._device)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of any model."""
        return load_encoder(self._run, self._device)

    def filler(self, by: str | None) -> LoadedModel:
        """See `load_filler`."""
        if by not in self._fillers:
            found = load_filler(self._run, by, self._device)
            # The network that is taken when `by` is left out may be one that was opened by its name.
            self._fillers[by] = next((one for one in self._fillers.values() if one.source == found.source), found)
        return self._fillers[by]

    def fine_tuned(self, task: str) -> FineTuned:
        """See `load_fine_tuned`."""
        if "_tuned" not in vars(self):
            tuned = load_fine_tuned(self._run, (TASK_OF_VERB[task],), self._device)
            batched = dataclasses.replace(tuned.task, batch_tokens=self.batch_tokens)
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

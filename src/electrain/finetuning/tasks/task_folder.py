"""The folder of a fine-tuned model: Hugging Face's files, and `task.json` with the settings of its task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from electrain.data.labelled.examples import TaskName
from electrain.finetuning.tasks.settings import (
    TASK_FILE_NAME,
    FineTuned,
    TaskSettings,
    build_task,
    read_task_settings,
)
from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import positions_of
from electrain.models.encoder_decoder import is_encoder_decoder, load_encoder_decoder
from electrain.models.folders import configuration_of, tokenizer_of, weights_of
from electrain.models.task_heads import TASK_CLASSES
from electrain.pretraining.run_folder import RunFolder, open_run_folder
from electrain.training.runtime import device_of

# The task of a folder without `task.json`, by the end of its architecture's name.
_BY_ARCHITECTURE: dict[str, TaskName] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "question-answering",
}


def takes_token_types(model: PreTrainedModel) -> bool:
    """True if the encoder tells the two texts of a pair apart by token types."""
    kind: Mapping[str, Any] = (getattr(model.config, "encoder", None) or model.config).to_dict()
    return int(kind.get("type_vocab_size") or 0) > 1


def load_task_settings(source: str, configuration: PretrainedConfig) -> TaskSettings:
    """The settings of a model's folder: from `task.json`, or, where there is none, from the model's architecture.

    Args: configuration: the Hugging Face configuration of the folder.
    Raises: CheckpointError: the file is damaged, or the model was not fine-tuned for any task.
    """
    path = Path(source) / TASK_FILE_NAME
    if path.is_file():
        settings = read_task_settings(path)
        _require_fitting(settings, configuration, source)
        return settings
    architecture = (getattr(configuration, "architectures", None) or [""])[0]
    for ending, task in _BY_ARCHITECTURE.items():
        if architecture.endswith(ending):
            labels = tuple(str(configuration.id2label[number]) for number in sorted(configuration.id2label))
            if task == "classification" and len(labels) == 1:
                return TaskSettings("regression")
            if labels != ("original", "replaced"):  # those of a discriminator
                longest = min(positions_of(configuration) or 512, 384 if task == "question-answering" else 512)
                has_many = getattr(configuration, "problem_type", None) == "multi_label_classification"
                labels = () if task == "question-answering" else labels
                return TaskSettings(task, labels, has_many, longest_tokens=longest)
    kind = "an encoder-decoder" if is_encoder_decoder(configuration) else "a pretrained model"
    raise CheckpointError(
        f"{source}: is {kind} without a task; fine-tune it with `electrain finetune`, or give a fine-tuned folder"
    )


def _require_fitting(settings: TaskSettings, configuration: PretrainedConfig, source: str) -> None:
    """Raises CheckpointError if `task.json` and `config.json` cannot be of one model."""
    files = f"{source}: {TASK_FILE_NAME} and config.json disagree"
    names = tuple(str(configuration.id2label[number]) for number in sorted(configuration.id2label or {}))
    is_unnamed = names == tuple(f"LABEL_{number}" for number in range(len(names)))
    if settings.labels and (len(names) != len(settings.labels) or not (is_unnamed or names == settings.labels)):
        shown = [", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "") for labels in (settings.labels, names)]
        raise CheckpointError(
            f"{files} about the labels ({shown[0]}; {shown[1]}), so that answers would be wrong; copy the folder again"
        )
    if settings.class_weights and len(settings.class_weights) != len(settings.labels):
        raise CheckpointError(f"{source}: {TASK_FILE_NAME} has not one class weight a label; copy the folder again")
    most = positions_of(getattr(configuration, "encoder", None) or configuration)
    if most is not None and settings.longest_tokens > most:
        raise CheckpointError(
            f"{files}: rows of {settings.longest_tokens} tokens, and {most} positions; copy the folder again"
        )


def load_fine_tuned(
    model: Path | str | RunFolder, tasks: tuple[TaskName, ...], device: torch.device | None = None
) -> FineTuned:
    """The model of a fine-tuning run, or of a model's folder or hub id, that was fine-tuned for one of the tasks.

    Args: device: that of the weights. By default, see `device_of`.

    Raises: CheckpointError: it was not, or cannot be read. TokenizerError: its tokenizer cannot be used.
    """
    source = open_run_folder(model).model
    configuration = configuration_of(source)
    settings = load_task_settings(source, configuration)
    if settings.task not in tasks:
        wanted = " or ".join(tasks)
        raise CheckpointError(f"{source}: was fine-tuned for {settings.task}, not for {wanted}; give another folder")
    target_tokenizer = None
    if settings.task in TASK_CLASSES:
        role = f"model of {settings.task}"
        network = weights_of(source, TASK_CLASSES[settings.task], role, configuration=configuration)
        tokenizer = tokenizer_of(source, configuration.vocab_size, configuration)
    else:
        network, tokenizer, target_tokenizer = load_encoder_decoder(Path(source))
    task = build_task(settings, tokenizer, target_tokenizer, with_token_types=takes_token_types(network))
    return FineTuned(network.to(device or device_of()).eval(), task, settings, tokenizer, source)

"""Opens a fine-tuned model: a folder of `electrain finetune`, or any Hugging Face model with the head of a task."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electrain.data.labelled.examples import TaskName
from electrain.finetune.tasks.task import Task
from electrain.finetune.tasks.task_folder import TaskSettings, build_task, load_task_settings, takes_token_types
from electrain.foundation.errors import CheckpointError
from electrain.models.encoder_decoder import load_encoder_decoder
from electrain.models.folders import configuration_of, tokenizer_of, weights_of
from electrain.models.task_heads import TASK_CLASSES
from electrain.pretrain.run_folder import RunFolder, open_run_folder
from electrain.training.runtime import device_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class FineTuned:
    """A model in evaluation mode, in float32, with its task.

    Attributes:
        source: the folder or hub id it was read from.
    """

    model: "PreTrainedModel"
    task: Task[Any]
    settings: TaskSettings
    tokenizer: "PreTrainedTokenizerFast"
    source: str


def load_fine_tuned(
    model: Path | str | RunFolder, tasks: tuple[TaskName, ...], *, device: str | None = None
) -> FineTuned:
    """The model of a fine-tuning run, or of a model's folder or hub id, that was fine-tuned for one of the tasks.

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
    place = device or device_of()
    return FineTuned(network.to(place).eval(), task, settings, tokenizer, source)

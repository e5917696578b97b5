"""The configuration of a fine-tuning run as a user gives it, and the tasks that read each of its fields."""

from typing import TYPE_CHECKING

from electrain.data.labelled.examples import PAIRED_TASKS, TABLE_TASKS, WRITING_TASKS, TaskName
from electrain.foundation.configuration import Tables
from electrain.foundation.errors import ConfigurationError

if TYPE_CHECKING:
    from electrain.finetuning.configuration import FinetuneConfig

# The tasks that read each section or field of a fine-tuning configuration. A file may set any of them, because one
# file can serve several tasks; among the overrides, a field that the task does not read is a mistake.
READERS: dict[str, tuple[str, ...]] = {
    "decoder": WRITING_TASKS,
    "generation": WRITING_TASKS,
    "data.pair_column": PAIRED_TASKS,
    "data.references_column": WRITING_TASKS,
    "data.tag_scheme": ("tagging",),
    "data.train_tag_scheme": ("tagging",),
    "data.label_separator": ("classification",),
    "data.separator": TABLE_TASKS,
    "data.quoting": TABLE_TASKS,
    "data.cut": ("classification", "regression"),
    "data.window_overlap_tokens": ("question-answering",),
    "data.longest_answer_tokens": ("question-answering",),
    "training.label_smoothing": WRITING_TASKS,
    "training.class_weights": ("classification", "tagging"),
    "head.pooling": ("classification", "regression"),
}


def finetune_configuration(
    task: TaskName, config: str | Tables | None, overrides: Tables, decoder: str | None, *, allow_unknown: bool
) -> "FinetuneConfig":
    """The configuration of `electrain finetune`.

    Args: as the options of the verb; `config` may be the sections themselves.
    Raises: ConfigurationError: an override that the task does not read; see `load_finetune_configuration`.
    """
    from electrain.finetuning.configuration import load_finetune_configuration

    for section, table in overrides.items():
        for name in table:
            tasks = READERS.get(section) or READERS.get(f"{section}.{name}")
            if tasks is not None:
                require_read(f"--{section}.{name}".replace("_", "-"), tasks, task)
    if decoder is not None:
        require_read("--decoder", WRITING_TASKS, task)
        is_kind = decoder in ("generator", "encoder", "fresh")
        chosen = {"kind": decoder} if is_kind else {"kind": "folder", "source": decoder, "vocabulary": "folder"}
        overrides = overrides | {"decoder": chosen | overrides.get("decoder", {})}
    if allow_unknown:
        overrides = overrides | {"data": overrides.get("data", {}) | {"allow_unknown": True}}
    return load_finetune_configuration(config, overrides)


def require_read(flag: str, tasks: tuple[str, ...], task: str) -> None:
    """Raises ConfigurationError unless the task is one of those that read the flag."""
    if task not in tasks:
        raise ConfigurationError(f"{flag}: {task} does not read it, only {', '.join(tasks)}; leave it out")

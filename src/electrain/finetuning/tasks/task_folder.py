"""The folder of a fine-tuned model: Hugging Face's files, and `task.json` with the settings of its task."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.tag_schemes import SchemeName
from electrain.finetuning.configuration import GenerationConfig
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.long_texts import Cut
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.regression import Regression
from electrain.finetuning.tasks.sequence_to_sequence import SequenceToSequence
from electrain.finetuning.tasks.tagging import Tagging
from electrain.finetuning.tasks.task import AnyTask
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import CheckpointError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import as_kind, parse_json_file
from electrain.foundation.output_folder import (
    HASHES,
    MANIFEST_NAME,
    file_hash,
    read_any_manifest,
    write_manifest,
    write_text_durably,
)
from electrain.foundation.sums import SUMS_NAME, read_sums, write_hashes
from electrain.models.backbones import positions_of
from electrain.models.encoder_decoder import is_encoder_decoder, load_encoder_decoder
from electrain.models.folders import configuration_of, tokenizer_of, weights_of
from electrain.models.task_heads import TASK_CLASSES
from electrain.pretraining.run_folder import RunFolder, open_run_folder
from electrain.training.runtime import device_of

TASK_FILE_NAME = "task.json"
FORMAT_VERSION = 1
# The task of a folder without `task.json`, by the end of its architecture's name.
_BY_ARCHITECTURE: dict[str, TaskName] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "question-answering",
}


@dataclass(frozen=True)
class TaskSettings:
    """The settings of a task, saved beside the weights so that evaluation and prediction do as training did.

    The tasks' classes describe most of them.
    """

    task: TaskName
    labels: tuple[str, ...] = ()
    has_many: bool = False
    columns: dict[str, str] = dataclasses.field(default_factory=dict)  # of text, pair, label and references
    longest_tokens: int = 128
    cut: Cut = "beginning"  # of texts that are longer, in classification and regression
    window_overlap_tokens: int = 128
    longest_answer_tokens: int = 30
    generation: dict[str, Any] = dataclasses.field(default_factory=dict)  # the section [generation]
    label_smoothing: float = 0.0  # of tasks that write, as is the line above
    null_threshold: float | None = None  # a number where questions may have no answer
    class_weights: tuple[float, ...] = ()  # of each label in the training loss; empty: all weigh 1
    tag_scheme: Literal["", SchemeName] = ""  # of tagging; "" in older folders: the labels tell it
    # Of classification: the probability from which on a label is given, where it was chosen on validation data.
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task in ("classification", "tagging") and not self.labels:
            raise ValueError(f"no labels for {self.task}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is named twice")
        require_at_least("longest_tokens", self.longest_tokens, 4)  # two special tokens, and one of each text
        require_at_least("longest_answer_tokens", self.longest_answer_tokens, 1)
        require_at_least("window_overlap_tokens", self.window_overlap_tokens, 0)
        if any(label not in self.labels or not 0 <= value <= 1 for label, value in self.thresholds.items()):
            raise ValueError("thresholds: each must be of a label, and from 0 to 1")
        if self.thresholds and (self.task != "classification" or not (self.has_many or len(self.labels) == 2)):
            raise ValueError("thresholds are for classification with two labels, or of texts with several")
        if len(self.thresholds) > 1 and not self.has_many:
            raise ValueError("of two labels, only one can have a threshold")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing = {self.label_smoothing}: must be at least 0 and below 1")


def build_task(
    settings: TaskSettings,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    with_token_types: bool = True,
) -> AnyTask:
    """The task with these settings, for a model's tokenizer and, where it writes, that of its decoder."""
    longest, more = settings.longest_tokens, {"with_token_types": with_token_types}
    if settings.task == "classification":
        labels, has_many, weights = settings.labels, settings.has_many, settings.class_weights
        thresholds = settings.thresholds
        return Classification(
            tokenizer, longest, labels, has_many, weights, cut=settings.cut, thresholds=thresholds, **more
        )
    if settings.task == "regression":
        return Regression(tokenizer, longest, cut=settings.cut, **more)
    if settings.task == "tagging":
        return Tagging(tokenizer, longest, settings.labels, settings.class_weights, settings.tag_scheme, **more)
    if settings.task == "question-answering":
        overlap, longest_answer = settings.window_overlap_tokens, settings.longest_answer_tokens
        return QuestionAnswering(tokenizer, longest, overlap, longest_answer, settings.null_threshold, **more)
    writing = dict(settings.generation)
    return SequenceToSequence(
        tokenizer,
        longest,
        name=settings.task,
        target_tokenizer=target_tokenizer or tokenizer,
        longest_target_tokens=writing.pop("longest_output_tokens", 64),
        label_smoothing=settings.label_smoothing,
        **more,
        **writing,
    )


def takes_token_types(model: PreTrainedModel) -> bool:
    """True if the encoder tells the two texts of a pair apart by token types."""
    kind: Mapping[str, Any] = (getattr(model.config, "encoder", None) or model.config).to_dict()
    return int(kind.get("type_vocab_size") or 0) > 1


def score_settings(task: AnyTask, settings: TaskSettings, examples: list[Any]) -> dict[str, Any]:
    """Everything that the scores of a model depend on besides its weights and the examples, ready for JSON."""
    given: dict[str, Any] = {"columns": settings.columns, "longest_tokens": settings.longest_tokens}
    if settings.task in ("classification", "regression"):
        given["cut"] = settings.cut
    if settings.generation:
        given["generation"] = settings.generation
    return given | task.score_settings(examples)


def save_task_settings(settings: TaskSettings, directory: Path) -> None:
    """Writes `task.json`."""
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(settings)}
    write_text_durably(directory / TASK_FILE_NAME, to_json(content, indent=2) + "\n")


def replace_task_settings(settings: TaskSettings, folder: Path) -> None:
    """Writes `task.json` of a finished folder anew, with its hash in SHA256SUMS and, of a run, that in the manifest.

    A hash is removed before the file that it is of changes, and is written after it. So a crash at any moment leaves a
    folder that is read, with the old settings or the new ones.
    """
    run, name = folder.parent, f"{folder.name}/{SUMS_NAME}"
    manifest = read_any_manifest(run) if (run / MANIFEST_NAME).is_file() else None
    sums = read_sums(folder)
    is_named = bool(sums and manifest and manifest.hashes)
    if manifest and is_named:
        others = {one: value for one, value in manifest.hashes.items() if one != name}
        write_manifest(run, dataclasses.replace(manifest, facts=manifest.facts | {HASHES: others}))
    if sums:
        write_hashes(folder, {one: value for one, value in sums.items() if one != TASK_FILE_NAME})
    save_task_settings(settings, folder)
    if sums:
        write_hashes(folder, sums | {TASK_FILE_NAME: file_hash(folder / TASK_FILE_NAME)})
    if manifest and is_named:
        hashes = manifest.hashes | {name: file_hash(folder / SUMS_NAME)}
        write_manifest(run, dataclasses.replace(manifest, facts=manifest.facts | {HASHES: hashes}))


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


def read_task_settings(path: Path) -> TaskSettings:
    """The content of `task.json`. Raises: CheckpointError: it is damaged, or of a newer format."""
    fault, way_out = CheckpointError, "copy the folder again"
    content = parse_json_file(path, fault, way_out=way_out)
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(f"{path}: format {version} is newer than this electrain reads; update electrain")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise CheckpointError(f"{path}: damaged (it names no format_version); {way_out}")
    settings = as_kind(content, TaskSettings, str(path), fault, way_out=way_out)
    if settings.generation:
        as_kind(dict(settings.generation), GenerationConfig, f"{path}: generation", fault, way_out=way_out)
    return settings


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


@dataclass(frozen=True)
class FineTuned:
    """A model in evaluation mode, in float32, with its task; it was read from the folder or hub id `source`."""

    model: PreTrainedModel
    task: AnyTask
    settings: TaskSettings
    tokenizer: PreTrainedTokenizerFast
    source: str


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

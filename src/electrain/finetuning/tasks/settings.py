"""The settings of a fine-tuned model's task, in `task.json` beside its weights. Nothing here needs torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.tag_schemes import SchemeName
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.long_texts import Cut
from electrain.finetuning.tasks.network import AskedModel
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.regression import Regression
from electrain.finetuning.tasks.sequence_to_sequence import SequenceToSequence
from electrain.finetuning.tasks.tagging import Tagging
from electrain.finetuning.tasks.task import AnyTask
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import CheckpointError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import as_kind, of_format, parse_json_file
from electrain.foundation.output_folder import (
    HASHES,
    MANIFEST_NAME,
    file_hash,
    read_any_manifest,
    write_manifest,
    write_text_durably,
)
from electrain.foundation.sums import SUMS_NAME, read_sums, write_hashes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TASK_FILE_NAME = "task.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class GenerationConfig:
    """How summaries and translations are written.

    Attributes:
        beams: Number of beams in beam search, at least 1; 1 always writes the likeliest token.
        length_penalty: Exponent of the length that the log-probability of an output is divided by; higher values favour
            longer outputs.
        no_repeat_ngram_tokens: Length in tokens of the sequences that may not occur twice; 0 allows repetition.
        longest_output_tokens: Largest number of tokens in an output, at least 2.
    """

    beams: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram_tokens: int = 0
    longest_output_tokens: int = 64

    def __post_init__(self) -> None:
        require_at_least("beams", self.beams, 1)
        require_at_least("no_repeat_ngram_tokens", self.no_repeat_ngram_tokens, 0)
        require_at_least("longest_output_tokens", self.longest_output_tokens, 2)


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

    @property
    def reads_pairs(self) -> bool | None:
        """Whether the model reads two texts; None where its folder does not say."""
        return bool(self.columns.get("pair")) if self.columns.get("text") else None


def build_task(
    settings: TaskSettings,
    tokenizer: "PreTrainedTokenizerFast",
    target_tokenizer: "PreTrainedTokenizerFast | None" = None,
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


def read_task_settings(path: Path) -> TaskSettings:
    """The content of `task.json`. Raises: CheckpointError: it is damaged, or of a newer format."""
    fault, way_out = CheckpointError, "copy the folder again"
    value = parse_json_file(path, fault, way_out=way_out)
    content = of_format(value, FORMAT_VERSION, str(path), fault, way_out=way_out)
    settings = as_kind(content, TaskSettings, str(path), fault, way_out=way_out)
    if settings.generation:
        as_kind(dict(settings.generation), GenerationConfig, f"{path}: generation", fault, way_out=way_out)
    return settings


@dataclass(frozen=True)
class FineTuned:
    """A model in evaluation mode, in float32, with its task; it was read from the folder or hub id `source`."""

    model: AskedModel
    task: AnyTask
    settings: TaskSettings
    tokenizer: "PreTrainedTokenizerFast"
    source: str

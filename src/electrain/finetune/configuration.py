"""The configuration of a fine-tuning run: its sections, its recipes, and what is filled in by task and model."""

import dataclasses
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from electrain.data.labelled.examples import TaskName
from electrain.foundation.configuration import Tables, build_configuration, merge_tables, read_toml, require_at_least
from electrain.foundation.errors import ConfigurationError
from electrain.models.encoder_decoder import DecoderConfig
from electrain.training.settings import Precision

TASKS: tuple[TaskName, ...] = (
    "classification",
    "regression",
    "tagging",
    "question-answering",
    "summarization",
    "translation",
)
WRITING_TASKS = ("summarization", "translation")
# Up to a width: learning rate, layer-wise decay, and the rate of summarization and translation. Clark et al. 2020,
# table 7 (small, base, large); narrower encoders by our own trials, docs/experiments.md; three times the rate where at
# least cross-attention starts from random weights.
_BY_WIDTH = (
    (192, 2e-3, 1.0, 1e-3),
    (512, 3e-4, 0.8, 1e-3),
    (896, 1e-4, 0.8, 3e-4),
    (1 << 30, 5e-5, 0.9, 1.5e-4),
)
_EPOCHS = {"question-answering": 2.0, "summarization": 10.0, "translation": 10.0}
_LONGEST_TOKENS = {"question-answering": 384, "summarization": 256}


@dataclass(frozen=True)
class ExamplesConfig:
    """Where the examples stand in their files, and how much of each is read.

    Attributes:
        text_column: of the text, or what is written of; empty: by the usual names.
        pair_column: of the second text of a pair; empty: by the usual names.
        label_column: of the label, number, tags, or what is to be written; empty: by the usual names.
        references_column: of further good outputs, for scoring summaries and translations.
        longest_tokens: of a row, special tokens counted; 0: 384 for question-answering, 256 for summarization, 128 for
            all else, and never more than the model takes.
        window_overlap_tokens: shared by the windows of a long context, in question-answering.
        longest_answer_tokens: of an answer that is given, in question-answering.
        train_examples: so many, drawn from the training files by the seed; 0: all.
        validation_examples: so many, the same for every seed; 0: all.
        skip_broken: leave broken rows out, and say how many, instead of refusing the file.
    """

    text_column: str = ""
    pair_column: str = ""
    label_column: str = ""
    references_column: str = ""
    longest_tokens: int = 0
    window_overlap_tokens: int = 128
    longest_answer_tokens: int = 30
    train_examples: int = 0
    validation_examples: int = 0
    skip_broken: bool = False

    def __post_init__(self) -> None:
        for name in ("longest_tokens", "window_overlap_tokens", "train_examples", "validation_examples"):
            require_at_least(name, getattr(self, name), 0)
        require_at_least("longest_answer_tokens", self.longest_answer_tokens, 1)
        if 0 < self.longest_tokens < 8:
            raise ValueError(f"longest_tokens = {self.longest_tokens}: must be at least 8, or 0")


@dataclass(frozen=True)
class FinetuneTrainingConfig:
    """The run.

    Attributes:
        epochs: passes over the training examples; 0: 3, or 2 for question-answering, 10 for summarization and
            translation.
        batch_rows: rows per step, over all processes; 32 in the paper.
        micro_batch_rows: rows per forward pass of one process; 0 means all of its rows; less saves memory.
        peak_learning_rate: 0: by the encoder's width, 3e-4, 1e-4 or 5e-5 (small, base, large in the paper), 2e-3 for
            widths up to 192; for summarization and translation 1e-3, 3e-4 or 1.5e-4.
        layer_decay: each layer learns so much slower than the one above it; 0: 0.8, or 0.9 from a width of 1,024 on; 1
            for widths up to 192, and for summarization and translation.
        word_embedding_rate_ratio: the encoder's word embeddings learn so many times as fast; 1 in the paper.
        warmup_fraction: of the steps, over which the learning rate rises from 0; then it falls in a straight line.
        weight_decay: except for biases and LayerNorm; 0 in the paper.
        dropout: everywhere; 0.1 in the paper.
        label_smoothing: of the words to write, in summarization and translation.
        seed: of the new head, order and dropout.
        evaluations_per_epoch: how often validation is scored; the best model is kept.
        patience_evaluations: stop after so many evaluations without a better score; 0: never.
        weights: pretrained, or fresh: the same network with random weights, to see what pretraining gives.
        precision: bfloat16 autocast, float32, or auto: bfloat16 where the machine has instructions for it.
    """

    epochs: float = 0.0
    batch_rows: int = 32
    micro_batch_rows: int = 0
    peak_learning_rate: float = 0.0
    layer_decay: float = 0.0
    word_embedding_rate_ratio: float = 1.0
    warmup_fraction: float = 0.1
    weight_decay: float = 0.0
    dropout: float = 0.1
    label_smoothing: float = 0.1
    seed: int = 0
    evaluations_per_epoch: int = 1
    patience_evaluations: int = 0
    weights: Literal["pretrained", "fresh"] = "pretrained"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "micro_batch_rows",
            "seed",
            "patience_evaluations",
            "weight_decay",
            "word_embedding_rate_ratio",
        ):
            require_at_least(name, getattr(self, name), 0)
        for name in ("batch_rows", "evaluations_per_epoch"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("peak_learning_rate", "warmup_fraction", "dropout", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                hint = f"; as a percentage it is written {value / 100}" if 1 <= value <= 100 else ""
                raise ValueError(f"{name} = {value}: must be at least 0 and below 1{hint}")
        if not 0 <= self.layer_decay <= 1:
            raise ValueError(f"layer_decay = {self.layer_decay}: must be above 0 and at most 1, or 0")


@dataclass(frozen=True)
class HeadConfig:
    """What stands between the encoder and the answer.

    Attributes:
        kind: huggingface: the head of the `AutoModelFor...` class; reference: dropout and one linear layer on [CLS], as
            the reference implementation has it (classification and regression with an ELECTRA encoder).
        pooling: of a ModernBERT encoder's states, for a text as a whole: the first, or their mean.
    """

    kind: Literal["huggingface", "reference"] = "huggingface"
    pooling: Literal["cls", "mean"] = "mean"


@dataclass(frozen=True)
class GenerationConfig:
    """How summaries and translations are written.

    Attributes:
        beams: kept in beam search; 1: the likeliest token each time.
        length_penalty: above 0 favours longer outputs.
        no_repeat_ngram_tokens: no run of so many tokens twice; 0: no such rule.
        longest_output_tokens: where writing stops.
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
class FinetuneParityConfig:
    """Quirks of the reference implementation.

    Attributes:
        doubled_top_decay: the top layer is decayed twice, and every layer below it once more than it should be.
    """

    doubled_top_decay: bool = False


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides a fine-tuning run, besides the model and the examples."""

    data: ExamplesConfig = field(default_factory=ExamplesConfig)
    training: FinetuneTrainingConfig = field(default_factory=FinetuneTrainingConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    parity: FinetuneParityConfig = field(default_factory=FinetuneParityConfig)


def resolved(config: FinetuneConfig, task: TaskName, hidden_size: int) -> FinetuneConfig:
    """The configuration with each 0 that means "by task or model" filled in, as it is written beside the run.

    Raises: ConfigurationError: a choice that the task does not have.
    """
    _, rate, decay, writing_rate = next(row for row in _BY_WIDTH if hidden_size <= row[0])
    writes = task in WRITING_TASKS
    training, data = config.training, config.data
    if config.head.kind == "reference" and task not in ("classification", "regression"):
        raise ConfigurationError(f'[head] kind = "reference": is for classification and regression, not {task}')
    return dataclasses.replace(
        config,
        training=dataclasses.replace(
            training,
            epochs=training.epochs or _EPOCHS.get(task, 3.0),
            peak_learning_rate=training.peak_learning_rate or (writing_rate if writes else rate),
            layer_decay=training.layer_decay or (1.0 if writes else decay),
        ),
        data=dataclasses.replace(data, longest_tokens=data.longest_tokens or _LONGEST_TOKENS.get(task, 128)),
    )


def recipe_names() -> list[str]:
    """The fine-tuning configurations that come with electrain, one for each public data set."""
    return sorted(path.name.removesuffix(".toml") for path in _recipes().iterdir() if path.name.endswith(".toml"))


def _recipes() -> "resources.abc.Traversable":  # type: ignore[name-defined]
    return resources.files("electrain.finetune.recipes")


def load_finetune_configuration(name_or_path: str | None, overrides: Tables | None = None) -> FinetuneConfig:
    """A configuration from a TOML file or a recipe by its name, or the defaults, with fields overridden.

    Raises: ConfigurationError: see `build_configuration`.
    """
    tables: Tables = {}
    if name_or_path in recipe_names():
        with resources.as_file(_recipes() / f"{name_or_path}.toml") as path:
            tables = read_toml(path)
    elif name_or_path is not None and not name_or_path.endswith(".toml"):
        recipes = ", ".join(recipe_names())
        raise ConfigurationError(f"{name_or_path}: not a .toml file nor one of the recipes {recipes}; give one of them")
    elif name_or_path is not None:
        tables = read_toml(Path(name_or_path))
    return build_configuration(FinetuneConfig, merge_tables(tables, overrides or {}), name_or_path or "the defaults")

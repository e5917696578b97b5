"""The configuration of a fine-tuning run: its sections, its recipes, and what is filled in by task and model."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

from electrain.data.labelled.examples import TaskName
from electrain.data.text.delimited import Quoting
from electrain.finetuning.tasks.long_texts import Cut
from electrain.finetuning.tasks.settings import GenerationConfig
from electrain.foundation.card import CardConfig
from electrain.foundation.configuration import (
    BEFORE,
    Tables,
    build_configuration,
    merge_tables,
    preset_names_in,
    read_preset_or_toml,
    require_at_least,
)
from electrain.foundation.errors import ConfigurationError
from electrain.models.encoder_decoder import DecoderConfig
from electrain.training.settings import Precision, TrackerName

TASKS: tuple[TaskName, ...] = get_args(TaskName)
TagScheme = Literal["bio", "iob2", "iob1", "bioes", "iobes", "bilou", "bmes", "bmewo"]
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
# Of encoders and fresh decoders that narrow, docs/experiments.md, Writing with Muon; others were not measured.
_WRITING_RATE_OF_MUON = 6e-3
_RECIPES = "electrain.finetuning.recipes"
_EPOCHS = {"question-answering": 2.0, "summarization": 10.0, "translation": 10.0}
_LONGEST_TOKENS = {"question-answering": 384, "summarization": 256}


@dataclass(frozen=True)
class ExamplesConfig:
    """Columns of the labelled files, and how much of each example is read.

    Attributes:
        text_column: Column of the text, or of the text to summarize or translate; empty finds it by its usual names.
        pair_column: Column of the second text of a pair, or of a question's context; empty finds it by its usual names.
        label_column: Column of the label, number, tags, answers, summary or translation; empty finds it by its usual
            names. Several names with commas between them are columns of 0 and 1, one for each label of a text.
        label_separator: Classification: what separates several labels in one field, such as a semicolon. none takes
            each field as one label; empty does so too, but refuses fields that look like several.
        references_column: Summarization and translation: column of a list of further correct outputs, used for scoring;
            empty uses none.
        separator: Character between the fields of .csv and .tsv files, or tab; empty is a comma in .csv and a tab in
            .tsv.
        quoting: Quotes in .csv and .tsv files. csv reads them as CSV has them, none as characters of the text; auto is
            csv for .csv and none for .tsv, and refuses a .tsv that is quoted as CSV is.
        tag_scheme: Tagging: scheme of the tags in the files. auto finds it out from the training tags, and none scores
            words instead of entities; bio (or iob2), iob1, bioes (or iobes), bilou, bmes and bmewo name it.
        train_tag_scheme: Tagging: scheme that the tags are converted to before training. as-read keeps that of the
            files, but reads iob1 as bio; bio (or iob2), iob1, bioes (or iobes), bilou, bmes and bmewo convert them.
        longest_tokens: Largest number of tokens in a row, including special tokens, at least 8; 0 uses 384 for
            question-answering, 256 for summarization and 128 for other tasks. The model's own limit also applies.
        cut: Classification and regression: what of a longer text is read. beginning drops its end. ends drops its
            middle: a quarter of the row has the text's beginning, the rest its end. windows reads all of it in
            overlapping rows, each trained with the text's label; their logits are averaged. The longer text of a pair
            is cut first.
        window_overlap_tokens: Question-answering: number of tokens that neighbouring windows of a long context share.
        longest_answer_tokens: Question-answering: largest number of tokens in a predicted answer, at least 1.
        train_examples: Number of training examples, drawn at random with training.seed; 0 uses all.
        validation_examples: Number of validation examples, the same ones for every seed; 0 uses all.
        skip_broken: Leave invalid rows out and count them, instead of refusing the file.
        allow_unknown: Go on where more than a fifth of the tokens of the training texts are [UNK]; also set by
            --allow-unknown.
    """

    text_column: str = ""
    pair_column: str = ""
    label_column: str = ""
    label_separator: str = ""
    references_column: str = ""
    separator: str = ""
    quoting: Quoting = "auto"
    tag_scheme: Literal["auto", "none", TagScheme] = "auto"
    train_tag_scheme: Literal["as-read", TagScheme] = "as-read"
    longest_tokens: int = 0
    cut: Cut = "beginning"
    window_overlap_tokens: int = 128
    longest_answer_tokens: int = 30
    train_examples: int = 0
    validation_examples: int = 0
    skip_broken: bool = False
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        for name in ("longest_tokens", "window_overlap_tokens", "train_examples", "validation_examples"):
            require_at_least(name, getattr(self, name), 0)
        require_at_least("longest_answer_tokens", self.longest_answer_tokens, 1)
        if 0 < self.longest_tokens < 8:
            raise ValueError(f"longest_tokens = {self.longest_tokens}: must be at least 8, or 0")


@dataclass(frozen=True)
class FinetuneTrainingConfig:
    """Length, speed and precision of the run.

    Attributes:
        epochs: Number of passes over the training examples; 0 uses 10 for summarization and translation, and the
            paper's 2 for question-answering and 3 for other tasks. A small encoder with few examples needs more: 20 for
            500 examples, 10 for 2,000.
        batch_rows: Number of rows per step, over all processes, at least 1. 32 in the paper.
        micro_batch_rows: Number of rows per forward pass of one process; 0 uses all rows of the process. Fewer rows
            need less memory.
        gradient_checkpointing: Keep only the input of each layer, and compute the layer again in the backward pass.
            Needs far less memory and about a third more time; the result is the same, bit for bit.
        optimizer: Optimizer. adamw is used for all weights, as in the paper; muon is used for the matrices inside the
            layers, and adamw for the rest; auto takes muon for summarization and translation with a fresh decoder, it
            and the encoder up to a width of 192, where it was measured, if no learning rate is given, since one of
            adamw is too low for muon; and adamw otherwise.
        peak_learning_rate: Learning rate at the end of the warm-up, below 1; 0 chooses by the encoder's width: 2e-3 up
            to 192, 3e-4 up to 512, 1e-4 up to 896 and 5e-5 above (the last three from the paper), and 1e-3, 1e-3, 3e-4
            and 1.5e-4 for summarization and translation (6e-3 where auto takes muon). Up to a width of 192, 1e-3 is
            better for more than about 500 steps of other tasks.
        layer_decay: Factor of the learning rate from each layer to the one below, above 0 and at most 1; 0 chooses by
            the encoder's width: 1 up to 192, 0.8 up to 896 and 0.9 above (the last two from the paper), and 1 for
            summarization and translation.
        word_embedding_rate_ratio: Factor of the learning rate of the encoder's word embeddings, at least 0. 1 in the
            paper; 10 helps a narrow encoder on ten thousand labelled texts or more.
        warmup_fraction: Fraction of the steps over which the learning rate rises from 0, before it falls linearly to 0.
            0.1 in the paper.
        weight_decay: Weight decay, at least 0, not applied to biases and LayerNorm. 0 in the paper.
        dropout: Dropout probability in all layers, at least 0 and below 1. 0.1 in the paper.
        label_smoothing: Summarization and translation: label smoothing of the written words, at least 0 and below 1.
        seed: Seed of the new head, the order of examples and dropout, at least 0.
        class_weights: Classification with one label each, and tagging: weight of each label in the loss. none weighs
            all examples alike; balanced weighs a label by the number of examples, divided by the number of labels and
            by how often the label occurs, as scikit-learn does.
        evaluations_per_epoch: Number of validations per epoch, at least 1; the model with the best score is kept.
        choose_by: Validation score by which the best model is chosen, one of those that the task reports, for example
            accuracy, macro-f1 or mcc; empty uses the task's main score. A model that gives every example one answer is
            kept only if there is no other.
        patience_evaluations: Number of validations without a better score after which the run stops; 0 never stops
            early.
        weights: Weights to start from. pretrained uses those of --model; fresh starts the same network from random
            weights, to show what pretraining contributes.
        precision: Number format of the matrix products. auto measures which is fastest when the run begins: bfloat16
            autocast, float16 autocast on a GPU without bfloat16, or float32. float16 needs a CUDA device.
        report_to: Trackers that draw the curves of the run while it trains, besides metrics.jsonl: tensorboard writes
            event files into the folder tensorboard of the run (`pip install "electrain[track]"`), wandb makes a run
            of Weights & Biases (`pip install wandb`).
    """

    epochs: float = 0.0
    batch_rows: int = 32
    micro_batch_rows: int = 0
    gradient_checkpointing: bool = False
    optimizer: Literal["auto", "adamw", "muon"] = field(default="auto", metadata={BEFORE: "adamw"})
    peak_learning_rate: float = 0.0
    layer_decay: float = 0.0
    word_embedding_rate_ratio: float = 1.0
    warmup_fraction: float = 0.1
    weight_decay: float = 0.0
    dropout: float = 0.1
    label_smoothing: float = 0.1
    seed: int = 0
    class_weights: Literal["none", "balanced"] = "none"
    evaluations_per_epoch: int = 1
    choose_by: str = ""
    patience_evaluations: int = 0
    weights: Literal["pretrained", "fresh"] = "pretrained"
    precision: Precision = "auto"
    report_to: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        at_least_0 = "epochs micro_batch_rows seed patience_evaluations weight_decay word_embedding_rate_ratio"
        for name in at_least_0.split():
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
    """The head between the encoder and the answer.

    Attributes:
        kind: Head for classification and regression. huggingface is the head of the AutoModelFor... class; reference is
            that of the reference implementation, dropout and one linear layer on [CLS], for ELECTRA encoders.
        pooling: ModernBERT encoders: vector that stands for a whole text, the state of the first token (cls) or the
            mean of all states.
    """

    kind: Literal["huggingface", "reference"] = "huggingface"
    pooling: Literal["cls", "mean"] = "mean"


@dataclass(frozen=True)
class FinetuneParityConfig:
    """Quirks of the reference implementation, off by default.

    Attributes:
        doubled_top_decay: Apply layer_decay once too often, so that the top layer is decayed twice.
    """

    doubled_top_decay: bool = False


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of a fine-tuning run; together with the model and the examples, they determine its result."""

    data: ExamplesConfig = field(default_factory=ExamplesConfig)
    training: FinetuneTrainingConfig = field(default_factory=FinetuneTrainingConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    parity: FinetuneParityConfig = field(default_factory=FinetuneParityConfig)
    card: CardConfig = field(default_factory=CardConfig)


def resolved(config: FinetuneConfig, task: TaskName, hidden_size: int, *, has_decoder: bool = False) -> FinetuneConfig:
    """The configuration with each 0 or "auto" that means "by task or model" filled in, as it is written beside the run.

    Args: has_decoder: the model has a decoder that was trained before.
    Raises: ConfigurationError: a choice that the task does not have.
    """
    _, rate, decay, writing_rate = next(row for row in _BY_WIDTH if hidden_size <= row[0])
    writes = task in WRITING_TASKS
    training, data = config.training, config.data
    is_narrow = max(hidden_size, config.decoder.hidden_size) <= _BY_WIDTH[0][0]
    is_measured = writes and is_narrow and config.decoder.kind == "fresh" and not has_decoder
    optimizer = training.optimizer
    if optimizer == "auto":
        optimizer = "muon" if is_measured and not training.peak_learning_rate else "adamw"
    if optimizer == "muon" and is_measured:
        writing_rate = _WRITING_RATE_OF_MUON
    if config.head.kind == "reference" and task not in ("classification", "regression"):
        raise ConfigurationError(f'[head] kind = "reference": is for classification and regression, not {task}')
    return dataclasses.replace(
        config,
        training=dataclasses.replace(
            training,
            epochs=training.epochs or _EPOCHS.get(task, 3.0),
            optimizer=optimizer,
            peak_learning_rate=training.peak_learning_rate or (writing_rate if writes else rate),
            layer_decay=training.layer_decay or (1.0 if writes else decay),
        ),
        data=dataclasses.replace(data, longest_tokens=data.longest_tokens or _LONGEST_TOKENS.get(task, 128)),
    )


def recipe_names() -> list[str]:
    """The fine-tuning configurations that come with electrain, one for each public data set."""
    return preset_names_in(_RECIPES)


def load_finetune_configuration(config: str | Tables | None, overrides: Tables | None = None) -> FinetuneConfig:
    """A configuration from a TOML file, a recipe by its name or its sections, or the defaults, with fields overridden.

    Raises: ConfigurationError: see `build_configuration`.
    """
    where = config if isinstance(config, str) else "config" if config else "the command line"
    tables = read_preset_or_toml(_RECIPES, config, "recipes") if isinstance(config, str) else config or {}
    return build_configuration(FinetuneConfig, merge_tables(tables, overrides or {}), where)

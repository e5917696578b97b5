"""The network of a fine-tuning run: a pretrained encoder with the task's head, or joined to a decoder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    ElectraForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from electrain.data.tokenizer.targets import load_target_tokenizer, train_target_tokenizer
from electrain.data.tokenizer.tokenizer import save_tokenizer
from electrain.finetuning.configuration import WRITING_TASKS, FinetuneConfig
from electrain.finetuning.tasks.settings import TaskSettings, save_task_settings
from electrain.finetuning.tasks.task import AnyTask, Tensors, on_device
from electrain.finetuning.tasks.task_folder import takes_token_types
from electrain.foundation.errors import CheckpointError, ConfigurationError
from electrain.foundation.sums import write_sums
from electrain.models import encoder_decoder, task_heads
from electrain.models.backbones import LABELS, backbone_of, positions_of
from electrain.models.folders import configuration_of, is_of_a_pooler, quiet_transformers, tokenizer_of, weights_of
from electrain.models.sentence_vectors import write_sentence_transformer_files
from electrain.pretraining.run_folder import RunFolder, open_run_folder
from electrain.training.objective import LossTerm, Objective, Outcome


@dataclass(frozen=True)
class Pretrained:
    """The pretrained model, in the folder or on the hub at `source`; the configuration and tokenizer of its encoder."""

    source: str
    configuration: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    has_decoder: bool = False  # an encoder-decoder is trained further

    @property
    def longest_row(self) -> int:
        """Maximum number of tokens, special ones counted, that the model takes at once."""
        # A run's tokenizer cuts at the length it was pretrained on; fine-tuning can train the positions beyond.
        return positions_of(self.configuration) or min(512, int(self.tokenizer.model_max_length))


def open_pretrained(model: Path | str | RunFolder, *, may_have_decoder: bool = False) -> Pretrained:
    """The encoder in a run folder, in a model's folder or on the hub; or an encoder-decoder, where that is allowed.

    Raises: CheckpointError: the model is neither, or cannot be read.
    """
    source = open_run_folder(model).model
    whole = configuration_of(source)
    has_decoder, backbone = encoder_decoder.is_encoder_decoder(whole), backbone_of(whole)
    if (has_decoder and not may_have_decoder) or (backbone and backbone.is_causal):
        what = "an encoder-decoder" if has_decoder else "a causal generator"
        raise CheckpointError(f"{source}: is {what}; fine-tuning starts from an encoder, such as the model/ of a run")
    if has_decoder and not Path(source).is_dir():
        raise CheckpointError(f"{source}: an encoder-decoder is read from a folder only; download it first")
    configuration = whole.encoder if has_decoder else whole
    return Pretrained(source, configuration, tokenizer_of(source, configuration.vocab_size, whole), has_decoder)


def target_tokenizer_for(
    decoder: encoder_decoder.DecoderConfig, pretrained: Pretrained, targets: Iterable[str]
) -> PreTrainedTokenizerFast:
    """The tokenizer of the texts to write: the encoder-decoder's, the encoder's, one trained on targets, or a folder's.

    Raises: ConfigurationError: a decoder is configured for a model that has one. CheckpointError: no such folder.
        TokenizerError: the folder has no usable tokenizer, or the vocabulary is too small.
    """
    if pretrained.has_decoder:
        if decoder.kind != "fresh":
            raise ConfigurationError(f"--decoder {decoder.kind}: {pretrained.source} has a decoder; leave it out")
        return encoder_decoder.target_tokenizer_of(Path(pretrained.source)) or pretrained.tokenizer
    if decoder.vocabulary == "encoder":
        return pretrained.tokenizer
    if decoder.vocabulary == "own":
        return train_target_tokenizer(targets, decoder.vocabulary_size)
    if not Path(decoder.tokenizer_folder).is_dir():
        raise CheckpointError(f"{decoder.tokenizer_folder}: no such folder; give that of a language model or tokenizer")
    return load_target_tokenizer(Path(decoder.tokenizer_folder))


class FineTuning(Objective[Tensors]):
    """A model with its task, as the training loop takes an objective."""

    def __init__(self, model: PreTrainedModel, task: AnyTask) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def prepare(self, rows: Tensors, device: torch.device) -> Tensors:
        return on_device(rows, device)

    def forward(self, rows: Tensors) -> Outcome:
        return Outcome({"task": LossTerm(self.task.loss(self.model, rows), 1.0)}, {})


def build_model(
    pretrained: Pretrained,
    settings: TaskSettings,
    config: FinetuneConfig,
    target_tokenizer: PreTrainedTokenizerFast | None,
) -> PreTrainedModel:
    """The network to train, on the CPU.

    Raises: CheckpointError: the weights do not fit. ConfigurationError: a head or decoder that the model cannot have.
    """
    # New layers draw their weights from torch's global generator, so that the seed decides them.
    torch.manual_seed(config.training.seed)
    is_fresh = config.training.weights == "fresh"
    if settings.task in WRITING_TASKS:
        return _encoder_decoder(pretrained, config, target_tokenizer, is_fresh=is_fresh)
    configuration = task_heads.task_configuration(
        pretrained.configuration,
        settings.task,
        settings.labels,
        dropout=config.training.dropout,
        pooling=config.head.pooling,
    )
    if settings.has_many:
        configuration.problem_type = "multi_label_classification"
    model = _weights(pretrained, task_heads.TASK_CLASSES[settings.task], configuration, is_fresh=is_fresh)
    if not _answers_the_same(pretrained.configuration, type(model).__name__, configuration):
        task_heads.reset_answer_layer(model)
    if config.head.kind == "reference":
        if not isinstance(model, ElectraForSequenceClassification):
            raise ConfigurationError(
                f'[head] kind = "reference": is for an ELECTRA encoder; {pretrained.source} is a '
                f"{configuration.model_type} model"
            )
        task_heads.use_reference_head(model)
    return model


def _encoder_decoder(
    pretrained: Pretrained, config: FinetuneConfig, target_tokenizer: PreTrainedTokenizerFast | None, *, is_fresh: bool
) -> PreTrainedModel:
    dropout = config.training.dropout
    if pretrained.has_decoder:
        joined = encoder_decoder.open_encoder_decoder(pretrained.source, dropout, is_fresh=is_fresh)
    else:
        configuration = task_heads.with_dropout(pretrained.configuration, dropout)
        joined = encoder_decoder.build_encoder_decoder(
            _weights(pretrained, AutoModel, configuration, is_fresh=is_fresh),
            config.decoder,
            encoder_source=pretrained.source,
            target_tokenizer=target_tokenizer,
            dropout=dropout,
        )
    positions = joined.config.decoder.max_position_embeddings
    if config.generation.longest_output_tokens > positions:
        raise ConfigurationError(
            f"[generation] longest_output_tokens = {config.generation.longest_output_tokens}: the decoder has "
            f"{positions} positions; lower it"
        )
    return joined


def _answers_the_same(before: PretrainedConfig, architecture: str, now: PretrainedConfig) -> bool:
    """True if the model was already fine-tuned for the same labels, so that its head is worth keeping.

    A detection head, which older runs have in their model/, answers another question even with the same class.
    """
    is_same_class = (getattr(before, "architectures", None) or [""])[0] == architecture
    return bool(is_same_class and before.id2label == now.id2label != LABELS)


def _weights(
    pretrained: Pretrained, encoder_class: Any, configuration: PretrainedConfig, *, is_fresh: bool
) -> PreTrainedModel:
    if is_fresh:
        return encoder_class.from_config(configuration, trust_remote_code=False)
    source, role = pretrained.source, "pretrained encoder"
    try:
        return weights_of(source, encoder_class, role, configuration=configuration, may_be_new=_is_of_a_head)
    except CheckpointError as error:
        if "Unrecognized configuration class" in str(error):
            raise CheckpointError(
                f"{source}: a {configuration.model_type} model has no head for this task; give another encoder"
            ) from error
        raise


def _is_of_a_head(model: PreTrainedModel, name: str) -> bool:
    """True for weights of a head on top of the encoder or of a pooler: these may be new, all others must be there."""
    body = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    return is_of_a_pooler(model, name) or not name.startswith(body)


def save_task_model(
    model: PreTrainedModel,
    settings: TaskSettings,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None,
    directory: Path,
) -> None:
    """Writes a standard Hugging Face folder, with `task.json` beside the weights.

    The tokenizer cuts where the task's rows do, so that a `pipeline` with truncation reads what `predict` reads.
    """
    if settings.task in WRITING_TASKS:
        with quiet_transformers():
            encoder_decoder.save_encoder_decoder(model, tokenizer, target_tokenizer, directory, settings.longest_tokens)
    else:
        with quiet_transformers():
            task_heads.fold_reference_head(model).save_pretrained(directory)
        has_types = takes_token_types(model)
        save_tokenizer(tokenizer, directory, with_token_types=has_types, model_max_length=settings.longest_tokens)
        write_sentence_transformer_files(directory, model.config.hidden_size, settings.longest_tokens)
    save_task_settings(settings, directory)
    write_sums(directory)

"""Joins a pretrained encoder with a decoder by cross-attention: Hugging Face's `EncoderDecoderModel`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from electrain.data.tokenizer.targets import load_target_tokenizer, writing_ids
from electrain.data.tokenizer.tokenizer import SPECIAL_TOKENS, SpecialIds, load_tokenizer, save_tokenizer
from electrain.foundation.configuration import require_at_least, require_layers
from electrain.foundation.errors import CheckpointError, ConfigurationError
from electrain.models.backbones import BACKBONES, MOST_POSITIONS, EncoderConfig, backbone_of, encoder_configuration
from electrain.models.folders import configuration_of, quiet_transformers, weights_of
from electrain.models.heads import language_model
from electrain.models.task_heads import with_dropout

DecoderKind = Literal["generator", "encoder", "fresh", "folder"]
DecoderVocabulary = Literal["encoder", "own", "folder"]
TARGET_TOKENIZER = "target_tokenizer"
_CROSS_ATTENTION = ("crossattention.", "ln_cross_attn.")


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder that writes summaries and translations.

    Attributes:
        kind: Where the decoder comes from. fresh is a GPT-2 with random weights; generator is the causal generator of
            the pretraining run; encoder is a copy of the encoder's weights (ELECTRA and BERT); folder is the language
            model in source.
        source: Kind folder: folder of a GPT-2, ELECTRA or BERT language model.
        layers: Kind fresh: number of layers; 0 uses as many as the encoder has.
        hidden_size: Kind fresh: width of the hidden states; 0 uses the encoder's.
        feed_forward_size: Kind fresh: width inside the feed-forward network; 0 uses the encoder's.
        heads: Kind fresh: number of attention heads; 0 uses the encoder's.
        vocabulary: Vocabulary of the outputs. encoder uses that of the encoder; own learns one from the training
            targets, in which every text can be written exactly; folder uses the one in tokenizer.
        vocabulary_size: Vocabulary own: largest number of tokens.
        tokenizer: Vocabulary folder: folder of the tokenizer; empty uses that of source.
    """

    kind: DecoderKind = "fresh"
    source: str = ""
    layers: int = 0
    hidden_size: int = 0
    feed_forward_size: int = 0
    heads: int = 0
    vocabulary: DecoderVocabulary = "encoder"
    vocabulary_size: int = 8000
    tokenizer: str = ""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "feed_forward_size", "heads"):
            require_at_least(name, getattr(self, name), 0)
            if getattr(self, name) and self.kind != "fresh":
                raise ValueError(f'{name}: is for kind = "fresh"; a decoder of kind "{self.kind}" has its own sizes')
        require_layers(self.layers)
        require_at_least("vocabulary_size", self.vocabulary_size, 1)
        if bool(self.source) != (self.kind == "folder"):
            raise ValueError(f'source: belongs to kind = "folder", and to it alone; this one is "{self.kind}"')
        if self.kind == "folder" and self.vocabulary != "folder":
            raise ValueError(f'vocabulary = "{self.vocabulary}": a decoder from a folder needs vocabulary = "folder"')
        if self.kind == "generator" and self.vocabulary != "encoder":
            raise ValueError(f'vocabulary = "{self.vocabulary}": the generator knows the encoder\'s words only')
        if self.tokenizer and self.vocabulary != "folder":
            raise ValueError(f'tokenizer: is for vocabulary = "folder"; this one is "{self.vocabulary}"')
        if self.vocabulary == "folder" and not (self.tokenizer or self.source):
            raise ValueError('vocabulary = "folder": give the tokenizer\'s folder as tokenizer')

    @property
    def tokenizer_folder(self) -> str:
        """The folder of the tokenizer for vocabulary = "folder"."""
        return self.tokenizer or self.source


def is_encoder_decoder(configuration: PretrainedConfig) -> bool:
    """True for a configuration that holds those of an encoder and of a decoder."""
    return isinstance(configuration, EncoderDecoderConfig)


def build_encoder_decoder(
    encoder: PreTrainedModel,
    decoder: DecoderConfig,
    *,
    encoder_source: Path | str,
    target_tokenizer: PreTrainedTokenizerFast,
    dropout: float,
) -> PreTrainedModel:
    """An `EncoderDecoderModel` of a pretrained encoder and a decoder.

    Cross-attention, and the projection between networks of different widths, start from random weights.

    Args:
        encoder: of a backbone that `joins_decoder`; becomes part of the result.
        encoder_source: the folder of the encoder; a run keeps its generator beside it.
        target_tokenizer: of the outputs; the encoder's own for vocabulary = "encoder".
        dropout: everywhere in the decoder; the encoder keeps its own.
    Raises: CheckpointError: no such generator or folder, or networks that cannot be joined. ConfigurationError: sizes
        that do not fit each other. TokenizerError: a tokenizer without an end of text.
    """
    backbone = backbone_of(encoder.config)
    if backbone is None or not backbone.joins_decoder:
        known = ", ".join(name for name, one in BACKBONES.items() if one.joins_decoder)
        raise CheckpointError(
            f"{encoder_source}: a {encoder.config.model_type} encoder cannot be joined with a decoder; use {known}"
        )
    # None: the decoder has the encoder's words, so that it can start from the encoder's table.
    own_tokenizer = None if decoder.vocabulary == "encoder" else target_tokenizer
    if decoder.kind == "fresh":
        network = _fresh_decoder(encoder, decoder, target_tokenizer, dropout)
    elif decoder.kind == "encoder":
        network = _encoder_as_decoder(encoder, encoder_source, own_tokenizer, dropout)
    elif decoder.kind == "folder":
        network = _decoder_from(decoder.source, dropout, must_be_causal=False)
    else:
        network = _generator_as_decoder(encoder, Path(encoder_source).parent / "generator", dropout)
    if len(target_tokenizer) > network.config.vocab_size:
        raise CheckpointError(
            f"{decoder.source or encoder_source}: the decoder knows {network.config.vocab_size} tokens, the target "
            f"tokenizer has {len(target_tokenizer)}; give the decoder's own tokenizer"
        )
    _reload_alike(encoder)
    with quiet_transformers():
        joined = EncoderDecoderModel(
            config=EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, network.config),
            encoder=encoder,
            decoder=network,
        )
    _set_special_ids(joined, target_tokenizer)
    return joined


def _generator_as_decoder(encoder: PreTrainedModel, folder: Path, dropout: float) -> PreTrainedModel:
    """The causal generator of the encoder's run, so that both halves are pretrained on the same text."""
    if not folder.is_dir():
        raise CheckpointError(f'{folder}: no such generator; pretrain with one, or use [decoder] kind = "fresh"')
    network = _decoder_from(str(folder), dropout, must_be_causal=True)
    if network.config.vocab_size != encoder.config.vocab_size:
        raise CheckpointError(
            f"{folder}: knows {network.config.vocab_size} tokens, the encoder {encoder.config.vocab_size}; "
            "give model/ and generator/ of one run"
        )
    return network


def _fresh_decoder(
    encoder: PreTrainedModel, decoder: DecoderConfig, target_tokenizer: PreTrainedTokenizerFast, dropout: float
) -> PreTrainedModel:
    """A GPT-2 with random weights, except for word embeddings copied from the encoder if words and width agree."""
    theirs, ids = encoder.config, writing_ids(target_tokenizer)
    is_joint = decoder.vocabulary == "encoder"
    try:
        sizes = EncoderConfig(
            layers=decoder.layers or theirs.num_hidden_layers,
            hidden_size=decoder.hidden_size or theirs.hidden_size,
            feed_forward_size=decoder.feed_forward_size or theirs.intermediate_size,
            heads=decoder.heads or theirs.num_attention_heads,
        )
    except ValueError as error:
        raise ConfigurationError(f"[decoder] {error}; give hidden_size and heads that fit") from error
    configuration = encoder_configuration(
        sizes,
        vocabulary_size=theirs.vocab_size if is_joint else len(target_tokenizer),
        sequence_length=MOST_POSITIONS,
        dropout=dropout,
        special_ids=SpecialIds(pad=ids.pad, cls=ids.start, sep=ids.end, mask=ids.pad),  # a decoder masks nothing
        is_causal=True,
    )
    configuration.is_decoder = configuration.add_cross_attention = True
    network = language_model(configuration)
    embeddings = encoder.get_input_embeddings().weight
    if is_joint and embeddings.shape[1] == sizes.hidden_size:
        with torch.no_grad():
            network.get_input_embeddings().weight.copy_(embeddings)
    return network


def _encoder_as_decoder(
    encoder: PreTrainedModel, source: Path | str, own_tokenizer: PreTrainedTokenizerFast | None, dropout: float
) -> PreTrainedModel:
    """A copy of the encoder that attends to earlier tokens only; cross-attention and output layer are random.

    Args: own_tokenizer: of a vocabulary that the encoder does not know; None: the encoder's vocabulary.
    Source: Rothe et al. 2020, "Leveraging pre-trained checkpoints for sequence generation tasks", section 3.
    """
    backbone = backbone_of(encoder.config)
    if backbone is None or backbone.decoder is None:
        raise CheckpointError(
            f"{source}: a {encoder.config.model_type} encoder has no form with cross-attention; "
            'use [decoder] kind = "fresh" or "generator"'
        )
    configuration = _as_decoder(encoder.config, dropout)
    if own_tokenizer is not None:
        configuration.vocab_size = len(own_tokenizer)
        configuration.pad_token_id = writing_ids(own_tokenizer).pad
    with quiet_transformers():
        network = backbone.decoder(configuration)
    weights = {
        name: value
        for name, value in encoder.state_dict().items()
        if not name.startswith("pooler.") and (own_tokenizer is None or "word_embeddings" not in name)
    }
    # Not strict: cross-attention has no counterpart in the encoder.
    network.base_model.load_state_dict(weights, strict=False)
    network.tie_weights()
    return network


def _decoder_from(source: str, dropout: float, *, must_be_causal: bool) -> PreTrainedModel:
    """The language model of a folder, with random cross-attention."""
    configuration = configuration_of(source)
    decoders = {name: one for name, one in BACKBONES.items() if one.decoder and (one.is_causal or not must_be_causal)}
    if backbone_of(configuration) not in decoders.values():
        hint = '; pretrain with a causal generator, or use kind = "folder"' if must_be_causal else ""
        raise CheckpointError(
            f"{source}: is of the kind {configuration.model_type}; this decoder must be {' or '.join(decoders)}{hint}"
        )
    return weights_of(
        source,
        AutoModelForCausalLM,
        "language model",
        configuration=_as_decoder(configuration, dropout),
        may_be_new=lambda model, name: any(part in name for part in _CROSS_ATTENTION),
    )


def _as_decoder(configuration: PretrainedConfig, dropout: float) -> PretrainedConfig:
    configuration = with_dropout(configuration, dropout)
    configuration.is_decoder = configuration.add_cross_attention = configuration.tie_word_embeddings = True
    return configuration


def _reload_alike(encoder: PreTrainedModel) -> None:
    """Gives an encoder the pooler that Hugging Face builds when it reloads the folder.

    Without it the reloaded network would have more weights than the saved one. Its output is never read, so it is not
    trained.
    """
    backbone = backbone_of(encoder.config)
    if backbone and backbone.pooler:
        if encoder.pooler is None:
            encoder.pooler = backbone.pooler(encoder.config)
        encoder.pooler.requires_grad_(False)


def _set_special_ids(model: PreTrainedModel, target_tokenizer: PreTrainedTokenizerFast) -> None:
    # Training and `generate` take these ids from different ones of these configurations, so all must agree.
    ids = writing_ids(target_tokenizer)
    model.config.vocab_size = model.decoder.config.vocab_size
    for settings in (model.config, model.generation_config, model.decoder.config, model.decoder.generation_config):
        settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = ids.start, ids.end, ids.pad
        settings.decoder_start_token_id = ids.start


def save_encoder_decoder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast,
    directory: Path,
    longest_source: int | None = None,
) -> None:
    """Saves the model and its tokenizers so that `EncoderDecoderModel` and `AutoTokenizer` can load the folder.

    Args:
        tokenizer: of the source texts; saved in the folder itself.
        target_tokenizer: of the outputs; saved in `target_tokenizer/` if it is another one.
        longest_source: number of tokens to which the source tokenizer cuts; None keeps its own limit.
    """
    with quiet_transformers():
        model.save_pretrained(directory)
    with_token_types = getattr(model.encoder.config, "type_vocab_size", 0) > 0
    save_tokenizer(tokenizer, directory, with_token_types=with_token_types, model_max_length=longest_source)
    if target_tokenizer.get_vocab() == tokenizer.get_vocab():
        return
    if all(getattr(target_tokenizer, f"{kind}_token") is not None for kind in SPECIAL_TOKENS):
        save_tokenizer(target_tokenizer, directory / TARGET_TOKENIZER, with_token_types=False)
    else:
        target_tokenizer.save_pretrained(directory / TARGET_TOKENIZER)


def load_encoder_decoder(directory: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """The model in float32 and evaluation mode, the source tokenizer and the target tokenizer of a folder.

    Raises: CheckpointError: no such folder, or no encoder-decoder. TokenizerError: no tokenizer.
    """
    if not is_encoder_decoder(configuration_of(str(directory))):
        raise CheckpointError(
            f"{directory}: is no encoder-decoder; give a folder that summarization or translation made"
        )
    model = weights_of(str(directory), EncoderDecoderModel, "encoder-decoder").eval()
    _reload_alike(model.encoder)
    tokenizer = load_tokenizer(directory)
    return model, tokenizer, target_tokenizer_of(directory) or tokenizer


def target_tokenizer_of(directory: Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer of an encoder-decoder's outputs; None if it is that of the source texts."""
    inside = directory / TARGET_TOKENIZER
    return load_target_tokenizer(inside) if inside.is_dir() else None


def open_encoder_decoder(source: str, dropout: float, *, is_fresh: bool) -> PreTrainedModel:
    """The `EncoderDecoderModel` of a folder, for more training; with `is_fresh`, its weights are random."""
    configuration = configuration_of(source)
    configuration.encoder = with_dropout(configuration.encoder, dropout)
    configuration.decoder = with_dropout(configuration.decoder, dropout)
    if is_fresh:
        with quiet_transformers():
            model = EncoderDecoderModel(configuration)
    else:
        model = weights_of(source, EncoderDecoderModel, "encoder-decoder", configuration=configuration)
    _reload_alike(model.encoder)
    return model

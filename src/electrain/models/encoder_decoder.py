"""A pretrained encoder joined with a decoder by cross-attention: `EncoderDecoderModel` of Hugging Face."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from transformers.utils import logging

from electrain.data.tokenizer.targets import load_target_tokenizer, writing_ids
from electrain.data.tokenizer.tokenizer import SPECIAL_TOKENS, SpecialIds, load_tokenizer, save_tokenizer
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import CheckpointError, ConfigurationError
from electrain.models.backbones import (
    BACKBONES,
    MOST_POSITIONS,
    EncoderConfig,
    backbone_of,
    encoder_configuration,
)
from electrain.models.folders import configuration_of, weights_of
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
        """Where the tokenizer of vocabulary = "folder" stands."""
        return self.tokenizer or self.source


def is_encoder_decoder(configuration: PretrainedConfig) -> bool:
    """Whether a configuration is that of two joined networks, each with a configuration of its own."""
    return isinstance(configuration, EncoderDecoderConfig)


def build_encoder_decoder(
    encoder: PreTrainedModel,
    decoder: DecoderConfig,
    *,
    encoder_source: Path | str,
    target_tokenizer: PreTrainedTokenizerFast,
    dropout: float,
) -> PreTrainedModel:
    """An `EncoderDecoderModel` of a pretrained encoder and a decoder, ready to be trained.

    Cross-attention, and a projection between different widths, start from random weights.

    Args:
        encoder: `ElectraModel`, `BertModel` or `ModernBertModel`; becomes part of the result.
        encoder_source: the folder it was read from; a run's generator/ stands beside it.
        target_tokenizer: of what is written; the encoder's own for vocabulary = "encoder".
        dropout: everywhere in the decoder; the encoder keeps its own.
    Raises: CheckpointError: no such generator or folder, or networks that cannot be joined. ConfigurationError: sizes
        that cannot be. TokenizerError: a tokenizer without an end of text.
    """
    backbone = backbone_of(encoder.config)
    if backbone is None or not backbone.joins_decoder:
        known = ", ".join(name for name, one in BACKBONES.items() if one.joins_decoder)
        raise CheckpointError(
            f"{encoder_source}: a {encoder.config.model_type} encoder cannot be joined with a decoder; use {known}"
        )
    network = _decoder(encoder, decoder, Path(encoder_source), target_tokenizer, dropout)
    if len(target_tokenizer) > network.config.vocab_size:
        raise CheckpointError(
            f"{decoder.source or encoder_source}: the decoder knows {network.config.vocab_size} tokens, the target "
            f"tokenizer has {len(target_tokenizer)}; give the decoder's own tokenizer"
        )
    _reload_alike(encoder)
    with _quiet():
        joined = EncoderDecoderModel(
            config=EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, network.config),
            encoder=encoder,
            decoder=network,
        )
    _set_special_ids(joined, target_tokenizer)
    return joined


def _decoder(
    encoder: PreTrainedModel,
    decoder: DecoderConfig,
    source: Path,
    target_tokenizer: PreTrainedTokenizerFast,
    dropout: float,
) -> PreTrainedModel:
    if decoder.kind == "fresh":
        return _fresh_decoder(encoder, decoder, target_tokenizer, dropout)
    if decoder.kind == "encoder":
        return _encoder_as_decoder(encoder, decoder, source, target_tokenizer, dropout)
    if decoder.kind == "folder":
        return _decoder_from(decoder.source, dropout, must_be_causal=False)
    folder = source.parent / "generator"
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
    """A GPT-2; its word embeddings are the encoder's where both have the same words and width."""
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
    encoder: PreTrainedModel,
    decoder: DecoderConfig,
    source: Path,
    target_tokenizer: PreTrainedTokenizerFast,
    dropout: float,
) -> PreTrainedModel:
    """The encoder's weights in a network that sees only what stands before; the head above the embeddings is fresh.

    Source: Rothe et al. 2020, "Leveraging pre-trained checkpoints for sequence generation tasks", section 3.
    """
    backbone = backbone_of(encoder.config)
    if backbone is None or backbone.decoder is None:
        raise CheckpointError(
            f"{source}: a {encoder.config.model_type} encoder has no form with cross-attention; "
            'use [decoder] kind = "fresh" or "generator"'
        )
    is_joint = decoder.vocabulary == "encoder"
    configuration = _as_decoder(encoder.config, dropout)
    if not is_joint:
        configuration.vocab_size = len(target_tokenizer)
        configuration.pad_token_id = writing_ids(target_tokenizer).pad
    with _quiet():
        network = backbone.decoder(configuration)
    weights = {
        name: value
        for name, value in encoder.state_dict().items()
        if not name.startswith("pooler.") and (is_joint or "word_embeddings" not in name)
    }
    network.base_model.load_state_dict(weights, strict=False)
    network.tie_weights()
    return network


def _decoder_from(source: str, dropout: float, *, must_be_causal: bool) -> PreTrainedModel:
    """A language model of a folder, with fresh cross-attention."""
    configuration = configuration_of(source)
    decoders = {name: one for name, one in BACKBONES.items() if one.decoder and (one.is_causal or not must_be_causal)}
    if backbone_of(configuration) not in decoders.values():
        hint = '; pretrain with a causal generator, or use kind = "folder"' if must_be_causal else ""
        raise CheckpointError(
            f"{source}: is a {configuration.model_type}; a decoder of this kind must be {' or '.join(decoders)}{hint}"
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
    """Gives an encoder the pooler that Hugging Face reloads it with; nothing reads it, and it is not trained."""
    backbone = backbone_of(encoder.config)
    if backbone and backbone.pooler:
        if encoder.pooler is None:
            encoder.pooler = backbone.pooler(encoder.config)
        encoder.pooler.requires_grad_(False)


def _set_special_ids(model: PreTrainedModel, target_tokenizer: PreTrainedTokenizerFast) -> None:
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
    """Writes model and tokenizers so that `EncoderDecoderModel` and `AutoTokenizer` read them from the folder.

    Args:
        tokenizer: of the source, at the top of the folder.
        target_tokenizer: of the decoder, in `target_tokenizer/` where it is another one.
        longest_source: where the source's tokenizer cuts, in tokens; None: where it did.
    """
    with _quiet():
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
    """Model (in float32, in evaluation mode), tokenizer and target tokenizer of a folder; the two may be one object.

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
    """The tokenizer of what an encoder-decoder's folder writes; None where it is that of what it reads."""
    inside = directory / TARGET_TOKENIZER
    return load_target_tokenizer(inside) if inside.is_dir() else None


def open_encoder_decoder(source: str, dropout: float, *, is_fresh: bool) -> PreTrainedModel:
    """An `EncoderDecoderModel` of a folder, to be trained further; `is_fresh`: the same network with random weights."""
    configuration = configuration_of(source)
    configuration.encoder = with_dropout(configuration.encoder, dropout)
    configuration.decoder = with_dropout(configuration.decoder, dropout)
    if is_fresh:
        with _quiet():
            model = EncoderDecoderModel(configuration)
    else:
        model = weights_of(source, EncoderDecoderModel, "encoder-decoder", configuration=configuration)
    _reload_alike(model.encoder)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what transformers says of fresh cross-attention, and its progress bars."""
    level, had_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_progress_bar:
            logging.enable_progress_bar()

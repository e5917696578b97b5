"""The table of backbones: what electrain knows about each kind of network, and the one call that runs any of them.

Nobody outside this file asks for a model type by name. To add a backbone, add one entry to `BACKBONES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertLMHeadModel,
    ElectraConfig,
    ElectraForCausalLM,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.bert.modeling_bert import BertPooler

from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.foundation.configuration import require_at_least
from electrain.models.recurrent import RecurrentConfig, RecurrentForMaskedLM, RecurrentForTokenClassification

# Positions a model can take beyond its pretraining length cost an embedding row each (electra) or nothing (modernbert).
MOST_POSITIONS = 512
LABELS = {0: "original", 1: "replaced"}
# These encoders compute what ELECTRA's does; only their names and first positions differ.
_SAME_AS_ELECTRA = ("electra", "bert", "roberta", "xlm-roberta", "camembert")
# Networks whose first positions belong to padding, so that they take fewer tokens than they have positions.
_COUNT_FROM_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "camembert", "longformer", "xlm-roberta-xl"),
    *("roberta-prelayernorm", "mpnet", "data2vec-text", "xmod", "ibert"),
)

# A module of a network, by its path ("cls.predictions.transform"), or a function without weights.
Part = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """What a Hugging Face configuration is built from.

    Attributes:
        sizes: layers, widths and attention heads.
        common: the settings that networks share, under the names that most of them use.
        dropout: probability, everywhere in the network.
        special_ids: of the tokenizer.
    """

    sizes: "EncoderConfig"
    common: dict[str, Any]
    dropout: float
    special_ids: SpecialIds


@dataclass(frozen=True)
class Backbone:
    """What distinguishes one kind of network from the others.

    Attributes:
        configuration: builds the Hugging Face configuration.
        language_model: the Hugging Face class with a head that predicts words.
        output_layer: path of the linear layer from features to words, in `language_model`.
        word_features: the parts between the last hidden states and the output layer, in order.
        is_causal: the language model predicts each word from the words before it.
        detector: the Hugging Face class with a head for each token; None: the network can only generate.
        detection: the parts of that head, in order.
        detects_by_labels: the head is token classification into `LABELS`; False: it gives one logit per token.
        has_token_types: the network reads `token_type_ids`.
        has_embedding_size: the embeddings have a width of their own, and the network projects them to its width.
        output_layer_in_body: the output layer belongs to the encoder itself, and is not tied to the embeddings.
        final_norm: path, in the body, of what normalises the last layer's states; empty: nothing does.
        pooler: class of the layer that `AutoModel` adds to the body; electrain never reads its output.
        starts_from: model types whose weights this encoder can start from.
        must_match: settings that change what weights mean, besides depth and heads.
        masked_generator: name of the backbone of a masked generator beside this encoder; empty: the same.
        joins_decoder: the encoder can be joined with a decoder by cross-attention.
        decoder: the Hugging Face class that writes with cross-attention; None: there is none.
        rule: raises ValueError for sizes that this network cannot have.
    """

    configuration: Callable[[Shape], PretrainedConfig]
    language_model: type[PreTrainedModel]
    output_layer: str
    word_features: tuple[Part, ...] = ()
    is_causal: bool = False
    detector: type[PreTrainedModel] | None = None
    detection: tuple[Part, ...] = ()
    detects_by_labels: bool = True
    has_token_types: bool = False
    has_embedding_size: bool = False
    output_layer_in_body: bool = False
    final_norm: str = ""
    pooler: type[nn.Module] | None = None
    starts_from: tuple[str, ...] = ()
    must_match: tuple[str, ...] = ()
    masked_generator: str = ""
    joins_decoder: bool = True
    decoder: type[PreTrainedModel] | None = None
    rule: Callable[["EncoderConfig"], None] = lambda encoder: None

    @property
    def model_type(self) -> str:
        """The name that config.json gives to this kind of network."""
        return str(self.language_model.config_class.model_type)

    def can_start_from(self, configuration: PretrainedConfig) -> bool:
        """Whether weights of a model with this configuration fit the encoder."""
        return configuration.model_type in self.starts_from


def _electra(shape: Shape) -> PretrainedConfig:
    width = shape.sizes.embedding_size or shape.sizes.hidden_size
    return ElectraConfig(**_like_bert(shape), embedding_size=width)


def _bert(shape: Shape) -> PretrainedConfig:
    return BertConfig(**_like_bert(shape))


def _like_bert(shape: Shape) -> dict[str, Any]:
    dropouts = {"hidden_dropout_prob": shape.dropout, "attention_probs_dropout_prob": shape.dropout}
    return {**shape.common, **dropouts, "attn_implementation": "sdpa"}


def _modernbert(shape: Shape) -> PretrainedConfig:
    return ModernBertConfig(
        **shape.common,
        bos_token_id=shape.special_ids.cls,
        cls_token_id=shape.special_ids.cls,
        eos_token_id=shape.special_ids.sep,
        sep_token_id=shape.special_ids.sep,
        # Attention reaches the whole row in every layer: rows here are shorter than a local window is worth.
        layer_types=["full_attention"] * shape.sizes.layers,
        # Keys rotate at the usual base: the hub's 160,000 is for rows of 8,192.
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        embedding_dropout=shape.dropout,
        attention_dropout=shape.dropout,
        mlp_dropout=shape.dropout,
        attn_implementation="sdpa",
    )


def _even_width_per_head(encoder: "EncoderConfig") -> None:
    if (encoder.hidden_size // encoder.heads) % 2:
        raise ValueError(f"heads = {encoder.heads}: rotary positions need an even width per head")


def _lstm(shape: Shape) -> PretrainedConfig:
    return RecurrentConfig(**shape.common, dropout=shape.dropout)


def _gpt2(shape: Shape) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=shape.common["vocab_size"],
        n_positions=shape.common["max_position_embeddings"],
        n_embd=shape.sizes.hidden_size,
        n_layer=shape.sizes.layers,
        n_head=shape.sizes.heads,
        n_inner=shape.sizes.feed_forward_size,
        resid_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        bos_token_id=shape.special_ids.cls,
        eos_token_id=shape.special_ids.sep,
        pad_token_id=shape.special_ids.pad,
        attn_implementation="sdpa",
    )


CAUSAL = "gpt2"  # the causal generator
# By the name that people write in [encoder] backbone.
BACKBONES: dict[str, Backbone] = {
    "electra": Backbone(
        _electra,
        ElectraForMaskedLM,
        "generator_lm_head",
        word_features=("generator_predictions",),
        # Only for ELECTRA does Hugging Face have a class for pretraining by detection.
        detector=ElectraForPreTraining,
        detection=("discriminator_predictions",),
        detects_by_labels=False,
        has_token_types=True,
        has_embedding_size=True,
        starts_from=_SAME_AS_ELECTRA,
        decoder=ElectraForCausalLM,
    ),
    "modernbert": Backbone(
        _modernbert,
        ModernBertForMaskedLM,
        "decoder",
        word_features=("head",),
        detector=ModernBertForTokenClassification,
        detection=("head", "drop", "classifier"),
        final_norm="final_norm",
        starts_from=("modernbert",),
        must_match=("layer_types", "rope_parameters"),
        rule=_even_width_per_head,
    ),
    "bert": Backbone(
        _bert,
        BertForMaskedLM,
        "cls.predictions.decoder",
        word_features=("cls.predictions.transform",),
        detector=BertForTokenClassification,
        detection=("dropout", "classifier"),
        has_token_types=True,
        pooler=BertPooler,
        starts_from=_SAME_AS_ELECTRA,
        decoder=BertLMHeadModel,
    ),
    "lstm": Backbone(
        _lstm,
        RecurrentForMaskedLM,
        "recurrent.network.fc",
        detector=RecurrentForTokenClassification,
        detection=("dropout", "classifier"),
        output_layer_in_body=True,
        masked_generator="bert",
        joins_decoder=False,
    ),
    CAUSAL: Backbone(_gpt2, GPT2LMHeadModel, "lm_head", is_causal=True, joins_decoder=False, decoder=GPT2LMHeadModel),
}

# What [encoder] backbone can be; made from the table, so that `--help` and error messages list the same names.
if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[tuple(name for name, backbone in BACKBONES.items() if backbone.detector)]


@dataclass(frozen=True)
class EncoderConfig:
    """The discriminator's encoder, the network that people fine-tune afterwards.

    Attributes:
        layers: Number of layers, at least 1. 12 (small, base) or 24 (large) in the paper.
        hidden_size: Width of the hidden states, a multiple of heads. 256 (small), 768 (base) or 1,024 (large) in the
            paper.
        feed_forward_size: Width inside the feed-forward network, at least 1. 4 x hidden_size in the paper.
        heads: Number of attention heads, a divisor of hidden_size. 4 (small), 12 (base) or 16 (large) in the paper.
        backbone: Architecture. electra is the published one, with learned positions; modernbert has rotary positions,
            pre-norm and a gated feed-forward network, and learns several times faster at small budgets; bert is electra
            whose embeddings are as wide as its layers; lstm is the recurrent network of the founding article, for which
            feed_forward_size and heads size the generator only.
        embedding_size: Width of the token embeddings before they are projected to hidden_size; 0 uses hidden_size. Only
            electra takes another value. 128 (small) in the paper.
    """

    layers: int
    hidden_size: int
    feed_forward_size: int
    heads: int
    backbone: BackboneName = "electra"
    embedding_size: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "feed_forward_size", "heads"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("embedding_size", self.embedding_size, 0)
        if self.hidden_size % self.heads:
            raise ValueError(f"heads = {self.heads}: hidden_size {self.hidden_size} is not a multiple of it")
        backbone = BACKBONES[self.backbone]
        if not backbone.has_embedding_size and self.embedding_size not in (0, self.hidden_size):
            raise ValueError(f"embedding_size = {self.embedding_size}: {self.backbone} needs 0 or its hidden_size")
        backbone.rule(self)


def encoder_configuration(
    encoder: EncoderConfig,
    *,
    vocabulary_size: int,
    sequence_length: int,
    dropout: float,
    special_ids: SpecialIds,
    is_causal: bool = False,
) -> PretrainedConfig:
    """The Hugging Face configuration of an encoder; with `is_causal`, of a GPT-2 of the same sizes.

    Args:
        sequence_length: of the rows to come, in tokens.
        dropout: probability, everywhere in the network.
    Source: Clark et al. 2020, table 6 (initialiser 0.02, GELU, LayerNorm epsilon 1e-12), for electra.
    """
    common: dict[str, Any] = {
        "vocab_size": vocabulary_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.feed_forward_size,
        "max_position_embeddings": max(MOST_POSITIONS, sequence_length),
        "pad_token_id": special_ids.pad,
    }
    name = CAUSAL if is_causal else encoder.backbone
    return BACKBONES[name].configuration(Shape(encoder, common, dropout, special_ids))


def generator_encoder(encoder: EncoderConfig, size_fraction: float) -> EncoderConfig:
    """The generator's sizes: the same depth, its width, feed-forward and heads a fraction of the encoder's.

    Heads keep the encoder's width where the fraction allows it. Source: Clark et al. 2020, section 3.2 and table 6.
    """
    head_width = encoder.hidden_size // encoder.heads
    heads = max(1, round(encoder.heads * size_fraction))
    hidden_size = max(heads * 2, round(encoder.hidden_size * size_fraction / (2 * heads)) * 2 * heads)
    if abs(heads * head_width - hidden_size) < 2 * heads:
        hidden_size = heads * head_width
    name = BACKBONES[encoder.backbone].masked_generator or encoder.backbone
    width = encoder.embedding_size or encoder.hidden_size
    return EncoderConfig(
        backbone=name,
        layers=encoder.layers,
        hidden_size=hidden_size,
        feed_forward_size=max(1, round(encoder.feed_forward_size * size_fraction)),
        heads=heads,
        embedding_size=width if BACKBONES[name].has_embedding_size else 0,
    )


# On a CPU, attention spelled out as matrix products is faster than the fused kernel's backward pass on short rows; see
# docs/experiments.md, "Attention on the CPU".
LONGEST_PLAIN_ATTENTION_TOKENS = 512


def choose_attention(module: nn.Module, device: torch.device, sequence_length: int) -> None:
    """Sets how the Hugging Face networks in a module compute attention to what is fastest on the device."""
    is_plain = device.type == "cpu" and sequence_length <= LONGEST_PLAIN_ATTENTION_TOKENS
    for network in module.modules():
        if isinstance(network, PreTrainedModel) and network._supports_sdpa:
            network.set_attn_implementation("eager" if is_plain else "sdpa")


def backbone_of(configuration: PretrainedConfig) -> Backbone | None:
    """The entry of `BACKBONES` for a Hugging Face configuration; None: a network that electrain does not pretrain."""
    return next((one for one in BACKBONES.values() if one.model_type == configuration.model_type), None)


def known_backbone(configuration: PretrainedConfig) -> Backbone:
    """The entry of `BACKBONES` for a configuration that electrain made. Raises: KeyError: it made no such one."""
    found = backbone_of(configuration)
    if found is None:
        raise KeyError(configuration.model_type)
    return found


def sizes_of(configuration: PretrainedConfig) -> dict[str, int]:
    """Layers, widths and heads of a network in the table, under the names that [generator] has for them."""
    inner = getattr(configuration, "intermediate_size", None) or getattr(configuration, "n_inner", None)
    return {
        "layers": configuration.num_hidden_layers,
        "hidden_size": configuration.hidden_size,
        "feed_forward_size": inner or 4 * configuration.hidden_size,  # a GPT-2 that names none has this
        "heads": configuration.num_attention_heads,
    }


def first_position(configuration: PretrainedConfig) -> int:
    """The row of the position embeddings that the first token gets; RoBERTa and its like count from after padding."""
    counts = configuration.model_type in _COUNT_FROM_AFTER_PADDING
    return (configuration.pad_token_id or 0) + 1 if counts else 0


def positions_of(configuration: PretrainedConfig) -> int | None:
    """The most tokens that a network takes at once; None where its configuration names no limit."""
    positions = int(getattr(configuration, "max_position_embeddings", 0) or 0)
    if positions < 1:  # XLNet says -1
        return None
    return positions - first_position(configuration)


def encode(
    body: PreTrainedModel,
    token_ids: Tensor | None,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_embeddings: Tensor | None = None,
) -> Tensor:
    """(batch, length, hidden) float: hidden states of the last layer. Args: as `encode_depths`."""
    return encode_depths(body, token_ids, token_type_ids, attention_mask, token_embeddings, ())[0]


def encode_depths(
    body: PreTrainedModel,
    token_ids: Tensor | None,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_embeddings: Tensor | None,
    depths: tuple[int, ...],
) -> list[Tensor]:
    """Hidden states after some of the layers.

    Args:
        body: the encoder of a backbone in the table, without its head.
        token_ids: (batch, length) int64; not read where `token_embeddings` are given.
        token_type_ids: (batch, length) int64; ignored by a body without token types.
        attention_mask: (batch, length) bool, True at real tokens; None where every token is real, which is faster.
        token_embeddings: (batch, length, embedding) in place of the body's own look-up.
        depths: numbers of layers; empty: all layers.
    Returns: for each depth (batch, length, hidden) float.
    """
    backbone = known_backbone(body.config)
    extra: dict[str, Any] = {}
    if backbone.has_token_types and body.config.type_vocab_size > 1:
        extra["token_type_ids"] = token_type_ids
    if backbone.is_causal:
        extra["use_cache"] = False
        if token_embeddings is None:  # given ids, GPT-2 looks for padding in them, and warns
            token_embeddings = body.get_input_embeddings()(token_ids)
    mask = None if attention_mask is None else attention_mask.to(torch.int64)
    ids = token_ids if token_embeddings is None else None
    output = body(
        input_ids=ids,
        inputs_embeds=token_embeddings,
        attention_mask=mask,
        output_hidden_states=len(depths) > 1,
        **extra,
    )
    if len(depths) <= 1:
        return [output[0]]
    last = body.config.num_hidden_layers
    finish = body.get_submodule(backbone.final_norm) if backbone.final_norm else nn.Identity()
    return [output[0] if depth == last else finish(output.hidden_states[depth]) for depth in depths]

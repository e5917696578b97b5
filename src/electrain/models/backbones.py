"""The table of backbones: the properties of each kind of network, and the function that runs any of them.

No other file asks for a model type by name. To add a backbone, add one entry to `BACKBONES`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.bert.modeling_bert import BertPooler
from transformers.utils import import_utils

from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.foundation.configuration import require_at_least, require_layers
from electrain.models.recurrent import RecurrentConfig, RecurrentForMaskedLM, RecurrentForTokenClassification

# Rows at fine-tuning can be longer than in pretraining. A further position costs an embedding row (electra) or nothing
# (modernbert).
MOST_POSITIONS = 512
LABELS = {0: "original", 1: "replaced"}
# These encoders compute the same as ELECTRA's; only the names of their classes and their first positions differ.
_SAME_AS_ELECTRA = ("electra", "bert", "roberta", "xlm-roberta", "camembert")
# Networks that reserve their first positions for padding, so that they take fewer tokens than they have positions.
_COUNT_FROM_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "camembert", "longformer", "xlm-roberta-xl"),
    *("roberta-prelayernorm", "mpnet", "data2vec-text", "xmod", "ibert"),
)

# The path of a module in a network ("cls.predictions.transform"), or a function without weights.
Part = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """The settings from which a backbone builds its Hugging Face configuration."""

    sizes: "EncoderConfig"  # layers, widths and attention heads
    common: dict[str, int]  # the settings that all networks have, under the names that most of them use
    dropout: float  # probability, everywhere in the network
    special_ids: SpecialIds  # of the tokenizer


@dataclass(frozen=True)
class Backbone:
    """The properties of one kind of network."""

    configuration: Callable[[Shape], PretrainedConfig]  # builds the Hugging Face configuration
    language_model: type[PreTrainedModel]  # the Hugging Face class with the head that predicts words
    output_layer: str  # path of the linear layer from features to words, in `language_model`
    word_features: tuple[Part, ...] = ()  # the parts between the last hidden states and the output layer, in order
    is_causal: bool = False  # the language model predicts each word from the words before it
    detector: type[PreTrainedModel] | None = None  # the class with the detection head; None: it can only generate
    detection: tuple[Part, ...] = ()  # the parts of the detection head, in order
    detects_by_labels: bool = True  # the head classifies tokens into `LABELS`; False: it gives one logit per token
    has_token_types: bool = False  # the network reads `token_type_ids`
    has_embedding_size: bool = False  # the embeddings have their own width, which the network projects to hidden_size
    output_layer_in_body: bool = False  # the output layer belongs to the encoder and is not tied to the embeddings
    final_norm: str = ""  # path, in the body, of the module that normalises the last hidden states; empty: none
    pooler: type[nn.Module] | None = None  # the layer that `AutoModel` adds to the body; its output is never read
    starts_from: tuple[str, ...] = ()  # model types from whose weights the encoder can start
    must_match: tuple[str, ...] = ()  # settings, besides depth and heads, that change what the weights compute
    masked_generator: str = ""  # name of the backbone of a masked generator for this encoder; empty: the same
    joins_decoder: bool = True  # the encoder can be joined with a decoder by cross-attention
    decoder: type[PreTrainedModel] | None = None  # the class with cross-attention; None: there is none
    rule: Callable[["EncoderConfig"], None] = lambda encoder: None  # raises ValueError for impossible sizes

    @property
    def model_type(self) -> str:
        """The name that config.json gives to this kind of network."""
        return str(self.language_model.config_class.model_type)

    def can_start_from(self, configuration: PretrainedConfig) -> bool:
        """True if the encoder can take over the weights of a model with this configuration."""
        return configuration.model_type in self.starts_from


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
        # Every layer attends to the whole row. Local windows save time on much longer rows only.
        layer_types=["full_attention"] * shape.sizes.layers,
        # The usual base of rotary positions. The released model has 160,000, for rows of 8,192 tokens.
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
# The keys are the values of [encoder] backbone.
BACKBONES: dict[str, Backbone] = {
    "electra": Backbone(
        lambda shape: ElectraConfig(
            **_like_bert(shape), embedding_size=shape.sizes.embedding_size or shape.sizes.hidden_size
        ),
        ElectraForMaskedLM,
        "generator_lm_head",
        word_features=("generator_predictions",),
        # Hugging Face has a class for pretraining by detection for ELECTRA only; the others use token classification.
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
        lambda shape: BertConfig(**_like_bert(shape)),
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
        lambda shape: RecurrentConfig(**shape.common, dropout=shape.dropout),
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

# Made from the table, so that `--help` and error messages list the same names.
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
        require_layers(self.layers)
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
        sequence_length: of the rows in training, in tokens.
        dropout: probability, everywhere in the network.
    Source: Clark et al. 2020, table 6 (initialiser 0.02, GELU, LayerNorm epsilon 1e-12), for electra.
    """
    common = {
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
    """The generator's sizes: the depth of the encoder, and a fraction of its width, feed-forward width and heads.

    Source: Clark et al. 2020, section 3.2 and table 6.
    """
    head_width = encoder.hidden_size // encoder.heads
    heads = max(1, round(encoder.heads * size_fraction))
    # The width must be a multiple of the heads, and even per head for rotary positions. Where rounding allows it, heads
    # are as wide as the encoder's, as in the published sizes.
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


# On short rows on a CPU, plain matrix products are faster than the backward pass of the fused attention kernel; see
# docs/experiments.md, "Attention on the CPU".
LONGEST_PLAIN_ATTENTION_TOKENS = 512


def choose_attention(module: nn.Module, device: torch.device, sequence_length: int) -> None:
    """Sets the attention of the Hugging Face networks in a module to the fastest form on the device."""
    is_plain = device.type == "cpu" and sequence_length <= LONGEST_PLAIN_ATTENTION_TOKENS
    for network in module.modules():
        if isinstance(network, PreTrainedModel) and network._supports_sdpa:
            network.set_attn_implementation("eager" if is_plain else "sdpa")


def repeated_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of the Hugging Face networks inside a module, which share a class. A recurrent network has none."""
    return [part for part in network.modules() if isinstance(part, GradientCheckpointingLayer)]


def backbone_of(configuration: PretrainedConfig) -> Backbone | None:
    """The entry of `BACKBONES` for a configuration; None for a network that electrain cannot pretrain."""
    return next((one for one in BACKBONES.values() if one.model_type == configuration.model_type), None)


def known_backbone(configuration: PretrainedConfig) -> Backbone:
    """The entry of `BACKBONES` for a configuration that electrain built. Raises: KeyError: it has no entry."""
    found = backbone_of(configuration)
    if found is None:
        raise KeyError(configuration.model_type)
    return found


def sizes_of(configuration: PretrainedConfig) -> dict[str, int]:
    """The layers, widths and heads of a network in the table, under their names in [generator]."""
    inner = getattr(configuration, "intermediate_size", None) or getattr(configuration, "n_inner", None)
    return {
        "layers": configuration.num_hidden_layers,
        "hidden_size": configuration.hidden_size,
        "feed_forward_size": inner or 4 * configuration.hidden_size,  # the default of GPT-2
        "heads": configuration.num_attention_heads,
    }


def first_position(configuration: PretrainedConfig) -> int:
    """The index of the first token's position embedding; RoBERTa and its relatives count from after the padding id."""
    counts = configuration.model_type in _COUNT_FROM_AFTER_PADDING
    return (configuration.pad_token_id or 0) + 1 if counts else 0


def positions_of(configuration: PretrainedConfig) -> int | None:
    """The largest number of tokens in a row of a network; None if its configuration sets no limit."""
    positions = int(getattr(configuration, "max_position_embeddings", 0) or 0)
    if positions < 1:  # XLNet says -1
        return None
    return positions - first_position(configuration)


@contextmanager
def _seen_as_unrecorded() -> Iterator[None]:
    asked = import_utils.is_cuda_stream_capturing
    import_utils.is_cuda_stream_capturing = lambda: False
    try:
        yield
    finally:
        import_utils.is_cuda_stream_capturing = asked


def encode(
    body: PreTrainedModel,
    token_ids: Tensor | None,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_embeddings: Tensor | None = None,
    depths: tuple[int, ...] = (),
) -> list[Tensor]:
    """The hidden states after some of the layers.

    Args:
        body: the encoder of a backbone in the table, without its head.
        token_ids: (batch, length) int64; not read if `token_embeddings` are given.
        token_type_ids: (batch, length) int64; ignored by a body without token types.
        attention_mask: (batch, length) bool or int, true at real tokens; None if every token is real, which lets
            attention take a faster kernel.
        token_embeddings: (batch, length, embedding), in place of the body's own look-up.
        depths: numbers of layers, ascending; empty means all layers.
    Returns: for each depth (batch, length, hidden) float.
    """
    backbone = known_backbone(body.config)
    extra: dict[str, Any] = {}
    if backbone.has_token_types and body.config.type_vocab_size > 1:
        extra["token_type_ids"] = token_type_ids
    if backbone.is_causal:
        extra["use_cache"] = False
        if token_embeddings is None:  # GPT-2 warns if it finds padding among ids
            token_embeddings = body.get_input_embeddings()(token_ids)
    # transformers makes a mask of ones while a CUDA graph is recorded, with which attention takes a slower kernel.
    is_recorded = not torch.compiler.is_compiling() and import_utils.is_cuda_stream_capturing()
    with _seen_as_unrecorded() if is_recorded and attention_mask is None else nullcontext():
        output = body(
            input_ids=token_ids if token_embeddings is None else None,
            inputs_embeds=token_embeddings,
            attention_mask=None if attention_mask is None else attention_mask.to(torch.int64),
            output_hidden_states=len(depths) > 1,
            **extra,
        )
    if len(depths) <= 1:
        return [output[0]]
    # Only the last layer's states have passed the final norm, which the head expects. So the others pass it here.
    last = body.config.num_hidden_layers
    finish = body.get_submodule(backbone.final_norm) if backbone.final_norm else nn.Identity()
    return [output[0] if depth == last else finish(output.hidden_states[depth]) for depth in depths]

"""Encoders: Hugging Face configurations from plain numbers, and the one call that runs any of them."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BertConfig, ElectraConfig, GPT2Config, ModernBertConfig, PreTrainedModel

from electrain.foundation.configuration import require_at_least
from electrain.models.recurrent import MODEL_TYPE, RecurrentConfig

Backbone = Literal["electra", "modernbert", "bert", "lstm"]

# Positions a model can take beyond its pretraining length cost an embedding row each (electra) or nothing (modernbert).
MOST_POSITIONS = 512
_COUNT_FROM_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "camembert", "longformer", "xlm-roberta-xl"),
    *("roberta-prelayernorm", "mpnet", "data2vec-text", "xmod", "ibert"),
)
LABELS = {0: "original", 1: "replaced"}


@dataclass(frozen=True)
class EncoderConfig:
    """The discriminator's encoder, which is what people fine-tune.

    Attributes:
        backbone: electra (the published architecture), modernbert (pre-norm, rotary positions, gated feed-forward),
            bert (electra without a width of its own for the embeddings), or lstm (the article's recurrent network; no
            feed-forward network and no heads, which then size its generator only).
        layers: Transformer layers.
        hidden_size: width of the residual stream.
        feed_forward_size: width inside the feed-forward network; 4 x hidden_size in the paper.
        heads: attention heads; hidden_size must be a multiple of it.
        embedding_size: width of the embeddings before projection; 0 means hidden_size; only electra has
            another.
    """

    layers: int
    hidden_size: int
    feed_forward_size: int
    heads: int
    backbone: Backbone = "electra"
    embedding_size: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "feed_forward_size", "heads"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("embedding_size", self.embedding_size, 0)
        if self.hidden_size % self.heads:
            raise ValueError(f"heads = {self.heads}: hidden_size {self.hidden_size} is not a multiple of it")
        if self.backbone != "electra" and self.embedding_size not in (0, self.hidden_size):
            raise ValueError(f"embedding_size = {self.embedding_size}: {self.backbone} needs 0 or its hidden_size")
        if self.backbone == "modernbert" and (self.hidden_size // self.heads) % 2:
            raise ValueError(f"heads = {self.heads}: rotary positions need an even width per head")


def encoder_configuration(
    encoder: EncoderConfig, *, vocabulary_size: int, sequence_length: int, dropout: float, special_ids: dict[str, int]
) -> Any:
    """The Hugging Face configuration of an encoder.

    Args:
        special_ids: the ids of `pad`, `cls` and `sep` in the vocabulary.
    Source: Clark et al. 2020, table 6 (initialiser 0.02, GELU, LayerNorm epsilon 1e-12), for electra.
    """
    common: dict[str, Any] = {
        "vocab_size": vocabulary_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.feed_forward_size,
        "max_position_embeddings": max(MOST_POSITIONS, sequence_length),
        "pad_token_id": special_ids["pad"],
        "attn_implementation": "sdpa",
    }
    if encoder.backbone == "lstm":
        common.pop("attn_implementation")
        return RecurrentConfig(**common, dropout=dropout)
    if encoder.backbone != "modernbert":
        common |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        if encoder.backbone == "bert":
            return BertConfig(**common)
        return ElectraConfig(**common, embedding_size=encoder.embedding_size or encoder.hidden_size)
    return ModernBertConfig(
        **common,
        bos_token_id=special_ids["cls"],
        cls_token_id=special_ids["cls"],
        eos_token_id=special_ids["sep"],
        sep_token_id=special_ids["sep"],
        # Attention reaches the whole row in every layer: rows here are shorter than a local window is worth.
        layer_types=["full_attention"] * encoder.layers,
        # Keys rotate at the usual base: the hub's 160,000 is for rows of 8,192.
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        embedding_dropout=dropout,
        attention_dropout=dropout,
        mlp_dropout=dropout,
    )


def causal_configuration(
    decoder: EncoderConfig, *, vocabulary_size: int, sequence_length: int, dropout: float, special_ids: dict[str, int]
) -> Any:
    """The configuration of a GPT-2 with the sizes of `decoder`. Args: as `encoder_configuration`."""
    return GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=max(MOST_POSITIONS, sequence_length),
        n_embd=decoder.hidden_size,
        n_layer=decoder.layers,
        n_head=decoder.heads,
        n_inner=decoder.feed_forward_size,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=special_ids["cls"],
        eos_token_id=special_ids["sep"],
        pad_token_id=special_ids["pad"],
        attn_implementation="sdpa",
    )


def generator_encoder(encoder: EncoderConfig, size_fraction: float) -> EncoderConfig:
    """The generator's sizes: the same depth, its width, feed-forward and heads a fraction of the encoder's.

    Heads keep the encoder's width where the fraction allows it. Source: Clark et al. 2020, section 3.2 and table 6.
    """
    head_width = encoder.hidden_size // encoder.heads
    heads = max(1, round(encoder.heads * size_fraction))
    hidden_size = max(heads * 2, round(encoder.hidden_size * size_fraction / (2 * heads)) * 2 * heads)
    if abs(heads * head_width - hidden_size) < 2 * heads:
        hidden_size = heads * head_width
    return EncoderConfig(
        backbone="bert" if encoder.backbone == "lstm" else encoder.backbone,
        layers=encoder.layers,
        hidden_size=hidden_size,
        feed_forward_size=max(1, round(encoder.feed_forward_size * size_fraction)),
        heads=heads,
        embedding_size=(encoder.embedding_size or encoder.hidden_size) if encoder.backbone == "electra" else 0,
    )


# On a CPU, attention spelled out as matrix products is faster than the fused kernel's backward pass on short rows; see
# docs/experiments.md, "Attention on the CPU".
LONGEST_PLAIN_ATTENTION_TOKENS = 512


def choose_attention(module: nn.Module, device: torch.device, sequence_length: int) -> None:
    """Sets how the Hugging Face networks in a module compute attention to what is fastest on the device."""
    is_plain = device.type == "cpu" and sequence_length <= LONGEST_PLAIN_ATTENTION_TOKENS
    for network in module.modules():
        if isinstance(network, PreTrainedModel) and network.config.model_type != MODEL_TYPE:
            network.set_attn_implementation("eager" if is_plain else "sdpa")


def positions_of(configuration: Any) -> int | None:
    """The most tokens that a network takes at once; None where its configuration names no limit.

    RoBERTa and its like number positions from after padding.
    """
    positions = int(getattr(configuration, "max_position_embeddings", 0) or 0)
    if positions < 1:  # XLNet says -1
        return None
    if configuration.model_type not in _COUNT_FROM_AFTER_PADDING:
        return positions
    return positions - (configuration.pad_token_id or 0) - 1


def encode(
    body: Any,
    token_ids: Tensor | None,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_embeddings: Tensor | None = None,
) -> Tensor:
    """(batch, length, hidden) float: hidden states of the last layer. Args: as `encode_depths`."""
    return encode_depths(body, token_ids, token_type_ids, attention_mask, token_embeddings, ())[0]


def encode_depths(
    body: Any,
    token_ids: Tensor | None,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_embeddings: Tensor | None,
    depths: tuple[int, ...],
) -> list[Tensor]:
    """Hidden states after some of the layers.

    Args:
        body: `ElectraModel`, `BertModel`, `ModernBertModel` or `GPT2Model`.
        token_ids: (batch, length) int64; not read where `token_embeddings` are given.
        token_type_ids: (batch, length) int64; ignored by a body without token types.
        attention_mask: (batch, length) bool, True at real tokens; None where every token is real, which is faster.
        token_embeddings: (batch, length, embedding) in place of the body's own look-up.
        depths: numbers of layers; empty: all layers.
    Returns: for each depth (batch, length, hidden) float.
    """
    kind = body.config.model_type
    has_types = kind in ("electra", "bert") and body.config.type_vocab_size > 1
    extra: dict[str, Any] = {"token_type_ids": token_type_ids} if has_types else {}
    if kind == "gpt2":
        extra["use_cache"] = False
        if token_embeddings is None:  # given ids, it would look for padding, and speak
            token_embeddings = body.wte(token_ids)
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
    finish = body.final_norm if kind == "modernbert" else nn.Identity()
    return [output[0] if depth == last else finish(output.hidden_states[depth]) for depth in depths]

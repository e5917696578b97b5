"""The networks of a folder as modules whose inputs and outputs are tensors alone, which is what an ONNX graph is."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from electrain.models import heads
from electrain.models.backbones import backbone_of, encode

# Sizes of the inputs that a graph is recorded with. No two of them are equal, and none is 0 or 1, so that no size can
# be taken for another one or for a constant.
_ROWS, _LENGTH, _READ, _NEW, _SELECTED = 2, 7, 5, 3, 4
# The names of the inputs and outputs, and of their axes. The keys and values of layer N have a number at the end.
MEAN_STATE, REPLACED, WORDS, LOGITS = "mean_state", "replaced_logits", "word_logits", "logits"
_AXES: dict[str, tuple[str, ...]] = {
    "input_ids": ("batch", "length"),
    "attention_mask": ("batch", "length"),
    "token_type_ids": ("batch", "length"),
    "selected": ("selected",),
    MEAN_STATE: ("batch",),
    REPLACED: ("batch", "length"),
    WORDS: ("selected",),
    LOGITS: ("batch",),
    "source_mask": ("batch", "source"),
    **dict.fromkeys(("past_key", "past_value"), ("batch", "", "past")),
    **dict.fromkeys(("present_key", "present_value"), ("batch", "", "read")),
    **dict.fromkeys(("cross_key", "cross_value"), ("batch", "", "source")),
}


@dataclass(frozen=True)
class Graph:
    """One network to export."""

    name: str  # of its file, without .onnx
    network: nn.Module  # in evaluation mode, on the CPU
    example: dict[str, Tensor]  # inputs to record it with, by name, in the order of its arguments
    outputs: tuple[str, ...]  # the names of its outputs, in order
    body: str  # path, in `network`, of what int8 may round; heads stay in float32
    vocabulary: int = 0  # of a decoder: number of tokens that it knows
    attention: tuple[int, int] = (0, 0)  # heads and width of the encoder's layers; 0 where there is nothing to fuse

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """The axes of any size, by input or output and place."""
        named = {name: _AXES[name.rstrip("0123456789").rstrip("_")] for name in (*self.example, *self.outputs)}
        return {name: {place: axis for place, axis in enumerate(own) if axis} for name, own in named.items()}


class SharedEncoder(nn.Module):
    """An encoder with whatever heads of a pretraining run share it."""

    def __init__(self, body: PreTrainedModel, detector: PreTrainedModel | None, words: PreTrainedModel | None) -> None:
        super().__init__()
        # The heads come in networks with an encoder of their own, which does not run and so is not exported.
        self.body, self.detector, self.words = body, detector, words

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        has = {REPLACED: self.detector, WORDS: self.words}
        return (MEAN_STATE, *(name for name, head in has.items() if head is not None))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, selected: Tensor | None = None) -> tuple[Tensor, ...]:
        """(batch, hidden), and with the heads (batch, length) and (selected, vocabulary), all float32.

        Args:
            input_ids, attention_mask: (batch, length) int64.
            selected: (selected,) int64; row x length + place of the positions whose words are asked for.
        """
        if backbone_of(self.body.config):
            (states,) = encode(self.body, input_ids, torch.zeros_like(input_ids), attention_mask)
        else:
            types = {"token_type_ids": torch.zeros_like(input_ids)} if _has_types(self.body) else {}
            states = self.body(input_ids=input_ids, attention_mask=attention_mask, **types)[0]
        outputs = [mean_state(states, attention_mask)]
        if self.detector is not None:
            outputs.append(heads.replaced_logits(self.detector, states).float())
        if self.words is not None and selected is not None:
            outputs.append(heads.word_logits(self.words, states.flatten(0, 1)[selected]))
        return tuple(outputs)


class WordModel(nn.Module):
    """A masked language model that electrain cannot pretrain, so that its head cannot be run by itself."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, selected: Tensor) -> Tensor:
        """(selected, vocabulary) float32. Args: as `SharedEncoder`."""
        types = {"token_type_ids": torch.zeros_like(input_ids)} if _has_types(self.model) else {}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits.flatten(0, 1)[selected]


class TaskModel(nn.Module):
    """A fine-tuned network, whose states before its head serve as vectors of texts."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The logits of the task, of questions (batch, length, 2) for start and end; and (batch, hidden) mean states.

        Args: each (batch, length) int64.
        """
        seen: list[Tensor] = []
        hook = self.model.base_model.register_forward_hook(lambda module, given, output: seen.append(output[0]))
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        hook.remove()
        is_span = getattr(output, "start_logits", None) is not None
        logits = torch.stack([output.start_logits, output.end_logits], -1) if is_span else output.logits
        return logits, mean_state(seen[0], attention_mask)


class Reader(nn.Module):
    """The encoder of an encoder-decoder, and what the decoder's cross-attention makes of each text once and for all."""

    def __init__(self, joined: PreTrainedModel) -> None:
        super().__init__()
        self.encoder, self.joined = joined.encoder, joined

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """For each layer of the decoder two times (batch, heads, length, width) float32: keys and values."""
        joined = self.joined
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)[0]
        if hasattr(joined, "enc_to_dec_proj"):
            states = joined.enc_to_dec_proj(states)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # The decoder computes the keys and values where its cache is empty. What else it computes is not exported.
        joined.decoder(
            input_ids=input_ids[:, :1],
            encoder_hidden_states=states,
            encoder_attention_mask=_additive(attention_mask)[:, None, None],
            past_key_values=cache,
            use_cache=True,
        )
        return _pairs_of(cache.cross_attention_cache)


class Writer(nn.Module):
    """A decoder that reads some tokens after those in its cache, and predicts the next token."""

    def __init__(self, decoder: PreTrainedModel, layers: int, *, has_source: bool) -> None:
        super().__init__()
        self.decoder, self.layers, self.has_source = decoder, layers, has_source

    def forward(self, input_ids: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """(batch, vocabulary) float32 logits of the next token, then the keys and values of all tokens read.

        Args:
            input_ids: (batch, new) int64; the tokens after those that the cache holds.
            more: for each layer past keys and values, (batch, heads, past, width) float32; then, if there is a source,
                its mask, (batch, source) int64, and for each layer keys and values, (batch, heads, source, width).
        """
        own, source = more[: 2 * self.layers], more[2 * self.layers :]
        past, new = own[0].shape[2], input_ids.shape[1]
        places = torch.arange(past + new, device=input_ids.device)
        # Token `past + n` of a row sees the tokens up to itself.
        hides = places[None, :] > places[past:, None]
        mask = (hides.float() * torch.finfo(torch.float32).min)[None, None].expand(input_ids.shape[0], 1, -1, -1)
        given: dict[str, Any] = {}
        cache: Any = _cache_of(own)
        if self.has_source:
            cache = EncoderDecoderCache(cache, _cache_of(source[1:]))
            cache.is_updated = dict.fromkeys(range(self.layers), True)
            # Only the mask's sizes tell which source is meant: its keys and values are in the cache.
            states = source[1].new_zeros(input_ids.shape[0], 1, self.decoder.config.hidden_size)
            given["encoder_hidden_states"] = states
            given["encoder_attention_mask"] = _additive(source[0])[:, None, None]
        output = self.decoder(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=places[past:][None],
            past_key_values=cache,
            use_cache=True,
            **given,
        )
        kept = output.past_key_values
        return (output.logits[:, -1], *_pairs_of(kept.self_attention_cache if self.has_source else kept))


def mean_state(states: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, hidden) float32: the mean of (batch, length, hidden) states over the real tokens."""
    is_real = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * is_real).sum(1) / is_real.sum(1)


def _additive(mask: Tensor) -> Tensor:
    return (1 - mask).float() * torch.finfo(torch.float32).min


def _cache_of(pairs: tuple[Tensor, ...]) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(len(pairs) // 2):
        cache.update(pairs[2 * layer], pairs[2 * layer + 1], layer)
    return cache


def _pairs_of(cache: DynamicCache) -> tuple[Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _has_types(body: PreTrainedModel) -> bool:
    return int(getattr(body.config, "type_vocab_size", 0) or 0) > 1


def encoder_graph(
    name: str, body: PreTrainedModel, detector: PreTrainedModel | None = None, words: PreTrainedModel | None = None
) -> Graph:
    """A pretrained encoder with the heads that share it."""
    module = SharedEncoder(body, detector, words)
    example = _row_inputs(with_token_types=False)
    if words is not None:
        example["selected"] = torch.arange(_SELECTED)
    return Graph(name, module, example, module.outputs, "body", attention=_attention_of(body))


def language_model_graph(name: str, model: PreTrainedModel) -> Graph:
    """A masked language model that electrain cannot pretrain, asked for words at selected positions."""
    example = _row_inputs(with_token_types=False) | {"selected": torch.arange(_SELECTED)}
    return Graph(
        name, WordModel(model), example, (WORDS,), _body_path(model), attention=_attention_of(model.base_model)
    )


def task_graph(name: str, model: PreTrainedModel, *, with_token_types: bool) -> Graph:
    """A fine-tuned network; its mean states serve as vectors of texts."""
    example = _row_inputs(with_token_types=with_token_types)
    attention = _attention_of(model.base_model)
    return Graph(name, TaskModel(model), example, (LOGITS, MEAN_STATE), _body_path(model), attention=attention)


def writing_graphs(joined: PreTrainedModel, *, with_token_types: bool) -> list[Graph]:
    """An encoder-decoder as two graphs: one reads a text, the other one writes a token."""
    reader = Reader(joined)
    example = _row_inputs(with_token_types=with_token_types)
    with torch.no_grad():
        cross = reader(**example)
    numbers = range(len(cross) // 2)
    names = tuple(f"cross_{part}_{number}" for number in numbers for part in ("key", "value"))
    writer = writer_graph(joined.decoder, cross, names, example["attention_mask"])
    return [Graph("reader", reader, example, names, "encoder", attention=_attention_of(joined.encoder)), writer]


def writer_graph(
    decoder: PreTrainedModel,
    cross: tuple[Tensor, ...] = (),
    names: tuple[str, ...] = (),
    source_mask: Tensor | None = None,
) -> Graph:
    """A decoder, or a causal generator without a source."""
    heads_, width = decoder.config.num_attention_heads, decoder.config.hidden_size
    layers = decoder.config.num_hidden_layers
    module = Writer(decoder, layers, has_source=bool(cross))
    ids = 5 + torch.arange(_ROWS * _NEW).reshape(_ROWS, _NEW) % 2
    past = torch.zeros(_ROWS, heads_, _READ, width // heads_)
    pairs = [f"{part}_{number}" for number in range(layers) for part in ("key", "value")]
    example = {"input_ids": ids, **{f"past_{name}": past.clone() for name in pairs}}
    if source_mask is not None:
        example |= {"source_mask": source_mask, **dict(zip(names, cross, strict=True))}
    outputs = (LOGITS, *(f"present_{name}" for name in pairs))
    return Graph("writer", module, example, outputs, f"decoder/{decoder.base_model_prefix}", decoder.config.vocab_size)


def _row_inputs(*, with_token_types: bool) -> dict[str, Tensor]:
    mask = torch.ones(_ROWS, _LENGTH, dtype=torch.int64)
    mask[1, _LENGTH - 2 :] = 0
    ids = mask + 4  # none of them is the id of a special token in every vocabulary, and all are in every vocabulary
    return {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": mask * 0} if with_token_types else {})


def _body_path(model: PreTrainedModel) -> str:
    prefix = model.base_model_prefix
    return f"model/{prefix}" if hasattr(model, prefix) else "model"


def _attention_of(body: PreTrainedModel) -> tuple[int, int]:
    found = (getattr(body.config, name, 0) or 0 for name in ("num_attention_heads", "hidden_size"))
    count, width = found
    return int(count), int(width)

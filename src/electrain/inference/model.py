"""Pretrained networks from a run folder, a Hugging Face folder or the hub, or one line saying why not."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from electrain.data.tokenizer.windows import TokenizedText, Window
from electrain.foundation.errors import CheckpointError, TokenizerError
from electrain.models import heads
from electrain.models.backbones import BACKBONES, LABELS, Backbone, backbone_of, encode, positions_of
from electrain.models.discriminator import Head
from electrain.models.folders import configuration_of, tokenizer_of, weights_of
from electrain.models.frozen_generator import require_causal
from electrain.models.generators import places_before, take_positions
from electrain.models.heads import language_model_kind, states_and_word_logits
from electrain.pretrain.run_folder import HEAD_KINDS, Kind, RunFolder, open_run_folder
from electrain.training.runtime import device_of

_ROLES: dict[Kind, str] = {
    "detection": "discriminator",
    "masked-language-model": "generator or masked language model",
    "causal-language-model": "causal generator",
}


@dataclass(frozen=True)
class LoadedModel:
    """A network with its tokenizer, ready for inference: in evaluation mode, in float32.

    Attributes:
        model: `ElectraForPreTraining`, `ElectraForMaskedLM`, their counterparts of the other backbones, a GPT-2, or
            another language model.
        tokenizer: the fast tokenizer from the same folder.
        kind: detection (was each token replaced? or, of an electric head, its energy), masked-language-model (which
            word stands at [MASK]?) or causal-language-model (which word comes next?).
        source: the folder or hub name it was read from.
        longest_row: maximum number of tokens in one row, including special tokens. For a run it is at most the length
            of the training rows, because embeddings of later positions were never trained.
        vocabulary_size: one more than the tokenizer's largest id.
    """

    model: Any
    tokenizer: Any
    kind: Kind
    source: str
    longest_row: int
    vocabulary_size: int

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.model.device
        return device


def replaced_logits(
    detector: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
) -> Tensor:
    """(batch, length) float32: the logit of "this token was replaced"; its sigmoid is the probability.

    Args:
        input_ids: (batch, length) int64.
        attention_mask: (batch, length) bool or int, true at real tokens; None where every token is real.
    """
    hidden = encode(detector.model.base_model, input_ids, token_type_ids, attention_mask)
    return heads.replaced_logits(detector.model, hidden).float()


def masked_word_logits(
    language_model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None, is_asked: Tensor
) -> Tensor:
    """(asked, vocabulary) float32: word logits at the positions where is_asked, in row order.

    The prediction head runs at these positions only: with its output for each word of the vocabulary, it takes most of
    the time of a small network.

    Args:
        input_ids: (batch, length) int64.
        attention_mask: (batch, length) bool or int, true at real tokens; None where every token is real.
        is_asked: (batch, length) bool; True where a word is wanted.
    """
    return _word_logits(language_model, input_ids, None, attention_mask, lambda x: x[is_asked])


def next_word_logits(language_model: LoadedModel, input_ids: Tensor, is_asked: Tensor) -> Tensor:
    """(asked, vocabulary) float32: a causal model's word logits at the positions where is_asked, in row order.

    Each word is predicted from the tokens before it, so is_asked must be False at the first position of a row.

    Args:
        input_ids: (batch, length) int64; padding, if any, at the end.
        is_asked: (batch, length) bool.
    """
    before = torch.zeros_like(is_asked)
    before[:, :-1] = is_asked[:, 1:]
    return _word_logits(language_model, input_ids, None, None, lambda x: x[before])


def proposed_word_logits(
    language_model: LoadedModel,
    token_ids: Tensor,
    masked_ids: Tensor,
    token_type_ids: Tensor,
    attention_mask: Tensor | None,
    positions: Tensor,
) -> Tensor:
    """(batch, selected, vocabulary) float32: what a generator of either kind proposes at the selected positions.

    Args:
        token_ids: (batch, length) int64, the row as it was; input of a causal model, which sees only earlier tokens.
        masked_ids: (batch, length) int64, the row with [MASK]; input of a masked language model.
        token_type_ids: (batch, length) int64.
        attention_mask: (batch, length) bool or int, true at real tokens; None where every token is real.
        positions: (batch, selected) int64.
    """
    is_causal = language_model.kind == "causal-language-model"
    ids, places = (token_ids, places_before(positions)) if is_causal else (masked_ids, positions)
    return _word_logits(language_model, ids, token_type_ids, attention_mask, lambda x: take_positions(x, places))


def _word_logits(
    language_model: LoadedModel,
    input_ids: Tensor,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    take: Callable[[Tensor], Tensor],
) -> Tensor:
    """Word logits in float32, cut to the tokenizer's vocabulary: the output layer of a hub model can be padded."""
    _, logits = states_and_word_logits(language_model.model, input_ids, token_type_ids, attention_mask, take)
    return logits[..., : language_model.vocabulary_size].float()


def load_detector(folder: Path | str | RunFolder, *, device: str | None = None) -> LoadedModel:
    """The discriminator of a run folder, of a model's folder, or on the hub.

    Raises: CheckpointError: no such folder, no or damaged weights, or not a discriminator. TokenizerError: no
        tokenizer, or one that is not the model's.
    """
    run = open_run_folder(folder)
    if run.heads and "detection" not in run.heads:
        raise CheckpointError(
            f"{run}: has no detection head, only {', '.join(run.heads)}; "
            'pretrain with "detection" among the [discriminator] heads'
        )
    source = run.heads.get("detection", run.model)
    return _load(run, source, configuration_of(source), "detection", device)


def load_language_model(folder: Path | str | RunFolder, *, device: str | None = None) -> LoadedModel:
    """The masked or causal language model of a run folder, of a model's folder, or on the hub.

    Of a run folder it is the generator; without a generator, the correction head; without that, the model itself,
    which is right for a run of the masked-language-modelling baseline. Raises: as `load_detector`.
    """
    run = open_run_folder(folder)
    source = run.generator or run.heads.get("correction", run.model)
    configuration = configuration_of(source)
    return _load(run, source, configuration, language_model_kind(configuration), device)


def load_head(folder: Path | str | RunFolder, head: Head, *, device: str | None = None) -> LoadedModel:
    """The network with a further head of a run's discriminator: correction or electric.

    Raises: CheckpointError: the run has no such head; otherwise as `load_detector`.
    """
    run = open_run_folder(folder)
    if head not in run.heads:
        raise CheckpointError(
            f"{run}: has no {head} head, only {', '.join(run.heads) or 'what its model/ is'}; "
            f'pretrain with [discriminator] heads = ["detection", "{head}"]'
        )
    return _load(run, run.heads[head], configuration_of(run.heads[head]), HEAD_KINDS[head], device)


def load_model(folder: Path | str | RunFolder, *, device: str | None = None) -> LoadedModel:
    """The network in `model/`: a discriminator or a language model, as its class says. Raises: as `load_detector`."""
    run = open_run_folder(folder)
    configuration = configuration_of(run.model)
    name = (configuration.architectures or [""])[0]
    is_detector = name.endswith(("ForPreTraining", "ForTokenClassification"))
    kind: Kind = "detection" if is_detector else language_model_kind(configuration)
    return _load(run, run.model, configuration, kind, device)


def load_generator(
    folder: Path | str | RunFolder, generator: Path | str | None, *, device: str | None = None
) -> LoadedModel:
    """The generator that belongs to a discriminator: the one named, or the run folder's own.

    Raises: CheckpointError: `folder` is no run folder and no generator is named; otherwise as `load_detector`.
    """
    run = open_run_folder(folder)
    if generator is None and run.generator is None:
        raise CheckpointError(
            f"{run}: holds no generator; give the folder of a run (with model/ and generator/ inside) or --generator"
        )
    return load_language_model(run if generator is None else generator, device=device)


def require_same_vocabulary(first: LoadedModel, second: LoadedModel) -> None:
    """Raises TokenizerError unless both models number the same tokens alike."""
    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise TokenizerError(f"{second.source}: has another vocabulary than {first.source}; give two models of one run")


def _load(run: RunFolder, source: str, configuration: Any, kind: Kind, device: str | None) -> LoadedModel:
    """The network in `source`, one of the run's folders, whose config.json has been read as `configuration`."""
    backbone = backbone_of(configuration)
    model_class = _class_for(backbone, kind)
    if model_class is None or configuration.is_encoder_decoder:
        detectors = ", ".join(name for name, one in BACKBONES.items() if one.detector)
        wanted = f"one of {detectors}" if kind == "detection" else "an encoder or a decoder alone"
        raise CheckpointError(f"{source}: is a {configuration.model_type} model; a {_ROLES[kind]} must be {wanted}")
    if kind == "detection" and backbone and backbone.detects_by_labels and configuration.id2label != LABELS:
        raise CheckpointError(
            f"{source}: its labels are not original and replaced, so it is no discriminator; give the folder of a run, "
            "where the head that detects lies in detector/"
        )
    tokenizer = tokenizer_of(source, configuration.vocab_size, configuration)
    model = weights_of(source, model_class, _ROLES[kind], configuration=configuration)
    if kind == "causal-language-model":
        require_causal(model)
    place = device or device_of()
    longest = min(positions_of(configuration) or math.inf, tokenizer.model_max_length, run.trained_length or math.inf)
    vocabulary_size = 1 + max(tokenizer.get_vocab().values())
    return LoadedModel(model.to(place).eval(), tokenizer, kind, source, int(longest), vocabulary_size)


def _class_for(backbone: Backbone | None, kind: Kind) -> Any:
    """The Hugging Face class that reads a network of this kind; None: there is none.

    A language model may be of an architecture that electrain does not pretrain: a frozen generator from the hub.
    """
    if kind == "detection":
        return backbone.detector if backbone else None
    is_causal = kind == "causal-language-model"
    if backbone and backbone.is_causal == is_causal:
        return backbone.language_model
    return AutoModelForCausalLM if is_causal else AutoModelForMaskedLM


def rows_of(
    model: LoadedModel, windows: Sequence[Window], texts: Sequence[TokenizedText]
) -> tuple[Tensor, Tensor | None]:
    """Token ids, (windows, length) int64 with [CLS], [SEP] and padding; and which are real, or None where all are."""
    tokenizer = model.tokenizer
    rows = [
        [tokenizer.cls_token_id, *texts[window.text].token_ids[window.start : window.end], tokenizer.sep_token_id]
        for window in windows
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    is_real = torch.tensor([[place < len(row) for place in range(longest)] for row in rows])
    return ids.to(model.device), None if is_real.all() else is_real.to(model.device)

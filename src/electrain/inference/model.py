"""Opens pretrained networks from a run folder, a model folder or the Hugging Face hub."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from electrain.finetuning.model import open_pretrained
from electrain.finetuning.tasks.network import Arrays
from electrain.finetuning.tasks.task import as_tensors, on_device
from electrain.finetuning.tasks.task_folder import takes_token_types
from electrain.foundation.errors import CheckpointError
from electrain.inference.network import Chances, Ids
from electrain.models import heads
from electrain.models.backbones import BACKBONES, LABELS, Backbone, backbone_of, encode, positions_of
from electrain.models.discriminator import Head
from electrain.models.folders import configuration_of, is_of_a_pooler, tokenizer_of, weights_of
from electrain.models.frozen_generator import require_causal
from electrain.models.heads import language_model_kind, states_and_word_logits
from electrain.pretraining.objectives.writing import Sampling, write_passages
from electrain.pretraining.run_folder import HEAD_KINDS, Kind, RunFolder, open_run_folder
from electrain.training.runtime import device_of

# A run folder, a model folder or a hub id; or a run folder that has been read already.
Source = Path | str | RunFolder
_ROLES: dict[Kind, str] = {
    "detection": "discriminator",
    "masked-language-model": "generator or masked language model",
    "causal-language-model": "causal generator",
}


@dataclass(frozen=True)
class LoadedModel:
    """A network with its tokenizer, in evaluation mode and in float32."""

    model: PreTrainedModel  # a Hugging Face network with the head that `kind` names
    tokenizer: PreTrainedTokenizerFast  # the fast tokenizer from the same folder
    # detection: the logit of "replaced" for each token (of an electric head, its energy); masked-language-model: the
    # word at each [MASK]; causal-language-model: the next word
    kind: Kind
    source: str  # the folder or hub id that the network was read from
    # maximum number of tokens, including special ones; for a run at most the length of the training rows, because later
    # position embeddings were never trained
    longest_row: int
    vocabulary_size: int  # one more than the tokenizer's largest id

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return torch.device(self.model.device)

    @torch.inference_mode()
    def replaced(self, ids: Ids, is_real: NDArray[np.bool_] | None) -> Chances:
        """See `Detector`."""
        found: Chances = replaced_logits(self, *self._tensors(ids, is_real)).cpu().numpy()
        return found

    @torch.inference_mode()
    def words(self, ids: Ids, is_real: NDArray[np.bool_] | None, is_selected: NDArray[np.bool_]) -> Chances:
        """See `Filler`."""
        selected = torch.from_numpy(is_selected).to(self.device)
        found: Chances = word_logits_at(self, *self._tensors(ids, is_real), selected).cpu().numpy()
        return found

    def continuation(
        self, ids: Sequence[int], uniforms: Chances, temperature: float, top_p: float, never: Sequence[int]
    ) -> list[int]:
        """See `Writer`."""
        backbone, count = backbone_of(self.model.config), len(uniforms)
        if backbone is None or not backbone.is_causal:
            raise CheckpointError(
                f'{self.source}: is no GPT-2 and cannot write on; pretrain with [generator] kind = "causal"'
            )
        row = torch.tensor([[*ids, *[0] * count]], device=self.device)
        can_write = torch.zeros_like(row, dtype=torch.bool)
        can_write[:, len(ids) :] = True
        draws = torch.from_numpy(np.pad(uniforms, (len(ids), 0))[None]).to(self.device)
        written: list[int] = write_passages(self.model, row, can_write, draws, Sampling(temperature, top_p, never))[
            0, len(ids) :
        ].tolist()
        return written

    def _tensors(self, ids: Ids, is_real: NDArray[np.bool_] | None) -> tuple[Tensor, Tensor | None]:
        mask = None if is_real is None else torch.from_numpy(is_real).to(self.device)
        return torch.from_numpy(ids).to(self.device), mask


def replaced_logits(
    detector: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
) -> Tensor:
    """(batch, length) float32: the logit of "this token was replaced"; its sigmoid is the probability.

    Args:
        input_ids: (batch, length) int64.
        attention_mask: (batch, length) bool or int, true at real tokens; None if every token is real.
        token_type_ids: (batch, length) int64.
    """
    (hidden,) = encode(detector.model.base_model, input_ids, token_type_ids, attention_mask)
    return heads.replaced_logits(detector.model, hidden).float()


def word_logits_at(
    language_model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None, is_selected: Tensor
) -> Tensor:
    """(selected, vocabulary) float32: logits of the words at the selected positions, in row order.

    Args:
        input_ids: (batch, length) int64. A masked language model needs [MASK] at a position to predict its word; a
            causal one needs any padding to be at the end.
        attention_mask: (batch, length) bool or int, true at real tokens; None if every token is real.
        is_selected: (batch, length) bool; for a causal model, False at the first position of each row.
    """
    if language_model.kind == "causal-language-model":
        # The state of each token predicts the next token, so the state to read lies one position earlier.
        is_selected = torch.cat([is_selected[:, 1:], torch.zeros_like(is_selected[:, :1])], dim=1)
    return word_logits(language_model, input_ids, None, attention_mask, lambda states: states[is_selected])


def word_logits(
    language_model: LoadedModel,
    input_ids: Tensor,
    token_type_ids: Tensor | None,
    attention_mask: Tensor | None,
    take: Callable[[Tensor], Tensor],
) -> Tensor:
    """(..., vocabulary) float32: word logits from the states that `take` selects.

    Args: as `electrain.models.heads.states_and_word_logits`.
    """
    _, logits = states_and_word_logits(language_model.model, input_ids, token_type_ids, attention_mask, take)
    # Models on the hub may pad their output layer to a round size; those logits belong to no token.
    return logits[..., : language_model.vocabulary_size].float()


def load_detector(source: Source, device: torch.device | None = None) -> LoadedModel:
    """The discriminator of a run, of a model folder or of a hub model.

    Args: device: that of the weights. By default, see `device_of`.
    Raises: CheckpointError: no such folder, missing or damaged weights, or no discriminator. TokenizerError: no
        tokenizer, or one that does not fit the model.
    """
    run = open_run_folder(source)
    return load_head(run, "detection", device) if run.heads else _load(run, run.model, lambda _: "detection", device)


def load_head(source: Source, head: Head, device: torch.device | None = None) -> LoadedModel:
    """The network that holds one head of a run's discriminator.

    Raises: CheckpointError: the run has no such head; otherwise as `load_detector`.
    """
    run = open_run_folder(source)
    if head not in run.heads:
        raise CheckpointError(
            f"{run}: has no {head} head, only {', '.join(run.heads) or 'the network in model/'}; "
            f'pretrain with "{head}" among the [discriminator] heads'
        )
    return _load(run, run.heads[head], lambda _: HEAD_KINDS[head], device)


def load_language_model(source: Source, device: torch.device | None = None) -> LoadedModel:
    """The masked or causal language model of a run, of a model folder or of a hub model.

    In a run it is the generator; without a generator, the correction head; without that head, the network in `model/`,
    which predicts words in a run of the masked-language-modelling baseline. Raises: as `load_detector`.
    """
    run = open_run_folder(source)
    return _load(run, run.generator or run.heads.get("correction", run.model), language_model_kind, device)


def load_model(source: Source) -> LoadedModel:
    """The network in `model/`. Its class decides whether it is a discriminator. Raises: as `load_detector`."""

    def kind_of(configuration: PretrainedConfig) -> Kind:
        name = (configuration.architectures or [""])[0]
        is_detector = name.endswith(("ForPreTraining", "ForTokenClassification"))
        return "detection" if is_detector else language_model_kind(configuration)

    run = open_run_folder(source)
    return _load(run, run.model, kind_of)


def load_generator(source: Source, generator: Path | str | None) -> LoadedModel:
    """The generator that belongs to a discriminator: the one named, or else the run's own.

    Raises: CheckpointError: no generator is named and `source` holds none; otherwise as `load_detector`.
    """
    run = open_run_folder(source)
    if generator is None and run.generator is None:
        raise CheckpointError(
            f"{run}: holds no generator; give the folder of a run (with model/ and generator/ inside) or --generator"
        )
    return load_language_model(run if generator is None else generator)


def load_filler(source: Source, by: str | None = None, device: torch.device | None = None) -> LoadedModel:
    """The network that fills gaps: the one that `by` names, or the first of those below that sees both sides of a gap.

    They are the generator, the correction head, and the network in `model/` of a run of masked language modelling.
    Raises: CheckpointError: there is none; otherwise as `load_language_model`.
    """
    run = open_run_folder(source)
    if by == "correction":
        return load_head(run, "correction", device)
    if by == "generator" and run.heads and run.generator is None:
        raise CheckpointError(f"{run}: has no generator that fills gaps; leave `by` out, or give another run")
    found = load_language_model(run, device)
    if found.kind == "causal-language-model":
        if by is None and "correction" in run.heads:
            return load_head(run, "correction", device)
        raise CheckpointError(
            f"{found.source}: is a causal generator, which sees only the words before a gap; "
            "use predict generate to continue a text"
        )
    return found


@dataclass(frozen=True)
class Encoder:
    """An encoder in evaluation mode and in float32, on its device."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    longest_row: int  # maximum number of tokens, special ones counted

    @property
    def with_token_types(self) -> bool:
        """See `TextEncoder`."""
        return takes_token_types(self.network)

    @torch.inference_mode()
    def means(self, inputs: Arrays) -> Chances:
        """See `TextEncoder`."""
        tensors = on_device(as_tensors(inputs), self.network.device)
        states = self.network(**tensors)[0].float()
        mask = tensors.get("attention_mask")
        is_real = torch.ones_like(tensors["input_ids"]) if mask is None else mask
        found: Chances = ((states * is_real.unsqueeze(-1)).sum(1) / is_real.sum(1, keepdim=True)).cpu().numpy()
        return found


def load_encoder(model: Source, device: torch.device | None = None) -> Encoder:
    """The encoder of any model, without its head.

    Args: device: that of the weights. By default, see `device_of`.
    Raises: CheckpointError: not an encoder.
    """
    run = open_run_folder(model)
    opened = open_pretrained(run)
    network = weights_of(
        opened.source, AutoModel, "encoder", configuration=opened.configuration, may_be_new=is_of_a_pooler
    ).eval()
    # The tokenizers of older runs allow longer rows than the run was trained on.
    longest = min(opened.longest_row, opened.tokenizer.model_max_length, run.trained_length or opened.longest_row)
    return Encoder(network.to(device or device_of()), opened.tokenizer, longest)


def _load(
    run: RunFolder, source: str, kind_of: Callable[[PretrainedConfig], Kind], device: torch.device | None = None
) -> LoadedModel:
    """The network in `source`, which is one of the run's folders."""
    configuration = configuration_of(source)
    kind, backbone = kind_of(configuration), backbone_of(configuration)
    model_class = _class_for(backbone, kind)
    if model_class is None or configuration.is_encoder_decoder:
        detectors = ", ".join(name for name, one in BACKBONES.items() if one.detector)
        wanted = f"one of {detectors}" if kind == "detection" else "an encoder or a decoder alone"
        raise CheckpointError(
            f"{source}: is a model of the kind {configuration.model_type}; a {_ROLES[kind]} must be {wanted}"
        )
    if kind == "detection" and backbone and backbone.detects_by_labels and configuration.id2label != LABELS:
        # A tagger has the same class. Without this check its first two labels would be read as original and replaced.
        raise CheckpointError(
            f"{source}: its labels are not original and replaced, so it is no discriminator; give the folder of a run, "
            "which keeps the detection head in detector/"
        )
    tokenizer = tokenizer_of(source, configuration.vocab_size, configuration)
    model = weights_of(source, model_class, _ROLES[kind], configuration=configuration)
    if kind == "causal-language-model":
        require_causal(model)
    longest = min(positions_of(configuration) or math.inf, tokenizer.model_max_length, run.trained_length or math.inf)
    vocabulary_size = 1 + max(tokenizer.get_vocab().values())
    return LoadedModel(model.to(device or device_of()).eval(), tokenizer, kind, source, int(longest), vocabulary_size)


def _class_for(backbone: Backbone | None, kind: Kind) -> type[PreTrainedModel] | None:
    """The Hugging Face class that reads a network of this kind; None if there is none."""
    # A frozen generator from the hub may have an architecture that electrain cannot pretrain: its class is found by
    # transformers.
    is_causal = kind == "causal-language-model"
    any_class: type[PreTrainedModel] = AutoModelForCausalLM if is_causal else AutoModelForMaskedLM
    if kind == "detection":
        return backbone.detector if backbone else None
    return backbone.language_model if backbone and backbone.is_causal == is_causal else any_class

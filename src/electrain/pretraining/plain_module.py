"""Replaced token detection as a plain module with a collator, for the training loops of others.

The networks, the masks and the losses are those of `electrain pretrain`, called here and not written a second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from electrain.data.shards.rows import PackedBatch
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.tokenizer import SpecialIds, load_tokenizer, special_ids_of
from electrain.foundation.configuration import Tables, to_toml
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.output_folder import CONFIGURATION_NAME, write_text_durably
from electrain.pretraining.build import (
    Vocabulary,
    build_objective,
    corrupted_micro_batch,
    load_starting_weights,
    sized_as_started,
    vocabulary_of,
)
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.export import export_models
from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection as _Objective
from electrain.pretraining.objectives.rows import Rows
from electrain.training.objective import MicroBatch, Outcome

UNSCORED = -100  # what Hugging Face's Trainer does not count among the labels


@dataclass
class DetectionOutput(ModelOutput):  # type: ignore[misc]
    """What a forward pass returns; `losses`, an attribute beside these, has the mean of each loss, detached."""

    loss: Tensor | None = None  # () float32; the joint loss, in nats
    logits: Tensor | None = None  # (batch, length) float32; positive means replaced
    is_replaced: Tensor | None = None  # (batch, length) int64; 1 at replaced tokens, 0 at others, -100 at padding
    corrupted_ids: Tensor | None = None  # (batch, length) int64; what the discriminator read


@dataclass(frozen=True)
class DetectionCollator:
    """Turns examples into a padded batch for `ReplacedTokenDetection`.

    An example is a dict with "input_ids", as the tokenizer gives them with [CLS] and [SEP], or with a "text". Rows are
    cut at the model's length. `labels` are the ids with -100 at padding: by them Trainer counts the tokens of a step.
    """

    tokenizer: PreTrainedTokenizerFast
    longest: int  # maximum number of tokens in a row, special ones counted

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `token_type_ids`, `labels`, and `attention_mask` if a row is padded; (batch, length) int64.

        Raises: DataError: an example has neither, or does not begin with [CLS] and end with [SEP].
        """
        special = special_ids_of(self.tokenizer)
        rows = [self._row(number, example, special) for number, example in enumerate(examples)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), special.pad)
        types = torch.zeros_like(ids)
        is_real = torch.zeros_like(ids)
        for row, (own, own_types) in enumerate(rows):
            ids[row, : len(own)], types[row, : len(own)] = torch.tensor(own), torch.tensor(own_types)
            is_real[row, : len(own)] = 1
        batch = {"input_ids": ids, "token_type_ids": types, "labels": ids.masked_fill(is_real == 0, UNSCORED)}
        return batch if bool(is_real.all()) else batch | {"attention_mask": is_real}

    def _row(self, number: int, example: Mapping[str, Any], special: SpecialIds) -> tuple[list[int], list[int]]:
        """The ids and the token types of an example, cut."""
        if "input_ids" in example:
            ids = list(map(int, example["input_ids"]))
        elif isinstance(example.get("text"), str):
            text = cleaner_for(self.tokenizer)(example["text"])
            ids = encode_plain(self.tokenizer, [text], add_special_tokens=True)["input_ids"][0]
        else:
            way_out = "give one (Trainer drops texts unless remove_unused_columns=False)"
            raise DataError(f"example {number + 1} of a batch: has neither input_ids nor a text; {way_out}")
        if "attention_mask" in example:
            ids = [token for token, is_real in zip(ids, example["attention_mask"], strict=True) if is_real]
        if len(ids) < 2 or ids[0] != special.cls or ids[-1] != special.sep:
            fault = "does not begin with [CLS] and end with [SEP]"
            raise DataError(f"example {number + 1} of a batch: {fault}; tokenize it with special tokens")
        types = list(map(int, example.get("token_type_ids", ())))[: len(ids)] or [0] * len(ids)
        if len(ids) > self.longest:
            ids, types = [*ids[: self.longest - 1], special.sep], types[: self.longest]
        return ids, types


class ReplacedTokenDetection(nn.Module):
    """A generator and a discriminator with their joint loss, for Hugging Face's Trainer or a loop of your own.

        model = ReplacedTokenDetection("small", tokenizer)
        # with remove_unused_columns=False in the arguments, so that Trainer leaves the texts in the examples
        Trainer(model, arguments, train_dataset=examples, data_collator=model.collator()).train()
        model.save_pretrained("run")

    The loss of a batch is that of `electrain pretrain`. In training, masks and samples are a function of the seed and
    of the number of the row, which counts the rows since the first forward pass and is saved with the weights; so a
    resumed Trainer goes on with the next numbers. In evaluation they are a function of the seed and of the row's
    tokens; so a text is masked alike in every evaluation.

    What differs from `electrain pretrain`: your loop chooses the rows (which are padded here, and packed there), the
    optimizer, the learning rate and the precision, so the sections [training] (but for its seed, dropout, steps and
    batch_rows, by which schedules go) and [data] (but for sequence_length) are not read. Where Trainer accumulates
    gradients, it tells the number of tokens in the step: each micro-batch weighs by its share of them, which is exact
    for the detection loss; for the generator's, it is exact but for the rounding of 15% of a row to whole tokens.
    A sampled softmax needs the order of frequency of a corpus: words are compared with the whole vocabulary here.
    Nothing watches the run's health, and dropout follows PyTorch's random state.

    Attributes:
        settings: the configuration.
        tokenizer: that of both networks.
        discriminator, generator: the networks, which may share their embeddings.
    """

    rows_seen: Tensor  # () int64; by all processes, in training
    continues_word: Tensor  # (vocabulary,) bool
    accepts_loss_kwargs = True  # Trainer then passes num_items_in_batch

    def __init__(
        self,
        config: str | Tables | PretrainConfig,
        tokenizer: PreTrainedTokenizerFast | Path | str,
        overrides: Tables | None = None,
    ) -> None:
        """
        Args:
            config: the name of a preset ("tiny", "small", ...), a TOML file, or its sections as a dict of dicts. Its
                section [start] may name weights to start from.
            tokenizer: a fast tokenizer, or its folder.
            overrides: fields that override the configuration, by section.
        Raises: ConfigurationError: the configuration is of masked language modelling, or has no such field.
            TokenizerError: the tokenizer lacks a special token. CheckpointError: weights to start from do not fit.
        """
        super().__init__()
        settings = config if isinstance(config, PretrainConfig) else load_configuration(config, overrides)
        if settings.training.objective != "replaced-token-detection":
            raise ConfigurationError("[training] objective: must be replaced-token-detection for this module")
        self.settings = sized_as_started(settings)
        self.tokenizer = load_tokenizer(Path(tokenizer)) if isinstance(tokenizer, str | Path) else tokenizer
        self._special_ids = special_ids_of(self.tokenizer)
        vocabulary = vocabulary_of(self.tokenizer)
        objective = build_objective(
            self.settings, vocabulary_size=vocabulary.size, special_ids=self._special_ids, unigram_counts=None
        )
        assert isinstance(objective, _Objective)
        load_starting_weights(objective, self.settings)
        self.objective = objective
        self._vocabulary_size = vocabulary.size
        self.register_buffer("continues_word", vocabulary.continues_word, persistent=False)
        self.register_buffer("rows_seen", torch.zeros((), dtype=torch.int64))
        # Shared weights have several names. Safetensors refuses them, so that each is saved once, and found again.
        self.register_state_dict_post_hook(_saved_once)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_named_again)  # type: ignore[no-untyped-call]

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator."""
        return self.objective.discriminator

    @property
    def generator(self) -> nn.Module:
        """The generator."""
        return self.objective.generator

    def collator(self) -> DetectionCollator:
        """The collator for this model."""
        return DetectionCollator(self.tokenizer, self.settings.data.sequence_length)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> DetectionOutput:
        """Corrupts the rows and returns the joint loss.

        Args:
            input_ids: (batch, length) int64, with [CLS] and [SEP].
            token_type_ids: (batch, length) int64; None: all 0.
            attention_mask: (batch, length), true at real tokens, with padding at the end; None if all are real.
            labels: not read; Trainer counts them.
            num_items_in_batch: number of real tokens in all micro-batches of the step; None if this is the only one.
        """
        del labels
        packed = self._packed(input_ids, token_type_ids, attention_mask)
        if input_ids.device.type == "mps":  # it has no float64, in which random numbers are compared
            packed = replace(
                packed, **{name: tensor.cpu() for name, tensor in vars(packed).items() if tensor is not None}
            )
        made = self._corrupted(packed)
        rows = made.rows if attention_mask is not None else made.rows._replace(attention_mask=None)
        outcome: Outcome = self.objective(self.objective.prepare(rows, input_ids.device))
        # Where nothing could be masked, as in blank texts, a term adds 0, and not 0 / 0.
        means = {name: term.total / max(made.counts[name], 1) for name, term in outcome.terms.items()}
        loss = torch.stack([outcome.terms[name].weight * mean for name, mean in means.items()]).sum()
        if num_items_in_batch is not None:
            loss = loss * (made.tokens / num_items_in_batch)
        seen = outcome.observations
        is_replaced = seen.get("is_replaced")
        if is_replaced is not None:
            is_replaced = is_replaced.to(torch.int64)
            is_replaced = is_replaced if attention_mask is None else is_replaced.where(attention_mask != 0, UNSCORED)
        output = DetectionOutput(loss, seen.get("replaced_logits"), is_replaced, seen.get("corrupted_ids"))
        output.losses = {name: mean.detach() for name, mean in means.items()}
        return output

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes `model/`, `generator/` and the configuration, as `electrain pretrain` does; `electrain.load` opens it.

        Only one process of a distributed run may call it.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        export_models(self.objective, self.tokenizer, place, self.settings.data.sequence_length)
        write_text_durably(place / CONFIGURATION_NAME, to_toml(self.settings))

    def _packed(self, ids: Tensor, types: Tensor | None, mask: Tensor | None) -> PackedBatch:
        is_real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask != 0
        is_special = (ids.unsqueeze(-1) == torch.tensor(self._special_ids.all, device=ids.device)).any(-1) | ~is_real
        return PackedBatch(
            ids, torch.zeros_like(ids) if types is None else types, is_real, is_special, self._numbers(ids)
        )

    def _numbers(self, ids: Tensor) -> Tensor:
        """(batch,) int64: the number of each row, from which its masks and samples follow."""
        rows, place = len(ids), torch.arange(len(ids), device=ids.device)
        if not self.training:
            # Odd factors that differ by place; the products wrap around, as those of a hash do. Padding counts nothing.
            factors = 2 * torch.arange(1, ids.shape[1] + 1, device=ids.device) ** 3 + 1
            return ((ids - self._special_ids.pad) * factors).sum(1)
        is_parallel = distributed.is_available() and distributed.is_initialized()
        rank, processes = (distributed.get_rank(), distributed.get_world_size()) if is_parallel else (0, 1)
        numbers = self.rows_seen + rank * rows + place
        self.rows_seen += rows * processes
        return numbers

    def _corrupted(self, packed: PackedBatch) -> MicroBatch[Rows]:
        """The rows as pretraining corrupts them at the step that their first number belongs to."""
        training = self.settings.training
        first_row = int(packed.row_numbers[0] if self.training else self.rows_seen)
        step = min(first_row // training.batch_rows, training.steps - 1)
        self.objective.begin_step(step)
        # Rows of others may be padded, as those of the reference implementation.
        padded = replace(self.settings, parity=replace(self.settings.parity, reference_packing=True))
        return corrupted_micro_batch(
            packed,
            padded,
            Vocabulary(self._vocabulary_size, self._special_ids.mask, self.continues_word.to(packed.token_ids.device)),
            step,
        )


def _saved_once(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    for first, further in _shared(module).items():
        for name in further:
            if prefix + first in state:
                state.pop(prefix + name, None)


def _named_again(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    for first, further in _shared(module).items():
        for name in further:
            if prefix + first in state:
                state.setdefault(prefix + name, state[prefix + first])


def _shared(module: nn.Module) -> dict[str, list[str]]:
    """The first name of each parameter that has several, and the others."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {own[0]: own[1:] for own in names.values() if len(own) > 1}

"""Corrupts text as a pretraining run did, with the networks that the run left behind."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from electrain.data.shards.prepare import COUNTS_NAME
from electrain.data.shards.rows import PackedBatch
from electrain.data.shards.shards import read_counts
from electrain.data.tokenizer.tokenizer import special_ids_of
from electrain.foundation.errors import CheckpointError
from electrain.foundation.sums import require_as_written
from electrain.inference.model import LoadedModel
from electrain.models.frozen_generator import FrozenGenerator
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.build import Vocabulary, corrupted_micro_batch, proposal_settings, vocabulary_of
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.objectives.corruption import (
    Proposal,
    ProposalSettings,
    corrupted_ids,
    is_replaced,
    propose,
    written_rows,
)
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.run_folder import RunFolder
from electrain.training.runtime import device_of


class Corrupted(NamedTuple):
    """Rows after corruption."""

    rows: Rows  # the rows, including the passages that the generator wrote
    proposal: Proposal  # the generator's words and logits at the selected positions
    ids: Tensor  # (batch, length) int64; the input of the discriminator
    is_replaced: Tensor  # (batch, length) bool; the labels of the discriminator


@dataclass(frozen=True)
class Corruption:
    """The corruption of a run at its last step, computed by the functions that trained the run."""

    config: PretrainConfig  # the run's configuration, with another seed
    generator: FrozenGenerator | UnigramGenerator  # the network or word frequencies that propose words
    proposals: ProposalSettings  # how words are drawn and placed
    vocabulary: Vocabulary  # of the run's tokenizer
    device: torch.device  # the device of the generator

    def masked(self, packed: PackedBatch) -> Rows:
        """The packed rows on the device, with positions selected and masked."""
        last_step = self.config.training.steps - 1
        return corrupted_micro_batch(packed, self.config, self.vocabulary, last_step).rows.to(self.device)

    @torch.inference_mode()
    def corrupted(self, masked: Rows) -> Corrupted:
        """The masked rows, with passages written, and with words proposed and placed."""
        rows = written_rows(masked, self.generator, self.proposals)
        proposal = propose(rows, self.generator, self.proposals)
        ids = corrupted_ids(rows, proposal.words, self.proposals)
        return Corrupted(rows, proposal, ids, is_replaced(rows, ids))


def corruption_settings(run: RunFolder) -> PretrainConfig:
    """The configuration that decides how rows are packed and corrupted for a model.

    It is that of the run, or the published recipe for any other model. A run of the masked-language-modelling baseline
    has no generator: its noise, masked fraction and rows are combined with the published recipe.
    """
    if run.config is not None and not run.is_baseline:
        return run.config
    published = load_configuration("small")
    if run.config is None:
        return published
    return dataclasses.replace(published, corruption=run.config.corruption, data=run.config.data)


def open_corruption(
    run: RunFolder, sampler: LoadedModel | None, tokenizer: PreTrainedTokenizerFast, seed: int, config: PretrainConfig
) -> Corruption:
    """The corruption that a configuration describes.

    Args:
        sampler: the generator; None draws words by their frequency in the training text of the run.
        tokenizer: of the run.
        seed: decides masks and samples, in place of the seed in `config`.
    Raises: CheckpointError: the run's word frequencies are missing or damaged.
    """
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    special_ids = special_ids_of(tokenizer)
    # A run does not save the weights of a mixture of depths. A FrozenGenerator proposes words at its last depth alone.
    proposals = proposal_settings(config, special_ids)
    if sampler is not None:
        network = FrozenGenerator(sampler.model, sampler.vocabulary_size)
        return Corruption(config, network, proposals, vocabulary_of(tokenizer), sampler.device)
    counts = unigram_counts(run)
    if counts is None:
        raise CheckpointError(f"{run}: holds no {COUNTS_NAME}, from which its generator draws; copy the run again")
    choice, device = config.generator, device_of()
    words = UnigramGenerator(counts, choice.clusters, choice.temperature, sorted(special_ids.all)).to(device)
    return Corruption(config, words, proposals, vocabulary_of(tokenizer), device)


def unigram_counts(run: RunFolder) -> NDArray[np.int64] | None:
    """(vocabulary,) int64: how often each token occurred in the training text; None if the folder does not say.

    Raises: CheckpointError: the file is damaged.
    """
    path = Path(run.path) / COUNTS_NAME
    require_as_written(Path(run.path), (COUNTS_NAME,))
    if not path.is_file():
        return None
    try:
        return read_counts(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again, or remove it") from error

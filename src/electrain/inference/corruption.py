"""Text corrupted as a run corrupted it in training, with the networks that the run left behind."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from electrain.data.shards.prepare import COUNTS_NAME
from electrain.data.shards.rows import PackedBatch
from electrain.data.tokenizer.tokenizer import special_ids_of
from electrain.foundation.errors import CheckpointError
from electrain.inference.model import LoadedModel
from electrain.models.frozen_generator import FrozenGenerator
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretrain.build import Vocabulary, corrupted_micro_batch, proposal_settings, vocabulary_of
from electrain.pretrain.configuration import PretrainConfig, load_configuration
from electrain.pretrain.objectives.corruption import (
    Proposal,
    ProposalSettings,
    corrupted_ids,
    is_replaced,
    propose,
    written_rows,
)
from electrain.pretrain.objectives.rows import Rows
from electrain.pretrain.run_folder import RunFolder

# What is assumed of a model that is no run of electrain: the published recipe.
PUBLISHED_PRESET = "small"


class Corrupted(NamedTuple):
    """Rows after corruption.

    Attributes:
        rows: with the passages written.
        proposal: the generator's words and logits at the selected positions.
        ids: (batch, length) int64; what the discriminator reads.
        is_replaced: (batch, length) bool; what it is to find.
    """

    rows: Rows
    proposal: Proposal
    ids: Tensor
    is_replaced: Tensor


@dataclass(frozen=True)
class Corruption:
    """How a run corrupts rows, at its last step, by the code that trained it.

    Of a mixture of depths the last depth alone is used: the run's folders do not hold the weights of the mixture.

    Attributes:
        config: the run's configuration, with the seed that is asked for.
        generator: what proposes words.
        proposals: how it proposes them.
        vocabulary: of the run's tokenizer.
        device: where the generator lies.
    """

    config: PretrainConfig
    generator: FrozenGenerator | UnigramGenerator
    proposals: ProposalSettings
    vocabulary: Vocabulary
    device: torch.device

    def masked(self, packed: PackedBatch) -> Rows:
        """Packed rows with positions selected and masked, on the device; nothing is written or proposed yet."""
        last_step = self.config.training.steps - 1
        return corrupted_micro_batch(packed, self.config, self.vocabulary, last_step).rows.to(self.device)

    @torch.inference_mode()
    def corrupted(self, masked: Rows) -> Corrupted:
        """Masked rows with passages written and words proposed and placed."""
        rows = written_rows(masked, self.generator, self.proposals)
        proposal = propose(rows, self.generator, self.proposals)
        ids = corrupted_ids(rows, proposal.words, self.proposals)
        return Corrupted(rows, proposal, ids, is_replaced(rows, ids))


def corruption_settings(run: RunFolder) -> PretrainConfig:
    """The configuration whose corruption a model is to be shown: that of its run, or else the published recipe.

    A run of the masked-language-modelling baseline has no generator of its own: it keeps its noise, its masked
    fraction and its rows, and everything else is as published.
    """
    published = load_configuration(PUBLISHED_PRESET)
    if run.config is None:
        return published
    if run.is_baseline:
        return dataclasses.replace(published, corruption=run.config.corruption, data=run.config.data)
    return run.config


def open_corruption(
    run: RunFolder, sampler: LoadedModel | None, tokenizer: Any, seed: int, config: PretrainConfig | None = None
) -> Corruption:
    """Corruption as a run does it.

    Args:
        sampler: the generator; None: word frequencies, from a run with a unigram generator.
        tokenizer: the run's.
        seed: decides masks and samples, in place of the run's own.
        config: in place of `corruption_settings(run)`.
    Raises: CheckpointError: the run's word frequencies are missing or damaged.
    """
    config = config or corruption_settings(run)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    special_ids = special_ids_of(tokenizer)
    proposals = proposal_settings(config, special_ids)
    if proposals.training == "mixture":
        proposals = dataclasses.replace(proposals, depths=())
    generator: FrozenGenerator | UnigramGenerator
    if sampler is None:
        choice = config.generator
        counts = unigram_counts(Path(run.path))
        if counts is None:
            raise CheckpointError(f"{run}: holds no {COUNTS_NAME}, from which its generator draws; copy the run again")
        generator = UnigramGenerator(counts, choice.clusters, choice.temperature, sorted(special_ids.all))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator.to(device)
    else:
        generator, device = FrozenGenerator(sampler.model, sampler.vocabulary_size), sampler.device
    return Corruption(config, generator, proposals, vocabulary_of(tokenizer), device)


def unigram_counts(run: Path) -> "np.ndarray[tuple[int], np.dtype[np.int64]] | None":
    """(vocabulary,) int64: how often each token stood in a run's training text; None where the folder does not say.

    Raises: CheckpointError: the file is damaged.
    """
    path = run / COUNTS_NAME
    if not path.is_file():
        return None
    try:
        counts: np.ndarray[tuple[int], np.dtype[np.int64]] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again, or remove it") from error
    if counts.ndim != 1:
        raise CheckpointError(f"{path}: holds no list of counts; copy it again, or remove it")
    return counts

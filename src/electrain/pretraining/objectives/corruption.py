"""Corrupts rows with a generator: it writes passages, proposes words and puts them in their places.

Training, `evaluate` and `predict` all corrupt text with these functions, so that they cannot disagree.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.models.frozen_generator import FrozenGenerator
from electrain.models.generators import MaskedGenerator, Reading
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.objectives.game import gumbel_noise, mixed_logits, relaxed_words
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.objectives.sampling import place_averaged_words, place_words, sample_words
from electrain.pretraining.objectives.writing import Sampling, write_passages

Generator = MaskedGenerator | FrozenGenerator | UnigramGenerator


@dataclass(frozen=True)
class ProposalSettings:
    """How words are proposed and placed."""

    special_ids: SpecialIds  # ids that the generator never writes in a passage; [MASK] stands where a word is missing
    # How the generator is trained; gumbel and mixture draw words so that gradients can pass.
    training: str = "likelihood"
    # numbers of the layers after which the generator proposes words; empty for the last only
    depths: tuple[int, ...] = ()
    gumbel_temperature: float = 0.5  # temperature of the relaxed words of gumbel and mixture
    # written words are drawn from the likeliest ones that together have this probability; 1 draws from all
    top_p: float = 1.0
    # True averages the ids drawn for the same position, a quirk of the reference implementation
    averages_collisions: bool = False


class Proposal(NamedTuple):
    """The generator's proposals at the selected positions."""

    words: Tensor  # (batch, selected) int64; the drawn words
    hidden: Tensor | None  # (batch, selected, hidden) float; the generator's states; None if it is no network
    logits: list[Tensor]  # (batch, selected, vocabulary) float, one for each depth; empty if it is no network
    # (batch, selected, vocabulary) float; the logits that words are drawn from, of the last depth or the mixture
    chosen: Tensor | None
    # (batch, selected, vocabulary) float32; the words' stand-in in the backward pass; None if no gradient passes
    relaxed: Tensor | None


@torch.no_grad()
def written_rows(rows: Rows, generator: Generator, settings: ProposalSettings) -> Rows:
    """The rows with their passages written by the generator; unchanged if there are no passages to write."""
    if rows.writing_uniforms is None or rows.is_written is None:
        return rows
    chosen = torch.nonzero(rows.is_written.any(1)).flatten()
    before = rows.token_ids
    if not len(chosen):
        return rows._replace(writing_uniforms=None)
    assert not isinstance(generator, UnigramGenerator)
    table = generator.table() if isinstance(generator, MaskedGenerator) and generator.table is not None else None
    temperature = 1.0 if rows.temperature is None else float(rows.temperature)
    passages = write_passages(
        generator.network,
        before[chosen],
        rows.is_written[chosen],
        rows.writing_uniforms[chosen],
        Sampling(temperature, settings.top_p, settings.special_ids.all),
        table=table,
    )
    after = before.index_copy(0, chosen, passages)
    # Positions were selected and masked before anything was written. Each that still shows the old token must now show
    # the written one.
    masked = torch.where(rows.masked_ids == before, after, rows.masked_ids)
    return rows._replace(token_ids=after, masked_ids=masked, writing_uniforms=None)


def propose(rows: Rows, generator: Generator, settings: ProposalSettings, mixture: nn.Linear | None = None) -> Proposal:
    """Draws a word for each selected position.

    Args:
        mixture: from states to the weights of the depths, for training = "mixture"; None uses the last depth only.
    """
    return proposed(rows, read(rows, generator, settings), generator, settings, mixture)


def read(rows: Rows, generator: Generator, settings: ProposalSettings) -> Reading | None:
    """The generator's states of the rows: the first part of `propose`. None if it is no network."""
    if isinstance(generator, UnigramGenerator):
        return None
    seen = rows.masked_ids if generator.reads_masked_ids else rows.token_ids
    return generator.read(seen, rows.token_type_ids, rows.attention_mask, settings.depths, rows.words)


def proposed(
    rows: Rows,
    reading: Reading | None,
    generator: Generator,
    settings: ProposalSettings,
    mixture: nn.Linear | None = None,
) -> Proposal:
    """Words for each selected position from what `read` returned: the second part of `propose`."""
    if isinstance(generator, UnigramGenerator):
        return Proposal(generator.draw(rows.originals, rows.uniforms), None, [], None, None)
    assert reading is not None
    hidden, logits = generator.predict(reading, rows.positions)
    chosen = logits[-1]
    if mixture is not None:
        # The weights learn from the discriminator only, and must not change the states that predict words.
        chosen = mixed_logits(logits, mixture(hidden.detach()))
    if settings.training in ("gumbel", "mixture"):
        noise = gumbel_noise(rows.uniforms, chosen.shape[-1])
        words, relaxed = relaxed_words(rows.tempered(chosen), noise, settings.gumbel_temperature)
        return Proposal(words, hidden, logits, chosen, relaxed)
    if rows.compared is None or reading.words is None:  # a frozen generator computes all logits
        words = sample_words(chosen, rows.uniforms, rows.temperature)
    else:
        words = rows.compared[sample_words(rows.proposable(chosen), rows.uniforms)]
    return Proposal(words, hidden, logits, chosen, None)


def corrupted_ids(rows: Rows, words: Tensor, settings: ProposalSettings) -> Tensor:
    """(batch, length) int64: the discriminator's input, with the (batch, selected) words at their positions."""
    base = rows.token_ids if rows.base_ids is None else rows.base_ids
    if rows.is_missing is not None:
        words = torch.where(rows.is_missing, settings.special_ids.mask, words)
    is_placed = rows.is_selected if rows.is_kept is None else rows.is_selected & ~rows.is_kept
    place = place_averaged_words if settings.averages_collisions else place_words
    return place(base, rows.positions, is_placed, words)


def is_replaced(rows: Rows, corrupted: Tensor) -> Tensor:
    """(batch, length) bool: the labels of detection: True at a token that differs from the text's, or was written."""
    # A drawn word that happens to be the original one is original: the discriminator could not tell them apart.
    differs = corrupted != rows.token_ids
    return differs if rows.is_written is None else differs | rows.is_written

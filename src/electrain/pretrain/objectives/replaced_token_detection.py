"""Replaced token detection (Clark et al. 2020) and its relatives: a generator proposes words, the discriminator judges.

Published: the generator fills the gaps, and detection finds which tokens it changed. Other generators, further heads
and an adversarial generator change a part each; the parts that are not asked for cost nothing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.foundation.configuration import require_at_least
from electrain.models.discriminator import Discriminator
from electrain.models.frozen_generator import FrozenGenerator
from electrain.models.generators import CausalGenerator, MaskedGenerator, take_positions
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretrain.objectives.game import (
    gumbel_noise,
    mixed_logits,
    policy_gradient_losses,
    relaxed_words,
    reversed_straight_through,
    rewards,
)
from electrain.pretrain.objectives.head_losses import copied_word_losses, electric_losses, replaced_token_loss
from electrain.pretrain.objectives.sampling import place_averaged_words, place_words, sample_words
from electrain.pretrain.objectives.writing import write_passages
from electrain.training.objective import LossTerm, Outcome, word_loss

Generator = MaskedGenerator | FrozenGenerator | UnigramGenerator


@dataclass(frozen=True)
class GameConfig:
    """Adversarial training of the generator. Not read when generator.training is likelihood.

    Attributes:
        likelihood_weight: Weight of the loss for restoring the original words, at least 0; 0 trains the generator by
            the game alone.
        adversarial_weight: Weight of the mean reward per selected token for misleading the discriminator, at least 0.
        gumbel_temperature: Trainings gumbel and mixture: temperature of the relaxed samples, at least 0.01.
        mixture_depths: Training mixture: numbers of the generator's layers after which words are proposed, ascending
            from 1; empty uses the last three layers.
    """

    likelihood_weight: float = 1.0
    adversarial_weight: float = 1.0
    gumbel_temperature: float = 0.5
    mixture_depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_at_least("likelihood_weight", self.likelihood_weight, 0.0)
        require_at_least("adversarial_weight", self.adversarial_weight, 0.0)
        require_at_least("gumbel_temperature", self.gumbel_temperature, 0.01)
        if list(self.mixture_depths) != sorted(set(self.mixture_depths)) or any(d < 1 for d in self.mixture_depths):
            raise ValueError(
                f"mixture_depths = {list(self.mixture_depths)}: must be layer numbers from 1 on, ascending"
            )


@dataclass(frozen=True)
class DetectionSettings:
    """The choices of `ReplacedTokenDetection`; see the fields of the same names in the configuration.

    Attributes:
        depths: layers after which the generator proposes words; empty: the last.
    """

    loss_weight: float = 50.0
    training: str = "likelihood"
    detection_at: str = "all"
    correction_at: str = "replaced"
    correction_weight: float = 1.0
    likelihood_weight: float = 1.0
    adversarial_weight: float = 1.0
    gumbel_temperature: float = 0.5
    depths: tuple[int, ...] = ()
    averages_collisions: bool = False
    top_p: float = 1.0


class Proposal(NamedTuple):
    """What the generator proposes at the selected positions.

    Attributes:
        words: (batch, selected) int64; drawn.
        hidden: (batch, selected, hidden) float; its states; None where there is no network.
        logits: (batch, selected, vocabulary) float, for each depth; empty where there is no network.
        chosen: (batch, selected, vocabulary) float; those that the words are drawn from: the last, or the mixture's.
        relaxed: (batch, selected, vocabulary) float32; stands for the words in the backward pass; None: nothing does.
    """

    words: Tensor
    hidden: Tensor | None
    logits: list[Tensor]
    chosen: Tensor | None
    relaxed: Tensor | None


class Rows(NamedTuple):
    """The rows of a micro-batch, as `MaskedBatch` has them; what is None does not apply to any row.

    Attributes:
        base_ids: (batch, length) int64; the text with noise that needs no generator; None: as it was.
        is_missing: (batch, selected) bool; True where the discriminator sees [MASK] and no proposal.
        is_kept: (batch, selected) bool; True where it sees the original, though a word was proposed.
        is_written: (batch, length) bool; True at tokens that the generator wrote before anything was masked.
        reversal: () float32; what the discriminator's gradient is multiplied with before it reaches the generator
            through relaxed words, its sign apart.
    """

    token_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor | None
    masked_ids: Tensor
    positions: Tensor
    is_selected: Tensor
    uniforms: Tensor
    temperature: Tensor | None = None
    base_ids: Tensor | None = None
    is_missing: Tensor | None = None
    is_kept: Tensor | None = None
    is_written: Tensor | None = None
    reversal: Tensor | None = None


class ReplacedTokenDetection(nn.Module):
    """Both networks and their joint loss.

    The samples carry no gradient, so the discriminator's loss reaches the generator through shared embeddings only,
    unless the generator is trained as an adversary, and then by the chosen estimator only.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        settings: DetectionSettings,
        *,
        special_ids: SpecialIds,
        own_stage_steps: int = 0,
    ) -> None:
        """
        Args:
            special_ids: of the tokenizer; the generator never writes them.
            own_stage_steps: the first steps, in which the generator alone is trained; then it is frozen.
        """
        super().__init__()
        self.own_stage_steps = own_stage_steps
        self.trains_generator = any(parameter.requires_grad for parameter in generator.parameters())
        self.discriminator = discriminator
        self.generator = generator
        self.settings = settings
        self.special_ids = special_ids
        self.place = place_averaged_words if settings.averages_collisions else place_words
        self.baseline: nn.Linear | None = None
        self.mixture: nn.Linear | None = None
        if settings.training == "policy-gradient":
            self.baseline = nn.Linear(_width(generator), 1)
        if settings.training == "mixture":
            self.mixture = nn.Linear(_width(generator), len(settings.depths))

    def begin_step(self, step: int) -> None:
        """Ends the generator's own stage when its steps are over: freezes it, and where the discriminator has the same
        shape, starts that from its weights (Clark et al. 2020, section 3.3, two-stage)."""
        if not self.own_stage_steps or step < self.own_stage_steps or not self.trains_generator:
            return
        self.trains_generator = False
        self.generator.requires_grad_(False)
        if step == self.own_stage_steps and isinstance(self.generator, MaskedGenerator):
            ours, theirs = self.discriminator.body.state_dict(), self.generator.body.state_dict()
            if {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}:
                self.discriminator.body.load_state_dict(theirs)

    @torch.no_grad()
    def prepare(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the forward pass, after the generator has written the rows that it is to write."""
        if "writing_uniforms" not in tensors:
            return tensors
        tensors = dict(tensors)
        uniforms, is_written, before = tensors.pop("writing_uniforms"), tensors["is_written"], tensors["token_ids"]
        rows = torch.nonzero(is_written.any(1)).flatten()
        if len(rows):
            assert isinstance(self.generator, CausalGenerator)
            temperature = 1.0 if tensors["temperature"] is None else float(tensors["temperature"])
            passages = write_passages(
                self.generator.network,
                before[rows],
                is_written[rows],
                uniforms[rows],
                table=None if self.generator.table is None else self.generator.table(),
                temperature=temperature,
                top_p=self.settings.top_p,
                never=self.special_ids.all,
            )
            after = before.index_copy(0, rows, passages)
            masked = tensors["masked_ids"]
            tensors |= {"token_ids": after, "masked_ids": torch.where(masked == before, after, masked)}
        return tensors

    def forward(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor | None,
        masked_ids: Tensor,
        positions: Tensor,
        is_selected: Tensor,
        uniforms: Tensor,
        temperature: Tensor | None = None,
        base_ids: Tensor | None = None,
        is_missing: Tensor | None = None,
        is_kept: Tensor | None = None,
        is_written: Tensor | None = None,
        reversal: Tensor | None = None,
        generator_alone: bool = False,
    ) -> Outcome:
        """The losses of rows whose tensors are those of `Rows`; `generator_alone` leaves the discriminator out."""
        rows = Rows(
            token_ids,
            token_type_ids,
            attention_mask,
            masked_ids,
            positions,
            is_selected,
            uniforms,
            temperature,
            base_ids,
            is_missing,
            is_kept,
            is_written,
            reversal,
        )
        originals = token_ids.gather(1, positions)
        proposal = self._propose(rows, originals)
        terms = self._likelihood_terms(rows, proposal, originals)
        if generator_alone:
            return Outcome(terms, self._generator_observations(rows, proposal, originals))
        corrupted_ids = self._corrupt(rows, proposal)
        is_replaced = corrupted_ids != token_ids
        if is_written is not None:
            is_replaced = is_replaced | is_written
        hidden = self.discriminator.hidden(
            corrupted_ids, token_type_ids, attention_mask, self._embeddings(rows, proposal, corrupted_ids)
        )
        logits = self.discriminator.detect(hidden)
        observations = self._generator_observations(rows, proposal, originals)
        if "detection" in self.discriminator.heads:
            shown = {"is_replaced": is_replaced, "corrupted_ids": corrupted_ids}
            observations |= {"replaced_logits": logits.detach().float(), **shown}
            if is_missing is not None:
                is_scored = self._is_scored(rows)
                assert is_scored is not None
                observations["is_scored"] = is_scored
        terms |= self._head_terms(rows, proposal, originals, hidden, logits, corrupted_ids, is_replaced, observations)
        terms |= self._adversarial_terms(rows, proposal, logits, is_replaced, observations)
        return Outcome(terms, observations)

    def _propose(self, rows: Rows, originals: Tensor) -> Proposal:
        if isinstance(self.generator, UnigramGenerator):
            return Proposal(self.generator.draw(originals, rows.uniforms), None, [], None, None)
        settings = self.settings
        seen = rows.masked_ids if self.generator.reads_masked_ids else rows.token_ids
        hidden, logits = self.generator.propose(
            seen, rows.token_type_ids, rows.attention_mask, rows.positions, settings.depths
        )
        chosen = logits[-1]
        if self.mixture is not None:
            chosen = mixed_logits(logits, self.mixture(hidden.detach()))
        if settings.training in ("gumbel", "mixture"):
            noise = gumbel_noise(rows.uniforms, chosen.shape[-1])
            words, relaxed = relaxed_words(_tempered(rows, chosen), noise, settings.gumbel_temperature)
            return Proposal(words, hidden, logits, chosen, relaxed)
        words = sample_words(chosen, rows.uniforms, 1.0 if rows.temperature is None else rows.temperature)
        return Proposal(words, hidden, logits, chosen, None)

    def _likelihood_terms(self, rows: Rows, proposal: Proposal, originals: Tensor) -> dict[str, LossTerm]:
        weight = 1.0 if self.settings.training in ("likelihood", "mixture") else self.settings.likelihood_weight
        if not proposal.logits or not self.trains_generator:
            return {}
        is_real = _selected_in_text(rows)  # trained on what it wrote itself, the generator would drift
        losses = [word_loss(logits, originals, is_real) for logits in proposal.logits]
        total = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        return {"generator": LossTerm(total, is_real.sum(), weight)}

    def _corrupt(self, rows: Rows, proposal: Proposal) -> Tensor:
        words, base = proposal.words, rows.token_ids if rows.base_ids is None else rows.base_ids
        if rows.is_missing is not None:
            words = torch.where(rows.is_missing, self.special_ids.mask, words)
        is_placed = rows.is_selected if rows.is_kept is None else rows.is_selected & ~rows.is_kept
        return self.place(base, rows.positions, is_placed, words)

    def _embeddings(self, rows: Rows, proposal: Proposal, corrupted_ids: Tensor) -> Tensor | None:
        """(batch, length, embedding) float, with the generator's words relaxed; None: the usual look-up."""
        if proposal.relaxed is None:
            return None
        assert rows.reversal is not None
        table = self.discriminator.word_embeddings
        relaxed = reversed_straight_through(proposal.relaxed, table.weight, rows.reversal)
        relaxed = relaxed * _played(rows).unsqueeze(-1)
        embeddings: Tensor = table(corrupted_ids)
        index = rows.positions.unsqueeze(-1).expand_as(relaxed)
        return embeddings.scatter_add(1, index, relaxed.to(embeddings.dtype))

    def _head_terms(
        self,
        rows: Rows,
        proposal: Proposal,
        originals: Tensor,
        hidden: Tensor,
        logits: Tensor,
        corrupted_ids: Tensor,
        is_replaced: Tensor,
        observations: dict[str, Tensor],
    ) -> dict[str, LossTerm]:
        settings, heads = self.settings, self.discriminator.heads
        terms = {}
        if "detection" in heads:
            terms["discriminator"] = self._detection_term(rows, logits, is_replaced)
        if self.discriminator.correction is not None:
            total, scored, seen = self._correction(rows, originals, hidden, logits, corrupted_ids)
            terms["correction"] = LossTerm(total, scored, settings.correction_weight)
            observations.update(seen)
        if self.discriminator.energy is not None:
            assert rows.is_kept is not None
            log_noise = self._log_noise(rows, proposal, originals, corrupted_ids.gather(1, rows.positions))
            energies = self.discriminator.energy(hidden).gather(1, rows.positions)
            losses = electric_losses(energies, log_noise, ~rows.is_kept)
            total = torch.where(rows.is_selected, losses, 0.0).sum()
            terms["electric"] = LossTerm(total, rows.is_selected.sum(), settings.loss_weight)
        return terms

    def _detection_term(self, rows: Rows, logits: Tensor, is_replaced: Tensor) -> LossTerm:
        weight = self.settings.loss_weight
        if self.settings.detection_at == "selected":
            is_asked = _shown(rows)
            asked, truth = logits.gather(1, rows.positions), is_replaced.gather(1, rows.positions)
            return LossTerm(replaced_token_loss(asked, truth, is_asked), is_asked.sum(), weight)
        is_scored = self._is_scored(rows)
        scored = torch.as_tensor(logits.numel()) if is_scored is None else is_scored.sum()
        return LossTerm(replaced_token_loss(logits, is_replaced, is_scored), scored, weight)

    def _is_scored(self, rows: Rows) -> Tensor | None:
        """(batch, length) bool: real tokens that are not missing; None where all are."""
        if rows.is_missing is None:
            return rows.attention_mask
        is_shown = torch.ones_like(rows.token_ids, dtype=torch.bool)
        # Unselected slots write what already stands at position 0.
        is_shown = is_shown.scatter(1, rows.positions, ~(rows.is_missing & rows.is_selected))
        return is_shown if rows.attention_mask is None else is_shown & rows.attention_mask

    def _correction(
        self, rows: Rows, originals: Tensor, hidden: Tensor, logits: Tensor, corrupted_ids: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The summed loss of the correction head, how many positions it counts, and what the journal is told."""
        head, table = self.discriminator.correction, self.discriminator.word_embeddings.weight
        assert head is not None
        is_asked = rows.is_selected
        if self.settings.correction_at == "all":
            words = head(hidden, table)
            losses = copied_word_losses(words, logits, corrupted_ids, rows.token_ids)
            words = take_positions(words, rows.positions)
            is_scored = (
                torch.ones_like(losses, dtype=torch.bool) if rows.attention_mask is None else rows.attention_mask
            )
            total, scored = torch.where(is_scored, losses, 0.0).sum(), is_scored.sum()
        else:
            if self.settings.correction_at == "missing":
                assert rows.is_missing is not None
                is_asked = is_asked & rows.is_missing
            words = head(take_positions(hidden, rows.positions), table)
            total, scored = word_loss(words, originals, is_asked), is_asked.sum()
        with torch.no_grad():
            hits = (words <= words.gather(-1, originals.unsqueeze(-1))).all(-1)
            no_row = torch.zeros_like(is_asked)
            is_written = no_row if rows.is_written is None else rows.is_written.gather(1, rows.positions)
        seen = {"correction_hits": hits, "correction_asked": is_asked, "correction_written": is_written}
        return total, scored, seen

    @torch.no_grad()
    def _log_noise(self, rows: Rows, proposal: Proposal, originals: Tensor, words: Tensor) -> Tensor:
        """(batch, selected) float32: the log-probability that the generator draws `words` there."""
        if isinstance(self.generator, UnigramGenerator):
            return self.generator.log_chance(originals, words)
        assert proposal.chosen is not None
        chances = torch.log_softmax(_tempered(rows, proposal.chosen).float(), -1)
        return chances.gather(-1, words.unsqueeze(-1)).squeeze(-1)

    def _adversarial_terms(
        self, rows: Rows, proposal: Proposal, logits: Tensor, is_replaced: Tensor, observations: dict[str, Tensor]
    ) -> dict[str, LossTerm]:
        if self.settings.training == "likelihood":
            return {}
        reward = rewards(*(tensor.gather(1, rows.positions) for tensor in (logits, is_replaced)))
        is_asked = _played(rows)
        observations.update(generator_rewards=reward, is_asked=is_asked)
        if self.baseline is None:
            return {}
        assert proposal.hidden is not None
        assert proposal.chosen is not None
        # The states are the generator's, but its own training must not serve the baseline.
        baseline = self.baseline(proposal.hidden.detach()).squeeze(-1).float()
        tempered = _tempered(rows, proposal.chosen)
        policy = policy_gradient_losses(tempered, proposal.words, reward, baseline)
        scored = is_asked.sum()
        return {
            "policy": LossTerm((policy * is_asked).sum(), scored, self.settings.adversarial_weight),
            "baseline": LossTerm(((reward - baseline).square() * is_asked).sum(), scored, 1.0),
        }

    @torch.no_grad()
    def _generator_observations(self, rows: Rows, proposal: Proposal, originals: Tensor) -> dict[str, Tensor]:
        if proposal.chosen is None:
            return {}
        logits, is_selected = proposal.chosen, _selected_in_text(rows)
        log_probabilities = torch.log_softmax(logits.float(), dim=-1)
        entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
        # No word is likelier than the original (a tie is a hit): on a CPU cheaper than `argmax`.
        is_hit = (logits <= logits.gather(-1, originals.unsqueeze(-1))).all(-1)
        return {
            "generator_hits": (is_hit & is_selected).sum(),
            "generator_entropy": (entropies * is_selected).sum(),
            "generator_asked": is_selected.sum(),
        }


def _selected_in_text(rows: Rows) -> Tensor:
    """(batch, selected) bool: the selected positions that the generator did not write itself."""
    if rows.is_written is None:
        return rows.is_selected
    return rows.is_selected & ~rows.is_written.gather(1, rows.positions)


def _shown(rows: Rows) -> Tensor:
    """(batch, selected) bool: the selected positions at which the discriminator is not shown [MASK]."""
    return rows.is_selected if rows.is_missing is None else rows.is_selected & ~rows.is_missing


def _played(rows: Rows) -> Tensor:
    """(batch, selected) bool: the generator's word is shown, in text that it did not write: a move of the game."""
    return _shown(rows) & _selected_in_text(rows)


def _tempered(rows: Rows, logits: Tensor) -> Tensor:
    """The logits of the distribution that words are drawn from."""
    return logits if rows.temperature is None else logits.float() / rows.temperature


def _width(generator: Generator) -> int:
    assert isinstance(generator, MaskedGenerator)
    return int(generator.configuration.hidden_size)

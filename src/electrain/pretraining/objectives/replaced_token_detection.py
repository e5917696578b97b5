"""Replaced token detection (Clark et al. 2020) and its variants.

As published, a generator fills the masked positions, and the discriminator detects which tokens were replaced. Other
generators, further heads and adversarial training each change a part. A part that is not configured costs nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from electrain.models.backbones import repeated_layers
from electrain.models.discriminator import Discriminator, DiscriminatorConfig
from electrain.models.generators import MaskedGenerator, Reading, take_positions
from electrain.models.heads import WordRows
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.objectives.corruption import (
    Generator,
    Proposal,
    ProposalSettings,
    corrupted_ids,
    is_replaced,
    proposed,
    read,
    written_rows,
)
from electrain.pretraining.objectives.game import GameConfig, policy_gradient_losses, reversed_straight_through, rewards
from electrain.pretraining.objectives.head_losses import (
    copied_word_losses,
    electric_losses,
    is_likeliest,
    replaced_token_loss,
    word_loss,
)
from electrain.pretraining.objectives.rows import Rows
from electrain.training.objective import LossTerm, Objective, Outcome, Region


class Judgement(NamedTuple):
    """The discriminator's input and output."""

    corrupted_ids: Tensor  # (batch, length) int64
    is_replaced: Tensor  # (batch, length) bool; the labels
    hidden: Tensor  # (batch, length, hidden) float; its states
    logits: Tensor  # (batch, length) float; positive means replaced


class Corrupted(NamedTuple):
    """The generator's part of a forward pass, with its losses and observations."""

    outcome: Outcome
    proposal: Proposal  # without what only the generator's own losses need
    ids: Tensor  # (batch, length) int64; the discriminator's input
    is_replaced: Tensor  # (batch, length) bool; the labels
    embeddings: Tensor | None  # (batch, length, embedding) float; in place of a look-up of the ids


class ReplacedTokenDetection(Objective[Rows]):
    """Both networks and their joint loss.

    Drawn words carry no gradient. The discriminator's loss reaches the generator only through shared embeddings and,
    if the generator is an adversary, through the chosen estimator.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        judge: DiscriminatorConfig,
        game: GameConfig,
        proposals: ProposalSettings,
        *,
        own_stage_steps: int = 0,
    ) -> None:
        """Args: own_stage_steps: number of first steps that train the generator alone; afterwards it is frozen."""
        super().__init__()
        self.own_stage_steps = own_stage_steps
        # In the first stage the discriminator gets no gradient, in the second the generator gets none.
        self.has_stages = own_stage_steps > 0
        self.trains_generator = any(parameter.requires_grad for parameter in generator.parameters())
        self.discriminator = discriminator
        self.generator = generator
        self.judge, self.game, self.proposals = judge, game, proposals
        self.baseline: nn.Linear | None = None
        self.mixture: nn.Linear | None = None
        if proposals.training == "policy-gradient":
            self.baseline = nn.Linear(_width(generator), 1)
        if proposals.training == "mixture":
            self.mixture = nn.Linear(_width(generator), len(proposals.depths))

    def begin_step(self, step: int) -> None:
        """Freezes the generator after its own stage, and gives its weights to a discriminator of the same shape.

        Source: Clark et al. 2020, section 3.3 (two-stage).
        """
        if not self.own_stage_steps or step < self.own_stage_steps or not self.trains_generator:
            return
        self.trains_generator = False
        self.generator.requires_grad_(False)
        # Only at the switch itself: a run that resumes later must keep what its discriminator has learned since.
        if step == self.own_stage_steps and isinstance(self.generator, MaskedGenerator):
            ours, theirs = self.discriminator.body.state_dict(), self.generator.body.state_dict()
            if {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}:
                self.discriminator.body.load_state_dict(theirs)

    def begins_stage(self, step: int) -> bool:
        """True at the step that freezes the generator."""
        return 0 < self.own_stage_steps == step

    def prepare(self, rows: Rows, device: torch.device) -> Rows:
        """The rows on the device, with their passages written by the generator."""
        return written_rows(rows.to(device), self.generator, self.proposals)

    def parameter_networks(self) -> list[list[tuple[str, nn.Parameter]]]:
        """The discriminator's parameters, including those that the generator shares; and all others."""
        judge = {id(parameter) for parameter in self.discriminator.parameters()}
        named = list(self.named_parameters())
        return [
            [(name, parameter) for name, parameter in named if id(parameter) in judge],
            [(name, parameter) for name, parameter in named if id(parameter) not in judge],
        ]

    def forward(self, rows: Rows) -> Outcome:
        """The losses of prepared rows; with `rows.generator_alone`, those of the generator only."""
        corrupted = self.corrupt(rows, read(rows, self.generator, self.proposals))
        if rows.generator_alone:
            return corrupted.outcome
        hidden = self.discriminator.hidden(
            corrupted.ids, rows.token_type_ids, rows.attention_mask, corrupted.embeddings
        )
        judged = self.judged(rows, corrupted, hidden, self._corrected_words(rows))
        return Outcome(corrupted.outcome.terms | judged.terms, corrupted.outcome.observations | judged.observations)

    def regions(self) -> list[Region]:
        """The layers of both networks, and what comes after the layers of each.

        A mixture of depths is compiled as a whole: Hugging Face collects the states of several layers in a variable
        that a layer compiled by itself does not see. Embeddings are no region: compiled and deterministic, their
        gradient takes half of a step on a GPU (docs/experiments.md). A recurrent network's kernels need no compilation.
        """
        if len(self.proposals.depths) > 1:
            return super().regions()
        layers = repeated_layers(self.generator) + repeated_layers(self.discriminator)
        return [*map(Region, layers), Region(self, "corrupt"), Region(self, "judged")]

    def corrupt(self, rows: Rows, reading: Reading | None) -> Corrupted:
        """The rows with words in their places, and the generator's losses, from its states of the rows."""
        proposal = proposed(rows, reading, self.generator, self.proposals, self.mixture)
        asked = rows if reading is not None and reading.words is not None else rows.comparing_all
        outcome = Outcome(self._likelihood_terms(asked, proposal), _generator_observations(asked, proposal))
        ids = corrupted_ids(rows, proposal.words, self.proposals)
        embeddings = self._embeddings(rows, proposal, ids)
        return Corrupted(outcome, self._needed_later(proposal), ids, is_replaced(rows, ids), embeddings)

    def _needed_later(self, proposal: Proposal) -> Proposal:
        """The proposal as `judged` needs it.

        A compiled region fills the gradient of an output that gets none with zeros, and here that would be a second
        gradient of all word logits.
        """
        hidden, chosen = proposal.hidden, proposal.chosen
        if self.baseline is None:
            hidden = None
            chosen = None if chosen is None or self.discriminator.energy is None else chosen.detach()
        return Proposal(proposal.words, None if hidden is None else hidden.detach(), [], chosen, None)

    def _corrected_words(self, rows: Rows) -> WordRows | None:
        """The words that the correction head compares; None for the whole vocabulary.

        Like all embeddings, they are looked up outside of the compiled regions.
        """
        head, ids = self.discriminator.correction, rows.words
        return None if head is None or ids is None else head.rows(ids, self.discriminator.word_embeddings.weight)

    def judged(self, rows: Rows, corrupted: Corrupted, hidden: Tensor, words: WordRows | None = None) -> Outcome:
        """The discriminator's losses and observations, from its (batch, length, hidden) states.

        Args: words: those that the correction head compares; None for the whole vocabulary.
        """
        proposal = corrupted.proposal
        observations: dict[str, Tensor] = {}
        judged = Judgement(corrupted.ids, corrupted.is_replaced, hidden, self.discriminator.detect(hidden))
        if "detection" in self.discriminator.heads:
            observations |= {
                "replaced_logits": judged.logits.detach().float(),
                "is_replaced": judged.is_replaced,
                "corrupted_ids": judged.corrupted_ids,
            }
            is_detected = rows.is_detected
            if rows.is_missing is not None and is_detected is not None:
                observations["is_scored"] = is_detected
        terms = self._head_terms(rows, proposal, judged, words, observations)
        terms |= self._adversarial_terms(rows, proposal, judged, observations)
        return Outcome(terms, observations)

    def _likelihood_terms(self, rows: Rows, proposal: Proposal) -> dict[str, LossTerm]:
        is_plain = self.proposals.training in ("likelihood", "mixture")
        if not proposal.logits or not self.trains_generator:
            return {}
        is_real = rows.is_selected_in_text  # training on its own passages would let the generator drift
        losses = [word_loss(rows.answerable(logits), rows.answers, is_real) for logits in proposal.logits]
        total = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        return {"generator": LossTerm(total, 1.0 if is_plain else self.game.likelihood_weight)}

    def _embeddings(self, rows: Rows, proposal: Proposal, ids: Tensor) -> Tensor | None:
        """(batch, length, embedding) float with relaxed words; None for the usual look-up."""
        if proposal.relaxed is None:
            return None
        assert rows.reversal is not None
        table = self.discriminator.word_embeddings
        relaxed = reversed_straight_through(proposal.relaxed, table.weight, rows.reversal)
        relaxed = relaxed * rows.is_played.unsqueeze(-1)  # a hidden word, or one in a written passage, misleads nobody
        embeddings: Tensor = table(ids)
        index = rows.positions.unsqueeze(-1).expand_as(relaxed)
        return embeddings.scatter_add(1, index, relaxed.to(embeddings.dtype))

    def _head_terms(
        self,
        rows: Rows,
        proposal: Proposal,
        judged: Judgement,
        words: WordRows | None,
        observations: dict[str, Tensor],
    ) -> dict[str, LossTerm]:
        judge, terms = self.judge, {}
        if "detection" in self.discriminator.heads:
            terms["discriminator"] = self._detection_term(rows, judged)
        if self.discriminator.correction is not None:
            total, seen = self._correction(rows, judged, words)
            terms["correction"] = LossTerm(total, judge.correction_weight)
            observations.update(seen)
        if self.discriminator.energy is not None:
            assert rows.is_kept is not None
            # The noise's probability of the word that is seen, which at kept positions is not the drawn one.
            log_noise = self._log_noise(rows, proposal, judged.corrupted_ids.gather(1, rows.positions))
            energies = self.discriminator.energy(judged.hidden).gather(1, rows.positions)
            losses = electric_losses(energies, log_noise, ~rows.is_kept)
            total = torch.where(rows.is_selected, losses, 0.0).sum()
            terms["electric"] = LossTerm(total, judge.loss_weight)
        return terms

    def _detection_term(self, rows: Rows, judged: Judgement) -> LossTerm:
        logits, truth, is_scored = judged.logits, judged.is_replaced, rows.is_detected
        if self.judge.detection_at == "selected":
            logits, truth = (tensor.gather(1, rows.positions) for tensor in (logits, truth))
            is_scored = rows.is_shown
        return LossTerm(replaced_token_loss(logits, truth, is_scored), self.judge.loss_weight)

    def _correction(self, rows: Rows, judged: Judgement, words: WordRows | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss of the correction head, and its observations."""
        head = self.discriminator.correction
        assert head is not None
        is_asked = rows.is_selected
        if self.judge.correction_at == "all":
            logits = head(judged.hidden, self.discriminator.word_embeddings.weight)
            losses = copied_word_losses(logits, judged.logits, judged.corrupted_ids, rows.token_ids)
            logits = take_positions(logits, rows.positions)
            is_real = rows.attention_mask
            total = torch.where(torch.ones_like(losses, dtype=torch.bool) if is_real is None else is_real, losses, 0.0)
            total = total.sum()
        else:
            if self.judge.correction_at == "missing":
                assert rows.is_missing is not None
                is_asked = is_asked & rows.is_missing
            hidden = take_positions(judged.hidden, rows.positions)
            logits = head(hidden, self.discriminator.word_embeddings.weight if words is None else words)
            total = word_loss(rows.answerable(logits), rows.answers, is_asked)
        with torch.no_grad():
            hits = is_likeliest(rows.distinct(logits), rows.answers)
            no_row = torch.zeros_like(is_asked)
            is_written = no_row if rows.is_written is None else rows.is_written.gather(1, rows.positions)
        return total, {"correction_hits": hits, "correction_asked": is_asked, "correction_written": is_written}

    @torch.no_grad()
    def _log_noise(self, rows: Rows, proposal: Proposal, words: Tensor) -> Tensor:
        """(batch, selected) float32: the log-probability that the generator draws `words` there."""
        if isinstance(self.generator, UnigramGenerator):
            return self.generator.log_chance(rows.originals, words)
        assert proposal.chosen is not None
        chances = torch.log_softmax(rows.tempered(proposal.chosen).float(), -1)
        return chances.gather(-1, words.unsqueeze(-1)).squeeze(-1)

    def _adversarial_terms(
        self, rows: Rows, proposal: Proposal, judged: Judgement, observations: dict[str, Tensor]
    ) -> dict[str, LossTerm]:
        if self.proposals.training == "likelihood":
            return {}
        reward = rewards(*(tensor.gather(1, rows.positions) for tensor in (judged.logits, judged.is_replaced)))
        is_asked = rows.is_played
        observations.update(generator_rewards=reward, is_asked=is_asked)
        if self.baseline is None:
            return {}
        assert proposal.hidden is not None
        assert proposal.chosen is not None
        # The baseline predicts the reward from the generator's states, without their gradient: it must not change them
        # for its own purposes.
        baseline = self.baseline(proposal.hidden).squeeze(-1).float()
        policy = policy_gradient_losses(rows.tempered(proposal.chosen), proposal.words, reward, baseline)
        return {
            "policy": LossTerm((policy * is_asked).sum(), self.game.adversarial_weight),
            "baseline": LossTerm(((reward - baseline).square() * is_asked).sum(), 1.0),
        }


@torch.no_grad()
def _generator_observations(rows: Rows, proposal: Proposal) -> dict[str, Tensor]:
    if proposal.chosen is None:
        return {}
    is_selected, stand_for = rows.is_selected_in_text, rows.compared_weights
    logits = proposal.chosen if stand_for is None else proposal.chosen[..., 1:].float() + stand_for
    # The weights of `word_loss` and `sample_words`, so that a compiler computes one exponential instead of two.
    below_highest = logits.float() - logits.float().amax(-1, keepdim=True)
    weights = below_highest.exp()
    total = weights.sum(-1)
    # Each of the words that a sampled one stands for has its share of the probability.
    shares = below_highest if stand_for is None else below_highest - stand_for
    entropies = total.log() - (weights * shares).sum(-1) / total
    return {
        "generator_hits": (is_likeliest(rows.distinct(proposal.chosen), rows.answers) & is_selected).sum(),
        "generator_entropy": (entropies * is_selected).sum(),
        "generator_asked": is_selected.sum(),
    }


def _width(generator: Generator) -> int:
    assert isinstance(generator, MaskedGenerator)
    return int(generator.configuration.hidden_size)

"""Says in words when a run goes wrong, while there is still time to stop it."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from electrain.training.loop import MOST_REFUSED_IN_A_ROW, RunState
from electrain.training.optimizer import GRADIENT_NORM_LIMIT
from electrain.training.settings import TrainingConfig

# One line of the journal shows one micro-batch: what is judged is the mean of the last few, once there are enough.
WINDOW_LINES = 5
FEWEST_LINES = 3
# Before this fraction of the run (and before the warm-up is over) nothing needs to have been learned yet.
EARLY_FRACTION = 0.1
# From here on the discriminator should have found something: of the paper's final GLUE score for ELECTRA-Small, 93% is
# there after 6 of its 96 hours (Clark et al. 2020, table 1).
LATE_FRACTION = 1 / 3
# An AUC of 0.5 is guessing; a run that had collapsed showed a recall of 0.048 beside an accuracy of 0.868 (reference
# implementation's issue tracker). Recall alone is no sign: one token in eight is replaced, and a discriminator that
# ranks well (AUC 0.69) is rarely more than half sure (recall 0.008; docs/results.md, the demo).
COLLAPSED_AUC = 0.55
# The paper's generators restore up to 65% of the words (section 3.3); beyond this little is left to detect.
STRONG_GENERATOR_ACCURACY = 0.75
# At 15% masked and 65% restored about 5% of the tokens are replaced; half of that is too few to learn from.
FEWEST_REPLACED_FRACTION = 0.025
# A generator that ignores the context does as well as word frequencies alone; learning starts below that plateau.
PLATEAU_FRACTION = 0.95
# In nats: about 97% of the chance lies on one word.
COLLAPSED_ENTROPY = 0.3
# Entropy of an adversary's choices against the likelihood-trained usual: below this, in nats, few words are left (e^1).
NARROW_ENTROPY = 1.0
# A discriminator that is never wrong (value near 0) gives an adversary nothing to learn from; -2 ln 2 is guessing.
WON_GAME_VALUE = -0.1
# Written text is told apart by its style alone when it is nearly always, and its words are far easier to restore.
STYLE_AUC = 0.98
STYLE_ACCURACY_RATIO = 2.0
# Against the median of the last lines; smaller jumps are ordinary, and clipping deals with them.
GRADIENT_JUMP = 10.0
GRADIENT_HISTORY_LINES = 20
# Half of the smallest step that was seen to learn (the preset `tiny`); the paper's steps have 16,384 tokens and more.
FEWEST_TOKENS_PER_STEP = 1024


@dataclass(frozen=True)
class Reading:
    """What is judged: means over the last lines, by name, and how far the run is (a fraction of its steps)."""

    means: Mapping[str, float]
    progress: float
    is_warm: bool
    unigram_entropy: float

    def lacks(self, *names: str) -> bool:
        """True when one of the numbers was not logged."""
        return any(name not in self.means for name in names)


def _collapsed_discriminator(seen: Reading) -> str | None:
    if seen.progress < LATE_FRACTION or seen.lacks("discriminator_auc", "discriminator_recall"):
        return None
    auc, recall = seen.means["discriminator_auc"], seen.means["discriminator_recall"]
    if auc >= COLLAPSED_AUC:
        return None
    return (
        f"the discriminator has collapsed: AUC {auc:.2f} (0.5 is guessing), recall {recall:.3f}; accuracy would not "
        "show it; try a lower learning rate, a longer warm-up or a larger batch"
    )


def _no_better_than_frequency(seen: Reading) -> str | None:
    if seen.progress < LATE_FRACTION or seen.lacks("discriminator_auc", "unigram_auc"):
        return None
    auc, baseline = seen.means["discriminator_auc"], seen.means["unigram_auc"]
    if auc > baseline:
        return None
    return (
        f"the discriminator (AUC {auc:.3f}) is no better than word frequency alone ({baseline:.3f}): it has not "
        "learned to read the context; train longer, or with a larger batch"
    )


def _strong_generator(seen: Reading) -> str | None:
    if not seen.is_warm or seen.lacks("generator_accuracy", "replaced_fraction"):
        return None
    accuracy, replaced = seen.means["generator_accuracy"], seen.means["replaced_fraction"]
    if accuracy <= STRONG_GENERATOR_ACCURACY and replaced >= FEWEST_REPLACED_FRACTION:
        return None
    return (
        f"little is left to detect: the generator restores {accuracy:.0%} of the masked words and only {replaced:.1%} "
        "of the tokens are replaced; lower generator.size_fraction or raise corruption.masked_fraction"
    )


def _generator_on_plateau(seen: Reading) -> str | None:
    name = "generator_loss" if "generator_loss" in seen.means else "masked_language_model_loss"
    if not seen.is_warm or seen.lacks(name) or seen.means[name] < PLATEAU_FRACTION * seen.unigram_entropy:
        return None
    who = "the generator" if name == "generator_loss" else "the model"
    return (
        f"{who} has not learned from the context yet: its loss of {seen.means[name]:.2f} nats is that of word "
        f"frequency alone ({seen.unigram_entropy:.2f}); with backbone electra this can last for millions of tokens, "
        "modernbert leaves it sooner; otherwise raise the learning rate"
    )


def _collapsed_entropy(seen: Reading) -> str | None:
    if not seen.is_warm or seen.lacks("generator_entropy") or seen.means["generator_entropy"] >= COLLAPSED_ENTROPY:
        return None
    return (
        f"the generator's choices have collapsed to {seen.means['generator_entropy']:.2f} nats: it nearly always draws "
        "the same word, so the discriminator sees no variety; look for repeated text in the corpus"
    )


def _narrow_adversary(seen: Reading) -> str | None:
    if not seen.is_warm or seen.lacks("generator_reward", "generator_entropy"):
        return None
    entropy = seen.means["generator_entropy"]
    if entropy >= NARROW_ENTROPY:
        return None
    return (
        f"the adversarial generator is losing its variety (entropy {entropy:.2f} nats): it repeats the few words that "
        "mislead the discriminator; raise game.likelihood_weight or lower game.adversarial_weight"
    )


def _won_game(seen: Reading) -> str | None:
    if not seen.is_warm or seen.lacks("generator_reward", "game_value") or seen.means["game_value"] <= WON_GAME_VALUE:
        return None
    return (
        f"the discriminator has won the game (value {seen.means['game_value']:.2f}, 0 is never wrong): the generator's "
        "words are no longer plausible and teach nothing; raise game.likelihood_weight"
    )


def _style_alone(seen: Reading) -> str | None:
    names = ("discriminator_auc", "correction_accuracy", "correction_accuracy_written")
    if not seen.is_warm or seen.lacks(*names):
        return None
    auc, real, written = (seen.means[name] for name in names)
    if auc < STYLE_AUC or not written or written < STYLE_ACCURACY_RATIO * real:
        return None
    return (
        f"the discriminator learns the generator's style rather than the language: it tells written text nearly always "
        f"(AUC {auc:.3f}) and restores {written:.0%} of its words against {real:.0%} in real text; lower "
        "corruption.generated_fraction, or raise corruption.top_p and generator.temperature"
    )


_CHECKS: dict[str, Callable[[Reading], str | None]] = {
    "collapsed discriminator": _collapsed_discriminator,
    "no better than frequency": _no_better_than_frequency,
    "strong generator": _strong_generator,
    "generator on plateau": _generator_on_plateau,
    "collapsed entropy": _collapsed_entropy,
    "narrow adversary": _narrow_adversary,
    "won game": _won_game,
    "style alone": _style_alone,
}
_READ = (
    "discriminator_auc",
    "discriminator_recall",
    "unigram_auc",
    "generator_accuracy",
    "generator_entropy",
    "generator_loss",
    "masked_language_model_loss",
    "replaced_fraction",
    "generator_reward",
    "game_value",
    "correction_accuracy",
    "correction_accuracy_written",
)


def entropy_of(counts: NDArray[np.integer[Any]]) -> float:
    """Entropy in nats of the distribution of (words,) counts: the loss of the best guess that ignores the context."""
    fractions = counts[counts > 0] / counts.sum()
    return float(-(fractions * np.log(fractions)).sum())


class HealthMonitor:
    """Reads the lines of the journal as they are written; each trouble is told once, when it begins."""

    def __init__(
        self, training: TrainingConfig, unigram_counts: NDArray[np.integer[Any]], own_stage_steps: int = 0
    ) -> None:
        """Args: own_stage_steps: the first steps, whose gradient is that of the generator alone."""
        self.own_stage_steps, self.was_alone = own_stage_steps, True
        self.steps = training.steps
        self.warm_steps = max(training.warmup_steps, EARLY_FRACTION * training.steps)
        self.unigram_entropy = entropy_of(unigram_counts)
        self.lines: deque[dict[str, float]] = deque(maxlen=WINDOW_LINES)
        self.norms: deque[float] = deque(maxlen=GRADIENT_HISTORY_LINES)
        self.troubles: set[str] = set()
        self.refused_updates = 0

    def at_start(self, tokens_per_step: int) -> list[str]:
        """Warnings that need no training."""
        if tokens_per_step >= FEWEST_TOKENS_PER_STEP:
            return []
        return [
            f"a step has {tokens_per_step} tokens; steps below about {FEWEST_TOKENS_PER_STEP} are known to fail; "
            "raise training.batch_rows (training.micro_batch_rows keeps the memory as it is)"
        ]

    def observe(self, metrics: Mapping[str, Any]) -> list[str]:
        """What went wrong with this line of the journal: one sentence each."""
        step = int(metrics["step"])
        if self.was_alone and step > self.own_stage_steps:  # from here on the gradient is another loss's
            self.was_alone = False
            self.norms.clear()
        warnings = self._refused(metrics) + self._gradient_jump(metrics)
        self.lines.append({name: float(metrics[name]) for name in _READ if _is_number(metrics.get(name))})
        if len(self.lines) < FEWEST_LINES:
            return warnings
        seen = Reading(self._means(), step / self.steps, step >= self.warm_steps, self.unigram_entropy)
        for name, check in _CHECKS.items():
            warnings += self._at_onset(name, check(seen))
        return warnings

    def must_stop(self, state: RunState) -> bool:
        """True when so many updates in a row were refused that the run cannot recover."""
        return state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW

    def to_dict(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""
        return {
            "lines": list(self.lines),
            "norms": list(self.norms),
            "troubles": sorted(self.troubles),
            "refused_updates": self.refused_updates,
            "was_alone": self.was_alone,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` gave, so that a resumed run does not repeat its warnings."""
        self.lines.extend(saved["lines"])
        self.norms.extend(saved["norms"])
        self.troubles = set(saved["troubles"])
        self.refused_updates = saved["refused_updates"]
        self.was_alone = saved.get("was_alone", True)

    def _at_onset(self, name: str, message: str | None) -> list[str]:
        is_new = message is not None and name not in self.troubles
        if message is None:
            self.troubles.discard(name)
        else:
            self.troubles.add(name)
        return [message] if is_new and message is not None else []

    def _means(self) -> dict[str, float]:
        return {name: fmean(line[name] for line in self.lines) for name in _READ if all(name in x for x in self.lines)}

    def _refused(self, metrics: Mapping[str, Any]) -> list[str]:
        refused = int(metrics.get("refused_updates") or 0)
        new, self.refused_updates = refused - self.refused_updates, refused
        if new <= 0:
            return []
        return [
            f"{new} {'update was' if new == 1 else 'updates were'} refused because the loss or the gradient was not "
            f"finite ({refused} in all); after {MOST_REFUSED_IN_A_ROW} in a row the run stops; lower the learning rate"
        ]

    def _gradient_jump(self, metrics: Mapping[str, Any]) -> list[str]:
        norm = metrics.get("gradient_norm")
        if not _is_number(norm):
            return []
        usual = median(self.norms) if len(self.norms) >= FEWEST_LINES else float("inf")
        self.norms.append(float(norm))
        is_jump = norm > GRADIENT_JUMP * usual and norm > GRADIENT_NORM_LIMIT
        message = (
            f"the gradient norm jumped to {norm:.3g} from about {usual:.3g}; it is clipped, but when it stays there "
            "the learning rate is too high"
        )
        return self._at_onset("gradient jump", message if is_jump else None)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")

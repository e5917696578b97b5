"""Says in words when a pretraining run goes wrong, while there is still time to stop it."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from electrain.training.loop import MOST_REFUSED_IN_A_ROW
from electrain.training.optimizer import GRADIENT_NORM_LIMIT
from electrain.training.settings import TrainingConfig

# One line of the journal shows a single micro-batch, so the mean of the last few lines is judged, never one alone.
WINDOW_LINES = 5
FEWEST_LINES = 3
# How well a run learns is judged by the tokens that it has seen, once its warm-up is over: a fraction of the run means
# nothing when the run lasts a minute. Small language models left the plateau of word frequency within half a million
# tokens. Sound discriminators still had an AUC of 0.52 to 0.56 after three million (docs/experiments.md).
GENERATOR_TOKENS = 500_000
DISCRIMINATOR_TOKENS = 5_000_000
# An AUC of 0.5 is guessing; a run that had collapsed showed a recall of 0.048 beside an accuracy of 0.868 (reference
# implementation's issue tracker). Recall alone is no sign: one token in eight is replaced, and a discriminator that
# ranks well (AUC 0.69) is rarely more than half sure (recall 0.008; docs/results.md, the demo).
COLLAPSED_AUC = 0.55
# The paper's generators restore up to 65% of the words (section 3.3); beyond this little is left to detect.
STRONG_GENERATOR_ACCURACY = 0.75
# With 15% masked and 65% restored about 5% of the tokens are replaced; half of that is too few to learn from.
FEWEST_REPLACED_FRACTION = 0.025
# A generator that ignores the context does as well as word frequencies alone; learning starts below that plateau.
PLATEAU_FRACTION = 0.95
# Against the median of the last lines; smaller jumps are ordinary, and clipping deals with them.
GRADIENT_JUMP = 10.0
GRADIENT_HISTORY_LINES = 20
# Half of the smallest step that was seen to learn (the preset `tiny`); the paper's steps have 16,384 tokens and more.
FEWEST_TOKENS_PER_STEP = 1024


@dataclass(frozen=True)
class Reading:
    """What is judged.

    Attributes:
        means: the mean of each number over the last lines.
        unigram_entropy: in nats; the loss of a model that knows nothing but word frequency.
    """

    means: Mapping[str, float]
    unigram_entropy: float

    def lacks(self, *names: str) -> bool:
        """True when one of the numbers was not logged."""
        return any(name not in self.means for name in names)


def _generator_on_plateau(seen: Reading) -> str | None:
    name = "generator_loss" if "generator_loss" in seen.means else "masked_language_model_loss"
    if seen.lacks(name) or seen.means[name] < PLATEAU_FRACTION * seen.unigram_entropy:
        return None
    loss, frequency = seen.means[name], seen.unigram_entropy
    who = "the generator" if name == "generator_loss" else "the model"
    place = "above" if loss > frequency / PLATEAU_FRACTION else "close to"
    return (
        f"{who} has not learned from the context yet: its loss of {loss:.2f} nats is {place} the {frequency:.2f} nats "
        "of word frequency alone; train longer (backbone electra can stay there for millions of tokens, modernbert "
        "leaves sooner)"
    )


def _strong_generator(seen: Reading) -> str | None:
    if seen.lacks("generator_accuracy", "replaced_fraction"):
        return None
    accuracy, replaced = seen.means["generator_accuracy"], seen.means["replaced_fraction"]
    if accuracy <= STRONG_GENERATOR_ACCURACY and replaced >= FEWEST_REPLACED_FRACTION:
        return None
    return (
        f"little is left to detect: the generator restores {accuracy:.0%} of the masked words and only {replaced:.1%} "
        "of the tokens are replaced; lower generator.size_fraction or raise corruption.masked_fraction"
    )


def _collapsed_discriminator(seen: Reading) -> str | None:
    if seen.lacks("discriminator_auc", "discriminator_recall"):
        return None
    auc, recall = seen.means["discriminator_auc"], seen.means["discriminator_recall"]
    if auc >= COLLAPSED_AUC:
        return None
    return (
        f"the discriminator has collapsed: AUC {auc:.2f} (0.5 is guessing), recall {recall:.3f}; accuracy would not "
        "show it; try a lower learning rate, a longer warm-up or a larger batch"
    )


def _no_better_than_frequency(seen: Reading) -> str | None:
    if seen.lacks("discriminator_auc", "unigram_auc"):
        return None
    auc, baseline = seen.means["discriminator_auc"], seen.means["unigram_auc"]
    if auc > baseline:
        return None
    return (
        f"the discriminator (AUC {auc:.3f}) is no better than word frequency alone ({baseline:.3f}): it has not "
        "learned to read the context; train longer, or with a larger batch"
    )


# From cause to effect: only the first trouble that holds is told. A discriminator cannot learn from a generator that
# has not learned, and two troubles at once would come with two remedies, of which one does not help.
_CHECKS: dict[str, Callable[[Reading], str | None]] = {
    "generator on plateau": _generator_on_plateau,
    "strong generator": _strong_generator,
    "collapsed discriminator": _collapsed_discriminator,
    "no better than frequency": _no_better_than_frequency,
}
_OF_DISCRIMINATOR = ("collapsed discriminator", "no better than frequency")
_READ = (
    "discriminator_auc",
    "discriminator_recall",
    "unigram_auc",
    "generator_accuracy",
    "generator_loss",
    "masked_language_model_loss",
    "replaced_fraction",
)


def entropy_of(counts: NDArray[np.integer[Any]]) -> float:
    """Entropy, in nats, of (words,) counts: the loss of the best guess that ignores the context."""
    fractions = counts[counts > 0] / counts.sum()
    return float(-(fractions * np.log(fractions)).sum())


class HealthMonitor:
    """Reads the lines of the journal as they are written, and tells each trouble once, when it begins."""

    def __init__(
        self, training: TrainingConfig, unigram_counts: NDArray[np.integer[Any]], own_stage_steps: int = 0
    ) -> None:
        """Args: own_stage_steps: number of steps at the start that train the generator alone."""
        self.own_stage_steps, self.was_alone = own_stage_steps, True
        self.own_stage_tokens = 0
        self.steps, self.warmup_steps = training.steps, training.warmup_steps
        self.unigram_entropy = entropy_of(unigram_counts)
        self.lines: deque[dict[str, float]] = deque(maxlen=WINDOW_LINES)
        self.norms: deque[float] = deque(maxlen=GRADIENT_HISTORY_LINES)
        self.troubles: set[str] = set()
        self.refused_updates = 0
        self.lines_since_jump = 0

    def at_start(self, tokens_per_step: int) -> list[str]:
        """Warnings that can be given before the first step."""
        if tokens_per_step >= FEWEST_TOKENS_PER_STEP:
            return []
        return [
            f"a step has {tokens_per_step} tokens; runs with fewer than about {FEWEST_TOKENS_PER_STEP} are known to "
            "fail; raise training.batch_rows (training.micro_batch_rows keeps the memory as it is)"
        ]

    def observe(self, metrics: Mapping[str, Any]) -> list[str]:
        """What went wrong with this line of the journal: one sentence each."""
        step, tokens = int(metrics["step"]), int(metrics["tokens"])
        if step <= self.own_stage_steps:
            self.own_stage_tokens = tokens
        elif self.was_alone:  # from here on the gradient is another loss's
            self.was_alone = False
            self.norms.clear()
        warnings = self._refused(metrics) + self._gradient_jump(metrics)
        self.lines.append({name: float(metrics[name]) for name in _READ if _is_number(metrics.get(name))})
        if step < self.warmup_steps:
            return warnings
        return warnings + self._judge(tokens, is_last=step == self.steps)

    def _judge(self, tokens: int, *, is_last: bool) -> list[str]:
        """The first trouble, where it is new; at the end of a run that was too short for that, what cannot be told."""
        if tokens < GENERATOR_TOKENS or len(self.lines) < FEWEST_LINES:
            too_few, needed = f"{tokens:,} tokens", f"{GENERATOR_TOKENS:,}"
            if tokens >= GENERATOR_TOKENS:
                too_few, needed = f"{len(self.lines)} lines of the journal", f"{FEWEST_LINES}"
            message = f"too early to tell how well the run learns: it ends after {too_few}; judging takes {needed}"
            return [message] if is_last else []
        seen = Reading(self._means(), self.unigram_entropy)
        found = {name: told for name, check in _CHECKS.items() if (told := check(seen))}
        first = next(iter(found), "")
        discriminator_tokens = tokens - self.own_stage_tokens
        if first in _OF_DISCRIMINATOR and discriminator_tokens < DISCRIMINATOR_TOKENS:
            message = (
                f"too early to tell whether the discriminator learns to read the context: it has seen "
                f"{discriminator_tokens:,} tokens, and is judged from {DISCRIMINATOR_TOKENS:,} on"
            )
            return [message] if is_last else []
        is_new = bool(first) and first not in self.troubles
        # What was told stays told for as long as it holds, even while an earlier cause stands before it.
        self.troubles = {name for name in self.troubles if name in found or name not in _CHECKS}
        self.troubles |= {first} if first else set()
        return [found[first]] if is_new else []

    def to_dict(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""
        return {
            "lines": list(self.lines),
            "norms": list(self.norms),
            "troubles": sorted(self.troubles),
            "refused_updates": self.refused_updates,
            "was_alone": self.was_alone,
            "own_stage_tokens": self.own_stage_tokens,
            "lines_since_jump": self.lines_since_jump,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` gave, also in an earlier version, so that a resumed run repeats no warning."""
        self.lines.extend(saved["lines"])
        self.norms.extend(saved["norms"])
        self.troubles = set(saved["troubles"])
        self.refused_updates = saved["refused_updates"]
        self.was_alone = saved.get("was_alone", True)
        self.own_stage_tokens = saved.get("own_stage_tokens", 0)
        self.lines_since_jump = saved.get("lines_since_jump", 0)

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
        is_told = "gradient jump" in self.troubles
        # Where every step is a line, single jumps come and go: the trouble ends when all recent norms are usual.
        self.lines_since_jump = 0 if is_jump else self.lines_since_jump + 1
        if is_jump:
            self.troubles.add("gradient jump")
        elif self.lines_since_jump >= GRADIENT_HISTORY_LINES:
            self.troubles.discard("gradient jump")
        if not is_jump or is_told:
            return []
        return [
            f"the gradient norm jumped to {norm:.3g} from about {usual:.3g}; it is clipped, but if it stays there, "
            "lower the learning rate"
        ]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")

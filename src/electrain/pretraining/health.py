"""Says in words when a pretraining run goes wrong, while there is still time to stop it."""

from collections import deque
from collections.abc import Mapping
from math import inf, isnan, nan
from statistics import fmean, median
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from electrain.foundation.progress import counted
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
# ranks well (AUC 0.69) is rarely more than half sure (recall 0.008 in a demo with the published objective).
COLLAPSED_AUC = 0.55
# The paper's generators restore up to 65% of the words (section 3.3); beyond this little is left to detect.
STRONG_GENERATOR_ACCURACY = 0.75
# With 15% masked and 65% restored about 5% of the tokens are replaced; half of that is too few to learn from. `demo`
# and `tiny` replace as many: they select 40%, and show a quarter of them among the 70% that are scored.
FEWEST_REPLACED_FRACTION = 0.025
# A generator that ignores the context does as well as word frequencies alone; learning starts below that plateau.
PLATEAU_FRACTION = 0.95
# Against the median of the last lines; smaller jumps are ordinary, and clipping deals with them.
GRADIENT_JUMP = 10.0
GRADIENT_HISTORY_LINES = 20
# Half of the smallest step that was seen to learn (the preset `tiny`); the paper's steps have 16,384 tokens and more.
FEWEST_TOKENS_PER_STEP = 1024


_OF_DISCRIMINATOR = ("collapsed discriminator", "no better than frequency")
_JUMP = "gradient jump"
_COUNTERS = ("refused_updates", "was_alone", "own_stage_tokens", "lines_since_jump")
_READ = (
    "discriminator_auc",
    "discriminator_recall",
    "unigram_auc",
    "generator_accuracy",
    "generator_loss",
    "masked_language_model_loss",
    "replaced_fraction",
)


def _troubles(means: Mapping[str, float], frequency: float) -> dict[str, str]:
    """What is wrong, from cause to effect: the name of each trouble and its message.

    A discriminator cannot learn from a generator that has not learned, so the generator comes first.

    Args:
        means: the mean of each number of `_READ` over the last lines, where all of them have it.
        frequency: unigram entropy in nats, the loss of a model that knows nothing but word frequency.
    """
    # A number that was not logged is NaN, and no comparison with NaN holds.
    auc, recall, baseline, accuracy, generator_loss, model_loss, replaced = (means.get(name, nan) for name in _READ)
    who, loss = ("the model", model_loss) if isnan(generator_loss) else ("the generator", generator_loss)
    place = "above" if loss > frequency / PLATEAU_FRACTION else "close to"
    is_logged = not isnan(accuracy + replaced)  # the accuracy alone is logged while the generator trains alone
    checks = {
        "generator on plateau": (
            loss >= PLATEAU_FRACTION * frequency,
            f"{who} has not learned from the context yet: its loss of {loss:.2f} nats is {place} the {frequency:.2f} "
            "nats of word frequency alone; train longer (backbone electra can stay there for millions of tokens, "
            "modernbert leaves sooner)",
        ),
        "strong generator": (
            is_logged and (accuracy > STRONG_GENERATOR_ACCURACY or replaced < FEWEST_REPLACED_FRACTION),
            f"little is left to detect: the generator restores {accuracy:.0%} of the masked words and only "
            f"{replaced:.1%} of the tokens are replaced; lower generator.size_fraction, raise "
            "corruption.masked_fraction or, if it is above 0, lower corruption.missing_fraction",
        ),
        "collapsed discriminator": (
            auc < COLLAPSED_AUC,
            f"the discriminator has collapsed: AUC {auc:.2f} (0.5 is guessing), recall {recall:.3f}; accuracy would "
            "not show it; try a lower learning rate, a longer warm-up or a larger batch",
        ),
        "no better than frequency": (
            auc <= baseline,
            f"the discriminator (AUC {auc:.3f}) is no better than word frequency alone ({baseline:.3f}): it has not "
            "learned to read the context; train longer, or with a larger batch",
        ),
    }
    return {name: message for name, (is_wrong, message) in checks.items() if is_wrong}


def entropy_of(counts: NDArray[np.integer]) -> float:
    """Entropy, in nats, of (words,) counts: the loss of the best guess that ignores the context."""
    fractions = counts[counts > 0] / counts.sum()
    return float(-(fractions * np.log(fractions)).sum())


class HealthMonitor:
    """Reads each line of the journal as it is written, and reports each trouble once, when it begins."""

    def __init__(self, training: TrainingConfig, unigram_counts: NDArray[np.integer], own_stage_steps: int = 0) -> None:
        """Args: own_stage_steps: number of steps at the start that train the generator alone."""
        self.own_stage_steps = own_stage_steps
        self.steps, self.warmup_steps = training.steps, training.warmup_steps
        self.unigram_entropy = entropy_of(unigram_counts)
        self.lines: deque[dict[str, float]] = deque(maxlen=WINDOW_LINES)
        self.norms: deque[float] = deque(maxlen=GRADIENT_HISTORY_LINES)
        self.troubles: set[str] = set()
        self.refused_updates = self.lines_since_jump = self.own_stage_tokens = 0
        self.was_alone = True

    def at_start(self, tokens_per_step: int) -> list[str]:
        """Warnings that can be given before the first step."""
        if tokens_per_step >= FEWEST_TOKENS_PER_STEP:
            return []
        return [
            f"a step has {counted(tokens_per_step, 'token')}; runs with fewer than about {FEWEST_TOKENS_PER_STEP} are "
            "known to fail; raise training.batch_rows (training.micro_batch_rows keeps the memory as it is)"
        ]

    def observe(self, metrics: Mapping[str, object]) -> list[str]:
        """The new warnings that a line of the journal gives rise to, one sentence each."""
        numbers = {name: value for name, value in metrics.items() if _is_number(value)}
        step, tokens = int(numbers["step"]), int(numbers["tokens"])
        if step <= self.own_stage_steps:
            self.own_stage_tokens = tokens
        elif self.was_alone:
            # The gradient of the second stage is another loss's, so its norms have a usual size of their own.
            self.was_alone = False
            self.norms.clear()
        warnings = self._refused(int(numbers.get("refused_updates", 0)))
        if "gradient_norm" in numbers:
            warnings += self._gradient_jump(numbers["gradient_norm"])
        self.lines.append({name: float(numbers[name]) for name in _READ if name in numbers})
        if step < self.warmup_steps:
            return warnings
        return warnings + self._judge(tokens, is_last=step == self.steps)

    def _judge(self, tokens: int, *, is_last: bool) -> list[str]:
        """The first trouble, if it is new; at the end of a run that was too short, what cannot be told."""
        if tokens < GENERATOR_TOKENS or len(self.lines) < FEWEST_LINES:
            too_few, needed = counted(tokens, "token"), f"{GENERATOR_TOKENS:,}"
            if tokens >= GENERATOR_TOKENS:
                too_few, needed = f"{counted(len(self.lines), 'line')} of the journal", f"{FEWEST_LINES}"
            message = f"too early to tell how well the run learns: it ends after {too_few}; judging takes {needed}"
            return [message] if is_last else []
        logged = [name for name in _READ if all(name in line for line in self.lines)]
        means = {name: fmean(line[name] for line in self.lines) for name in logged}
        found = _troubles(means, self.unigram_entropy)
        # Two troubles at once would come with two remedies, of which one does not help: only the first is reported.
        first = next(iter(found), "")
        discriminator_tokens = tokens - self.own_stage_tokens
        if first in _OF_DISCRIMINATOR and discriminator_tokens < DISCRIMINATOR_TOKENS:
            message = (
                f"too early to tell whether the discriminator learns to read the context: it has seen "
                f"{discriminator_tokens:,} tokens, and is judged from {DISCRIMINATOR_TOKENS:,} on"
            )
            return [message] if is_last else []
        is_new = bool(first) and first not in self.troubles
        # A trouble stays reported for as long as it holds, even while an earlier cause stands before it.
        self.troubles &= {*found, _JUMP}
        self.troubles |= {first} if first else set()
        return [found[first]] if is_new else []

    def to_dict(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""
        return {
            "lines": list(self.lines),
            "norms": list(self.norms),
            "troubles": sorted(self.troubles),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` gave, also in an earlier version, so that a resumed run repeats no warning."""
        self.lines.extend(saved["lines"])
        self.norms.extend(saved["norms"])
        self.troubles = set(saved["troubles"])
        for name in _COUNTERS:
            setattr(self, name, saved.get(name, getattr(self, name)))

    def _refused(self, refused: int) -> list[str]:
        new, self.refused_updates = refused - self.refused_updates, refused
        if new <= 0:
            return []
        return [
            f"{new} {'update was' if new == 1 else 'updates were'} refused because the loss or the gradient was not "
            f"finite ({refused} in all); after {MOST_REFUSED_IN_A_ROW} in a row the run stops; lower the learning rate"
        ]

    def _gradient_jump(self, norm: float) -> list[str]:
        usual = median(self.norms) if len(self.norms) >= FEWEST_LINES else inf
        self.norms.append(norm)
        is_jump = norm > GRADIENT_JUMP * usual and norm > GRADIENT_NORM_LIMIT
        is_reported = _JUMP in self.troubles
        # Where every step is a line, single jumps come and go: the trouble ends when all recent norms are usual.
        self.lines_since_jump = 0 if is_jump else self.lines_since_jump + 1
        if is_jump:
            self.troubles.add(_JUMP)
        elif self.lines_since_jump >= GRADIENT_HISTORY_LINES:
            self.troubles.discard(_JUMP)
        if not is_jump or is_reported:
            return []
        return [
            f"the gradient norm jumped to {norm:.3g} from about {usual:.3g}; it is clipped, but if it stays there, "
            "lower the learning rate"
        ]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf

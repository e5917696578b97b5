"""What `electrain evaluate` finds out about a model: its scores, and what they are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_MISTAKES = 20
# A larger confusion matrix can neither be read nor drawn; the most frequent mix-ups are told of any number of labels.
MOST_MATRIX_LABELS = 50


@dataclass(frozen=True)
class LabelScore:
    """How well one label, tag or type of entity is found; in per cent, None where nothing defines it."""

    label: str
    precision: float | None  # None where it is never predicted
    recall: float | None  # None where it never occurs
    f1: float | None  # None where it neither occurs nor is predicted
    support: int  # number of times that it is true
    predicted: int  # number of times that it is predicted


@dataclass(frozen=True)
class Confusion:
    """How often each label was predicted for each true one: `counts[true][predicted]`, both in the order of labels."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Mixup:
    """How often one thing was taken for another. None: there is nothing on that side.

    Where both are the same, it is an entity of the right type with the wrong words.
    """

    true: str | None
    predicted: str | None
    count: int


@dataclass(frozen=True)
class Bin:
    """The decisions whose probability is above `lowest` and at most `highest`."""

    lowest: float
    highest: float
    count: int
    confidence: float  # mean of the probabilities
    accuracy: float  # part of the decisions that are right


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities say how often the model is right; all in [0, 1] except the loss.

    Attributes:
        of: what is decided with these probabilities.
        bins: of equal width; those without a decision are left out.
        expected_error: mean distance of probability and accuracy over the bins, weighted by their counts.
        brier: the Brier score: mean squared error of the probabilities, summed over the labels where there is one label
            each; None where they are not known of every label.
        log_loss: mean negative log-likelihood of what is true, in nats; None likewise.
    """

    of: str
    bins: tuple[Bin, ...]
    expected_error: float
    brier: float | None = None
    log_loss: float | None = None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer as a person is shown it: texts are cut."""

    source: str  # file and line
    text: str
    expected: str
    predicted: str
    value: float  # by which mistakes are ordered, see `Breakdown.mistakes_by`


@dataclass(frozen=True)
class Breakdown:
    """What the scores of a fine-tuned model are made of. What does not apply to a task is empty or None.

    Attributes:
        labels: of classification and tagging.
        confusion: where each example, or word, has one label.
        mixups: the most frequent ones.
        calibration: of the probabilities.
        quantiles: of the absolute errors, of F1, chrF or ROUGE-L of single examples, by name: "50%" is the median.
        facts: further figures by name.
        wrong: number of wrong answers.
        mistakes: the first of them: the most confident or the worst.
        mistakes_by: the name of what they are ordered by.
    """

    labels: tuple[LabelScore, ...] = ()
    confusion: Confusion | None = None
    mixups: tuple[Mixup, ...] = ()
    calibration: Calibration | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    wrong: int = 0
    mistakes: tuple[Mistake, ...] = ()
    mistakes_by: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The result of `electrain evaluate`; `to_dict()` is the JSON object that it prints.

    Attributes:
        task: what was scored.
        settings: model, data and everything else that the scores depend on.
        counts: how much was scored, by name.
        scores: of a fine-tuned model its scores by name; of a pretrained one the parts of the result by name.
        main_score: the name of the score that counts; "" for pretrained models.
        intervals_95: the 95% confidence interval of the main score, or of several scores, by name.
        breakdown: what the scores are made of; None for pretrained models.
        answers: of a fine-tuned model, in the order of the examples, each with what is true as "gold".
        scores_before: the scores with the thresholds that were replaced; empty unless new ones were chosen.
    """

    task: str
    settings: Mapping[str, Any]
    counts: Mapping[str, float]
    scores: Mapping[str, Any]
    main_score: str = ""
    intervals_95: Mapping[str, Sequence[float]] = field(default_factory=dict)
    breakdown: Breakdown | None = None
    answers: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    scores_before: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `electrain evaluate` prints, without the answers."""
        head = {"task": self.task, "settings": dict(self.settings), **self.counts}
        if self.breakdown is None:
            return head | dict(self.scores) | ({"intervals_95": self.intervals_95} if self.intervals_95 else {})
        main = {"main_score": self.main_score, "scores": dict(self.scores), "intervals_95": self.intervals_95}
        before = {"scores_before": dict(self.scores_before)} if self.scores_before else {}
        return head | main | before | {"breakdown": asdict(self.breakdown)}


def pretrained_evaluation(result: Mapping[str, Any]) -> Evaluation:
    """What `evaluate_detection` or `evaluate_blimp` returned, as an `Evaluation`."""
    rest = {name: value for name, value in result.items() if name not in ("task", "settings", "intervals_95")}
    counts = {name: value for name, value in rest.items() if isinstance(value, int | float)}
    scores = {name: value for name, value in rest.items() if name not in counts}
    intervals = result.get("intervals_95", {})
    return Evaluation(result["task"], result["settings"], counts, scores, intervals_95=intervals)

"""Which of a run's models is kept: the one with the best score, but none that says the same of every example."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electrain.data.labelled.examples import TaskName
from electrain.finetuning.tasks.task import Answer, AnyTask
from electrain.foundation.errors import ConfigurationError

# Predicted numbers whose spread is below this fraction of the true numbers' spread count as constant.
CONSTANT_SPREAD = 1e-3
# Other usual names of scores, which `choose_by` takes too.
_ALIASES = {"macro_f1": "f1_macro", "micro_f1": "f1_micro", "mcc": "matthews"}
_LOWER_IS_BETTER = ("mean_squared_error",)
# The key of what an answer says, by task. A model that gives every example one answer has learned nothing.
_SAID: dict[TaskName, tuple[str, ...]] = {
    "classification": ("label", "labels"),
    "regression": ("value",),
    "tagging": ("tags",),
    "question-answering": ("answer",),
    "summarization": ("output",),
    "translation": ("output",),
}


@dataclass
class Best:
    """The best model so far; what a checkpoint keeps beside the tensors.

    Attributes:
        best_step: the step after which it was scored; -1 before the first evaluation.
        scores: its validation scores.
        evaluations_since_best: number of evaluations since then, none of them better.
        is_constant: it says the same of every validation example.
    """

    best_step: int = -1
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluations_since_best: int = 0
    is_constant: bool = False

    def offer(self, step: int, scores: dict[str, float], chosen_by: str, *, is_constant: bool) -> bool:
        """Takes the model of a step if it is better than the best so far, and returns whether it is; see `rank`."""
        own = rank(scores, chosen_by, is_constant=is_constant)
        is_better = self.best_step < 0 or own > rank(self.scores, chosen_by, is_constant=self.is_constant)
        if is_better:
            self.best_step, self.scores, self.is_constant = step, scores, is_constant
        self.evaluations_since_best = 0 if is_better else self.evaluations_since_best + 1
        return is_better


def rank(scores: Mapping[str, float], chosen_by: str, *, is_constant: bool) -> tuple[bool, float]:
    """Of two models the one with the greater rank is better: a constant answer yields to any that varies.

    On unbalanced examples, always saying the commonest label often has the best accuracy, and is of no use.
    """
    value = scores.get(chosen_by, 0.0)  # a type of entity that is neither there nor predicted has no score
    return not is_constant, -value if chosen_by in _LOWER_IS_BETTER else value


def deciding_score(choose_by: str, task: AnyTask, name: TaskName) -> str:
    """The score by which the best model is chosen: the task's main one for "", or the one that is asked for.

    Raises: ConfigurationError: the task does not report it.
    """
    if not choose_by:
        return task.main_score
    plain = choose_by.replace("-", "_")
    for score in (choose_by, plain, _ALIASES.get(plain)):
        if score in task.score_names:
            return score
    raise ConfigurationError(
        f'[training] choose_by = "{choose_by}": {name} of these examples reports {", ".join(task.score_names)}; '
        "choose one of them"
    )


def says_the_same(task: TaskName, examples: Sequence[Any], answers: Sequence[Answer]) -> bool:
    """True where all examples got one and the same answer, though that is not what is true of them."""
    said = [next(answer[name] for name in _SAID[task] if name in answer) for answer in answers]
    if task == "regression":
        true_spread = statistics.pstdev(example.value for example in examples)
        return bool(statistics.pstdev(said) < CONSTANT_SPREAD * true_spread)
    if task == "tagging":
        return len({tag for tags in said for tag in tags}) == 1 < len({tag for one in examples for tag in one.tags})
    return len({str(one) for one in said}) == 1 < len({_truth(task, example) for example in examples})


def _truth(task: TaskName, example: Any) -> object:
    """What is true of an example, in a form that can be compared."""
    if task == "classification":
        return frozenset(example.labels)
    if task == "question-answering":
        return tuple(sorted({text for text, _ in example.answers}))
    return example.target or example.references

"""Which checkpoint of a run to fine-tune: the one that its probe scored best, and the folder to use it from."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electrain.foundation.errors import CheckpointError
from electrain.foundation.output_folder import JOURNAL_NAME, MANIFEST_NAME
from electrain.foundation.progress import say
from electrain.foundation.report_page import Record, json_lines, json_object, number, step_of

if TYPE_CHECKING:
    from electrain.pretraining.build import PretrainObjective

PROBE_EVENT, ACCURACY, STANDARD_ERROR = "probe", "probe_accuracy", "probe_standard_error"
BEST_FOLDER = "best"  # of the encoder, where its checkpoint is not the last
MODEL_FOLDER = "model"
FACT = "probe"  # of the manifest of a run


@dataclass(frozen=True)
class ProbedStep:
    """What the probe said after a step: accuracy and its standard error, in points of per cent."""

    step: int
    accuracy: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.accuracy:.1f}% (standard error {self.standard_error:.1f})"


def probed_steps(records: Sequence[Record]) -> list[ProbedStep]:
    """The probes in a journal, in its order."""
    return [
        ProbedStep(step_of(one), accuracy, number(one, STANDARD_ERROR) or 0.0)
        for one in records
        if one.get("event") == PROBE_EVENT and (accuracy := number(one, ACCURACY)) is not None
    ]


def best_of(probed: Sequence[ProbedStep]) -> ProbedStep | None:
    """The best one, of equal ones the last; None if there is none."""
    return max(probed, key=lambda one: (one.accuracy, one.step), default=None)


def chosen_of(probed: Sequence[ProbedStep]) -> ProbedStep | None:
    """The one to fine-tune: the best, or the last if it is level with it; None if there is none.

    Level is no more than one standard error behind; docs/experiments.md, "Which checkpoint to fine-tune".
    """
    best = best_of(probed)
    if best is None or best.accuracy - probed[-1].accuracy <= best.standard_error:
        return probed[-1] if probed else None
    return best


def step_in_folder(run: Path) -> int | None:
    """The step whose encoder is in `best/`, as the last sitting that ended wrote it; None if it wrote none."""
    recorded = json_object(run / MANIFEST_NAME).get("facts", {}).get(FACT)
    is_there = isinstance(recorded, dict) and recorded.get("folder") == BEST_FOLDER
    return step_of({"step": recorded.get("best_step")}) if is_there else None


def export_best(
    run: Path, best: ProbedStep, step: int, fresh: Callable[[], "PretrainObjective"], tokenizer: Any, length: int
) -> str:
    """Writes an encoder into `best/` if it is not that of the last step. Returns its folder; "" if it is gone.

    Args:
        best: see `chosen_of`.
        step: that of the run's `model/`.
        fresh: builds the objective, for the weights of the checkpoint.
        length: tokens of a training row.
    """
    # A report, which reads only the probes, is drawn without PyTorch.
    from safetensors.torch import load_file

    from electrain.pretraining.export import export_encoder
    from electrain.training.checkpoint import TENSOR_FILES, checkpoint_folder, read_checkpoint
    from electrain.training.sharding import copy_weights
    from electrain.training.sitting import CHECKPOINTS

    folder = run / BEST_FOLDER
    if best.step == step:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier sitting
        return MODEL_FOLDER
    if step_in_folder(run) == best.step and folder.is_dir():
        return BEST_FOLDER  # of an earlier sitting, and still the best; its checkpoint may have been removed since
    shutil.rmtree(folder, ignore_errors=True)
    try:
        checkpoint = read_checkpoint(checkpoint_folder(run / CHECKPOINTS, best.step))
    except (OSError, CheckpointError) as error:
        say(f"warning: the checkpoint that the probe found best cannot be read: {error}")
        return ""
    objective = fresh()
    copy_weights(load_file(checkpoint.directory / TENSOR_FILES[0]), objective)
    export_encoder(objective, tokenizer, folder, length)
    return BEST_FOLDER


def choice(probed: Sequence[ProbedStep], folder: str, run: Path) -> str:
    """Which checkpoint to fine-tune, in words. Args: folder: as `export_best` returns it."""
    best, last, chosen = best_of(probed), probed[-1], chosen_of(probed)
    assert best is not None
    assert chosen is not None
    ahead = best.accuracy - last.accuracy
    use = "Its checkpoint is gone."
    if folder:
        which = "that checkpoint" if chosen == best else f"the one of step {last.step:,}"
        use = f"Fine-tune {which}: electrain finetune TASK --model {run / folder} ..."
    if chosen != best:
        level = f"level at step {best.step:,}, {best}, and step {last.step:,}, {last.accuracy:.1f}%"
        return f"The probe is {level}: they differ by no more than one standard error. {use}"
    if best.step == last.step:
        place = (
            f"the last step, {best.step:,}" if folder == MODEL_FOLDER else f"step {best.step:,}, the last one probed"
        )
        return f"The probe is best at {place}: {best}. {use}"
    found = f"{ahead:.1f} points above step {last.step:,}, more than one standard error"
    return f"The probe is best at step {best.step:,}: {best}, {found}. {use}"


def choice_of(run: Path) -> str:
    """The words of `choice` for a run that has ended, as its manifest says; empty for any other, or without a probe."""
    manifest = json_object(run / MANIFEST_NAME)
    facts = manifest.get("facts", {}).get(FACT)
    probed = probed_steps(json_lines(run / JOURNAL_NAME))
    chosen = chosen_of(probed)
    if not manifest.get("finished") or not isinstance(facts, dict) or chosen is None:
        return ""
    # Before versions that prefer the last of level steps, the folder held another one.
    folder = str(facts.get("folder", "")) if facts.get("best_step") == chosen.step else MODEL_FOLDER
    return choice(probed, folder, run)

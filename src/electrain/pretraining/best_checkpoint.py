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


def export_best(
    run: Path, best: ProbedStep | None, step: int, fresh: Callable[[], "PretrainObjective"], tokenizer: Any, length: int
) -> str:
    """Writes the best encoder into `best/` if it is not that of the last step. Returns the folder to fine-tune, or "".

    Args:
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
    if best is None or best.step == step:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier sitting
        return "" if best is None else MODEL_FOLDER
    recorded = json_object(run / MANIFEST_NAME).get("facts", {}).get(FACT)
    if isinstance(recorded, dict) and recorded.get("best_step") == best.step and recorded.get("folder") == BEST_FOLDER:
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
    best, last = best_of(probed), probed[-1]
    assert best is not None
    use = (
        f"Fine-tune that checkpoint: electrain finetune TASK --model {run / folder} ..."
        if folder
        else "Its checkpoint is gone."
    )
    if folder == MODEL_FOLDER:
        return f"The probe is best at the last step, {best.step:,}: {best}. {use}"
    if best.step == last.step:
        return f"The probe is best at step {best.step:,}, the last one probed: {best}. {use}"
    ahead = best.accuracy - last.accuracy
    clear = "more than" if ahead > best.standard_error else "no more than"
    found = f"{ahead:.1f} points above step {last.step:,}, {clear} one standard error"
    return f"The probe is best at step {best.step:,}: {best}, {found}. {use}"


def choice_of(run: Path) -> str:
    """The words of `choice` for a run that has ended, as its manifest says; empty for any other, or without a probe."""
    manifest = json_object(run / MANIFEST_NAME)
    facts = manifest.get("facts", {}).get(FACT)
    probed = probed_steps(json_lines(run / JOURNAL_NAME))
    if not manifest.get("finished") or not isinstance(facts, dict) or not probed:
        return ""
    return choice(probed, str(facts.get("folder", "")), run)

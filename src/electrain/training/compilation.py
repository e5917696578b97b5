"""Compilation of the training step with torch.compile."""

import torch

from electrain.foundation.progress import say
from electrain.training.loop import TrainingRun, forward_and_backward, run_micro_batch
from electrain.training.objective import R


def compile_or_say_why_not(run: TrainingRun[R]) -> bool:
    """Compiles the objective in place and tries it on one micro-batch. If that fails, says so and undoes it.

    Returns: True if every process compiled it; otherwise none did. The weights are not changed.
    """
    objective = run.objective
    # The step decides which networks are trained, so a run that resumes in its second stage must be tried in it.
    objective.begin_step(run.state.step)
    objective.compile(dynamic=False)
    batch = run.batches(run.state.step)[0]
    counts = dict.fromkeys(batch.counts, torch.ones((), device=run.runtime.device))
    reason = ""
    try:
        run_micro_batch(run, forward_and_backward(run, objective), batch, counts, 0)
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        reason = f"{type(error).__name__}: {first_line[:150]}"
    finally:
        objective.zero_grad()
    if run.runtime.sum([float(bool(reason))])[0]:
        objective._compiled_call_impl = None
        say(f"torch.compile does not work here ({reason or 'in another process'}); continuing uncompiled, slower")
        return False
    return True

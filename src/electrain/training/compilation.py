"""Compilation of the training step with torch.compile, region by region."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from electrain.foundation.errors import first_line
from electrain.foundation.progress import Progress, format_seconds, say
from electrain.training.loop import TrainingRun, forward_and_backward, run_micro_batch
from electrain.training.objective import MicroBatch, R, Region

# The compiler sees all modules as variants of one function, and by default stops compiling after the eighth. A step has
# about eight kinds of region, and a second stage compiles most of them again.
MOST_VARIANTS = 64
BACKEND = "inductor"
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# Seconds for each kind of region, forward and backward pass together: docs/experiments.md, "Compiling by regions".
SECONDS_PER_KIND = 9.0
SECONDS_PER_KNOWN_KIND = 1.0


def compile_or_say_why_not(run: TrainingRun[R], *, shows_bar: bool = True) -> bool:
    """Compiles the objective's regions and tries them on one micro-batch. If that fails, says so and undoes it.

    Equal regions are compiled once. The weights are not changed, and neither are the names of parameters.

    Args:
        shows_bar: False if a bar of the training is on the screen already.
    Returns: True if every process compiled them; otherwise none did.
    """
    objective = run.objective
    # The step decides which networks are trained, so a run that resumes in its second stage must be tried in it.
    objective.begin_step(run.state.step)
    objective.train()
    regions = objective.regions()
    keep_compiled_code()
    torch._dynamo.config.recompile_limit = MOST_VARIANTS
    for region in regions:
        if not _is_compiled(region):
            _compile(region)
    batch = run.batches(run.state.step)[0]
    started = time.perf_counter()
    mark = _mark(run, regions, batch)
    with _signs_of_life(run, len(set(map(_kind, regions))), is_known=mark.exists(), shows_bar=shows_bar):
        reason = _try(run, batch)
    if run.runtime.sum([float(bool(reason))])[0]:
        for region in regions:
            _undo(region)
        say(f"torch.compile does not work here ({reason or 'in another process'}); continuing uncompiled, slower")
        return False
    if run.runtime.is_first:
        say(f"compiled in {format_seconds(time.perf_counter() - started)}")
        if mark.parent.is_dir() and os.access(mark.parent, os.W_OK):
            mark.touch()
    return True


def compile_for_stage(run: TrainingRun[R]) -> None:
    """Compiles again where a stage of the run begins, if the run is compiled.

    Frozen parameters need other code. Compiled within a step, a failure there would end the run.
    """
    if run.objective.begins_stage(run.state.step) and any(map(_is_compiled, run.objective.regions())):
        compile_or_say_why_not(run, shows_bar=False)


def _try(run: TrainingRun[R], batch: MicroBatch[R]) -> str:
    """Why a forward and backward pass fails; empty if it does not. It leaves the gradients as they were: zero."""
    counts = dict.fromkeys(batch.counts, torch.ones((), device=run.runtime.device))
    parameters = list(run.objective.parameters())
    has_gradient = [parameter.grad is not None for parameter in parameters]
    try:
        run_micro_batch(run, forward_and_backward(run, run.objective), batch, counts, 0)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)[:150]}"
    finally:
        for parameter, had_one in zip(parameters, has_gradient, strict=True):
            if not had_one:
                parameter.grad = None
            elif parameter.grad is not None:  # a recorded pass goes on writing to this very tensor
                parameter.grad.zero_()
    return ""


def _compile(region: Region) -> None:
    # All batches of a run have the same shapes. A module is compiled in place, since a wrapper around it would change
    # the names of its parameters in checkpoints.
    if region.method:
        method = getattr(region.module, region.method)
        region.module.__dict__[region.method] = torch.compile(method, dynamic=False, backend=BACKEND)
    else:
        region.module.compile(dynamic=False, backend=BACKEND)


def _is_compiled(region: Region) -> bool:
    return (region.method or "_compiled_call_impl") in region.module.__dict__


def _undo(region: Region) -> None:
    region.module.__dict__.pop(region.method or "_compiled_call_impl", None)


def _kind(region: Region) -> str:
    """Equal for regions that share their compiled code: the same modules, with parameters of the same shapes."""
    shapes = [(name, tuple(x.shape), x.requires_grad) for name, x in region.module.named_parameters()]
    return f"{region.module} {region.method} {shapes}"


def keep_compiled_code() -> None:
    """Keeps compiled code in a folder that survives a restart of the machine, unless the user names one.

    PyTorch's own choice is a temporary folder. It stays where the user's folder cannot be written.
    """
    if os.environ.get(CACHE_VARIABLE):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "electrain" / "inductor"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    if os.access(folder, os.W_OK):
        os.environ[CACHE_VARIABLE] = str(folder)


def _mark(run: TrainingRun[R], regions: list[Region], batch: MicroBatch[R]) -> Path:
    """The file that stands beside the compiled code of such a run, once there is some."""
    leaves = torch.utils._pytree.tree_leaves(batch.rows)
    shapes = [(leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    device = run.runtime.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = [torch.__version__, transformers.__version__, machine, run.runtime.dtype, shapes, *map(_kind, regions)]
    name = "known-" + hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return Path(os.environ.get(CACHE_VARIABLE, "")) / name


@contextmanager
def _signs_of_life(run: TrainingRun[Any], kinds: int, *, is_known: bool, shows_bar: bool) -> Iterator[None]:
    """Says how long compilation will take, and shows while the block runs how much is compiled."""
    if not run.runtime.is_first:
        yield
        return
    expected = format_seconds(kinds * (SECONDS_PER_KNOWN_KIND if is_known else SECONDS_PER_KIND))
    how = "compiled before, so in about" if is_known else "once, in about"
    say(f"compiling the step, {how} {expected}")
    seen = torch._dynamo.utils.counters["stats"]
    before, is_over = seen["unique_graphs"], threading.Event()
    with Progress("compiling", "parts", kinds, is_silent=not shows_bar) as progress:

        def show() -> None:
            while not is_over.wait(1.0):
                progress.update(min(kinds, seen["unique_graphs"] - before), "still at work")

        # The compiler keeps the main thread busy, which also has to stay the one that Ctrl-C interrupts.
        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

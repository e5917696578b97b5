"""The training loop: the only one in the project."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from electrain.foundation.progress import say
from electrain.training.objective import MicroBatch, Outcome
from electrain.training.optimizer import clip_gradients, learning_rate, networks_of, set_learning_rate
from electrain.training.runtime import Runtime
from electrain.training.settings import ParityConfig, TrainingConfig

# So many refused updates in a row mean that the run cannot recover.
MOST_REFUSED_IN_A_ROW = 10


@dataclass
class RunState:
    """What changes during a run besides the tensors; goes into every checkpoint.

    Attributes:
        step: steps taken, refused ones counted.
        tokens: real tokens seen by all processes.
        seconds: spent training, over all sittings.
        refused_updates: steps whose loss or gradient was not finite, so that nothing was updated.
        refused_in_a_row: the same, since the last good one.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    refused_updates: int = 0
    refused_in_a_row: int = 0


@dataclass(frozen=True)
class StepResult:
    """What one step showed.

    Attributes:
        loss: weighted mean over all processes, in nats.
        losses: mean of each term over all processes, in nats.
        gradient_norm: before clipping, over all parameters.
        learning_rate: of the update.
        micro_batch: the last one of this process.
        observations: of the last forward pass of this process.
        is_stop_asked: in any process.
    """

    loss: float
    losses: dict[str, float]
    gradient_norm: float
    learning_rate: float
    micro_batch: MicroBatch
    observations: dict[str, Tensor]
    is_stop_asked: bool


@dataclass
class StopRequest:
    """Set by Ctrl-C or SIGTERM; the loop ends after the step it is in."""

    is_asked: bool = False
    previous: dict[int, Any] = field(default_factory=dict)

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Takes over the two signals while the block runs (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        for asking in (signal.SIGINT, signal.SIGTERM):
            self.previous[asking] = signal.signal(asking, self._ask)
        try:
            yield self
        finally:
            for number, handler in self.previous.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_asked = True
        say("stopping after this step, with a checkpoint; once more to stop at once")


def train(
    model: nn.Module,
    optimizers: list[Optimizer],
    batches: Callable[[int], list[MicroBatch]],
    training: TrainingConfig,
    parity: ParityConfig,
    runtime: Runtime,
    state: RunState,
    after_step: Callable[[StepResult], bool],
) -> bool:
    """Takes the steps that are left. Returns True when all are taken, False when it ended before.

    Args:
        model: an objective; called with the tensors of a micro-batch it returns an `Outcome`.
        batches: the micro-batches of this process for a step; a pure function, called ahead in a thread.
        state: updated in place.
        after_step: called after every step, with `state.step` counting it; logs and writes checkpoints. Where it
            returns True the run ends early.
    """
    forward = _parallel(model, runtime)
    networks = networks_of(model, training)
    begin_step: Callable[[int], None] = getattr(model, "begin_step", lambda step: None)
    model.train()
    with StopRequest().listening() as stop, ThreadPoolExecutor(1) as loader:
        ahead = loader.submit(batches, state.step)
        while state.step < training.steps:
            started = time.perf_counter()
            micro_batches = ahead.result()
            ahead = loader.submit(batches, state.step + 1)
            begin_step(state.step)
            rate = learning_rate(state.step, training, parity)
            result = _take_step(
                forward, networks, optimizers, micro_batches, rate, training, runtime, state, stop.is_asked
            )
            state.seconds += time.perf_counter() - started
            is_over = after_step(result)
            if is_over or result.is_stop_asked or state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW:
                ahead.cancel()
                return False
    return True


def _parallel(model: nn.Module, runtime: Runtime) -> nn.Module:
    if runtime.processes == 1:
        return model
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    # In a stage of its own the generator leaves the discriminator without gradients, and later the other way round.
    has_stages = bool(getattr(model, "own_stage_steps", 0))
    return DistributedDataParallel(
        model, device_ids=devices, gradient_as_bucket_view=True, find_unused_parameters=has_stages
    )


def _take_step(
    forward: Any,
    networks: list[list[tuple[str, nn.Parameter]]],
    optimizers: list[Optimizer],
    micro_batches: list[MicroBatch],
    rate: float,
    training: TrainingConfig,
    runtime: Runtime,
    state: RunState,
    is_stop_asked: bool,
) -> StepResult:
    names = list(micro_batches[0].counts)
    counted = [float(sum(batch.counts[name] for batch in micro_batches)) for name in names]
    tokens = float(sum(batch.tokens for batch in micro_batches))
    *counted, tokens, stop_votes = runtime.sum([*counted, tokens, float(is_stop_asked)])
    counts = dict(zip(names, counted, strict=True))
    totals = dict.fromkeys(names, 0.0)
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        waits = isinstance(forward, DistributedDataParallel) and not is_last
        with forward.no_sync() if waits else nullcontext():
            outcome = run_micro_batch(forward, batch, counts, training, runtime, state.step, number)
        for name, term in outcome.terms.items():
            totals[name] += float(term.total.detach())
    weights = {name: term.weight for name, term in outcome.terms.items()}
    summed = runtime.sum([totals[name] for name in names])
    losses = {name: total / max(1.0, counts[name]) for name, total in zip(names, summed, strict=True)}
    loss = sum(weights[name] * value for name, value in losses.items())
    norm = clip_gradients(networks)
    _update(optimizers, rate, state, is_finite=abs(loss) < float("inf") and norm < float("inf"))
    state.tokens += int(tokens)
    return StepResult(loss, losses, norm, rate, micro_batches[-1], outcome.observations, stop_votes > 0)


def run_micro_batch(
    forward: Callable[..., Outcome],
    batch: MicroBatch,
    counts: dict[str, float],
    training: TrainingConfig,
    runtime: Runtime,
    step: int,
    number: int,
) -> Outcome:
    """One forward and backward pass; each loss is divided by what the whole step counts.

    Distributed training averages gradients, hence the factor of the number of processes.
    """
    if training.dropout:
        torch.manual_seed(hash((training.seed, step, runtime.rank, number)) & 0x7FFFFFFF)
    tensors = {
        name: value.to(runtime.device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.tensors.items()
    }
    prepare = getattr(getattr(forward, "module", forward), "prepare", None)
    with runtime.autocast():
        outcome = forward(**(prepare(tensors) if prepare else tensors))
    shares = [term.weight * term.total / max(1.0, counts[name]) for name, term in outcome.terms.items()]
    loss = torch.stack(shares).sum() * runtime.processes
    loss.backward()  # type: ignore[no-untyped-call]
    return outcome


def _update(optimizers: list[Optimizer], rate: float, state: RunState, *, is_finite: bool) -> None:
    if is_finite:
        set_learning_rate(optimizers, rate)
        for optimizer in optimizers:
            optimizer.step()
        state.refused_in_a_row = 0
    else:
        state.refused_updates += 1
        state.refused_in_a_row += 1
    for optimizer in optimizers:
        optimizer.zero_grad()
    state.step += 1


def compile_or_say_why_not(model: nn.Module, batch: MicroBatch, training: TrainingConfig, runtime: Runtime) -> bool:
    """Compiles the model in place and tries it on one micro-batch; where that fails, says so and undoes it.

    Returns whether the model is compiled. The weights are not changed.
    """
    model.compile(dynamic=False)
    counts = {name: float(count) for name, count in batch.counts.items()}
    try:
        run_micro_batch(model, batch, counts, training, runtime, 0, 0)
    except Exception as error:
        model._compiled_call_impl = None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        say(f"torch.compile does not work here ({type(error).__name__}: {reason[:150]}); going on without, slower")
        return False
    finally:
        model.zero_grad()
    return True

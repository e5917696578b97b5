"""The training loop: the only one in the project."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from electrain.foundation.progress import say
from electrain.training.objective import MicroBatch, Objective, Outcome, R
from electrain.training.optimizer import Named, clip_gradients, learning_rate, set_learning_rate, trained_networks
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
class StepResult(Generic[R]):
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
    micro_batch: MicroBatch[R]
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


@dataclass(frozen=True)
class TrainingRun(Generic[R]):
    """Everything that the loop works with.

    Attributes:
        objective: what is trained.
        optimizers: of its parameters.
        batches: the micro-batches of this process for a step; a pure function, called ahead in a thread.
        training: how long and how fast.
        runtime: where.
        state: how far the run is; updated in place.
        parity: quirks of the reference implementation.
    """

    objective: Objective[R]
    optimizers: list[Optimizer]
    batches: Callable[[int], list[MicroBatch[R]]]
    training: TrainingConfig
    runtime: Runtime
    state: RunState = field(default_factory=RunState)
    parity: ParityConfig = field(default_factory=ParityConfig)

    @property
    def is_failed(self) -> bool:
        """True when so many updates in a row were refused that the run cannot recover."""
        return self.state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW

    @property
    def has_steps_left(self) -> bool:
        """True until the last step is taken."""
        return self.state.step < self.training.steps


def train(run: TrainingRun[R], after_step: Callable[[StepResult[R]], bool]) -> bool:
    """Takes the steps that are left. Returns True when all are taken, False when it ended before.

    Args:
        after_step: called after every step, with `run.state.step` counting it; logs and writes checkpoints. Where it
            returns True the run ends early.
    """
    state = run.state
    forward = _parallel(run.objective, run.runtime)
    networks = trained_networks(run.objective, run.training)
    run.objective.train()
    with StopRequest().listening() as stop, ThreadPoolExecutor(1) as loader:
        ahead = loader.submit(run.batches, state.step)
        while run.has_steps_left:
            started = time.perf_counter()
            micro_batches = ahead.result()
            ahead = loader.submit(run.batches, state.step + 1)
            run.objective.begin_step(state.step)
            result = _take_step(run, forward, networks, micro_batches, stop)
            state.seconds += time.perf_counter() - started
            is_over = after_step(result)
            if is_over or result.is_stop_asked or run.is_failed:
                ahead.cancel()
                return False
    return True


def _parallel(objective: Objective[R], runtime: Runtime) -> nn.Module:
    if runtime.processes == 1:
        return objective
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(
        objective, device_ids=devices, gradient_as_bucket_view=True, find_unused_parameters=objective.has_stages
    )


def _take_step(
    run: TrainingRun[R],
    forward: nn.Module,
    networks: list[Named],
    micro_batches: list[MicroBatch[R]],
    stop: StopRequest,
) -> StepResult[R]:
    names = list(micro_batches[0].counts)
    counted = [float(sum(batch.counts[name] for batch in micro_batches)) for name in names]
    tokens = float(sum(batch.tokens for batch in micro_batches))
    *counted, tokens, stop_votes = run.runtime.sum([*counted, tokens, float(stop.is_asked)])
    counts = dict(zip(names, counted, strict=True))
    totals = dict.fromkeys(names, 0.0)
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        # Gradients travel between processes once a step, with the last micro-batch.
        is_held_back = isinstance(forward, DistributedDataParallel) and not is_last
        with forward.no_sync() if is_held_back else nullcontext():  # type: ignore[operator]
            outcome = run_micro_batch(run, forward, batch, counts, number)
        for name, term in outcome.terms.items():
            totals[name] += float(term.total.detach())
    weights = {name: term.weight for name, term in outcome.terms.items()}
    summed = run.runtime.sum([totals[name] for name in names])
    losses = {name: total / max(1.0, counts[name]) for name, total in zip(names, summed, strict=True)}
    loss = sum(weights[name] * value for name, value in losses.items())
    norm = clip_gradients(networks)
    rate = learning_rate(run.state.step, run.training, run.parity)
    _update(run.optimizers, rate, run.state, is_finite=abs(loss) < float("inf") and norm < float("inf"))
    run.state.tokens += int(tokens)
    return StepResult(loss, losses, norm, rate, micro_batches[-1], outcome.observations, stop_votes > 0)


def run_micro_batch(
    run: TrainingRun[R], forward: nn.Module, batch: MicroBatch[R], counts: dict[str, float], number: int
) -> Outcome:
    """One forward and backward pass; each loss is divided by what the whole step counts.

    Distributed training averages gradients, hence the factor of the number of processes.

    Args:
        forward: the objective, or what wraps it for several processes.
        counts: elements scored in the whole step, over all micro-batches and processes, by loss.
        number: of the micro-batch in the step.
    """
    runtime, training = run.runtime, run.training
    if training.dropout:
        # Dropout is a function of (seed, step, process, micro-batch), so that a resumed run draws the same.
        torch.manual_seed(hash((training.seed, run.state.step, runtime.rank, number)) & 0x7FFFFFFF)
    rows = run.objective.prepare(batch.rows, runtime.device)
    with runtime.autocast():
        outcome: Outcome = forward(rows)
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


def compile_or_say_why_not(run: TrainingRun[R]) -> bool:
    """Compiles the objective in place and tries it on one micro-batch; where that fails, says so and undoes it.

    Returns whether it is compiled, in every process or in none. The weights are not changed.
    """
    objective = run.objective
    # The step decides which networks are trained: a run resumed in its second stage must be tried in that stage.
    objective.begin_step(run.state.step)
    objective.compile(dynamic=False)
    batch = run.batches(run.state.step)[0]
    counts = {name: float(count) for name, count in batch.counts.items()}
    reason = ""
    try:
        run_micro_batch(run, objective, batch, counts, 0)
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

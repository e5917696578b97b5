"""The training loop: the only one in the project."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from electrain.foundation.progress import say
from electrain.training.objective import MicroBatch, Objective, Outcome, R
from electrain.training.optimizer import Named, clip_gradients, learning_rate, set_learning_rate, trained_networks
from electrain.training.runtime import Runtime
from electrain.training.settings import ParityConfig, TrainingConfig

# A run with this many refused updates in a row does not recover.
MOST_REFUSED_IN_A_ROW = 10


@dataclass
class RunState:
    """What changes during a run besides the tensors. Every checkpoint holds it."""

    step: int = 0  # number of steps taken, refused ones included
    tokens: int = 0  # number of real tokens that all processes have seen
    seconds: float = 0.0  # time spent training, over all sittings
    refused_updates: int = 0  # number of steps whose loss or gradient was not finite, so that nothing was updated
    refused_in_a_row: int = 0  # number of refused updates since the last accepted one


@dataclass(frozen=True)
class StepResult(Generic[R]):
    """Result of a step."""

    loss: float  # weighted sum of `losses`, in nats
    losses: dict[str, float]  # mean of each term over all processes, in nats
    gradient_norm: float  # norm over all parameters before clipping
    learning_rate: float
    micro_batch: MicroBatch[R]  # the last one of this process
    observations: dict[str, Tensor]  # of the last forward pass of this process
    is_stop_asked: bool  # True if any process was asked to stop


@dataclass
class StopRequest:
    """Set by Ctrl-C or SIGTERM. The loop ends after the current step."""

    is_asked: bool = False

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handles the two signals while the block runs. Python allows that in the main thread only."""
        is_main = threading.current_thread() is threading.main_thread()
        asking = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        previous = [(number, signal.signal(number, self._ask)) for number in asking]
        try:
            yield self
        finally:
            for number, handler in previous:
                signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_asked = True
        say("stopping after this step, with a checkpoint; press Ctrl-C again to stop at once")


@dataclass(frozen=True)
class TrainingRun(Generic[R]):
    """Everything that the loop works with."""

    objective: Objective[R]
    optimizers: list[Optimizer]
    # The micro-batches of this process for a step: a pure function, which a thread calls ahead.
    batches: Callable[[int], list[MicroBatch[R]]]
    training: TrainingConfig
    runtime: Runtime
    state: RunState = field(default_factory=RunState)  # updated in place
    parity: ParityConfig = field(default_factory=ParityConfig)

    @property
    def is_failed(self) -> bool:
        """True after `MOST_REFUSED_IN_A_ROW` refused updates."""
        return self.state.refused_in_a_row >= MOST_REFUSED_IN_A_ROW

    @property
    def has_steps_left(self) -> bool:
        """True until the last step is taken."""
        return self.state.step < self.training.steps


def train(run: TrainingRun[R], after_step: Callable[[StepResult[R]], bool]) -> bool:
    """Takes the remaining steps. Returns True if all are taken, False if the run ended early.

    Args:
        after_step: called after every step, which `run.state.step` already counts; it logs and writes checkpoints. The
            run ends early if it returns True.
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
            # The next rows are corrupted while this step computes. They depend on the step alone, so that rows made
            # ahead are the same as those that a resumed run makes.
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
    # DDP waits for every parameter's gradient, unless it is told that a stage leaves some without.
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
    # Every loss is a sum divided once, by its number of elements in the whole step. Counts differ between micro-batches
    # and processes, so that a mean of their means would depend on how the rows are divided.
    names = list(micro_batches[0].counts)
    counted = [float(sum(batch.counts[name] for batch in micro_batches)) for name in names]
    tokens = float(sum(batch.tokens for batch in micro_batches))
    *counted, tokens, stop_votes = run.runtime.sum([*counted, tokens, float(stop.is_asked)])
    counts = dict(zip(names, counted, strict=True))
    totals = dict.fromkeys(names, 0.0)
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        # Processes exchange gradients once a step, with the last micro-batch.
        is_held_back = isinstance(forward, DistributedDataParallel) and not is_last
        with forward.no_sync() if is_held_back else nullcontext():  # type: ignore[operator]
            outcome = run_micro_batch(run, forward, batch, counts, number)
        for name, term in outcome.terms.items():
            totals[name] += float(term.total.detach())
    weights = {name: term.weight for name, term in outcome.terms.items()}
    summed = run.runtime.sum([totals[name] for name in names])
    losses = {name: total / max(1.0, counts[name]) for name, total in zip(names, summed, strict=True)}
    loss = sum(weights[name] * value for name, value in losses.items())
    norm = clip_gradients(networks)  # after the exchange, so that every process clips the same gradient
    rate = learning_rate(run.state.step, run.training, run.parity)
    _update(run.optimizers, rate, run.state, is_finite=abs(loss) < float("inf") and norm < float("inf"))
    run.state.tokens += int(tokens)
    return StepResult(loss, losses, norm, rate, micro_batches[-1], outcome.observations, stop_votes > 0)


def run_micro_batch(
    run: TrainingRun[R], forward: nn.Module, batch: MicroBatch[R], counts: dict[str, float], number: int
) -> Outcome:
    """One forward and backward pass.

    Args:
        forward: the objective, or its wrapper for several processes.
        counts: number of elements of each loss in the whole step, over all micro-batches and processes.
        number: number of the micro-batch in the step.
    """
    runtime, training = run.runtime, run.training
    if training.dropout:
        # Dropout becomes a function of (seed, step, process, micro-batch): checkpoints hold no random state, and a
        # resumed run draws the same. Python hashes a tuple of integers alike in every process.
        torch.manual_seed(hash((training.seed, run.state.step, runtime.rank, number)) & 0x7FFFFFFF)
    with runtime.autocast():  # passages are written in the same precision as the losses are computed
        outcome: Outcome = forward(run.objective.prepare(batch.rows, runtime.device))
    shares = [term.weight * term.total / max(1.0, counts[name]) for name, term in outcome.terms.items()]
    loss = torch.stack(shares).sum() * runtime.processes  # DDP averages gradients over processes; they must be summed
    loss.backward()  # type: ignore[no-untyped-call]
    return outcome


def _update(optimizers: list[Optimizer], rate: float, state: RunState, *, is_finite: bool) -> None:
    # One infinite gradient would leave NaN in every weight and moment, from which no later step recovers.
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

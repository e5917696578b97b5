"""The training loop: the only one in the project."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from electrain.foundation.progress import say
from electrain.foundation.system import freed_memory_kept
from electrain.training.arithmetic import synchronize
from electrain.training.objective import MicroBatch, Objective, Outcome, R
from electrain.training.optimizer import Named, clip_gradients, learning_rate, trained_networks, update_weights
from electrain.training.recording import ForwardAndBackward, RecordedPasses, detached
from electrain.training.runtime import Runtime
from electrain.training.settings import ParityConfig, TrainingConfig
from electrain.training.sharding import is_sharded, local

# A run with this many refused updates in a row does not recover.
MOST_REFUSED_IN_A_ROW = 10
# Float16 loses gradients below 6e-8, so the loss is scaled up, and the scale halves when something overflows. The
# numbers are those of `torch.amp.GradScaler`; until the scale has come down, refused updates are no failure.
FIRST_LOSS_SCALE = 2.0**16
STEPS_TO_DOUBLE_LOSS_SCALE = 2000
HALVINGS_OF_LOSS_SCALE = 16
_COUNTERS = ("tokens", "refused_updates", "refused_in_a_row", "accepted_in_a_row")


class RunState:
    """What changes during a run besides the weights. Every checkpoint holds it.

    What the device counts stays there, and reading it waits for the device.

    Attributes:
        step: number of steps taken, refused ones included.
        seconds: time spent training, over all sittings.
        counters: (4,) int64: real tokens that all processes have seen; refused updates, whose loss or gradient was not
            finite, so that nothing was updated; refused updates since the last accepted one; accepted ones since the
            loss scale changed or an update was refused.
        loss_scale: () float32; factor of the loss in float16, whose range is small.
        stopped_by: number of the signal that ended this sitting; 0 if none did. Checkpoints do not hold it.
    """

    def __init__(self) -> None:
        self.step, self.seconds, self.stopped_by = 0, 0.0, 0
        self.counters = torch.zeros(4, dtype=torch.int64)
        self.loss_scale = torch.tensor(FIRST_LOSS_SCALE)

    def to(self, device: torch.device) -> None:
        """Moves the counters to the device that counts."""
        self.counters, self.loss_scale = self.counters.to(device), self.loss_scale.to(device)

    @property
    def tokens(self) -> int:
        """Number of real tokens that all processes have seen."""
        return int(self.counters[0])

    @property
    def refused_updates(self) -> int:
        """Number of steps that changed nothing."""
        return int(self.counters[1])

    @property
    def refused_in_a_row(self) -> int:
        """Number of refused updates since the last accepted one."""
        return int(self.counters[2])

    def to_dict(self) -> dict[str, int | float]:
        """The state as plain numbers."""
        numbers = dict(zip(_COUNTERS, self.counters.tolist(), strict=True))
        return {"step": self.step, "seconds": self.seconds, "loss_scale": float(self.loss_scale), **numbers}

    def restore(self, numbers: dict[str, int | float]) -> None:
        """Takes over the numbers of `to_dict`. What an older version did not count is left as it is."""
        self.step, self.seconds = int(numbers["step"]), float(numbers["seconds"])
        for place, name in enumerate(_COUNTERS):
            self.counters[place] = int(numbers.get(name, 0))
        self.loss_scale.fill_(numbers.get("loss_scale", FIRST_LOSS_SCALE))


@dataclass(frozen=True)
class StepResult(Generic[R]):
    """Result of a step. The tensors are on the device; reading one waits until the step is computed."""

    loss: Tensor  # () float; weighted sum of `losses`, in nats
    losses: dict[str, Tensor]  # () float; mean of each term over all processes, in nats
    gradient_norm: Tensor  # () float32; norm over all parameters before clipping
    learning_rate: float
    micro_batch: MicroBatch[R]  # the last one of this process
    observations: dict[str, Tensor]  # of the last forward pass of this process
    is_stop_asked: bool  # True if any process was asked to stop
    is_last: bool  # True if no step follows


@dataclass
class StopRequest:
    """Set by Ctrl-C or SIGTERM. The loop ends after the current step."""

    signal: int = 0  # the number of the signal; 0 before one came

    @property
    def is_asked(self) -> bool:
        """True once a signal came."""
        return self.signal != 0

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
        self.signal = number
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
    records: bool = False  # True replays recorded passes on a CUDA device; see `electrain.training.recording`

    @property
    def is_recorded(self) -> bool:
        """True where passes are recorded: without dropout, which draws random numbers, and in a single process."""
        is_possible = self.runtime.device.type == "cuda" and self.runtime.processes == 1
        return self.records and is_possible and not self.training.dropout

    @property
    def is_failed(self) -> bool:
        """True after too many refused updates in a row. Reading it waits for the device."""
        most = MOST_REFUSED_IN_A_ROW + (HALVINGS_OF_LOSS_SCALE if self.is_scaled else 0)
        return self.state.refused_in_a_row >= most

    @property
    def is_scaled(self) -> bool:
        """True in float16, where the loss is scaled."""
        return self.runtime.dtype == torch.float16

    @property
    def is_read(self) -> bool:
        """True where numbers of the last step may be read: always on a CPU, elsewhere once in `log_every_steps`.

        A device computes while the next steps are prepared. Every reading makes it wait.
        """
        return self.runtime.device.type == "cpu" or self.state.step % self.training.log_every_steps == 0

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
    state.to(run.runtime.device)
    forward = _parallel(run.objective, run.runtime)
    pass_ = forward_and_backward(run, forward)
    if run.is_recorded:
        pass_ = RecordedPasses(pass_, run.objective)
    networks = trained_networks(run.objective, run.training)
    run.objective.train()
    # PyTorch counts threads for each thread that asks. Without this, large tensors in the loader would start a second
    # team of threads, and the two teams would wait for each other's cores.
    alone = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    with StopRequest().listening() as stop, alone as loader, freed_memory_kept():
        ahead = loader.submit(run.batches, state.step)
        while run.has_steps_left:
            started = time.perf_counter()
            micro_batches = ahead.result()
            # The next rows are corrupted while this step computes. They depend on the step alone, so that rows made
            # ahead are the same as those that a resumed run makes.
            ahead = loader.submit(run.batches, state.step + 1)
            run.objective.begin_step(state.step)
            result = _take_step(run, (forward, pass_), networks, micro_batches, stop)
            if run.is_read:
                synchronize(run.runtime.device)  # so that the time is that of the computation, not of its preparation
            state.seconds += time.perf_counter() - started
            if result.is_stop_asked:  # perhaps in another process
                state.stopped_by = stop.signal or signal.SIGTERM
            is_over = after_step(result)
            if is_over or (result.is_last and run.has_steps_left):
                ahead.cancel()
                return False
    return True


def _parallel(objective: Objective[R], runtime: Runtime) -> nn.Module:
    if runtime.processes == 1 or is_sharded(objective):
        return objective
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    with warnings.catch_warnings():
        # The successor of `broadcast_buffers` does not exist in PyTorch 2.11.
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
        return DistributedDataParallel(
            objective,
            device_ids=devices,
            gradient_as_bucket_view=True,
            # DDP waits for every parameter's gradient, unless it is told that a stage leaves some without.
            find_unused_parameters=objective.has_stages,
            broadcast_buffers=False,  # buffers are computed alike in every process
        )


def _take_step(
    run: TrainingRun[R],
    passes: tuple[nn.Module, ForwardAndBackward],
    networks: list[Named],
    micro_batches: list[MicroBatch[R]],
    stop: StopRequest,
) -> StepResult[R]:
    forward, pass_ = passes
    # Every loss is a sum divided once, by its number of elements in the whole step. Counts differ between micro-batches
    # and processes, so that a mean of their means would depend on how the rows are divided.
    names = list(micro_batches[0].counts)
    columns = [[*(batch.counts[name] for name in names), batch.tokens] for batch in micro_batches]
    summed = run.runtime.counted([*(sum(column) for column in zip(*columns, strict=True)), int(stop.is_asked)])
    counts = dict(zip(names, summed.clamp(min=1).float(), strict=False))
    totals = summed.new_zeros(len(names), dtype=run.runtime.widest_float)
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        with _exchange(forward, is_last=is_last):
            outcome = run_micro_batch(run, pass_, batch, counts, number)
        totals += torch.stack([outcome.terms[name].total for name in names])
    losses = dict(zip(names, run.runtime.added_up(totals) / summed[: len(names)].clamp(min=1), strict=True))
    loss = torch.stack([outcome.terms[name].weight * value for name, value in losses.items()]).sum()
    if run.is_scaled:
        torch._foreach_div_(
            [local(p.grad) for named in networks for _, p in named if p.grad is not None], run.state.loss_scale
        )
    norm = clip_gradients(networks)  # after the exchange, so that every process clips the same gradient
    rate = learning_rate(run.state.step, run.training, run.parity)
    # One infinite gradient would leave NaN in every weight and moment, from which no later step recovers.
    _update(run, rate, summed[len(names)], is_finite=loss.isfinite() & norm.isfinite())
    # The vote is known since the step began, so that reading it does not keep the device waiting.
    is_stop_asked = stop.is_asked if run.runtime.processes == 1 else bool(summed[-1] > 0)
    is_last = is_stop_asked or not run.has_steps_left or (run.is_read and run.is_failed)
    return StepResult(
        loss, losses, norm, rate, micro_batches[-1], outcome.observations, is_stop_asked=is_stop_asked, is_last=is_last
    )


def _exchange(forward: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Lets processes exchange gradients once a step, with the last micro-batch.

    Where weights are divided, the gradients of the micro-batches before are whole in every process.
    """
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(is_last)
    if isinstance(forward, DistributedDataParallel) and not is_last:
        return forward.no_sync()  # type: ignore[no-any-return, no-untyped-call]
    return nullcontext()


def _update(run: TrainingRun[R], rate: float, tokens: Tensor, *, is_finite: Tensor) -> None:
    update_weights(run.optimizers, rate, is_finite)
    for optimizer in run.optimizers:
        if not run.is_recorded:  # recorded passes overwrite the gradients
            optimizer.zero_grad()
    state, accepted = run.state, is_finite.long()
    state.step += 1
    state.counters[0] += tokens
    state.counters[1] += 1 - accepted
    state.counters[2] = (state.counters[2] + 1) * (1 - accepted)
    state.counters[3] = (state.counters[3] + 1) * accepted
    if run.is_scaled:
        doubles = state.counters[3] >= STEPS_TO_DOUBLE_LOSS_SCALE
        state.loss_scale.mul_(torch.where(is_finite, torch.where(doubles, 2.0, 1.0), 0.5))
        state.counters[3] *= (~doubles).long()


def run_micro_batch(
    run: TrainingRun[R], pass_: ForwardAndBackward, batch: MicroBatch[R], counts: dict[str, Tensor], number: int
) -> Outcome:
    """One forward and backward pass.

    Args:
        pass_: see `forward_and_backward`.
        counts: () float32, at least 1: number of elements of each loss in the whole step, over all micro-batches and
            processes.
        number: number of the micro-batch in the step.
    """
    runtime, training = run.runtime, run.training
    if training.dropout:
        # Dropout becomes a function of (seed, step, process, micro-batch): checkpoints hold no random state, and a
        # resumed run draws the same. Python hashes a tuple of integers alike in every process.
        torch.manual_seed(hash((training.seed, run.state.step, runtime.rank, number)) & 0x7FFFFFFF)
    with runtime.autocast():  # passages are written in the same precision as the losses are computed
        rows = run.objective.prepare(batch.rows, runtime.device)
    return pass_(rows, counts, number)


def forward_and_backward(run: TrainingRun[R], forward: nn.Module) -> ForwardAndBackward:
    """The passes of a run, one at a time.

    Args: forward: the objective, or its wrapper for several processes.
    """

    def pass_(rows: R, counts: dict[str, Tensor], number: int) -> Outcome:
        del number
        with run.runtime.autocast():
            outcome: Outcome = forward(rows)
        shares = [term.weight * term.total / counts[name] for name, term in outcome.terms.items()]
        # DDP and FSDP average gradients over processes; they must be summed.
        loss = torch.stack(shares).sum() * run.runtime.processes
        if run.is_scaled:
            loss = loss * run.state.loss_scale
        loss.backward()  # type: ignore[no-untyped-call]
        return detached(outcome)

    return pass_
